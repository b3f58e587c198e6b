"""What caches hold stays found: sources keep their addresses, and parts their names, from one version to the next."""

import json
from pathlib import Path
from typing import Any

import pytest

from didact.datasets.catalog import find_card, load_cards
from didact.datasets.load import conversations_entry
from didact.datasets.samples import write_example
from didact.datasets.sources.opening import open_source
from didact.spec import SourceSpec

ROW = {"instruction": "Add 2 and 3.", "input": "", "output": "5"}
LINE = json.dumps(ROW) + "\n"
# The same line. Written out, because libraries need not agree on how they compress.
GZIP = (
    "1f8b0800000000000203ab56cacc2b2e292a4d2ec9cccf53b25250724c4951305248cc4b5130d653d251004a179496802440"
    "9cfcd21228cf54a9960b005b57a2903c000000"
)
TABLE_ROW = json.dumps({"id": "1", "utterance": "Which?", "context": "csv/a.csv", "targetValue": "2"}) + "\n"
FILES: dict[str, dict[str, bytes | str]] = {
    "lines": {"a.jsonl": LINE * 3},
    "lines in .json": {"a.json": LINE * 3},
    "array": {"a.json": json.dumps([ROW, ROW])},
    "keyed": {"a.json": json.dumps({"1": ROW, "2": ROW})},
    "object": {"a.json": json.dumps(ROW, indent=1)},
    "named columns": {"a.csv": "instruction,output\nAdd.,5\n"},
    "columns without names": {"a.tsv": "Add 2 and 3?\t5\t2 + 3 = 5\n" * 3},
    "columns of csl": {"a.tsv": "to title\tAn abstract.\tA title\n"},
    "compressed": {"a.jsonl.gz": bytes.fromhex(GZIP)},
    "folder": {"a.jsonl": LINE, "b.json": json.dumps([ROW])},
    "tables beside": {"a.jsonl": TABLE_ROW, "csv/a.csv": '"x","y"\n"1","2"\n'},
    "rationales": {"a.jsonl": json.dumps({"question": "2 + 3?", "rationale": "2 + 3 = 5", "answer": "5"}) + "\n"},
    "encoded": {"a.jsonl": json.dumps({**ROW, "output": "五"}, ensure_ascii=False).encode("gb18030")},
    "text": {"a.txt": "One text.<|endoftext|>Another."},
    "parallel": {"ask": "2 + 3?\n", "said": "5\n"},
}
FIELDS: dict[str, dict[str, Any]] = {
    "encoded": {"options": {"encoding": "gb18030"}},
    "text": {"format": "text", "path": "a.txt"},
    "parallel": {"options": {"parallel": {"question": "ask", "answer": "said"}}},
}
# Their examples count as well: who changes one writes its new address down.
CARDS = ("belle-0.5m", "chinese-medical", "dolly", "gsm8k-cot", "natural-instructions")
GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "addresses.json"
KNOWN: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))


def made(name: str, folder: Path) -> SourceSpec:
    for file, content in FILES[name].items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
    fields = {"path": "", **FIELDS.get(name, {})}
    return SourceSpec(name="s", **{**fields, "path": str(folder / fields["path"])})


def found(source: SourceSpec) -> dict[str, Any]:
    whole, divided = open_source(source), open_source(source, 32)
    return {
        "address": conversations_entry(whole, source, 3).address,
        "parts": [part.key for part in whole.parts],
        "parts of 32 bytes": [part.key for part in divided.parts],
    }


@pytest.mark.parametrize("name", FILES)
def test_files_keep_their_addresses(name: str, tmp_path: Path) -> None:
    assert found(made(name, tmp_path)) == KNOWN["files"][name]


@pytest.mark.parametrize("name", CARDS)
def test_cards_keep_their_addresses(name: str, tmp_path: Path) -> None:
    write_example(find_card(name, load_cards()), tmp_path)
    source = SourceSpec(name="s", path=f"card:{name}", options={"root": str(tmp_path)})
    assert found(source) == KNOWN["cards"][name]

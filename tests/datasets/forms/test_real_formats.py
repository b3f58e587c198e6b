import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from didact.datasets.conversation import Conversation
from didact.datasets.forms.drafts import RowSettings
from didact.datasets.forms.table_of_forms import to_conversation
from didact.datasets.rows.quarantine import Reject, reject
from didact.datasets.rows.raw_row import BadRow
from didact.datasets.sources.opening import open_source
from didact.spec import SourceSpec
from tests.conftest import shared_data

ESNLI = {"premise": "s1.dev", "hypothesis": "s2.dev", "label": "labels.dev", "explanation": "preproc1_expl_1.dev"}
# Folder or file below raw/ -> format found, rows refused by reason, fields of the source. What stands here is refused
# for what the source is: prompts without answers, empty answers, and tables that the samples leave out.
REAL: dict[str, tuple[str, dict[str, int], dict[str, Any]]] = {
    "chain_of_thought/*.tsv": ("cot_tsv", {}, {}),
    "chain_of_thought/formatted_by_alpaca_cot/*.json": ("alpaca", {}, {}),
    "esnli": ("nli", {}, {"options": {"parallel": ESNLI}}),
    "gsm8k/*.jsonl": ("question_answer", {}, {}),
    "alpaca/*.jsonl": ("seed_task", {}, {}),
    "alpaca/*.json": ("alpaca", {}, {}),
    "alpaca_gpt4/*.json": ("alpaca", {}, {}),
    "code_alpaca/*.json": ("alpaca", {"empty_output": 1}, {}),
    "gpteacher/*.json": ("alpaca", {}, {}),
    "belle_cn/zh_seed_tasks.json": ("seed_task", {}, {}),
    "belle_cn/[Bd]*.json": ("alpaca", {}, {}),
    "belle_cn/readme_example_[gms]*.json": ("alpaca", {}, {}),
    "belle_cn/readme_example_train_2M_CN.json": ("alpaca", {}, {}),
    "belle_cn/readme_example_train_3.5M_CN.json": ("sharegpt", {}, {}),
    "instinwild/*.jsonl": ("alpaca", {"missing_field": 1533, "broken_json": 2}, {"format": "alpaca"}),
    "prosocial_dialog/*.json": ("dialogue", {}, {}),
    "sharegpt/*.json": ("sharegpt", {}, {}),
    "hh_rlhf/*.json": ("preference", {"wrong_type": 1}, {}),
    "hh_rlhf/*.jsonl*": ("preference", {"empty_output": 2}, {}),
    "wikisql/*.json": ("text_to_sql", {}, {}),
    "wtq/*.json": ("table_question", {}, {}),
    "wtq/data/*.tsv": ("wtq", {"missing_table": 222}, {}),
    "hc3/*.jsonl": ("answer_lists", {}, {}),
    "dolly/*.json*": ("alpaca", {}, {}),
    "csl/*.tsv": ("csl", {}, {}),
    "chinese_medical/*.csv": ("consultation", {}, {"options": {"encoding": "gb18030"}}),
    "fetaqa/*.jsonl": ("fetaqa", {}, {}),
    "tabfact/tokenized_data/*.json": ("tabfact", {}, {}),
    "tabmwp/*.json": ("tabmwp", {}, {}),
    "aitqa/*questions.jsonl": ("aitqa", {"missing_table": 4}, {}),
    "infotabs/*.tsv": ("infotabs", {}, {}),
    "nl2sql_zh/val.json": ("text_to_sql", {"missing_table": 300}, {}),
    "guanaco/*.json": ("alpaca", {}, {}),
    "oig/*.txt": ("transcript", {}, {}),
}


def read(path: Path | str, **fields: Any) -> tuple[set[str], list[Conversation], list[Reject]]:
    opened = open_source(SourceSpec(name="real", path=str(path), **fields))
    forms: set[str] = set()
    accepted: list[Conversation] = []
    rejects: list[Reject] = []
    for place, (form, raw) in enumerate(opened.rows):
        forms.add(form)
        try:
            accepted.append(to_conversation(form, raw, place, RowSettings(opened.options)))
        except BadRow as bad:
            rejects.append(reject(raw, bad))
    return forms, accepted, rejects


def records_by_file() -> dict[str, int]:
    manifest = json.loads((shared_data() / "raw" / "MANIFEST.json").read_text("utf-8"))
    return {entry["file"]: entry["records"] for entry in manifest["files"]}


@pytest.mark.parametrize("place", REAL)
def test_every_real_row_is_accepted_or_refused_for_a_reason(place: str) -> None:
    raw = shared_data() / "raw"
    form, refused, fields = REAL[place]
    files = sorted(raw.glob(place))
    counted = records_by_file()
    parallel = place == "esnli"
    expected = counted["esnli/s1.dev"] if parallel else sum(counted[str(file.relative_to(raw))] for file in files)
    forms, accepted, rejects = read(raw / place, **fields)
    assert forms == {form}
    assert len(accepted) + len(rejects) == expected
    found = {reason: sum(entry.reason == reason for entry in rejects) for reason in {e.reason for e in rejects}}
    assert found == refused
    for entry in rejects:
        assert Path(entry.file).is_file() and entry.line >= 1
        assert isinstance(entry.byte_offset, int)


def test_every_real_file_of_rows_is_covered() -> None:
    raw = shared_data() / "raw"
    read_here = {str(file.relative_to(raw)) for place in REAL for file in raw.glob(place) if file.is_file()}
    tables = ("wtq/csv/", "tabfact/data/", "infotabs/tables/", "aitqa/aitqa_tables.jsonl", "esnli/")
    assert {file for file in records_by_file() if not file.startswith(tables)} == read_here


def test_a_real_table_is_asked_about_with_its_own_cells() -> None:
    (conversation,) = read(shared_data() / "raw" / "wtq" / "data" / "*.tsv")[1][:1]
    assert "| Wolfe Tones | Meath | 1 | 2004 |" in conversation.messages[0].content
    assert conversation.answer == "Wolfe Tones"


def test_real_statements_become_turns_on_one_table() -> None:
    conversations = read(shared_data() / "raw" / "tabfact" / "tokenized_data")[1]
    first = conversations[0]
    assert [message.content for message in first.messages[1::2]] == ["entailed"] * 5 + ["refuted"] * 5
    assert "turkish cup" in first.messages[0].content and "| final | 2 |" in first.messages[0].content
    assert "Table:" not in first.messages[2].content


def test_real_explanations_are_kept_as_rationales() -> None:
    conversation = read(shared_data() / "raw" / "esnli", options={"parallel": ESNLI})[1][0]
    assert conversation.answer == "neutral"
    assert conversation.rationale == "the to go packages may not be from lunch ."
    gsm8k = read(shared_data() / "raw" / "gsm8k")[1][0]
    assert gsm8k.answer == "72" and "<<" not in str(gsm8k.rationale)


def test_real_chat_history_inside_an_instruction_becomes_turns() -> None:
    path = shared_data() / "raw" / "belle_cn" / "readme_example_multiturn_chat_0.8M.json"
    (conversation,) = read(path)[1]
    assert [message.role for message in conversation.messages] == ["user", "assistant"] * 2


def test_a_record_of_200_000_tokens_is_read_within_the_memory_of_a_few_copies(tmp_path: Path) -> None:
    row = json.dumps({"instruction": "Repeat.", "output": "word " * 200_000})
    for place in range(20):
        (tmp_path / f"{place}.jsonl").write_text(row + "\n")
    tracemalloc.start()
    try:
        opened = open_source(SourceSpec(name="long", path=str(tmp_path)))
        lengths = [len(to_conversation(form, raw, 0).messages[1].content) for form, raw in opened.rows]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lengths == [1_000_000] * 20
    # A few copies of one row of 1 MB, never all twenty.
    assert peak < 16_000_000

"""The data rows of the fault table: bad rows cost themselves only, and what is said of them is exact."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from didact.datasets import Dataset, load_dataset
from didact.errors import DataError
from didact.models import attach_adapter, load_base
from didact.preparation import DataFacts, prepare_data
from didact.spec import SourceSpec
from didact.training import CheckpointStore, StepReport, train
from tests.fakes.recipes import tiny_recipe

GOOD = '{"instruction": "Say café", "output": "café 中"}'.encode()
GOOD_COLUMNS = "Say café\tcafé 中\tit was said".encode()
BOM = b"\xef\xbb\xbf"
# Kind -> bytes of a row, and the reason it is refused for; None for a row that is good, "" for none at all.
RECORDS: dict[str, tuple[bytes, str | None]] = {
    "malformed": (b'{"instruction": "a", "output": }', "broken_json"),
    "number as output": (b'{"instruction": "a", "output": 3}', "wrong_type"),
    "list as output": (b'{"instruction": "a", "output": ["b"]}', "wrong_type"),
    "missing": (b'{"instruction": "a"}', "missing_field"),
    "extra": (b'{"instruction": "a", "output": "b", "extra": [1, {"k": null}]}', None),
    "null": (b'{"instruction": "a", "output": null}', "wrong_type"),
    "empty": (b'{"instruction": "a", "output": ""}', "empty_output"),
    "latin-1": (b'{"instruction": "caf\xe9", "output": "b"}', "not_utf8"),
    "utf-16": ('{"instruction": "a", "output": "b"}'.encode("utf-16-le"), "nul"),
    "byte order mark": (BOM + GOOD, None),
    "nul": (b'{"instruction": "a", "output": "b\x00"}', "nul"),
    "duplicate key": (b'{"instruction": "a", "output": "b", "output": "c"}', "duplicate_key"),
    "NaN": (b'{"instruction": "a", "output": "b", "score": NaN}', "not_a_number"),
    "lone surrogate": (b'{"instruction": "a", "output": "b\\ud83d"}', "lone_surrogate"),
    "11 MB": (b'{"instruction": "a", "output": "' + b"b" * 11_000_000 + b'"}', "too_long"),
    "list row": (b'["a", "b"]', "not_an_object"),
    "bare value": (b"3", "not_an_object"),
    "blank": (b" \t ", ""),
}
COLUMNS: dict[str, tuple[bytes, str | None]] = {
    "missing": (b"a\tb", "wrong_columns"),
    "extra": (b"a\tb\tc\td", "wrong_columns"),
    "empty": (b"a\t\tc", "empty_output"),
    "latin-1": (b"caf\xe9\tb\tc", "not_utf8"),
    "utf-16": ("a\tb\tc".encode("utf-16-le"), "nul"),
    "byte order mark": (BOM + GOOD_COLUMNS, None),
    "nul": (b"a\tb\x00\tc", "nul"),
    "11 MB": (b"a\tb\t" + b"c" * 11_000_000, "too_long"),
    "blank": (b"  ", ""),
}
FIRST = ("byte order mark",)


def _lines(rows: Sequence[bytes]) -> bytes:
    return b"\n".join(rows) + b"\n"


def _array(rows: Sequence[bytes]) -> bytes:
    return b"[\n" + b",\n".join(rows) + b"\n]\n"


LAYOUTS: dict[str, tuple[str, str, bytes, Callable[[Sequence[bytes]], bytes]]] = {
    "lines": ("rows.jsonl", "alpaca", GOOD, _lines),
    "lines under .json": ("rows.json", "alpaca", GOOD, _lines),
    "array": ("rows.json", "alpaca", GOOD, _array),
    "columns": ("rows.tsv", "cot_tsv", GOOD_COLUMNS, _lines),
}
# A blank element and a byte order mark inside an array are a break of the array itself, not kinds of row.
CASES = [
    (layout, kind)
    for layout in LAYOUTS
    for kind in (COLUMNS if layout == "columns" else RECORDS)
    if layout != "array" or kind not in ("blank", *FIRST)
]


def load(path: Path, quarantine: Path | None = None, share: float = 1.0, form: str = "auto") -> Dataset:
    source = SourceSpec.model_validate({"name": "rows", "path": str(path), "format": form})
    return load_dataset(source, seed=0, max_bad_rows_share=share, quarantine_dir=quarantine)


def texts(dataset: Dataset) -> list[list[bytes]]:
    return [[message.content.encode() for message in conversation.messages] for conversation in dataset.train]


def test_d1_knows_the_kinds() -> None:
    assert len(RECORDS) == 18


@pytest.mark.fault("D1")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_d1_a_file_that_is_cut_is_refused_whatever_share_of_bad_rows_is_allowed(layout: str, tmp_path: Path) -> None:
    name, form, good, pack = LAYOUTS[layout]
    file = tmp_path / name
    file.write_bytes(pack([good, good, good])[:-25])
    with pytest.raises(DataError, match=rf"{name} is damaged or incomplete: it ends .*get the file again"):
        load(file, share=1.0, form=form)


@pytest.mark.fault("D1")
@pytest.mark.parametrize(("layout", "kind"), CASES)
def test_d1_a_bad_row_costs_itself_only_and_is_found_again(layout: str, kind: str, tmp_path: Path) -> None:
    name, form, good, pack = LAYOUTS[layout]
    bad, reason = (COLUMNS if layout == "columns" else RECORDS)[kind]
    rows = [bad, good, good] if kind in FIRST else [good, bad, good]
    file = tmp_path / name
    content = pack(rows)
    file.write_bytes(content)
    alone = tmp_path / f"alone{file.suffix}"
    alone.write_bytes(pack([good, good]))
    dataset, expected = load(file, tmp_path / "q", form=form), load(alone, form=form)

    num_rows = 2 if reason == "" else 3
    assert dataset.rows_read == num_rows == len(dataset.train) + dataset.rows_rejected
    assert dataset.rows_rejected == bool(reason)
    # Rows that were good without the bad one are the same bytes with it.
    kept = [row for row, place in zip(texts(dataset), dataset.train, strict=True) if rows[place.row] is not bad]
    assert (kept if reason is None else texts(dataset)) == texts(expected)
    if not reason:
        assert dataset.quarantine is None
        return
    assert dataset.quarantine is not None
    (line,) = dataset.quarantine.read_text("utf-8").splitlines()
    entry = json.loads(line)
    offset = content.rindex(bad)
    assert (entry["file"], entry["reason"], entry["byte_offset"]) == (str(file), reason, offset)
    assert entry["line"] == content[:offset].count(b"\n") + 1
    with pytest.raises(DataError, match=r"data\.max_bad_rows_share = 0\.01"):
        load(file, share=0.01, form=form)


@pytest.mark.fault("D1")
def test_d1_too_many_bad_rows_stop_the_run_before_anything_is_trained(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path)
    lines = (tmp_path / "sums.jsonl").read_bytes().splitlines()
    (tmp_path / "sums.jsonl").write_bytes(b"\n".join([*lines, b"{}"]))
    with pytest.raises(DataError, match=r"1 of 61 rows .* more than data\.max_bad_rows_share = 0\.01"):
        prepare_data(spec, tmp_path / "quarantine")
    assert len((tmp_path / "quarantine" / "sums.jsonl").read_text().splitlines()) == 1


@pytest.mark.fault("D2")
def test_d2_bad_rows_leave_the_mixture_within_one_sample_of_its_shares(tmp_path: Path) -> None:
    sizes, weights = {"a": 900, "b": 500, "c": 300}, {"a": 0.5, "b": 0.3, "c": 0.2}
    kinds = [bad for bad, reason in RECORDS.values() if reason and len(bad) < 1000]
    for name, size in sizes.items():
        rows = [
            kinds[place // 100] if place % 100 == 50 else json.dumps({"instruction": f"{name} {place}", "output": "b"})
            for place in range(size)
        ]
        lines = [row if isinstance(row, bytes) else row.encode() for row in rows]
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(lines))
    sources = [
        {"name": name, "path": str(tmp_path / f"{name}.jsonl"), "weight": weights[name], "format": "alpaca"}
        for name in sizes
    ]
    spec = tiny_recipe(tmp_path, data__sources=sources, data__weight_unit="rows", training__steps=250)
    prepared = prepare_data(spec, tmp_path / "quarantine")

    seen = dict.fromkeys(sizes, 0)
    for position, sample in enumerate(prepared.mixture.mixture.ids(0, 2000), start=1):
        seen[prepared.mixture.mixture.names[sample.source]] += 1
        for name, weight in weights.items():
            assert abs(seen[name] - weight * position) <= 1, (position, name)
    facts = DataFacts.of(spec, prepared)
    for record, (name, size) in zip(facts.sources, sizes.items(), strict=True):
        refused = (tmp_path / "quarantine" / f"{name}.jsonl").read_text("utf-8").splitlines()
        assert record.rows_rejected == size // 100 == len(refused)
        assert record.rows_train + record.rows_rejected == record.rows_read == size
        assert record.samples_seen == seen[name]


class Losses:
    """Keeps the loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_start(self, start: int, num_steps: int) -> None:
        pass

    def on_step(self, report: StepReport) -> None:
        self.values.append(report.metrics["train/loss"])

    def close(self) -> None:
        pass


@pytest.mark.fault("D3")
@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("truncation", ["end", "drop"])
def test_d3_rows_without_a_token_to_learn_are_counted_and_never_a_nan(
    truncation: str, packing: bool, tmp_path: Path
) -> None:
    rows = [{"instruction": "x" * (400 if row % 2 else 4) + str(row), "output": "yes"} for row in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = tiny_recipe(
        tmp_path,
        data__sources=[{"name": "rows", "path": str(tmp_path / "rows.jsonl")}],
        tokens={"max_length": 128, "truncation": truncation, "packing": packing},
        training__steps=3,
    )
    prepared = prepare_data(spec)
    (record,) = DataFacts.of(spec, prepared).sources
    assert record.samples_rejected == {"answer_cut" if truncation == "end" else "too_long": 20}
    assert (record.samples_usable, record.rows_train) == (20, 40)
    (table,) = prepared.mixture.tables
    assert min(table.num_supervised(index) for index in range(len(table))) > 0

    losses = Losses()
    train(
        attach_adapter(load_base(spec.model), spec.adapter, seed=0, base_name="tiny"),
        prepared.loader(spec),
        spec.training,
        num_steps=3,
        compute_dtype=torch.float32,
        checkpoints=CheckpointStore(tmp_path / "checkpoints", keep=1, identity="tiny"),
        callbacks=[losses],
    )
    assert len(losses.values) == 3 and all(math.isfinite(loss) for loss in losses.values)


@pytest.mark.fault("D3")
def test_d3_a_source_of_such_rows_only_is_an_error_that_counts_them(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"instruction": "x" * 400, "output": "yes"}) + "\n")
    spec = tiny_recipe(tmp_path, data__sources=[{"name": "rows", "path": str(tmp_path / "rows.jsonl")}])
    with pytest.raises(DataError, match=r"none of 1 training conversations .*answer_cut 1.*raise tokens\.max_length"):
        prepare_data(spec)


def _memory(field: str) -> int:
    """`VmRSS` or its peak `VmHWM` of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@pytest.mark.fault("D4")
@pytest.mark.parametrize(("truncation", "usable"), [("end", 21), ("drop", 20)])
def test_d4_a_record_of_200_000_tokens_follows_the_policy_in_bounded_memory(
    truncation: str, usable: int, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [{"instruction": f"short {row}", "output": "yes"} for row in range(20)]
    rows.insert(7, {"instruction": "long", "output": "x" * 200_000})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [{"name": "rows", "path": str(tmp_path / "rows.jsonl")}]
    spec = tiny_recipe(tmp_path, data__sources=sources, tokens__truncation=truncation)
    prepare_data(tiny_recipe(tmp_path))  # whatever is loaded once is loaded by now
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _memory("VmRSS")
    prepared = prepare_data(spec)
    peak = _memory("VmHWM") - before
    (table,) = prepared.mixture.tables
    assert len(table) == usable
    assert table.stats.longest <= spec.tokens.max_length
    assert (table.stats.truncated, table.stats.rejected) == ((1, {}) if truncation == "end" else (0, {"too_long": 1}))
    # The text, its offsets and its tokens a few times over, about 75 MB; not a copy a row or a step.
    assert peak < 250_000_000, f"{peak:,} bytes"

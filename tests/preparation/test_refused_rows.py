"""Rows of which no sample can be made are rejects like any other: found again, counted, and not too many."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from didact.errors import DataError
from didact.gpu_proof.tokenizer import CHATML
from didact.preparation import DataFacts, PreparedData, prepare_data
from didact.spec import FinetuneSpec
from tests.fakes.recipes import tiny_recipe

FORGED = "What does <|im_end|> mean?"
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def rows(count: int, **questions: str) -> list[dict[str, str]]:
    """Rows of which some have another question, by their number."""
    return [{"instruction": questions.get(f"row{row}", f"Say {row}."), "output": str(row)} for row in range(count)]


def recipe(folder: Path, place: Path, template: str = CHATML, **changes: Any) -> FinetuneSpec:
    source = {"name": "mine", "path": str(place), **changes.pop("source", {})}
    spec = tiny_recipe(folder, data__sources=[source], evaluation=None, **changes)
    (folder / "base" / "chat_template.jinja").write_text(template)
    return spec


def write(place: Path, records: list[dict[str, Any]]) -> Path:
    place.write_text("".join(json.dumps(record) + "\n" for record in records))
    return place


def quarantined(prepared: PreparedData) -> list[dict[str, Any]]:
    path = prepared.datasets[0].quarantine
    return [] if path is None else [json.loads(line) for line in path.read_text().splitlines()]


def test_such_rows_are_counted_and_written_down_beside_those_that_cannot_be_read(tmp_path: Path) -> None:
    records = rows(9, row2=FORGED, row5="long " * 60)
    lines = [json.dumps(record) for record in records]
    lines[3] = "{"
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[:4]) + "\n\n" + "\n".join(lines[4:]) + "\n")
    spec = recipe(tmp_path, tmp_path / "rows.jsonl", data__max_bad_rows_share=0.5)
    for _ in range(2):  # made, and found in the cache
        prepared = prepare_data(spec, tmp_path / "quarantine")
        (dataset,), (facts,) = prepared.datasets, DataFacts.of(spec, prepared).sources
        assert (dataset.rows_read, dataset.rows_rejected, dataset.num_rejected) == (9, 1, 3)
        assert dataset.refused == facts.samples_rejected == {"answer_cut": 1, "special_text": 1}
        assert (facts.num_rejected, facts.as_input().rows_rejected, len(prepared.mixture.tables[0])) == (3, 3, 6)
        found = quarantined(prepared)
        assert [(row["line"], row["reason"]) for row in found] == [
            (4, "broken_json"),
            (3, "special_text"),
            (7, "answer_cut"),
        ]
        for row in found:
            assert row["file"] == str(tmp_path / "rows.jsonl")
            assert (tmp_path / "rows.jsonl").read_bytes()[: row["byte_offset"]].count(b"\n") == row["line"] - 1
        assert FORGED in found[1]["raw"] and "<|im_end|>" in found[1]["detail"]


def test_the_line_of_a_row_of_several_lines(tmp_path: Path) -> None:
    with (tmp_path / "rows.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["instruction", "output"])
        writer.writeheader()
        writer.writerows([{"instruction": "a\nb\nc", "output": "d"}, *rows(4, row1=FORGED)])
    spec = recipe(tmp_path, tmp_path / "rows.csv", data__max_bad_rows_share=0.5)
    assert [row["line"] for row in quarantined(prepare_data(spec, tmp_path / "quarantine"))] == [6]


def test_the_row_of_a_table(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.Table.from_pylist(rows(5, row3=FORGED)), tmp_path / "rows.parquet")
    spec = recipe(tmp_path, tmp_path / "rows.parquet", data__max_bad_rows_share=0.5)
    (found,) = quarantined(prepare_data(spec, tmp_path / "quarantine"))
    assert (found["line"], found["byte_offset"]) == (4, None)


def test_files_are_named_as_they_are_called_now(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    for name, each in (("a", rows(3)), ("b", rows(3, row1=FORGED)), ("c", rows(4, row0=FORGED, row2=FORGED))):
        write(folder / f"{name}.jsonl", each)
    for renamed in ("c", "d"):
        if renamed == "d":
            (folder / "c.jsonl").rename(folder / "d.jsonl")
        spec = recipe(tmp_path, folder, data__max_bad_rows_share=0.5)
        found = quarantined(prepare_data(spec, tmp_path / "quarantine"))
        expected = {("b.jsonl", 2), (f"{renamed}.jsonl", 1), (f"{renamed}.jsonl", 3)}
        assert {(Path(row["file"]).name, row["line"]) for row in found} == expected


def test_held_out_rows_count_as_well_and_rows_that_were_not_chosen_do_not(tmp_path: Path) -> None:
    place = write(tmp_path / "rows.jsonl", rows(40, **{f"row{row}": f"{FORGED} {row}" for row in range(0, 40, 2)}))
    source = {"held_out_rows": 10, "max_rows": 20}
    prepared = prepare_data(
        recipe(tmp_path, place, source=source, data__max_bad_rows_share=1.0), tmp_path / "quarantine"
    )
    (dataset,), held_out = prepared.datasets, prepared.mixture.held_out["mine"]
    used = len(prepared.mixture.tables[0]) + len(held_out)
    assert dataset.refused == {"special_text": 20 - used} and 0 < used < 20 and len(held_out) < 10
    assert len(quarantined(prepared)) == 20 - used
    with pytest.raises(DataError, match=rf"{20 - used} of 20 rows cannot be learned from"):
        prepare_data(recipe(tmp_path, place, source=source, data__max_bad_rows_share=0.2))


def with_system(count: int, of: int) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": "Be brief."}]
    turns = [
        [{"role": "user", "content": f"Say {row}."}, {"role": "assistant", "content": str(row)}] for row in range(of)
    ]
    return [{"messages": (system if row < count else []) + each} for row, each in enumerate(turns)]


def test_a_template_that_refuses_rows_costs_these_rows(tmp_path: Path) -> None:
    place = write(tmp_path / "rows.jsonl", with_system(2, of=10))
    spec = recipe(tmp_path, place, NO_SYSTEM, data__max_bad_rows_share=0.2)
    prepared = prepare_data(spec, tmp_path / "quarantine")
    assert len(prepared.mixture.tables[0]) == 8 and prepared.datasets[0].num_rejected == 2
    assert [(row["line"], row["reason"]) for row in quarantined(prepared)] == [
        (line, "template_refused") for line in (1, 2)
    ]
    assert "no system turn" in quarantined(prepared)[0]["detail"]


def test_too_many_of_them_stop_the_run_with_place_and_reason(tmp_path: Path) -> None:
    place = write(tmp_path / "rows.jsonl", with_system(2, of=10))
    spec = recipe(tmp_path, place, NO_SYSTEM, data__max_bad_rows_share=0.19)
    with pytest.raises(DataError, match=r"20\.00% are bad") as caught:
        prepare_data(spec, tmp_path / "quarantine")
    for part in ("2 of 10 rows", f"{place}:1 template_refused", "no system turn", "quarantine/mine.jsonl", "alpaca"):
        assert part in str(caught.value)
    assert len((tmp_path / "quarantine" / "mine.jsonl").read_text().splitlines()) == 2


def test_both_kinds_of_bad_rows_add_up(tmp_path: Path) -> None:
    lines = [json.dumps(record) for record in rows(10, row1=FORGED)]
    lines[0] = "{"
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"20\.00% are bad"):
        prepare_data(recipe(tmp_path, tmp_path / "rows.jsonl", data__max_bad_rows_share=0.15))
    prepare_data(recipe(tmp_path, tmp_path / "rows.jsonl", data__max_bad_rows_share=0.21))


@pytest.mark.parametrize("truncation", ["end", "drop"])
def test_rows_that_are_too_long_are_counted_but_are_not_bad(truncation: str, tmp_path: Path) -> None:
    place = write(tmp_path / "rows.jsonl", rows(10, row1="long " * 60))
    spec = recipe(tmp_path, place, tokens__truncation=truncation, data__max_bad_rows_share=0.0)
    prepared = prepare_data(spec, tmp_path / "quarantine")
    assert prepared.datasets[0].num_rejected == 1 and [row["line"] for row in quarantined(prepared)] == [2]


def test_when_all_are_refused_the_reason_is_in_the_error(tmp_path: Path) -> None:
    place = write(tmp_path / "rows.jsonl", with_system(3, of=3))
    with pytest.raises(DataError, match="none of 3 training conversations") as caught:
        prepare_data(recipe(tmp_path, place, NO_SYSTEM, data__max_bad_rows_share=1.0), tmp_path / "quarantine")
    for part in ("template_refused 3", "no system turn", f"{place}:1", "quarantine/mine.jsonl"):
        assert part in str(caught.value)


def test_when_none_can_be_read_the_reason_is_in_the_error(tmp_path: Path) -> None:
    place = write(tmp_path / "rows.jsonl", [{"instruction": f"Is {row} odd?", "output": ""} for row in range(3)])
    with pytest.raises(DataError, match=r"no row is left to train on: 3 read, 3 .*rejected") as caught:
        prepare_data(recipe(tmp_path, place, data__max_bad_rows_share=1.0), tmp_path / "quarantine")
    for part in ("empty_output", f"{place}:1", "quarantine/mine.jsonl"):
        assert part in str(caught.value)
    assert "max_rows" not in str(caught.value) and "held_out_rows" not in str(caught.value)


def test_answers_that_are_left_out_of_used_rows_are_told_with_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    turns = [("user", "a"), ("assistant", "b"), ("user", "long " * 60), ("assistant", "c")]
    long = {"messages": [{"role": role, "content": content} for role, content in turns]}
    place = write(tmp_path / "rows.jsonl", [*with_system(0, of=3), long, long])
    with caplog.at_level(logging.WARNING):
        prepared = prepare_data(recipe(tmp_path, place), tmp_path / "quarantine")
    assert prepared.mixture.tables[0].stats.left_out == 2 and quarantined(prepared) == []
    assert f"2 answers of rows that teach others are not learned; first: {place}:4" in caplog.text

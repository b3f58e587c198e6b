"""Tables of a program become files of the cache, and from there on are sources like any other."""

import datetime
import json
from pathlib import Path
from typing import Any

import datasets as hf_datasets
import pandas as pd
import pyarrow as pa
import pytest

from didact.cache import list_cache, prune
from didact.datasets import load_dataset
from didact.datasets.places.in_memory import keep_rows, kept_file
from didact.env import cache_dir
from didact.errors import DataError
from didact.spec import SourceSpec

ROWS = [{"instruction": f"Add {n} and 1.", "input": None, "output": str(n + 1)} for n in range(2_500)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))


def load(path: str, tmp_path: Path, bad: float = 0.0) -> Any:
    return load_dataset(SourceSpec(name="rows", path=path), seed=0, max_bad_rows_share=bad, quarantine_dir=tmp_path)


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame(ROWS),
        pd.DataFrame(ROWS).iloc[::-1].iloc[::-1],
        pa.Table.from_pylist(ROWS),
        hf_datasets.Dataset.from_list(ROWS),
        hf_datasets.Dataset.from_list([*ROWS, ROWS[0]]).select(range(len(ROWS))),
        tuple(ROWS),
    ],
    ids=["pandas", "pandas-views", "pyarrow", "datasets", "datasets-selected", "tuple"],
)
def test_the_same_rows_are_the_same_source(table: Any) -> None:
    assert keep_rows(table) == keep_rows(ROWS)
    assert len(list_cache(cache_dir())) == 1


def test_other_rows_are_another_source() -> None:
    assert keep_rows(ROWS) != keep_rows(ROWS[:-1])


def test_rows_go_the_way_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    from_memory, from_file = load(keep_rows(pd.DataFrame(ROWS)), tmp_path), load(str(file), tmp_path)
    assert from_memory.rows_read == len(ROWS)
    assert [each.messages for each in from_memory.train] == [each.messages for each in from_file.train]


def test_a_bad_row_is_quarantined_with_its_number(tmp_path: Path) -> None:
    rows: list[Any] = [dict(ROWS[n]) for n in range(8)]
    rows[2]["output"] = b"bytes"
    rows[3]["output"] = {"not": "text"}
    rows[5] = None
    rows[6]["output"] = "half a pair \ud800"
    rows[7]["output"] = 1 << 80
    path = keep_rows(rows)
    assert load(path, tmp_path, bad=1.0).rows_rejected == 5
    told = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in told] == [3, 4, 6, 7, 8]
    assert {entry["file"] for entry in told} == {path}


def test_missing_cells_are_null(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"a": [1, None], "b": pd.array(["x", pd.NA], dtype="string"), "c": [pd.NaT, pd.Timestamp("2026-01-02")]}
    )
    lines = kept_file("x", keep_rows(frame)).read_text().splitlines()
    first, second = map(json.loads, lines)
    assert first == {"a": 1, "b": "x", "c": None}
    assert (second["a"], second["b"]) == (None, None)


def test_values_that_json_lacks_do_not_become_text() -> None:
    row = {"when": datetime.date(2026, 1, 2), "raw": b"x", "cells": {"a": float("nan")}}
    assert json.loads(kept_file("x", keep_rows([row])).read_text()) == {
        "when": "2026-01-02",
        "raw": {"type": "bytes"},
        "cells": {"a": None},
    }


def test_the_cache_lists_and_prunes_tables(tmp_path: Path) -> None:
    path = keep_rows(pd.DataFrame(ROWS))
    (found,) = list_cache(cache_dir())
    assert (found.kind, found.source, found.rows) == ("tables", "pandas.DataFrame", len(ROWS))
    assert prune(found)
    with pytest.raises(DataError, match=r"source 'rows': the rows of memory:\w+ came from a program's memory"):
        load(path, tmp_path)
    assert keep_rows(ROWS) == path
    assert load(path, tmp_path).rows_read == len(ROWS)


def test_a_damaged_table_is_written_again() -> None:
    path = keep_rows(ROWS)
    file = kept_file("x", path)
    good = file.read_bytes()
    file.write_bytes(good[:-1] + b" ")
    assert keep_rows(ROWS) == path
    assert file.read_bytes() == good


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "the list of dicts given as a source holds no rows"),
        (pd.DataFrame({"a": []}), "the pandas.DataFrame given as a source holds no rows"),
        (pd.DataFrame([["a", "b"]], columns=["x", "x"]), "the columns x, x name x more than once; rename them"),
        (pa.Table.from_arrays([pa.array(["a"])] * 2, ["x", "x"]), "the columns x, x name x more than once"),
        (7, "found int; expected a path, or rows as a pandas or pyarrow table"),
        ({"a": [1]}, "found a dict; expected"),
        (
            hf_datasets.DatasetDict(train=hf_datasets.Dataset.from_list(ROWS[:2])),
            "found a datasets.DatasetDict with the splits train; give one",
        ),
    ],
)
def test_what_is_no_table_is_refused(rows: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        keep_rows(rows)
    assert list(cache_dir().glob("tables/.*")) == []

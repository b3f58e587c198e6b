"""steps.jsonl: what is written comes back, and restarts leave one record per step."""

import json
import math
from pathlib import Path

from didact.tracking import JsonLinesTracker, effective_records, last_attempt
from didact.tracking.records import complete_size, read_records


def test_everything_logged_comes_back(tmp_path: Path) -> None:
    tracker = JsonLinesTracker(tmp_path / "steps.jsonl", attempt=1)
    tracker.log(
        1, {"train/loss": 2.5}, sample_ids=("alpaca/7", "dolly/0"), loss_hex=(2.5).hex(), note="kept in the file"
    )
    (record,) = effective_records(tmp_path / "steps.jsonl")
    assert (record.step, record.attempt, record.metrics) == (1, 1, {"train/loss": 2.5})
    assert record.sample_ids == ("alpaca/7", "dolly/0")
    assert float.fromhex(record.loss_hex or "") == 2.5
    assert json.loads((tmp_path / "steps.jsonl").read_text())["note"] == "kept in the file"


def test_values_that_are_not_finite_survive_as_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    JsonLinesTracker(path, 1).log(1, {"a": math.nan, "b": math.inf, "c": -math.inf})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    metrics = effective_records(path)[0].metrics
    assert math.isnan(metrics["a"])
    assert (metrics["b"], metrics["c"]) == (math.inf, -math.inf)


def test_a_restarted_attempt_supersedes_from_its_first_step(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    first = JsonLinesTracker(path, 1)
    for step in range(1, 9):
        first.log(step, {"train/loss": float(step)})
    second = JsonLinesTracker(path, last_attempt(path) + 1)
    for step in (5, 6):
        second.log(step, {"train/loss": step + 0.5})
    records = effective_records(path)
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.attempt for record in records] == [1, 1, 1, 1, 2, 2]
    assert records[-1].metrics == {"train/loss": 6.5}


def test_a_new_attempt_leaves_nothing_of_the_step_it_begins_with(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    JsonLinesTracker(path, 1).log(3, {"train/loss": 1.0, "eval/loss": 2.0}, sample_ids=["old/1"])
    JsonLinesTracker(path, 2).log(3, {"train/loss": 1.5})
    (record,) = effective_records(path)
    assert (record.metrics, record.attempt, record.sample_ids) == ({"train/loss": 1.5}, 2, None)


def test_a_metric_that_goes_back_is_a_restart_even_with_the_same_attempt(tmp_path: Path) -> None:
    tracker = JsonLinesTracker(tmp_path / "steps.jsonl", 1)
    for step in (1, 2, 3, 4, 2):
        tracker.log(step, {"train/loss": float(step)})
    assert [record.step for record in effective_records(tmp_path / "steps.jsonl")] == [1, 2]


def test_two_calls_about_one_step_are_one_record(tmp_path: Path) -> None:
    tracker = JsonLinesTracker(tmp_path / "steps.jsonl", 1)
    tracker.log(10, {"train/loss": 1.0}, sample_ids=["a/1"])
    tracker.log(11, {"train/loss": 0.9})
    tracker.log(10, {"eval/loss": 1.5})
    records = effective_records(tmp_path / "steps.jsonl")
    assert [record.metrics for record in records] == [{"train/loss": 1.0, "eval/loss": 1.5}, {"train/loss": 0.9}]
    assert records[0].sample_ids == ("a/1",)


def test_a_line_cut_by_a_kill_harms_neither_its_neighbours_nor_the_next_attempt(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    JsonLinesTracker(path, 1).log(1, {"train/loss": 3.0})
    whole = path.stat().st_size
    with path.open("a") as stream:
        stream.write('{"step": 2, "time_ms": 17')
    assert complete_size(path) == whole
    assert [record.step for record in effective_records(path)] == [1]
    JsonLinesTracker(path, 2).log(2, {"train/loss": 2.0})
    assert [record.step for record in effective_records(path)] == [1, 2]


def test_reading_a_piece_stops_at_its_end(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    tracker = JsonLinesTracker(path, 1)
    tracker.log(1, {"a": 1.0})
    first = path.stat().st_size
    tracker.log(2, {"a": 2.0})
    second = path.stat().st_size
    tracker.log(3, {"a": 3.0})
    assert [record.step for record in read_records(path, first, second)] == [2]
    assert [record.step for record in read_records(path, second)] == [3]


def test_complete_size_of_a_partial_line_longer_than_a_block(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_bytes(b"{}\n" + b"x" * 200_000)
    assert complete_size(path) == 3
    path.write_bytes(b"x" * 200_000)
    assert complete_size(path) == 0


def test_without_a_file_there_is_nothing(tmp_path: Path) -> None:
    assert effective_records(tmp_path / "steps.jsonl") == []
    assert last_attempt(tmp_path / "steps.jsonl") == 0

"""Batch prediction from file to file."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from didact.errors import DataError
from didact.registry import ModelVersion
from didact.serving.predict import PredictReport, PredictSettings, predict_file
from didact.serving.replica.adapter_store import AdapterStore
from didact.serving.replica.worker import Worker
from tests.fakes.registry import ShelfRegistry

ROWS = [
    '{"prompt": "one", "id": 1}',
    '{"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "two"}]}',
    "",
    '{"instruction": "three", "input": "3", "output": "known"}',
    "{broken",
    '{"question": "four"}',
    '{"messages": [{"role": "assistant", "content": "five"}]}',
    '{"prompt": "' + "x" * 2000 + '"}',
    '{"prompt": "\\ud800"}',
    '{"prompt": "last"}',
]
SHORT = PredictSettings(max_new_tokens=6, concurrency=3)


@pytest.fixture()
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(ROWS) + "\n")
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_gets_an_answer_or_a_reason(worker: Worker, source: Path, tmp_path: Path) -> None:
    report = predict_file(worker, source, tmp_path / "out.jsonl", model="tiny", settings=SHORT)
    rows = read(tmp_path / "out.jsonl")
    assert report == PredictReport(num_answered=4, num_failed=5, num_kept=0)
    assert [row.get("line") for row in rows] == [None, None, None, 5, 6, 7, 8, 9, None]
    assert rows[0]["id"] == 1
    assert rows[2]["output"] == "known"
    assert rows[0]["prediction"] != rows[1]["prediction"]
    assert {row["model"] for row in rows} == {"tiny"}
    assert "JSON" in rows[3]["error"]
    assert "question" in rows[4]["error"]
    assert "1024" in rows[6]["error"]


def test_a_file_of_something_else_is_refused_and_fields_that_are_replaced_are_named(
    worker: Worker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table, output = tmp_path / "in.csv", tmp_path / "out.jsonl"
    table.write_text("prompt,id\none,1\n")
    with pytest.raises(DataError, match=r"in\.csv: none of its 2 lines can be answered; line 1: not valid JSON"):
        predict_file(worker, table, output, model="tiny", settings=SHORT)
    assert not output.exists()
    row = {"prompt": "one", "model": "another", "line": "L1", "id": 1}
    (tmp_path / "in.jsonl").write_text(json.dumps(row) + "\n")
    with caplog.at_level(logging.WARNING, logger="didact"):
        predict_file(worker, tmp_path / "in.jsonl", output, model="tiny", settings=SHORT)
    assert "the output has its own line, model in the place of the input's" in caplog.text
    assert read(output)[0].keys() == {"prompt", "id", "prediction", "model"}


def test_an_interrupted_run_continues(worker: Worker, source: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    predict_file(worker, source, whole, model="tiny", settings=SHORT)
    content = whole.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        broken.write_bytes(content[:length])
        report = predict_file(worker, source, broken, model="tiny", settings=SHORT)
        assert broken.read_bytes() == content
        assert report.num_kept == content[:length].count(b"\n")


def test_output_of_other_rows_or_another_model_is_not_continued(worker: Worker, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    predict_file(worker, source, output, model="tiny", settings=SHORT)
    with pytest.raises(DataError, match="begun with model"):
        predict_file(worker, source, output, model="other", settings=SHORT)
    source.write_text('{"prompt": "different"}\n' * 12)
    with pytest.raises(DataError, match="other rows"):
        predict_file(worker, source, output, model="tiny", settings=SHORT)
    with pytest.raises(DataError, match="does not exist"):
        predict_file(worker, tmp_path / "none.jsonl", output, model="tiny", settings=SHORT)


def test_a_changed_row_other_settings_and_the_input_itself_are_refused(
    worker: Worker, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    predict_file(worker, source, output, model="tiny", settings=SHORT)
    with pytest.raises(DataError, match=r"begun with max_new_tokens 6, not 7; give another output"):
        predict_file(worker, source, output, model="tiny", settings=replace(SHORT, max_new_tokens=7))
    predict_file(worker, source, output, model="tiny", settings=replace(SHORT, concurrency=1))
    before = output.read_bytes()
    source.write_text(source.read_text().replace('"prompt": "one"', '"prompt": "none"'))
    with pytest.raises(DataError, match="other rows"):
        predict_file(worker, source, output, model="tiny", settings=SHORT)
    assert output.read_bytes() == before
    with pytest.raises(DataError, match="is the input itself"):
        predict_file(worker, source, source, model="tiny", settings=SHORT)
    (tmp_path / "odd.jsonl").write_text("5\n")
    with pytest.raises(DataError, match=r"odd\.jsonl, line 1, is no answer"):
        predict_file(worker, source, tmp_path / "odd.jsonl", model="tiny", settings=SHORT)


def test_adapters_answer(worker: Worker, registry: ShelfRegistry, source: Path, tmp_path: Path) -> None:
    version: ModelVersion = registry.resolve("demo:2")
    folder = AdapterStore(registry, tmp_path).fetch(version)
    for name, adapter in [("base", None), ("version", version), ("folder", folder)]:
        predict_file(worker, source, tmp_path / name, model="m", adapter=adapter, settings=SHORT)
    assert read(tmp_path / "version") == read(tmp_path / "folder") != read(tmp_path / "base")


def test_sampling_repeats_by_seed(worker: Worker, source: Path, tmp_path: Path) -> None:
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        settings = PredictSettings(max_new_tokens=6, temperature=1.0, seed=seed, concurrency=4)
        predict_file(worker, source, tmp_path / name, model="tiny", settings=settings)
    assert read(tmp_path / "a") == read(tmp_path / "b") != read(tmp_path / "c")

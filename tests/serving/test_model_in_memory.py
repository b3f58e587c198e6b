"""A model that is asked from Python, also from inside a running event loop, as a notebook's cells are."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from didact.errors import DataError
from didact.serving.chat import ChatError
from didact.serving.engine.protocol import AdapterRef
from didact.serving.model import Model, Predictions
from didact.serving.predict import PredictReport, PredictSettings
from didact.serving.replica.worker import Worker
from didact.spec import ServeSpec

SHORT = PredictSettings(max_new_tokens=6, concurrency=3)
ROWS = [{"prompt": "one", "id": 1}, {"instruction": "two", "input": "2"}, {"question": "three"}]


@pytest.fixture()
def model(worker: Worker) -> Model:
    return Model(worker, "tiny", ServeSpec())


def inside_a_loop(call: Callable[[], object]) -> object:
    async def cell() -> object:
        return call()

    return asyncio.run(cell())


def test_it_answers_alike_inside_and_outside_a_loop(model: Model) -> None:
    answer = model.chat("hello", max_new_tokens=6)
    assert answer
    assert inside_a_loop(lambda: model.chat("hello", max_new_tokens=6)) == answer
    assert "".join(model.stream("hello", max_new_tokens=6)) == answer
    turns = [{"role": "user", "content": "hello"}]
    assert model.chat(turns, max_new_tokens=6) == answer
    assert model.chat([{"role": "system", "content": "be brief"}, *turns], max_new_tokens=6) != answer


def test_an_adapter_answers_for_itself(worker: Worker, adapters: list[Path], model: Model) -> None:
    tuned = Model(worker, "tuned", ServeSpec(), AdapterRef("tuned#1", adapters[0]))
    assert tuned.chat("hello", max_new_tokens=6) != model.chat("hello", max_new_tokens=6)


def test_the_same_seed_gives_the_same_answer(model: Model) -> None:
    first, second = (model.chat("hello", max_new_tokens=12, temperature=1.5, seed=3) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("table", [ROWS, pd.DataFrame(ROWS)], ids=["dicts", "pandas"])
def test_rows_are_answered_as_lines_of_a_file(model: Model, table: object, tmp_path: Path) -> None:
    answered = model.predict_rows(table, SHORT)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    report = inside_a_loop(lambda: model.predict_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", SHORT))
    assert report == PredictReport(num_answered=2, num_failed=1, num_kept=0)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row.get("prediction") for row in answered] == [row.get("prediction") for row in lines]
    assert (answered[2]["line"], lines[2]["line"]) == (3, 3)


def test_texts_are_prompts(model: Model) -> None:
    (text,), (row,) = model.predict_rows(["one"], SHORT), model.predict_rows([{"prompt": "one"}], SHORT)
    assert text == row


def test_predictions_show_what_was_asked_and_answered() -> None:
    rows = [{"instruction": "Add", "input": "1 and 2", "prediction": "3 [b]"}, {"prompt": "x", "error": "too long"}]
    shown = str(Predictions(tuple(rows)))
    assert all(text in shown for text in ("Add", "1 and 2", "3 [b]", "too long"))
    assert "20 of 30 rows" in str(Predictions(tuple([*rows] * 15)))
    assert Predictions(tuple(rows))[0:1] == (rows[0],)


def test_what_is_no_conversation_is_refused(model: Model) -> None:
    with pytest.raises(DataError, match="the last turn is the assistant's"):
        model.chat([{"role": "assistant", "content": "hm"}])
    with pytest.raises(ChatError, match="tokens"):
        model.chat("x" * 4000)


def test_it_is_closed_with_its_thread(model: Model, worker: Worker) -> None:
    with model:
        model.chat("hello", max_new_tokens=2)
        assert "model tiny" in [thread.name for thread in threading.enumerate()]
    assert "model tiny" not in [thread.name for thread in threading.enumerate()]
    assert str(model) == "tiny (closed)"
    inside_a_loop(model.close)


def test_a_stream_that_is_left_ends_its_request(model: Model) -> None:
    pieces = model.stream("hello", max_new_tokens=50)
    next(pieces)
    pieces.close()
    assert model.chat("hello", max_new_tokens=2) is not None
    assert model.worker.engine.stats().generated_tokens < 50

"""`didact.load` and `didact.predict` on the bundled base."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import didact
from didact.errors import DataError, NotRegistered
from didact.serving.model import Model


@pytest.fixture(scope="module")
def base() -> Iterator[Model]:
    with didact.load() as model:
        yield model


def test_the_base_answers(base: Model, tmp_path: Path) -> None:
    assert base.name == "smollm2-135m-instruct"
    asked = "What is the capital of France?"
    answer = base.chat(asked, max_new_tokens=8)
    assert "Paris" in answer
    (row,) = didact.predict([asked], model=base, max_new_tokens=8)
    assert row == {"prompt": asked, "prediction": answer, "model": base.name}
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"prompt": asked}) + "\n")
    assert didact.predict(source, output, model=base, max_new_tokens=8).num_answered == 1
    assert json.loads(output.read_text()) == row


def test_a_loaded_model_stays_open(base: Model) -> None:
    didact.predict(["one"], model=base, max_new_tokens=1)
    assert base.chat("two", max_new_tokens=1) is not None


def test_a_file_needs_an_output_and_rows_need_none(base: Model) -> None:
    with pytest.raises(DataError, match=r"found the file in\.jsonl without output"):
        didact.predict("in.jsonl", model=base)
    with pytest.raises(DataError, match=r"found output out\.jsonl with prompts in memory"):
        didact.predict(["one"], "out.jsonl", model=base)  # type: ignore[call-overload]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(NotRegistered, match="no registered model 'nobody'"):
        didact.load("nobody@champion")

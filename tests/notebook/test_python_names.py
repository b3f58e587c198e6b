"""`import didact`: the names, what they show of themselves, and how an error reads."""

import importlib

import pytest
from rich.text import Text
from typing_extensions import override

import didact
from didact.display import Shown, in_notebook
from didact.errors import SpecError


class Answer(Shown):
    __slots__ = ()

    @override
    def __rich__(self) -> Text:
        return Text("loss <0.5>", style="bold")


def test_every_name_is_there_and_explained() -> None:
    assert set(didact.__all__) <= set(dir(didact))
    assert [name for name in didact.__all__ if not getattr(didact, name).__doc__] == []
    assert sorted(importlib.import_module("didact.notebook").__all__) == sorted(didact.__all__)


def test_no_name_hides_a_room() -> None:
    rooms = {name for name in didact.__all__ if importlib.util.find_spec(f"didact.{name}")}
    assert rooms == set()


def test_other_names_are_refused_as_python_does() -> None:
    with pytest.raises(AttributeError, match="module 'didact' has no attribute 'train_fast'"):
        didact.train_fast  # noqa: B018
    with pytest.raises(ImportError):
        from didact import train_fast  # noqa: F401


def test_results_show_themselves_as_text_and_as_html() -> None:
    assert str(Answer()) == Answer()._repr_mimebundle_()["text/plain"] == "loss <0.5>"
    assert Answer()._repr_mimebundle_()["text/html"] == Answer()._repr_html_()
    assert "loss &lt;0.5&gt;" in Answer()._repr_html_()
    assert "font-weight: bold" in Answer()._repr_html_()


def test_results_of_every_verb_show_themselves() -> None:
    from didact.cluster import FinetuneResult
    from didact.evaluation import EvalReport, ModelFacts
    from didact.preparation import Plan
    from didact.tuning import SweepResult

    assert all(issubclass(each, Shown) for each in (FinetuneResult, EvalReport, Plan, SweepResult))
    models = {"base": ModelFacts("base"), "adapter": ModelFacts("mine")}
    report = EvalReport(models, {"base": {"eval/loss": 2.0}, "adapter": {"eval/loss": 1.0}}, {"eval/loss": 8})
    assert "mine on base" in str(report)
    assert repr(report).startswith("EvalReport(")


def test_an_error_is_its_message() -> None:
    error = SpecError("recipe.yaml cannot be used:\n  - name: missing")
    assert error._render_traceback_() == ["SpecError: recipe.yaml cannot be used:\n  - name: missing"]


def test_pytest_is_no_notebook() -> None:
    assert not in_notebook()

"""What a recipe may say about weights that follow sizes or change over the run."""

from typing import Any

import pytest

from didact.errors import SpecError
from didact.spec import DataSpec, FinetuneSpec, load_spec, to_json, validate

SOURCES = [{"name": "a", "path": "-"}, {"name": "b", "path": "-"}]
TWO = [{"until": 0.3, "weights": {"a": 0.8, "b": 0.2}}, {"until": 1.0, "weights": {"b": 1}}]


def test_a_curriculum_loads_and_is_written_back() -> None:
    values = {"name": "n", "data": {"sources": SOURCES, "curriculum": TWO}, "training": {"steps": 3}}
    spec = validate(FinetuneSpec, values, "r.yaml")
    assert spec.data.curriculum[0].weights == {"a": 0.8, "b": 0.2}
    assert not spec.data.states_weights
    assert FinetuneSpec.model_validate_json(to_json(spec)) == spec


def test_temperature_is_a_plain_dotted_path() -> None:
    values = ["data.strategy=temperature", "data.temperature=3.5"]
    spec = load_spec(FinetuneSpec, "jobs/recipes/sums_and_letters.yaml", values)
    assert (spec.data.strategy, spec.data.temperature) == ("temperature", 3.5)


def test_only_a_line_may_start_at_zero() -> None:
    ramp = [{"until": 0, "weights": {"a": 1}}, {"until": 1, "weights": {"b": 1}}]
    assert validate(DataSpec, {"sources": SOURCES, "curriculum": ramp, "interpolate": "linear"}, "r.yaml")
    with pytest.raises(SpecError, match="a first stage until 0 has no samples"):
        validate(DataSpec, {"sources": SOURCES, "curriculum": ramp}, "r.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"curriculum": [{"until": 0.5, "weights": {"a": 1, "b": 1}}]},
            r"until must increase .* to 1.0; found \[0.5\]",
        ),
        ({"curriculum": [TWO[1], TWO[0]]}, r"until must increase"),
        ({"curriculum": [TWO[0], TWO[0], TWO[1]]}, r"until must increase"),
        ({"curriculum": [{"until": 1, "weights": {"a": 1, "c": 1}}]}, "curriculum.0 names 'c'; sources are a, b"),
        ({"curriculum": [{"until": 1, "weights": {"a": 1, "b": 0}}]}, "source 'b' has a weight in no stage"),
        ({"curriculum": [{"until": 1, "weights": {"a": 0}}]}, "all weights are 0"),
        (
            {"curriculum": [{"until": 1, "weights": {"a": -1}}]},
            "0.weights.a: found -1; expected a number of at least 0",
        ),
        ({"curriculum": TWO, "strategy": "uniform"}, "curriculum states weights and strategy 'uniform' computes them"),
        ({"curriculum": TWO, "max_epochs": 2}, "max_epochs would change the weights"),
        ({"max_epochs": 0}, "found 0; expected a number above 0"),
        ({"strategy": "temperatur"}, "'explicit', 'proportional', 'temperature' or 'uniform'"),
        ({"temperature": 0}, "found 0; expected a number of at least 0.01"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        validate(DataSpec, {"sources": SOURCES, **changes}, "r.yaml")

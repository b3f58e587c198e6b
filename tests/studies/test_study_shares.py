"""Slopes, shares and transfers of made studies whose truth is known."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from didact.studies import StudyResult, read_study
from didact.studies.findings.scaling import amount_of, scalings_of
from didact.studies.findings.shares import _shapley_weights, shares_of, transfers_of
from didact.studies.page import render_study
from didact.studies.reporting import markdown
from tests.fakes.studies import made_study, study_spec

SUBSETS = ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]
WORTH = {"a": 0.3, "b": 0.1, "c": 0.0}


def mixtures(folder: Path, chance: Callable[[str], float], levels: list[str] = SUBSETS) -> StudyResult:
    spec = study_spec(
        {"data": {level: {"tokens.max_length": 9 + n} for n, level in enumerate(levels)}}, seeds=[0, 1, 2, 3]
    )
    result = made_study(folder, spec, lambda cell: chance(cell["data"]))
    for cell in result.cells:
        sources = [{"name": name, "path": f"reasoning-gym:{name}"} for name in cell.levels["data"].split("+")]
        (cell.run / "recipe.json").write_text(json.dumps({"data": {"sources": sources}}))
    return result


@pytest.mark.parametrize(
    ("level", "amount"),
    [
        ("320", 320),
        ("r16", 16),
        ("1.5k", 1500),
        ("7B", 7e9),
        ("2e-3", 0.002),
        ("none", None),
        ("0", None),
        ("r4x", None),
    ],
)
def test_levels_are_read_as_amounts(level: str, amount: float | None) -> None:
    assert amount_of(level) == amount


def test_a_slope_over_doublings_is_found_with_its_interval(tmp_path: Path) -> None:
    spec = study_spec({"rows": {str(50 * 2**n): {"training.steps": n + 1} for n in range(5)}}, seeds=[0, 1])
    result = made_study(tmp_path, spec, lambda cell: 0.3 + 0.08 * np.log2(float(cell["rows"]) / 50))
    loss, accuracy = scalings_of(result)
    assert accuracy.per_doubling.low < 0.08 < accuracy.per_doubling.high and accuracy.per_doubling.shown
    assert [amount for amount, _ in accuracy.points] == [50, 100, 200, 400, 800]
    assert accuracy.fitted(200) == pytest.approx(0.46, abs=0.03)
    # Made losses are 2 - chance, without any scatter between seeds.
    assert loss.per_doubling.value == pytest.approx(0.08) and loss.fitted(50) == pytest.approx(1.7)
    assert "for the better with each doubling" in str(accuracy) and "chance" not in str(accuracy)


def test_no_slope_is_claimed_where_there_is_none(tmp_path: Path) -> None:
    spec = study_spec({"rank": {f"r{2**n}": {"training.steps": n + 1} for n in range(4)}})
    (accuracy,) = scalings_of(made_study(tmp_path, spec, lambda cell: 0.5))
    assert not accuracy.per_doubling.shown and str(accuracy).endswith("which chance explains")


@pytest.mark.parametrize("levels", [{"a": {}, "b": {"training.steps": 2}}, {"4": {}, "8": {"training.steps": 2}}])
def test_two_levels_or_names_make_no_line(tmp_path: Path, levels: dict[str, object]) -> None:
    assert scalings_of(made_study(tmp_path, study_spec({"rank": levels}), lambda cell: 0.5, num_questions=20)) == []


def test_shares_of_sources_that_add_up_are_what_each_is_worth(tmp_path: Path) -> None:
    found = mixtures(tmp_path, lambda level: 0.2 + sum(WORTH[name] for name in level.split("+")))
    shares = {each.source: each for each in shares_of(found) if each.metric == "eval/sums/accuracy"}
    assert set(shares) == {"a", "b", "c"}
    for source, share in shares.items():
        assert share.left_out is not None and share.shapley is not None
        assert share.left_out.low < WORTH[source] < share.left_out.high
        assert share.left_out.shown == (source != "c")
    # Made bases answer nothing, so that the 0.2 which every set gives is shared by the three.
    for source, share in shares.items():
        assert share.shapley is not None
        assert share.shapley.value == pytest.approx(WORTH[source] + 0.2 / 3, abs=0.04)
    total = sum(share.shapley.value for share in shares.values() if share.shapley)
    assert total == pytest.approx(0.6, abs=0.04)


def test_shapley_weights_give_the_values_by_their_definition() -> None:
    values = {"": 1.0, "a": 3.0, "b": 2.0, "c": 0.0, "ab": 9.0, "ac": 4.0, "bc": 2.5, "abc": 11.0}
    weights = _shapley_weights("abc", [frozenset(each) for each in values if each])
    assert weights is not None
    of = {frozenset(name): value for name, value in values.items()}
    expected = {
        "a": (2 * (3 - 1) + (9 - 2) + (4 - 0) + 2 * (11 - 2.5)) / 6,
        "b": (2 * (2 - 1) + (9 - 3) + (2.5 - 0) + 2 * (11 - 4)) / 6,
        "c": (2 * (0 - 1) + (4 - 3) + (2.5 - 2) + 2 * (11 - 9)) / 6,
    }
    for source, share in expected.items():
        assert sum(weight * of[subset] for subset, weight in weights[source].items()) == pytest.approx(share)


def test_few_subsets_still_tell_shares_that_add_up() -> None:
    left_out = [frozenset("abc"), frozenset("ab"), frozenset("ac"), frozenset("bc")]
    weights = _shapley_weights("abc", left_out)
    assert weights is not None
    for subset in left_out:
        value = sum(WORTH[name] for name in subset)
        assert value == pytest.approx(
            sum(
                weight * sum(WORTH[name] for name in each)
                for source in subset
                for each, weight in weights[source].items()
            )
        ), "of sources that add up, any subsets that decide it give each its worth"
    assert _shapley_weights("abc", [frozenset("abc"), frozenset("a")]) is None, "b and c are not told apart"


def test_what_was_not_trained_is_not_told(tmp_path: Path) -> None:
    found = shares_of(mixtures(tmp_path, lambda level: 0.5, ["a", "b", "a+b", "a+b+c"]))
    assert {each.source: each.left_out is not None for each in found} == {
        "a": False,
        "b": False,
        "c": True,  # a+b is there
    }
    assert shares_of(mixtures(tmp_path / "other", lambda level: 0.5, ["a", "b"])) == [], "there is no whole"


def test_the_page_shows_lines_and_shares(tmp_path: Path) -> None:
    result = mixtures(tmp_path, lambda level: 0.2 + sum(WORTH[name] for name in level.split("+")))
    assert "What each dataset brings" in render_study(result) and "- a, sums/accuracy: brings +" in markdown(result)
    assert transfers_of(result) == [], "one task makes no matrix"


def test_a_matrix_shows_what_each_set_changed_in_each_task(tmp_path: Path) -> None:
    """Of made studies that ask questions of two tasks, the second one answered worse than by the base."""
    result = mixtures(tmp_path, lambda level: 0.6 if level == "a" else 0.2, ["a", "b"])
    for cell in result.cells:
        assert cell.report is not None
        second = tuple(
            replace(each, task="b", given={"base": each.given["adapter"], "adapter": each.given["base"]})
            for each in cell.report.questions
        )
        right = cell.report.metrics_of["adapter"]["eval/sums/accuracy"]
        figures = {
            "base": {**cell.report.metrics_of["base"], "eval/b/accuracy": right},
            "adapter": {**cell.report.metrics_of["adapter"], "eval/b/accuracy": 0.0},
        }
        tasks = (*cell.report.tasks, replace(cell.report.tasks[0], name="b"))
        report = replace(cell.report, metrics_of=figures, tasks=tasks, questions=(*cell.report.questions, *second))
        report.save(cell.run / "report.json")
    result = read_study(tmp_path)
    (found,) = transfers_of(result)
    assert (found.levels, found.metrics) == (("a", "b"), ("eval/sums/accuracy", "eval/b/accuracy"))
    assert found.own == ((False, False), (False, True)), "b was trained on b"
    for changes, right in zip(found.changes, (0.6, 0.2), strict=True):
        for change, expected in zip(changes, (right, -right), strict=True):
            assert change is not None and change.value == pytest.approx(expected, abs=0.05) and change.shown
    page = render_study(result)
    assert "Trained on data, tested on each task" in page and page.count('class="n own bad"') == 1

"""A fractional design: which combinations it is, and that effects are told from it."""

from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from didact.errors import SpecError
from didact.spec.search.fractions import chosen_combinations
from didact.studies import read_study
from didact.studies.findings import effects_of, scalings_of, shares_of
from didact.studies.page import render_study
from didact.studies.reporting import markdown
from didact.studies.tables import tables_of
from tests.fakes.studies import made_study, study_spec


def factors(*sizes: int) -> dict[str, Any]:
    return {f"f{at}": {f"l{n}": {"training.steps": n + 1} for n in range(size)} for at, size in enumerate(sizes)}


@pytest.mark.parametrize(
    ("sizes", "share", "count"),
    [((2, 2, 2), 1 / 2, 4), ((3, 3, 3), 1 / 3, 9), ((2, 2, 2, 2), 1 / 2, 8), ((2, 4, 2), 1 / 2, 8)],
)
def test_levels_of_any_two_factors_meet_equally_often(sizes: tuple[int, ...], share: float, count: int) -> None:
    chosen = chosen_combinations(sizes, share)
    assert len(set(chosen)) == len(chosen) == count and chosen == sorted(chosen) and chosen[0] == (0,) * len(sizes)
    for one, two in combinations(range(len(sizes)), 2):
        met = Counter((each[one], each[two]) for each in chosen)
        assert len(met) == sizes[one] * sizes[two] and len(set(met.values())) == 1, f"factors {one} and {two}"


def test_where_no_orthogonal_array_fits_levels_still_meet_nearly_equally_often() -> None:
    chosen = chosen_combinations((3, 2, 2), 1 / 2)
    assert len(chosen) == 6
    assert all(max(counts := Counter(each[at] for each in chosen).values()) - min(counts) <= 1 for at in range(3))


def test_the_design_has_the_defaults_and_the_cells_beside_it() -> None:
    spec = study_spec(factors(2, 2, 2), design="fractional", defaults={"f1": "l1"}, seeds=[0, 1])
    found = spec.combinations()
    assert {"f0": "l0", "f1": "l1", "f2": "l0"} in found and spec.num_cells == 8
    missing = next(each for each in study_spec(factors(2, 2, 2)).combinations() if each not in found)
    more = study_spec(factors(2, 2, 2), design="fractional", defaults={"f1": "l1"}, cells=[missing])
    assert more.combinations() == [*found, missing]


@pytest.mark.parametrize(
    ("sizes", "changes", "told"),
    [
        ((3,), {}, "nothing to leave out: 3 combinations, 3 of which tell the levels apart, and fraction 0.5"),
        ((2, 2), {"fraction": 0.9}, "nothing to leave out: 4 combinations"),
        ((2,) * 13, {}, "chooses from at most 4,096 combinations; found 8,192"),
        ((2, 2), {"fraction": 1.0}, "fraction: found 1; expected a number above 0 and below 1"),
    ],
)
def test_what_leaves_nothing_out_is_refused(sizes: tuple[int, ...], changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        study_spec(factors(*sizes), design="fractional", **changes)


KNOWN = {
    "method": {"lora": {}, "ia3": {"adapter": {"method": "ia3"}}},
    "rate": {"low": {}, "high": {"training.learning_rate": 1.0}},
    "rows": {"80": {}, "160": {"training.steps": 2}, "320": {"training.steps": 3}},
    "prompt": {"english": {}, "chinese": {"tokens.max_length": 9}},
}


def chance(levels: dict[str, str]) -> float:
    return 0.5 - 0.2 * (levels["method"] == "ia3") + 0.06 * ("80", "160", "320").index(levels["rows"])


def test_known_effects_are_found_in_half_of_the_runs_and_none_where_there_is_none(tmp_path: Path) -> None:
    spec = study_spec(KNOWN, design="fractional", seeds=[0, 1])
    result = made_study(tmp_path, spec, chance)
    assert len(result.cells) == 24
    effects = {(each.factor, each.level): each for each in effects_of(result) if each.metric == "eval/sums/accuracy"}
    assert set(effects) == {
        ("method", "ia3"),
        ("rate", "high"),
        ("rows", "160"),
        ("rows", "320"),
        ("prompt", "chinese"),
    }
    worse = effects["method", "ia3"]
    assert worse.is_found and worse.gain.value == pytest.approx(-0.2, abs=0.03) and worse.gain.high < -0.15
    assert str(worse).endswith("over 24 runs: worse")
    assert effects["rows", "320"].is_found and effects["rows", "320"].gain.low < 0.12 < effects["rows", "320"].gain.high
    for same in (effects["rate", "high"], effects["prompt", "chinese"]):
        assert not same.is_found and same.gain.value == pytest.approx(0.0, abs=0.03)
    (line,) = [each for each in scalings_of(result) if each.metric == "eval/sums/accuracy"]
    assert line.per_doubling.low < 0.06 < line.per_doubling.high and shares_of(result) == []


def test_an_effect_is_exact_where_nothing_scatters(tmp_path: Path) -> None:
    """Losses of made studies are 2 less the chance: least squares takes each factor's part off the others exactly."""
    result = made_study(tmp_path, study_spec(KNOWN, design="fractional"), chance, num_questions=10)
    losses = {(each.factor, each.level): each.gain.value for each in effects_of(result) if each.metric == "eval/loss"}
    assert losses == {}, "one seed, and no questions: nothing tells how far chance reaches"
    result = made_study(tmp_path / "two", study_spec(KNOWN, design="fractional", seeds=[0, 1]), chance, 10)
    losses = {(each.factor, each.level): each.gain.value for each in effects_of(result) if each.metric == "eval/loss"}
    assert losses["method", "ia3"] == pytest.approx(-0.2) and losses["rate", "high"] == pytest.approx(0.0, abs=1e-12)
    assert losses["rows", "160"] == pytest.approx(0.06) and losses["rows", "320"] == pytest.approx(0.12)


def test_tables_and_page_are_of_all_runs_of_a_level(tmp_path: Path) -> None:
    result = made_study(tmp_path, study_spec(KNOWN, design="fractional", seeds=[0, 1]), chance)
    method = tables_of(result)[0]
    assert [row[1].is_best for row in method.entries] == [True, False] and not method.entries[1][1].not_worse
    prompt = tables_of(result)[3]
    assert {row[1].is_best or row[1].not_worse for row in prompt.entries} == {True}
    assert "a balanced part of all combinations" in render_study(result) and "over 24 runs" in markdown(result)


def test_a_level_without_any_run_has_no_effect_and_the_others_have(tmp_path: Path) -> None:
    result = made_study(tmp_path, study_spec(KNOWN, design="fractional"), chance, num_questions=100)
    for cell in result.cells:
        if cell.levels["rows"] == "160":
            (cell.run / "report.json").unlink()
    levels = {each.level for each in effects_of(read_study(tmp_path)) if each.metric == "eval/sums/accuracy"}
    assert "160" not in levels and {"ia3", "320"} <= levels

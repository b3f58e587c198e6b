"""What a made study, whose truth is known, proposes to train next."""

from pathlib import Path

import pytest

from didact.evaluation import EvalReport
from didact.studies import StudyResult, read_study
from didact.studies.findings import Proposal, proposals_of
from didact.studies.page import render_study
from didact.studies.reporting import markdown
from tests.fakes.studies import made_study, study_spec
from tests.studies.test_study_shares import mixtures

ACCURACY = "eval/sums/accuracy"
LOSS = "eval/loss"


def of_kind(result: StudyResult, kind: str) -> list[Proposal]:
    return [each for each in proposals_of(result) if each.kind == kind and each.metric == ACCURACY]


METHODS = {"lora": {}, "ia3": {"adapter.method": "ia3"}}
PROMPTS = {"english": {}, "chinese": {"tokens.template": "zh.jinja"}}
SHARP = {"lora": 0.0, "ia3": 0.2, "english": 0.0, "chinese": 0.15}


def test_levels_that_help_alone_are_proposed_together(tmp_path: Path) -> None:
    spec = study_spec({"method": METHODS, "prompt": PROMPTS}, design="one_at_a_time", seeds=[0, 1])
    result = made_study(tmp_path, spec, lambda cell: 0.3 + SHARP[cell["method"]] + SHARP[cell["prompt"]])
    (found,) = of_kind(result, "together")
    assert found.expected.low < 0.35 < found.expected.high
    assert found.what == "method ia3, prompt chinese together"
    assert found.addition == {"cells": [{"method": "ia3", "prompt": "chinese"}]}
    # As it is proposed, so it can be added.
    longer = study_spec({"method": METHODS, "prompt": PROMPTS}, design="one_at_a_time", seeds=[0, 1], **found.addition)
    assert longer.combinations()[-1] == {"method": "ia3", "prompt": "chinese"}
    assert longer.num_cells == spec.num_cells + 2


def test_what_has_been_trained_is_not_proposed(tmp_path: Path) -> None:
    spec = study_spec({"method": METHODS, "prompt": PROMPTS}, seeds=[0, 1])
    result = made_study(tmp_path, spec, lambda cell: 0.3 + SHARP[cell["method"]] + SHARP[cell["prompt"]])
    assert of_kind(result, "together") == []


def test_levels_that_set_the_same_field_are_not_joined(tmp_path: Path) -> None:
    factors = {"method": METHODS, "prompt": {"english": {}, "chinese": {"adapter": {"r": 4}}}}
    spec = study_spec(factors, design="one_at_a_time", seeds=[0, 1])
    result = made_study(tmp_path, spec, lambda cell: 0.3 + SHARP[cell["method"]] + SHARP[cell["prompt"]])
    assert of_kind(result, "together") == []


@pytest.mark.parametrize(("slope", "kind", "level"), [(0.08, "more", "1600"), (-0.08, "less", "25"), (0.0, None, None)])
def test_a_line_is_carried_one_doubling_on(tmp_path: Path, slope: float, kind: str | None, level: str | None) -> None:
    rows = {"800": {}, **{str(50 * 2**n): {"data.sources.sums.max_rows": 50 * 2**n} for n in range(4)}}
    spec = study_spec({"rows": rows}, seeds=[0, 1])
    doublings = {str(50 * 2**n): n - 2 for n in range(5)}
    result = made_study(tmp_path, spec, lambda cell: 0.5 + slope * doublings[cell["rows"]], num_questions=500)
    found = [*of_kind(result, "more"), *of_kind(result, "less")]
    assert [each.kind for each in found] == ([kind] if kind else [])
    for each in found:
        assert each.expected.value == pytest.approx(0.08, abs=0.015) and each.expected.shown
        assert each.addition == {"factors": {"rows": {level: {"data.sources.sums.max_rows": int(level or 0)}}}}


def test_a_source_that_takes_is_left_out(tmp_path: Path) -> None:
    worth = {"a": 0.35, "b": 0.3, "c": -0.25}
    levels = ["a", "b", "c", "a+c", "b+c", "a+b+c"]  # a+b is what nobody has trained
    found = of_kind(mixtures(tmp_path, lambda level: 0.4 + sum(worth[n] for n in level.split("+")), levels), "without")
    # Made bases answer nothing, so that the 0.4 is shared by the three: c takes less than its 0.25.
    assert [each.what for each in found] == ["data with a, b, without c"]
    assert found[0].expected.low > 0


def test_seeds_are_proposed_where_runs_scatter_and_only_there(tmp_path: Path) -> None:
    factors = {"method": {"lora": {}, "ia3": {"adapter.method": "ia3"}, "prefix": {"adapter.method": "prefix"}}}
    spec = study_spec(factors, seeds=[0, 1])
    # Losses are 2 - chance: each run's is moved by hand, so that the best two stay a small step apart.
    values = {"lora": (0.48, 0.54), "ia3": (0.56, 0.56), "prefix": (0.1, 0.1)}
    calls = iter([value for pair in values.values() for value in pair])
    result = made_study(tmp_path, spec, lambda cell: 0.5, num_questions=30)
    for cell in result.cells:
        report = cell.run / "report.json"
        text = report.read_text().replace('"eval/loss": 1.5', f'"eval/loss": {2.0 - next(calls)}')
        EvalReport.from_json(text, is_sealed=False).save(report)
    (found,) = (each for each in proposals_of(read_study(tmp_path)) if each.kind == "seeds" and each.metric == LOSS)
    assert found.what.endswith("more seeds to tell method ia3 from lora")
    # Deviation 0.0245 with 2 degrees of freedom: 4.3 * 0.0245 * sqrt(2 / n) falls below 0.05 at 9 runs.
    assert found.addition == {"seeds": list(range(9))}


def test_page_and_text_tell_them(tmp_path: Path) -> None:
    spec = study_spec({"method": METHODS, "prompt": PROMPTS}, design="one_at_a_time", seeds=[0, 1])
    result = made_study(tmp_path, spec, lambda cell: 0.3 + SHARP[cell["method"]] + SHARP[cell["prompt"]])
    text, page = markdown(result), render_study(result)
    assert "## What to train next" in text
    assert 'add {"cells": [{"method": "ia3", "prompt": "chinese"}]}' in text
    assert "What to train next" in page and "method ia3, prompt chinese together" in page

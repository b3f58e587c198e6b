"""Studies for a cluster are planned from counts alone: no hub, no data, no weights."""

from pathlib import Path

import pytest

from didact.errors import ModelError, SpecError
from didact.models.footprint import published_config
from didact.models.footprint.counting import Subject
from didact.spec import ForecastSpec, StudySpec, load_spec
from didact.studies import Study, load_study
from didact.studies.forecast import forecast_cell
from didact.studies.plan import plan_study
from tests.conftest import ROOT

PUBLISHED = ("alignment", "chinese_data", "cot", "methods", "open_llms", "prompt_language", "vocabulary")
CELLS = {
    "alignment": 2,
    "chinese_data": 12,
    "cot": 2,
    "methods": 11,
    "open_llms": 8,
    "prompt_language": 4,
    "vocabulary": 4,
}
TRAINED = {
    "AdaLoRA": 5.6,
    "LoRA": 15,
    "prompt": 0.08,
    "p-tuning": 1.1,
    "prefix": 30.8,
    "SadapterP": 7.5,
    "SadapterH": 15,
    "P-adapter": 15,
    "SadapterP-l": 60,
    "SadapterH-l": 120,
    "P-adapter-l": 120,
}
"""Trained parameters that the paper prints, in units of 2^20."""


def loaded(name: str) -> Study:
    file = ROOT / "studies" / f"{name}.yaml"
    return load_study(load_spec(StudySpec, file), file)


def test_every_study_of_the_paper_is_shipped() -> None:
    shipped = {file.stem for file in (ROOT / "studies").glob("*.yaml")}
    assert shipped == {*PUBLISHED, "embedded"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_is_checked_whole_and_its_first_cell_planned(name: str) -> None:
    study = loaded(name)
    assert len(study.cells) == CELLS[name] and study.spec.forecast is not None
    first = forecast_cell(study.cells[0].spec, study.spec.forecast)
    assert first.fit is not None and first.fit.count == 1 and first.gib is not None
    assert first.steps == round(48_818 / 128) and 10 < first.gib < 40 and 0.3 < first.hours < 3
    for cell in study.cells:
        base = study.spec.forecast.bases.get(cell.spec.model.base, cell.spec.model.base)
        assert published_config(base) is not None, f"the plan of {cell.name} would need the hub"


@pytest.mark.nightly
@pytest.mark.parametrize("name", PUBLISHED)
def test_each_is_planned_whole(name: str, tmp_path: Path) -> None:
    study = loaded(name)
    plan = plan_study(study, tmp_path)
    assert all(each.gpus == 1 and each.hours and not each.unknown for each in plan.cells)
    told = "\n".join(plan.lines())
    assert f"{CELLS[name]} cells" in told and "GPU hours of training" in told and "too large" not in told


@pytest.mark.parametrize("method", TRAINED)
def test_methods_train_as_many_parameters_as_the_paper_says(method: str) -> None:
    (cell,) = (each for each in loaded("methods").cells if each.levels["method"] == method)
    config = published_config(cell.spec.model.base)
    assert config is not None
    config.n_layer, layers = 2, config.n_layer  # layers are alike
    model = Subject(cell.spec.model, cell.spec.adapter, 100, on_cpu=False).attached(config)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    if method == "prefix":
        fixed = 20 * 4096 + 4096 * 128 + 128  # the part that makes hidden units, which no layer has its own of
        trained = fixed + (trained - fixed) * layers // 2
    elif method not in ("prompt", "p-tuning"):
        trained = trained * layers // 2
    # A bottleneck's biases are ours: they make the smallest 1.6% larger.
    assert trained / 2**20 == pytest.approx(TRAINED[method], rel=0.026)


def test_tokens_and_hours_follow_rows_and_speed() -> None:
    study = loaded("chinese_data")
    given = study.spec.forecast
    assert given is not None
    belle = next(each.spec for each in study.cells if each.levels["data"] == "Belle")
    found = forecast_cell(belle, given)
    assert found.steps == round(1_540_000 / 128) and found.tokens == found.steps * 128 * 200
    slower = forecast_cell(belle, given.model_copy(update={"utilisation": given.utilisation / 2}))
    assert slower.hours == pytest.approx(2 * found.hours)
    # 4 operations a weight and token, 2 more for recomputing, of all weights but the embeddings.
    weights = 7.07e9 - 250_880 * 4096
    assert found.hours == pytest.approx(6 * weights * found.tokens / (312e12 * 0.4) / 3600, rel=0.05)
    small = forecast_cell(belle, given.model_copy(update={"memory_gib": 14}))
    assert small.fit is not None and small.fit.count > 1 and small.fit.sharding.cuts_weights
    assert forecast_cell(belle, given.model_copy(update={"memory_gib": 0.5})).fit is None


def test_what_nothing_tells_is_named() -> None:
    cell = loaded("chinese_data").cells[0].spec
    with pytest.raises(SpecError, match=r"forecast.rows.alpaca_gpt4: nothing tells how many rows hf:shibing624"):
        forecast_cell(cell, ForecastSpec())
    other = cell.model_copy(update={"model": cell.model.model_copy(update={"base": "nobody/nothing"})})
    with pytest.raises(ModelError, match="'nobody/nothing' is neither here nor among the published bases"):
        forecast_cell(other, ForecastSpec(rows={"alpaca_gpt4": 10}))

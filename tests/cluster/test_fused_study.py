"""A study on Ray whose cells of one base are trained together, and the others alone."""

from pathlib import Path

import pytest
import yaml

from didact.files import read_jsonl
from didact.spec import StudySpec, load_spec
from didact.studies import load_study, run_study
from tests.fakes.recipes import tiny_recipe

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900), pytest.mark.usefixtures("local_ray")]


def test_cells_of_one_base_are_trained_together_and_the_others_alone(tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, training__steps=4, placement__num_workers=1, training__max_grad_norm=1e30)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    rates = {"usual": 1e-2, "bursts": 1e30, "slow": 1e-4}
    factors = {
        "rate": {name: {"training.learning_rate": rate} for name, rate in rates.items()},
        "method": {"lora": {"adapter.method": "lora"}, "ia3": {"adapter": {"method": "ia3"}}},
    }
    file = tmp_path / "study.yaml"
    values = {"name": "rates", "recipe": "recipe.yaml", "factors": factors, "evaluation": {}, "fused": True}
    file.write_text(yaml.safe_dump({**values, "max_concurrent": 2}, sort_keys=False))
    result = run_study(load_study(load_spec(StudySpec, file), file), tmp_path / "runs")
    found = {cell.run.name: cell for cell in result.cells}
    assert found["rates-bursts-lora-s0"].status == "failed"
    assert "TrainingDiverged" in str(found["rates-bursts-lora-s0"].error)
    for rate in ("usual", "slow"):
        for method in ("lora", "ia3"):
            cell = found[f"rates-{rate}-{method}-s0"]
            assert cell.status == "finished" and (cell.run / "report.json").is_file()
            groups = [each.get("fused", False) for each in read_jsonl(cell.run / "workers.jsonl")]
            assert groups == [method == "lora"], cell.run.name

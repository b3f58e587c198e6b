"""The best trials once more with fresh seeds: what is run, who wins, and what says so."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from didact.errors import SpecError
from didact.evaluation.statistics import blocked_noise
from didact.spec import FinetuneSpec, SweepSpec, load_spec, validate
from didact.tuning import SweepResult, TrialResult, export_recipe, load_search, read_results
from didact.tuning.confirming import Arm, ArmResult, arm_spec, arms_of, fresh_seeds, judge, run_name
from didact.tuning.confirming.running import measured_arm
from didact.tuning.page import render_sweep, sweep_facts
from didact.tuning.results import rank
from didact.tuning.search import Search
from didact.tuning.spaces import Sizes

RECIPE: dict[str, Any] = {
    "name": "demo",
    "data": {
        "sources": [
            {"name": "sums", "path": "reasoning-gym:chain_sum", "held_out_rows": 8},
            {"name": "letters", "path": "reasoning-gym:letter_counting", "weight": 3},
        ],
        "seed": 3,
    },
    "training": {"epochs": 2, "evaluate_every": 5, "seed": 7},
    "tracking": {"mlflow": False},
}
MIXTURE = {"data.weights": {"mixture": {"cap": {"sums": 0.4}}}, "adapter.r": {"choice": [4, 8]}}


def search(folder: Path, **changes: Any) -> Search:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    values = {"name": "s", "recipe": "recipe.yaml", "space": MIXTURE, "confirm": {}, **changes}
    found = load_search(validate(SweepSpec, values, "s.yaml"), folder / "s.yaml")
    return replace(found, sizes=Sizes({"sums": 30, "letters": 90}, {"sums": 10.0, "letters": 10.0}, 100))


def trial(number: int, metric: float | None, values: dict[str, Any], status: str = "finished") -> TrialResult:
    return TrialResult(f"s-{number}", values, metric, 10, status, Path(f"/runs/s-{number}"))  # type: ignore[arg-type]


def mixed(sums: float, rank: int = 8) -> dict[str, Any]:
    return {"data.sources.sums.weight": sums, "data.sources.letters.weight": 1 - sums, "adapter.r": rank}


def test_mixtures_are_run_beside_uniform_and_proportional_with_the_best_settings(tmp_path: Path) -> None:
    trials = [trial(0, 1.0, mixed(0.3)), trial(1, 1.1, mixed(0.1, 4)), trial(2, 1.2, mixed(0.2))]
    trials += [trial(3, 1.3, mixed(0.35)), trial(4, None, mixed(0.39), "failed")]
    arms = arms_of(search(tmp_path), trials)
    assert [(arm.name, arm.trial) for arm in arms] == [
        *((f"s-{n}", f"s-{n}") for n in range(3)), ("uniform", None), ("proportional", None),
    ]  # fmt: skip
    assert arms[3].values == mixed(0.5), "also where the search's caps forbid it"
    assert arms[4].values == mixed(0.25)


def test_what_is_the_same_is_run_once(tmp_path: Path) -> None:
    trials = [trial(0, 1.0, mixed(0.25)), trial(1, 1.1, mixed(0.1)), trial(2, 1.2, mixed(0.1))]
    assert [arm.name for arm in arms_of(search(tmp_path), trials)] == ["s-1", "uniform", "proportional"]
    assert arms_of(search(tmp_path), [trial(0, None, mixed(0.1), "failed")]) == ()


def test_settings_are_run_beside_the_recipe_and_keep_the_constraints(tmp_path: Path) -> None:
    found = search(tmp_path, space={"adapter.r": {"choice": [2, 4, 8]}}, confirm={"top": 1, "steps": 40})
    broken = replace(trial(0, 0.5, {"adapter.r": 2}), violations=(0.1,))
    arms = arms_of(found, [broken, trial(1, 1.0, {"adapter.r": 4})])
    length = {"training.steps": 40, "training.epochs": None}
    assert arms == (Arm("s-1", {"adapter.r": 4, **length}, "s-1"), Arm("recipe", length))


def test_every_run_has_a_fresh_seed_and_a_name_that_tells_its_values(tmp_path: Path) -> None:
    found = search(tmp_path, confirm={"seeds": 3, "steps": 40})
    assert fresh_seeds(found) == (8, 9, 10), "neither 7 nor 3, which the trials had"
    arm = arms_of(found, [trial(0, 1.0, mixed(0.3))])[0]
    spec = arm_spec(found, arm, 9, "sqlite:////x.db")
    assert (spec.training.seed, spec.data.seed, spec.training.steps, spec.training.epochs) == (9, 9, 40, None)
    assert (spec.name, spec.evaluation, spec.register_as) == (run_name(found, arm, 9), None, None)
    assert spec.name.startswith("s-0-") and spec.name.endswith("-s9")
    assert run_name(found, replace(arm, values=mixed(0.2)), 9) != spec.name
    with pytest.raises(SpecError, match=r"s\.yaml: space\.training\.seed: confirm gives runs seeds of its own"):
        search(tmp_path, space={"training.seed": {"choice": [1, 2]}})


A = ArmResult("s-0", mixed(0.3), (1.00, 2.00), "s-0")
B = ArmResult("s-1", mixed(0.1), (0.91, 1.90), "s-1")
UNIFORM = ArmResult("uniform", mixed(0.5), (2.01, 3.0))
PROPORTIONAL = ArmResult("proportional", mixed(0.25), (1.5, 2.51))


def test_the_winner_is_held_against_both_seed_by_seed() -> None:
    found = judge((A, B, UNIFORM, PROPORTIONAL), "eval/loss", "min", (8, 9))
    assert found.winner == "s-1" and found.beats_all
    assert [(each.name, round(each.gain, 6)) for each in found.against] == [("uniform", 1.1), ("proportional", 0.6)]
    width = found.against[0].high - found.against[0].low
    assert 0 < width < 0.2, "what seeds do to all alike, 1.0 here, is no noise"
    noise = blocked_noise([each.values for each in (A, B, UNIFORM, PROPORTIONAL)])  # type: ignore[misc]
    assert width == pytest.approx(2 * noise.half_width(2)), "the winner was chosen among two"
    assert "s-1 has eval/loss 1.405 over 2 fresh seeds" in found.words
    assert found.words.endswith("better than uniform and proportional by more than chance explains")


def test_a_gain_within_the_noise_is_not_called_one() -> None:
    close = replace(PROPORTIONAL, values=(0.8, 2.1))
    found = judge((A, B, UNIFORM, close), "eval/loss", "min")
    assert found.winner == "s-1" and not found.beats_all
    assert found.words.endswith("not shown to be better than proportional")
    worse = judge((A, UNIFORM), "accuracy", "max")
    assert worse.against[0].gain == pytest.approx(-1.005) and not worse.beats_all


def test_one_seed_says_nothing_of_chance() -> None:
    found = judge((replace(A, values=(1.0,)), replace(UNIFORM, values=(9.0,))), "eval/loss", "min")
    assert found.winner == "s-0" and found.against[0].gain == 8 and found.against[0].low == -math.inf
    assert "a single seed, which says nothing of chance" in found.words and not found.beats_all


def test_what_failed_neither_wins_nor_is_beaten() -> None:
    failed = replace(B, values=(0.1, None), errors=("no room",))
    unknown = replace(UNIFORM, values=(None, math.nan), errors=("NaN",))
    found = judge((A, failed, unknown, PROPORTIONAL), "eval/loss", "min")
    assert found.winner == "s-0" and [each.name for each in found.against] == ["proportional"]
    assert not found.beats_all and "not shown to be better than" in found.words and "uniform" in found.words
    none = judge((failed, PROPORTIONAL), "eval/loss", "min")
    assert none.winner is None and none.words.endswith("the first with: no room")
    assert judge((replace(A, violations=(0.2,)), B, UNIFORM), "eval/loss", "min").winner == "s-1"


def test_runs_are_read_from_their_folders(tmp_path: Path) -> None:
    found = search(tmp_path)
    for name, loss in (("a", 1.5), ("b", 2.0)):
        (tmp_path / name).mkdir()
        lines = [{"step": 5, "time_ms": 5, "attempt": 1, "metrics": {"eval/loss": loss + at}} for at in (1, 0)]
        lines[1]["step"] = 10
        (tmp_path / name / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arm = measured_arm(Arm("s-0", {}, "s-0"), ["a", "b"], tmp_path, {}, found.objective)
    assert arm.values == (1.5, 2.0) and arm.metrics["eval/loss"] == 1.75
    failed = measured_arm(Arm("s-0", {}, "s-0"), ["a", "b"], tmp_path, {"b": "killed"}, found.objective)
    assert failed.values == (1.5, None) and failed.errors == ("killed",) and failed.mean is None


def swept(folder: Path) -> SweepResult:
    trials = rank([trial(0, 0.9, mixed(0.3)), trial(1, 1.0, mixed(0.1))], "min")
    result = SweepResult("s", "eval/loss", "min", trials, trials[0])
    length = {"training.steps": 40, "training.epochs": None}
    runs = (folder / "x-s8", folder / "x-s9")
    arms = [replace(each, runs=runs, draw={**each.draw, **length}) for each in (A, B, UNIFORM, PROPORTIONAL)]
    return result.with_confirmation(judge(arms, "eval/loss", "min", (8, 9)))


def test_table_file_and_page_name_the_confirmed_winner(tmp_path: Path) -> None:
    result = swept(tmp_path)
    assert result.best is not None and result.best.name == "s-1", "the search alone would say s-0"
    result.save(tmp_path / "s")
    assert read_results(tmp_path / "s") == result
    assert json.loads((tmp_path / "s" / "results.json").read_text())["best"] == "s-1"
    text = result.markdown()
    assert "| s-1 | 0.91 | 1.9 | 1.405 |  |" in text and "Best eval/loss (min): s-1." in text
    assert "| s-1 | 0.1 | 0.9 | 8 | 1 | 1.405 | 10 | finished |" in text
    page = render_sweep(sweep_facts(result))
    assert "<h2>Confirmed</h2>" in page and "more than chance explains" in page and page.count('class="dot best') >= 2
    console = Console(width=160, record=True)
    console.print(result)
    assert "confirmed with fresh seeds" in console.export_text()


def test_the_confirmed_recipe_is_exported_and_what_it_was_compared_with(tmp_path: Path) -> None:
    swept(tmp_path).save(tmp_path / "s")
    recipe = validate(FinetuneSpec, RECIPE, "r").model_dump(mode="json")
    (tmp_path / "s" / "sweep.json").write_text(json.dumps({"recipe": recipe}))
    export_recipe("s", tmp_path, tmp_path / "best.yaml")
    best = load_spec(FinetuneSpec, tmp_path / "best.yaml")
    assert [source.weight for source in best.data.sources] == [0.1, 0.9] and best.training.steps == 40
    assert "# s-1 has eval/loss 1.405 over 2 fresh seeds" in (tmp_path / "best.yaml").read_text()
    other = export_recipe("s", tmp_path, tmp_path / "uniform.yaml", "uniform")
    assert (other.name, [source.weight for source in other.data.sources]) == ("s-uniform", [0.5, 0.5])

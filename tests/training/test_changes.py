"""Learning rate, dropout and mixture that change on the way, and runs that go on from another run's checkpoint."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from didact.errors import CheckpointError, RunError, SpecError
from didact.preparation import prepare_data
from didact.runs import Run, branch, descents
from didact.spec import FinetuneSpec, to_json
from didact.tracking import JsonLinesTracker, effective_records
from didact.training import CheckpointStore, learning_rate, train, trainable_model
from didact.training.callbacks import StepReport
from tests.fakes.recipes import tiny_recipe

CHANGES = [
    {"after": 2, "learning_rate": 2e-2, "dropout": 0.5},
    {"after": 4, "dropout": 0.0},
    {"after": 6, "learning_rate": 5e-3, "dropout": 0.2},
]
SHORT: dict[str, Any] = {"training__steps": 8, "training__evaluate_every": None, "training__global_batch_size": 4}


class Shares:
    """Keeps what the adapter dropped in each step, and the loop's lineage."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.layers = [module for name, module in model.named_modules() if name.endswith("lora_dropout.default")]
        self.seen: list[float] = []
        self.lineage: list[tuple[int, str, tuple[str, ...]]] = []

    def on_start(self, start: int, num_steps: int) -> None:
        assert self.layers

    def on_step(self, report: StepReport) -> None:
        (share,) = {getattr(layer, "p", None) for layer in self.layers}
        self.seen.append(share)  # type: ignore[arg-type]
        self.lineage.append((report.step, report.metrics["train/loss"].hex(), report.sample_ids))

    def close(self) -> None:
        pass


def trained(spec: FinetuneSpec, folder: Path, until: int | None = None, adopt: Path | None = None) -> Shares:
    prepared = prepare_data(spec)
    model, packing = trainable_model(spec, prepared.num_steps, torch.device("cpu"))
    # As workers do, data are part of what a checkpoint belongs to.
    store = CheckpointStore(folder, keep=2, identity=prepared.mixture.fingerprint)
    if adopt:
        store.adopt(adopt)
    told = Shares(model)
    train(
        model,
        prepared.loader(spec, packing=packing),
        spec.training,
        num_steps=prepared.num_steps,
        compute_dtype=torch.float32,
        checkpoints=store,
        adapter=spec.adapter,
        callbacks=[told],
        until=until,
    )
    return told


def test_rates_follow_the_schedule_at_the_height_of_the_newest_change(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, **SHORT, training__changes=CHANGES, training__warmup_share=0.0).training
    plain = spec.model_copy(update={"changes": ()})
    factors = [learning_rate(step, 8, spec) / learning_rate(step, 8, plain) for step in range(8)]
    assert factors == pytest.approx([1, 1, 2, 2, 2, 2, 0.5, 0.5])
    assert [each.words for each in spec.changes][1:] == [
        "after 4 steps dropout 0", "after 6 steps rate 0.005, dropout 0.2",
    ]  # fmt: skip


@pytest.mark.parametrize(("begins", "steps"), [(0.1, [0.1] * 2), (0.0, [0.0] * 2)])
def test_dropout_changes_on_the_way_also_from_none(tmp_path: Path, begins: float, steps: list[float]) -> None:
    spec = tiny_recipe(tmp_path, **SHORT, training__changes=CHANGES, adapter__dropout=begins)
    assert trained(spec, tmp_path / "c").seen == [*steps, 0.5, 0.5, 0.0, 0.0, 0.2, 0.2]


def test_a_run_that_pauses_goes_on_to_the_bit(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, **SHORT, training__changes=CHANGES)
    whole = trained(spec, tmp_path / "whole").lineage
    parts = [trained(spec, tmp_path / "parts", until).lineage for until in (3, 5, None)]
    assert [len(part) for part in parts] == [3, 2, 3] and [*itertools.chain(*parts)] == whole
    assert trained(spec, tmp_path / "parts", 5).lineage == [], "that is done"


def sources(folder: Path) -> list[dict[str, Any]]:
    path = str(folder / "sums.jsonl")
    return [{"name": "a", "path": path, "max_rows": 20}, {"name": "b", "path": path, "max_rows": 15}]


def scheduled(*shares: float) -> list[dict[str, Any]]:
    """A stage for each quarter of the run."""
    return [{"until": (n + 1) / 4, "weights": {"a": each, "b": 1 - each}} for n, each in enumerate(shares)]


def test_a_branch_is_what_its_recipe_alone_would_have_trained(tmp_path: Path) -> None:
    tiny_recipe(tmp_path)
    data = {**SHORT, "data__sources": sources(tmp_path)}
    donor = tiny_recipe(tmp_path, **data, data__curriculum=scheduled(0.2, 0.2, 0.2, 0.2), training__changes=CHANGES[:1])
    other = tiny_recipe(
        tmp_path, **data, name="other", data__curriculum=scheduled(0.2, 0.2, 0.9, 0.9), training__changes=CHANGES[:2]
    )
    run = Run(tmp_path / "runs" / "donor")
    begun = trained(donor, run.checkpoints, until=4)
    run.recipe.write_text(to_json(donor))
    tracker = JsonLinesTracker(run.steps, 1)
    for step, loss, _ in begun.lineage:
        tracker.log(step, {"train/loss": float.fromhex(loss)})
    made = Run(tmp_path / "runs" / "other")
    branch(run, made, other, 4)
    assert [record.step for record in effective_records(made.steps)] == [1, 2, 3, 4]
    assert [str(each) for each in descents(made)] == ["donor at step 4"] and made.spec() == other
    (taken,) = made.branch.iterdir()
    rest = trained(other, made.checkpoints, adopt=taken)
    assert begun.lineage + rest.lineage == trained(other, tmp_path / "alone").lineage
    names = [[name.split("/")[0] for name in ids] for _, _, ids in rest.lineage]
    assert sum(each.count("a") for each in names) > 12, "nine of ten rows are of the one that gained weight"
    branch(run, made, other, 4)
    with pytest.raises(CheckpointError, match="other data, base or settings"):
        trained(other, run.checkpoints)


def test_a_branch_of_another_past_is_refused(tmp_path: Path) -> None:
    run, made = Run(tmp_path / "runs" / "donor"), Run(tmp_path / "runs" / "other")
    spec = tiny_recipe(tmp_path, **SHORT)
    run.path.mkdir(parents=True)
    run.recipe.write_text(to_json(spec))
    faster = tiny_recipe(tmp_path, **SHORT, training__learning_rate=0.5)
    with pytest.raises(RunError, match=r"training.learning_rate: was 0.01, now 0.5"):
        branch(run, made, faster, 4)
    early = tiny_recipe(tmp_path, **SHORT, training__changes=[{"after": 3, "learning_rate": 0.5}])
    with pytest.raises(RunError, match=r"training\.changes: was \[\], now"):
        branch(run, made, early, 4)
    branched = tiny_recipe(tmp_path, **SHORT, training__changes=[{"after": 4, "learning_rate": 0.5}])
    with pytest.raises(RunError, match="run 'donor' has no checkpoint of step 4"):
        branch(run, made, branched, 4)
    assert not made.path.exists()


def test_a_damaged_checkpoint_is_not_gone_on_from(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, **SHORT)
    trained(spec, tmp_path / "c", until=2)
    (tmp_path / "c" / "step-00000002" / "weights.safetensors").write_bytes(b"?")
    with pytest.raises(CheckpointError, match=r"cannot be gone on from: weights\.safetensors"):
        CheckpointStore(tmp_path / "d", keep=2, identity="x").adopt(tmp_path / "c" / "step-00000002")
    assert not (tmp_path / "d" / "step-00000002").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training__changes": [{"after": 3}]}, "training.changes.0: changes nothing"),
        ({"training__changes": [{"after": 8, "dropout": 0.1}]}, "begins one after 8 steps, but there are 8"),
        (
            {"training__changes": [{"after": 3, "dropout": 0.1}, {"after": 3, "dropout": 0.2}]},
            r"after must increase from one of changes to the next; found \[3, 3\]",
        ),
        (
            {"training__changes": [{"after": 3, "dropout": 0.1}], "adapter": {"method": "ia3"}},
            "adapter.method 'ia3' has no dropout that training.changes could change",
        ),
    ],
)
def test_impossible_changes_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        tiny_recipe(tmp_path, **SHORT, **changes)

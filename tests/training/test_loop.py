"""The loop: resumes to the bit, keeps its loss over packing, padding and accumulation, and stops at NaN."""

from pathlib import Path

import pytest
import torch

from didact.errors import TrainingDiverged
from didact.models import attach_adapter, load_base
from didact.preparation import prepare_data
from didact.spec import FinetuneSpec
from didact.training import CheckpointStore, Objective, StepReport, TrainResult, World, learning_rate, train
from tests.fakes.recipes import tiny_recipe


class Record:
    """Keeps what the loop says; may stop it after a step."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.reports: list[StepReport] = []
        self.closed = False
        self._stop_after = stop_after

    def on_start(self, start: int, num_steps: int) -> None:
        self.start = start

    def on_step(self, report: StepReport) -> None:
        self.reports.append(report)
        if report.step == self._stop_after:
            raise KeyboardInterrupt

    def close(self) -> None:
        self.closed = True

    @property
    def lineage(self) -> list[tuple[int, str, tuple[str, ...]]]:
        return [(r.step, r.metrics["train/loss"].hex(), r.sample_ids) for r in self.reports]


def run(
    spec: FinetuneSpec, checkpoints: Path, record: Record, poison: bool = False
) -> tuple[torch.nn.Module, TrainResult]:
    prepared = prepare_data(spec)
    model = attach_adapter(load_base(spec.model), spec.adapter, seed=0, base_name="tiny")
    if poison:
        next(p for p in model.parameters() if p.requires_grad).data.fill_(float("nan"))
    result = train(
        model,
        prepared.loader(spec),
        spec.training,
        num_steps=prepared.num_steps,
        compute_dtype=torch.float32,
        checkpoints=CheckpointStore(checkpoints, keep=spec.training.keep_checkpoints, identity="tiny"),
        callbacks=[record],
    )
    return model, result


def trained_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("stop_after", [4, 6, 9])
def test_resumed_run_equals_the_unbroken_one(tmp_path: Path, stop_after: int) -> None:
    spec = tiny_recipe(tmp_path)
    unbroken = Record()
    expected, _ = run(spec, tmp_path / "a", unbroken)
    first, second = Record(stop_after), Record()
    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "b", first)
    resumed, _ = run(spec, tmp_path / "b", second)
    assert first.closed and second.start == stop_after // 4 * 4
    assert first.lineage[: second.start] + second.lineage == unbroken.lineage
    for name, weights in trained_weights(expected).items():
        assert torch.equal(weights, trained_weights(resumed)[name]), name


def test_loss_falls_and_the_loop_reports_every_step(tmp_path: Path) -> None:
    record = Record()
    _, result = run(tiny_recipe(tmp_path, training__steps=30), tmp_path / "c", record)
    losses = [report.metrics["train/loss"] for report in record.reports]
    assert [report.step for report in record.reports] == list(range(1, 31))
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])
    assert result.loss == losses[-1]


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path)
    run(spec, tmp_path / "c", Record())
    again = Record()
    _, result = run(spec, tmp_path / "c", again)
    assert again.reports == [] and result.loss is None


@pytest.mark.parametrize("change", [{"tokens__packing": False}, {"training__micro_batch_size": 8}])
def test_loss_does_not_depend_on_packing_or_accumulation(tmp_path: Path, change: dict[str, object]) -> None:
    plain, changed = Record(), Record()
    run(tiny_recipe(tmp_path, adapter__dropout=0.0), tmp_path / "a", plain)
    run(tiny_recipe(tmp_path, adapter__dropout=0.0, **change), tmp_path / "b", changed)
    for one, other in zip(plain.reports, changed.reports, strict=True):
        assert one.sample_ids == other.sample_ids
        assert one.metrics["train/loss"] == pytest.approx(other.metrics["train/loss"], rel=1e-4)


def test_nan_stops_before_the_weights_change_and_names_the_samples(tmp_path: Path) -> None:
    record = Record()
    with pytest.raises(TrainingDiverged, match=r"step 1 has loss nan.*sums/\d+"):
        run(tiny_recipe(tmp_path), tmp_path / "c", record, poison=True)
    assert record.closed and not list((tmp_path / "c").glob("step-*"))


def test_selected_positions_give_the_loss_of_all_positions(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path)
    batch = prepare_data(spec).loader(spec).step(0).micro_batches[0]
    model = load_base(spec.model)
    selected = Objective(model, torch.float32).summed_loss(batch)
    logits = model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
    every = torch.nn.functional.cross_entropy(logits[0], batch.targets[0], ignore_index=-100, reduction="sum")
    assert selected.item() == pytest.approx(every.item(), rel=1e-5)


def test_prefix_tuning_trains_padded(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, adapter={"method": "prefix", "num_virtual_tokens": 4}, training__steps=20)
    record = Record()
    run(spec, tmp_path / "c", record)
    losses = [report.metrics["train/loss"] for report in record.reports]
    assert losses[-1] < losses[0]


def test_schedules_warm_up_and_end_low(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, training__warmup_share=0.2, training__learning_rate=1.0).training
    rates = [learning_rate(step, 10, spec) for step in range(10)]
    assert rates[0] < rates[1] < rates[2] == 1.0 and rates[-1] < 0.1
    counted = tiny_recipe(tmp_path, training__warmup_steps=2, training__learning_rate=1.0).training
    assert [learning_rate(step, 10, counted) for step in range(10)] == rates
    constant = spec.model_copy(update={"schedule": "constant", "warmup_share": 0.0})
    assert {learning_rate(step, 10, constant) for step in range(10)} == {1.0}


def test_a_world_of_one_keeps_gradients_and_fills_missing_ones() -> None:
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(3))
    (used * 2).sum().backward()
    total = World().sum_gradients([used, unused], torch.tensor([1.5]))
    assert total.item() == 1.5
    assert torch.equal(used.grad, torch.full((2,), 2.0)) and torch.equal(unused.grad, torch.zeros(3))

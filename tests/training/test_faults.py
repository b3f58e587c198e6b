"""Faults in the loop itself, without Ray: what was interrupted ends as if nothing had happened."""

import json
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from didact.errors import CheckpointError, StorageError, TrainingDiverged
from didact.failpoints import read_failpoints
from didact.files import write_text
from didact.spec import FinetuneSpec
from didact.tracking import JsonLinesTracker, effective_records
from didact.training import Callback, CheckpointStore, FaultInjection, StepReport
from tests.fakes.loops import Loop, run_loop, run_loops
from tests.fakes.recipes import tiny_recipe, write_sums

Callbacks = Callable[[torch.nn.Module], Sequence[Callback]]
EPOCH = 13  # steps: 52 rows are not held out, 4 are in a batch


def armed(folder: Path, *faults: str) -> Callbacks:
    """Arms faults for a loop."""
    write_text(folder / "failpoint", "\n".join(faults))
    failpoints = read_failpoints(folder)
    assert failpoints is not None
    return lambda model: [FaultInjection(failpoints, model, 0)]


def recipe(folder: Path, **changes: object) -> FinetuneSpec:
    """Three epochs, less one step."""
    sizes = {"training__steps": 3 * EPOCH - 1, "training__global_batch_size": 4, "training__evaluate_every": None}
    return tiny_recipe(folder, **{**sizes, **changes})


def assert_equal(one: Loop, other: Loop) -> None:
    assert one.weights.keys() == other.weights.keys()
    assert all(torch.equal(weights, other.weights[name]) for name, weights in one.weights.items())


def assert_resumes_to_the_bit(folder: Path, spec: FinetuneSpec, expected: Loop, *faults: str) -> None:
    """The effective lineage and the weights of an interrupted run are those of the unbroken one."""
    found = []
    for _ in faults:
        broken = Loop()
        with pytest.raises(RuntimeError, match="failpoint"):
            run_loop(spec, folder / "broken", loop=broken, callbacks=armed(folder, *faults))
        found = found[: broken.start] + broken.lineage
    last = run_loop(spec, folder / "broken")
    assert last.start > 0
    assert found[: last.start] + last.lineage == expected.lineage
    assert_equal(last, expected)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """`tiny_recipe` as it is."""
    folder = tmp_path_factory.mktemp("unbroken")
    return run_loop(tiny_recipe(folder), folder / "checkpoints")


@pytest.fixture(scope="module")
def epochs(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """Three epochs, less one step, without dropout."""
    folder = tmp_path_factory.mktemp("epochs")
    return run_loop(recipe(folder, adapter__dropout=0.0), folder / "checkpoints")


@pytest.mark.fault("T1")
def test_two_runs_of_one_recipe_are_equal(tmp_path: Path, unbroken: Loop) -> None:
    other = run_loop(tiny_recipe(tmp_path), tmp_path / "b")
    assert other.lineage == unbroken.lineage
    assert_equal(other, unbroken)


@pytest.mark.fault("T2")
@pytest.mark.parametrize(
    "fault",
    ["step:raise@6", "between:raise@7", f"step:raise@{EPOCH}", f"forward:raise@{EPOCH + 1}", "update:raise@30"],
    ids=["mid-epoch", "mid-accumulation", "epoch-end", "epoch-begin", "third-epoch"],
)
def test_interrupted_and_resumed(tmp_path: Path, epochs: Loop, fault: str) -> None:
    assert_resumes_to_the_bit(tmp_path, recipe(tmp_path, adapter__dropout=0.0), epochs, fault)


@pytest.mark.fault("T3")
@pytest.mark.parametrize("packing", [True, False])
def test_interrupted_twice_with_dropout_and_a_weighted_mixture(tmp_path: Path, packing: bool) -> None:
    spec = recipe(tmp_path, tokens__packing=packing, training__steps=16)
    few = spec.data.sources[0].model_copy(update={"name": "few", "path": str(write_sums(tmp_path / "few.jsonl", 20))})
    sources = (spec.data.sources[0].model_copy(update={"weight": 3.0}), few)
    mixed = spec.model_copy(update={"data": spec.data.model_copy(update={"sources": sources})})
    expected = run_loop(mixed, tmp_path / "unbroken")
    assert_resumes_to_the_bit(tmp_path, mixed, expected, "between:raise@7", "after_forward:raise@15")


@pytest.mark.fault("T9")
def test_a_loop_told_to_stop_saves_the_step_it_is_in(tmp_path: Path, unbroken: Loop) -> None:
    spec, asked = tiny_recipe(tmp_path), iter([False] * 5 + [True])
    first = run_loop(spec, tmp_path / "b", stop=lambda: next(asked))
    assert first.result is not None and first.result.steps == 6
    second = run_loop(spec, tmp_path / "b")
    assert second.start == 6 and first.lineage + second.lineage == unbroken.lineage
    assert_equal(second, unbroken)


class Poison:
    """Turns a base weight into NaN after a step, so that the next one's loss is NaN."""

    def __init__(self, model: torch.nn.Module, step: int) -> None:
        self._weight = next(each for each in model.parameters() if not each.requires_grad)
        self._step = step

    def on_start(self, start: int, num_steps: int) -> None:
        pass

    def on_step(self, report: StepReport) -> None:
        if report.step == self._step:
            self._weight.data.fill_(float("nan"))

    def close(self) -> None:
        pass


class Recorded:
    """Writes the record that MLflow follows."""

    def __init__(self, path: Path) -> None:
        self._tracker = JsonLinesTracker(path, 1)

    def on_start(self, start: int, num_steps: int) -> None:
        pass

    def on_step(self, report: StepReport) -> None:
        self._tracker.log(report.step, report.metrics)

    def close(self) -> None:
        pass


@pytest.mark.fault("T12")
def test_a_poisoned_batch_stops_before_the_update(tmp_path: Path, unbroken: Loop) -> None:
    spec, loop = tiny_recipe(tmp_path), Loop()
    record = tmp_path / "steps.jsonl"
    ids = ", ".join(unbroken.reports[5].sample_ids)
    with pytest.raises(TrainingDiverged, match=f"step 6 has loss nan.*Samples of the step: {ids}") as failed:
        run_loop(spec, tmp_path / "b", loop=loop, callbacks=lambda model: [Poison(model, 5), Recorded(record)])
    assert failed.value.exit_code == 4
    written = effective_records(record)
    assert written[-1].step == 6 and written[-1].metrics["train/loss"] != written[-1].metrics["train/loss"]
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["step-00000004"]
    resumed = run_loop(spec, tmp_path / "b")  # the weights of the last checkpoint are finite
    assert resumed.start == 4 and resumed.lineage == unbroken.lineage[4:]


@pytest.mark.fault("T13")
def test_an_infinite_gradient_of_one_worker_is_skipped_by_all(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, adapter__dropout=0.0, training__max_skipped_steps=1, training__evaluate_every=None)
    write_text(tmp_path / "failpoint", "gradient-rank1:inf@3")
    failpoints = read_failpoints(tmp_path)
    assert failpoints is not None
    loops = run_loops(spec, tmp_path / "a", 2, lambda model, rank: [FaultInjection(failpoints, model, rank)])
    for loop in loops:
        skipped = [report.metrics.get("train/skipped_steps", 0) for report in loop.reports]
        assert skipped == [0, 0] + [1] * 8
        assert_equal(loop, loops[0])
    undisturbed = run_loop(spec, tmp_path / "b")
    assert loops[0].losses[:3] == pytest.approx(undisturbed.losses[:3], rel=1e-5)
    assert loops[0].losses[3] != pytest.approx(undisturbed.losses[3], rel=1e-5), "the step was not skipped"


@pytest.mark.fault("T13")
def test_skipped_steps_are_counted_over_restarts(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, training__max_skipped_steps=1)
    with pytest.raises(RuntimeError, match="failpoint"):
        run_loop(spec, tmp_path / "a", callbacks=armed(tmp_path, "gradient:inf@1", "step:raise@5"))
    for marker in tmp_path.glob("failpoint-*-struck"):
        marker.unlink()
    with pytest.raises(TrainingDiverged, match=r"step 6 .* after 1 skipped ones"):
        run_loop(spec, tmp_path / "a", callbacks=armed(tmp_path, "gradient:nan@6"))


@pytest.mark.fault("T13")
def test_a_run_that_skipped_every_step_so_far_can_be_resumed(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path, training__max_skipped_steps=1, training__checkpoint_every=1)
    faults = armed(tmp_path, "gradient:inf@1", "step:raise@1")
    with pytest.raises(RuntimeError, match="failpoint"):
        run_loop(spec, tmp_path / "a", callbacks=faults)
    assert run_loop(spec, tmp_path / "a").start == 1


@pytest.mark.fault("C1")
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "MANIFEST.json"])
def test_a_damaged_newest_checkpoint_changes_nothing(tmp_path: Path, unbroken: Loop, name: str, damage: str) -> None:
    spec = tiny_recipe(tmp_path)
    with pytest.raises(RuntimeError, match="failpoint"):
        run_loop(spec, tmp_path / "b", callbacks=armed(tmp_path, "step:raise@9"))
    file = tmp_path / "b" / "step-00000008" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-9] if damage == "truncated" else content)
    resumed = run_loop(spec, tmp_path / "b")
    assert resumed.start == 4 and (tmp_path / "b" / "step-00000008.corrupt").is_dir()
    assert resumed.lineage == unbroken.lineage[4:]
    assert_equal(resumed, unbroken)


@pytest.mark.fault("C2")
def test_with_every_checkpoint_damaged_only_a_flag_starts_afresh(tmp_path: Path, unbroken: Loop) -> None:
    spec = tiny_recipe(tmp_path)
    with pytest.raises(RuntimeError, match="failpoint"):
        run_loop(spec, tmp_path / "b", callbacks=armed(tmp_path, "step:raise@9"))
    for folder in (tmp_path / "b").iterdir():
        (folder / "weights.safetensors").unlink()
    listed = r"step-00000008: weights.safetensors is missing\n.*step-00000004: weights.safetensors is missing"
    with pytest.raises(CheckpointError, match=rf"{listed}\n.*--allow-fresh"):
        run_loop(spec, tmp_path / "b")
    fresh = run_loop(spec, tmp_path / "b", allow_fresh=True)
    assert fresh.start == 0 and fresh.lineage == unbroken.lineage
    assert (tmp_path / "b" / "step-00000008.corrupt").is_dir() and (tmp_path / "b" / "step-00000004.corrupt").is_dir()


class SmallFiles:
    """No file can grow beyond a few bytes from a step on: the kernel's own refusal, as on a full disk."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_start(self, start: int, num_steps: int) -> None:
        pass

    def on_step(self, report: StepReport) -> None:
        if report.step == self._step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (512, self._before[1]))

    def close(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


@pytest.mark.fault("C5")
def test_a_disk_that_is_full_while_saving(tmp_path: Path, unbroken: Loop) -> None:
    spec = tiny_recipe(tmp_path)
    with pytest.raises(StorageError, match=r"step-00000008 cannot be written.*run the same command again") as failed:
        run_loop(spec, tmp_path / "b", callbacks=lambda model: [SmallFiles(6)])
    assert failed.value.exit_code == 75
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["step-00000004"], "litter, or the good one is gone"
    resumed = run_loop(spec, tmp_path / "b")
    assert resumed.start == 4 and resumed.lineage == unbroken.lineage[4:]
    assert_equal(resumed, unbroken)


@pytest.mark.fault("C8")
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "method.safetensors"])
def test_a_pickle_in_a_checkpoint_with_a_fitting_manifest_is_refused(tmp_path: Path, name: str) -> None:
    spec = tiny_recipe(tmp_path)
    with pytest.raises(RuntimeError, match="failpoint"):
        run_loop(spec, tmp_path / "b", callbacks=armed(tmp_path, "step:raise@5"))
    folder, canary = tmp_path / "b" / "step-00000004", tmp_path / "canary"
    torch.save(Canary(canary), folder / name)
    (folder / "optimizer.pt").write_bytes((folder / name).read_bytes())
    replace_in_manifest(folder, name)
    with pytest.raises(CheckpointError, match="no safetensors file, and nothing else is loaded"):
        run_loop(spec, tmp_path / "b")
    assert not canary.exists()
    with pytest.raises(AssertionError, match="it ran"):
        torch.load(folder / "optimizer.pt", weights_only=False)  # the pickle is a live one


class Canary:
    """Runs code when unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return sing, (str(self._path),)


def sing(path: str) -> None:
    Path(path).touch()
    raise AssertionError("it ran")


def replace_in_manifest(folder: Path, name: str) -> None:
    """What a forger would do."""
    from didact.files import manifest

    file = folder / "MANIFEST.json"
    record = json.loads(file.read_text())
    record["files"] |= manifest(folder, [name])
    file.write_text(json.dumps(record))


def test_a_store_takes_back_what_it_saved(tmp_path: Path) -> None:
    """The oracle of the tests above: a checkpoint of the last step is the weights that the loop ended with."""
    loop = run_loop(tiny_recipe(tmp_path), tmp_path / "a")
    found, _ = CheckpointStore(tmp_path / "a", keep=2, identity="tiny").load(10, loop.weights.keys())
    assert all(torch.equal(weights, loop.weights[name]) for name, weights in found.weights.items())

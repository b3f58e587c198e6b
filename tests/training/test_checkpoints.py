"""Checkpoints: whole or absent, verified, newest first; a damaged one is never used."""

import shutil
from pathlib import Path

import pytest
import torch

from didact.errors import CheckpointError
from didact.training import CheckpointStore, TrainedState


def trained_state(steps: int = 3) -> TrainedState:
    torch.manual_seed(steps)
    weights = {"a": torch.randn(3, 2), "b": torch.randn(4)}
    moments = {
        f"{key}.{name}": torch.tensor(float(steps)) if key == "step" else torch.randn_like(weight)
        for name, weight in weights.items()
        for key in ("step", "exp_avg", "exp_avg_sq")
    }
    return TrainedState(weights, moments)


def store(folder: Path, identity: str = "one", keep: int = 2) -> CheckpointStore:
    return CheckpointStore(folder, keep=keep, identity=identity)


def test_a_saved_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    saved = trained_state()
    store(tmp_path).save(7, saved)
    loaded, method_state = store(tmp_path).load(7, saved.weights.keys())
    assert method_state == {}
    for before, after in ((saved.weights, loaded.weights), (saved.moments, loaded.moments)):
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        store(tmp_path).save(step, trained_state())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


@pytest.mark.fault("C1")
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped"])
@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "MANIFEST.json"])
def test_a_damaged_newest_is_quarantined_and_the_one_before_used(tmp_path: Path, name: str, damage: str) -> None:
    for step in (4, 8):
        store(tmp_path).save(step, trained_state())
    file = tmp_path / "step-00000008" / name
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    found = store(tmp_path).newest()
    assert found is not None and found.step == 4
    assert (tmp_path / "step-00000008.corrupt").is_dir()


@pytest.mark.fault("C2")
def test_without_any_good_checkpoint_nothing_starts_from_scratch(tmp_path: Path) -> None:
    for step in (4, 8):
        store(tmp_path).save(step, trained_state())
        (tmp_path / f"step-{step:08d}" / "weights.safetensors").unlink()
    for _ in range(2):  # asking again does not turn damage into absence
        with pytest.raises(CheckpointError, match=r"step-00000004: weights\.safetensors is missing"):
            store(tmp_path).newest()


def test_no_checkpoint_is_no_error_and_scratch_folders_vanish(tmp_path: Path) -> None:
    (tmp_path / ".step-00000004.123.tmp").mkdir()
    assert store(tmp_path).newest() is None
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    store(tmp_path).save(4, trained_state())
    with pytest.raises(CheckpointError, match="other data, base or settings"):
        store(tmp_path, identity="two").newest()


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    store(tmp_path).save(4, trained_state())
    with pytest.raises(CheckpointError, match="2 tensors differ, such as b"):
        store(tmp_path).load(4, ["a", "c"])


def test_a_pickle_in_place_of_the_weights_is_not_loaded(tmp_path: Path) -> None:
    store(tmp_path).save(4, trained_state())
    store(tmp_path).save(8, trained_state())
    torch.save({"a": 1}, tmp_path / "step-00000008" / "weights.safetensors")
    found = store(tmp_path).newest()
    assert found is not None and found.step == 4
    shutil.rmtree(tmp_path / "step-00000008.corrupt")

"""Weights lie in files that the processes of a machine map together, whatever form they are computed with in."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from didact.env import cache_dir
from didact.errors import ModelError
from didact.models import attach_adapter, load_base
from didact.models.base.quantize import quantization_of
from didact.models.model_folder import check_model
from didact.models.weight_files import ShardWriter
from didact.spec import LoraSpec, ModelSpec
from tests.fakes.damages import DAMAGES
from tests.fakes.mapped import file_memory, mapped_files, mapped_share
from tests.fakes.models import save_tiny_base
from tests.fakes.workers import run_workers

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
IDS = torch.arange(20)[None]
FORMS = [
    {"dtype": "float32"},
    {"dtype": "bfloat16"},
    {"dtype": "bfloat16", "quantization": {"bits": 4}},
    {"dtype": "float32", "quantization": {"bits": 4, "type": "fp4", "double": False}},
    {"dtype": "bfloat16", "quantization": {"bits": 8}},
]


@linux
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("family", ["llama", "gpt2", "glm4"])
def test_shared_weights_are_mapped_and_compute_what_those_read_alone_do(
    tmp_path: Path, family: str, form: dict
) -> None:
    spec = ModelSpec.model_validate({"base": str(save_tiny_base(tmp_path, family)), **form})
    alone, shared = load_base(spec), load_base(spec, shared=True)
    assert mapped_share(shared) == 1
    assert (mapped_share(alone) == 1) == (form == FORMS[0]), "only a base that is stored as it is held"
    assert quantization_of(shared) == spec.quantization
    assert shared.config._name_or_path == alone.config._name_or_path == str(tmp_path)
    with torch.no_grad():
        assert torch.equal(shared(IDS).logits, alone(IDS).logits)


def test_a_held_base_is_written_once_and_again_when_the_base_changes(tmp_path: Path) -> None:
    def held() -> dict[Path, int]:
        files = cache_dir().glob("models/held-bfloat16-*/model.safetensors")
        return {file: file.stat().st_mtime_ns for file in files}

    spec = ModelSpec(base=str(save_tiny_base(tmp_path, seed=7)), dtype="bfloat16")
    before = held()
    load_base(spec)
    assert held() == before
    load_base(spec, shared=True)
    once = held()
    assert len(once) == len(before) + 1
    load_base(spec, shared=True)
    assert held() == once
    save_tiny_base(tmp_path, seed=8)
    changed = load_base(spec, shared=True)
    assert len(held()) == len(once) + 1
    assert torch.equal(changed.get_input_embeddings().weight, load_base(spec).get_input_embeddings().weight)


def test_whichever_worker_comes_first_writes_the_held_base_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    stored = save_tiny_base(tmp_path / "base")
    half = load_base(ModelSpec(base=str(stored), dtype="bfloat16"))
    half.save_pretrained(stored)
    forms = ({"dtype": "float32"}, {"quantization": {"bits": 4}}, {"quantization": {"bits": 8}})
    specs = [ModelSpec.model_validate({"base": str(stored), **form}) for form in forms]
    run_workers(load_after_worker_1, tmp_path, specs, tmp_path)
    assert sorted(path.name.split("-")[1] for path in held_folders()) == ["4bit", "8bit", "float32"]
    first, second = (load_file(tmp_path / f"logits-{rank}.safetensors") for rank in (0, 1))
    for number, spec in enumerate(specs):
        with torch.no_grad():
            alone = load_base(spec)(IDS).logits
        assert torch.equal(first[str(number)], alone)
        assert torch.equal(second[str(number)], alone)


def load_after_worker_1(specs: list[ModelSpec], folder: Path) -> None:
    """In each of two workers: worker 1 has loaded a base before worker 0 asks for it."""
    logits, rank = {}, dist.get_rank()
    for number, spec in enumerate(specs):
        if rank == 0:
            dist.barrier()
        model = load_base(spec, shared=True)
        if rank == 1:
            dist.barrier()
        with torch.no_grad():
            logits[str(number)] = model(IDS).logits
    save_file(logits, folder / f"logits-{rank}.safetensors")


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "*"])
def test_a_held_base_that_is_not_whole_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: str
) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    spec = ModelSpec(base=str(save_tiny_base(tmp_path / "base")), dtype="bfloat16")
    load_base(spec, shared=True)
    (folder,) = held_folders()
    for file in folder.glob(name):
        DAMAGES[damage](file)
    with torch.no_grad():
        assert torch.equal(load_base(spec, shared=True)(IDS).logits, load_base(spec)(IDS).logits)
    assert held_folders() == [folder]


def test_a_model_of_several_files_is_whole_only_with_each_of_them(tmp_path: Path) -> None:
    folder = save_tiny_base(tmp_path)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    writer = ShardWriter(folder, 100_000)
    for weight in weights.items():
        writer.add(*weight)
    writer.close()
    check_model(folder)
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) > 1
    held = load_file(files[0])
    save_file({name: tensor for name, tensor in held.items() if name != min(held)}, files[0])
    with pytest.raises(ModelError, match=f"lacks 1 tensors of its index, such as {min(held)}"):
        check_model(folder)
    files[0].unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        check_model(folder)


def held_folders() -> list[Path]:
    return [path for path in cache_dir().glob("models/held-*") if path.is_dir()]


@linux
@pytest.mark.parametrize("quantization", [None, {"bits": 4}], ids=str)
def test_training_leaves_the_pages_of_the_base_to_all_processes(tmp_path: Path, quantization: dict | None) -> None:
    base = save_tiny_base(tmp_path / "base")
    spec = ModelSpec.model_validate({"base": str(base), "dtype": "bfloat16", "quantization": quantization})
    model = attach_adapter(load_base(spec, shared=True), LoraSpec(r=4), seed=0, base_name="tiny")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(input_ids=IDS, labels=IDS).loss.backward()
    (file,) = mapped_files(model)
    for weight in model.parameters():  # a step does not touch every page: it embeds some of the tokens
        weight.detach().view(-1).view(torch.uint8).sum()
    with another_process_mapping(file):
        memory = file_memory(file)
    assert memory["Rss"] >= 0.9 * memory["Size"] > 0
    assert memory["Anonymous"] == 0  # pages written to become a process's own
    assert memory["Pss"] <= 0.6 * memory["Rss"]


@contextmanager
def another_process_mapping(file: Path) -> Iterator[None]:
    code = (
        "import mmap, sys; file = open(sys.argv[1], 'rb'); pages = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, "
        "mmap.PROT_READ); sum(pages[::4096]); print('read', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"read\n"
        yield
    finally:
        process.communicate()

"""`adapter.from`: training begins with the weights of an adapter, or the reason why it cannot."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from didact.errors import AdapterError
from didact.models import base_fingerprint, check_start, save_adapter
from didact.runs import descents, note_start, start_run
from didact.spec import FinetuneSpec
from didact.training import trainable_model
from tests.fakes.loops import run_loop
from tests.fakes.recipes import tiny_recipe

CPU = torch.device("cpu")
METHODS = [
    {"method": "lora", "r": 4, "alpha": 8},
    {"method": "lora", "r": 4, "alpha": 8, "dora": True},
    {"method": "ia3"},
    {"method": "prompt"},
    {"method": "oft"},
    {"method": "partial", "last_n_layers": 1},
]


def trained(folder: Path, **changes: object) -> tuple[FinetuneSpec, Path, dict[str, torch.Tensor]]:
    """A recipe, the adapter that a few of its steps made, and its weights as they were trained."""
    spec = tiny_recipe(folder, training__steps=3, **changes)
    loop = run_loop(spec, folder / "checkpoints")
    adapter = folder / "adapter"
    adapter.mkdir()
    method = spec.adapter.model_dump()["method"]
    save_adapter(
        loop.model, adapter, base=spec.model.base, base_fingerprint=base_fingerprint(spec.model), method=method
    )
    return spec, adapter, {name: each.clone() for name, each in loop.weights.items()}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(map(str, method.values())))
def test_training_begins_with_the_weights_as_they_were(tmp_path: Path, method: dict[str, object]) -> None:
    spec, adapter, weights = trained(tmp_path, adapter=method)
    assert check_start(adapter, spec.adapter, base_fingerprint(spec.model))
    model, _ = trainable_model(spec, 3, CPU, start=adapter)
    begun = {name: each for name, each in model.named_parameters() if each.requires_grad}
    assert begun.keys() == weights.keys()
    assert all(torch.equal(begun[name], each) for name, each in weights.items())
    fresh, _ = trainable_model(spec, 3, CPU)
    assert not all(torch.equal(dict(fresh.named_parameters())[name], each) for name, each in weights.items())
    assert load_file(adapter / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"adapter__alpha": 16}, "its lora_alpha is 8.*, the recipe's 16"),
        ({"adapter__r": 8}, "its r is 4, the recipe's 8"),
        ({"adapter__rslora": True}, "its use_rslora is False, the recipe's True"),
        ({"adapter__target_modules": ["q_proj"]}, "tensors are missing or have no place"),
        ({"adapter__target_modules": ["q_proj", "v_proj", "lm_head"]}, "tensors are missing or have no place"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    _, adapter, _ = trained(tmp_path)
    with pytest.raises(AdapterError, match=f"does not fit the recipe's adapter: .*{message}"):
        trainable_model(tiny_recipe(tmp_path, **change), 3, CPU, start=adapter)


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"method": "ia3"}, "is of method 'lora'; expected adapter.method 'ia3'"),
        ({"method": "full"}, "name the model's folder as model.base"),
        ({"method": "adalora"}, "adapter.method adalora makes a start of its own"),
        ({"method": "lora", "init": "pissa"}, "adapter.init 'pissa' makes a start of its own"),
    ],
)
def test_what_cannot_begin_so_is_refused_before_anything_is_loaded(
    tmp_path: Path, adapter: dict[str, object], message: str
) -> None:
    spec, folder, _ = trained(tmp_path)
    with pytest.raises(AdapterError, match=message):
        check_start(folder, tiny_recipe(tmp_path, adapter=adapter).adapter, base_fingerprint(spec.model))


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    spec, folder, _ = trained(tmp_path)
    with pytest.raises(AdapterError, match="was trained on base"):
        check_start(folder, spec.adapter, "0" * 64)


def test_the_record_names_the_adapter_once(tmp_path: Path) -> None:
    run = start_run(tiny_recipe(tmp_path, adapter__from="demo@champion"), tmp_path / "runs")
    assert run.spec().adapter.start == "demo@champion"
    for _ in range(2):
        note_start(run, "demo@champion", "10 steps", "a" * 64)
    assert [str(each) for each in descents(run)] == [f"demo@champion, adapter {'a' * 12}"]
    assert "from" not in tiny_recipe(tmp_path).adapter.model_dump()

"""What could not be served is neither registered nor promoted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from didact.errors import AdapterError, NotRegistered
from didact.files import manifest, write_json
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import attach_adapter, save_adapter
from didact.models.export.rehearsal import rehearse
from didact.registry import Registry
from didact.registry.promotion import check_servable, promote_servable
from didact.spec import Ia3Spec, LoraSpec, MethodSpec, ModelSpec, PrefixSpec, PromptSpec
from didact.tokens import TemplateContract
from didact.tracking import default_uri
from tests.fakes.models import save_tiny_base, tiny_model
from tests.fakes.verdicts import verdict_on

WEIGHTS = "adapter_model.safetensors"
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(default_uri(tmp_path_factory.mktemp("registry")))


def adapter(base: Path, folder: Path, spec: MethodSpec | None = None) -> Path:
    """An adapter of a base that lies here."""
    spec = spec or LoraSpec(r=4)
    folder.mkdir(parents=True)
    TemplateContract.build(byte_tokenizer(), "auto").save(folder)
    model = attach_adapter(tiny_model(), spec, seed=0, base_name="tiny")
    save_adapter(model, folder, base=str(base), base_fingerprint="b" * 64, method=spec.method)
    return folder


def change(folder: Path, how: Callable[[Tensors], Tensors]) -> None:
    """Write other weights, with a manifest that holds for them."""
    save_file({name: each.contiguous() for name, each in how(load_file(folder / WEIGHTS)).items()}, folder / WEIGHTS)
    record = json.loads((folder / "adapter.json").read_text())
    write_json(folder / "adapter.json", {**record, "files": manifest(folder, list(record["files"]))})


def put(value: float) -> Callable[[Tensors], Tensors]:
    def how(tensors: Tensors) -> Tensors:
        last = tensors[max(tensors)]
        last.view(-1)[-1] = value
        return tensors

    return how


UNSERVABLE: dict[str, Callable[[Tensors], Tensors]] = {
    "nan": put(torch.nan),
    "infinite": put(-torch.inf),
    "wider": lambda tensors: {name: torch.cat([each, each], dim=-1) for name, each in tensors.items()},
    "another rank": lambda tensors: {
        name: each[:2] if "lora_A" in name else each[:, :2] for name, each in tensors.items()
    },
    "turned": lambda tensors: {name: each.t() for name, each in tensors.items()},
    "fewer": lambda tensors: dict(list(tensors.items())[1:]),
    "more": lambda tensors: {
        **tensors,
        "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": torch.ones(4, 32),
    },
}


@pytest.mark.parametrize("how", UNSERVABLE.values(), ids=UNSERVABLE)
def test_what_does_not_fit_its_base_is_refused(base: Path, tmp_path: Path, how: Callable[[Tensors], Tensors]) -> None:
    folder = adapter(base, tmp_path / "a")
    rehearse(folder, ModelSpec(base=str(base)))
    change(folder, how)
    with pytest.raises(AdapterError, match=r"does not fit base|holds NaN or infinite values"):
        rehearse(folder, ModelSpec(base=str(base)))
    with pytest.raises(AdapterError):
        check_servable(folder)


@pytest.mark.parametrize("spec", [Ia3Spec(method="ia3"), PrefixSpec(method="prefix"), PromptSpec(method="prompt")])
def test_other_methods_are_rehearsed_too(base: Path, tmp_path: Path, spec: MethodSpec) -> None:
    folder = adapter(base, tmp_path / "a", spec)
    assert rehearse(folder, ModelSpec(base=str(base))).method == spec.method
    change(folder, lambda tensors: {name: torch.cat([each, each], dim=-1) for name, each in tensors.items()})
    with pytest.raises(AdapterError, match="does not fit"):
        rehearse(folder, ModelSpec(base=str(base)))


def test_a_base_that_is_elsewhere_leaves_the_check_of_values(base: Path, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "gone", tmp_path / "a")
    check_servable(folder)
    change(folder, UNSERVABLE["wider"])
    check_servable(folder)
    change(folder, UNSERVABLE["nan"])
    with pytest.raises(AdapterError, match="NaN"):
        check_servable(folder)


def test_a_version_that_cannot_be_served_gets_no_alias(
    registry: Registry, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    for number, how in enumerate((None, UNSERVABLE["turned"])):
        folder = adapter(base, tmp_path / str(number))
        if how is not None:
            change(folder, how)
        registry.register("demo", folder, run_id=None, tags={}, card="", alias=None, verdict=verdict_on(folder))
    assert promote_servable(registry, "demo", 1).aliases == ("champion",)
    with pytest.raises(
        AdapterError, match=r"demo:2 cannot be served, so demo@champion stays where it is: .*size mismatch"
    ):
        promote_servable(registry, "demo", 2)
    assert registry.resolve("demo").version == 1
    with pytest.raises(NotRegistered):
        promote_servable(registry, "demo", 3)
    change(tmp_path / "1", UNSERVABLE["nan"])
    with pytest.raises(AdapterError, match="holds NaN"):
        registry.register("demo", tmp_path / "1", run_id=None, tags={}, card="", alias="champion")
    assert len(registry.list()) == 2

"""Adapters for the tiny models, strong enough to change what they answer."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from didact.files import manifest, write_json
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import attach_adapter, base_fingerprint, load_base, save_adapter
from didact.spec import LoraSpec, MethodSpec, ModelSpec, TokensSpec
from didact.tokens import TemplateContract
from tests.fakes.models import tiny_model

TINY_BASE = "b" * 64
"""Fingerprint of the tiny base in tests that do not save it to a folder."""


def save_tiny_adapter(
    folder: Path,
    seed: int,
    *,
    family: str = "llama",
    spec: MethodSpec | None = None,
    base_fingerprint: str = TINY_BASE,
    base: str = "tiny",
    recipe: bool = False,
    tokens: TokensSpec | None = None,
) -> str:
    """A random adapter folder with template contract and manifest, LoRA by default. Returns the adapter's sha256.

    `base` is the one that it names: in its manifest, or where `recipe` in the recipe beside it. `tokens` says how
    it is asked.
    """
    spec = spec or LoraSpec(r=4)
    model = attach_adapter(tiny_model(family), spec, seed=seed, base_name="tiny")
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.4)
    folder.mkdir(parents=True)
    TemplateContract.of(byte_tokenizer(), tokens or TokensSpec()).save(folder)
    if recipe:
        write_json(folder / "recipe.json", {"model": {"base": base}})
    named = "elsewhere" if recipe else base
    facts = save_adapter(model, folder, base=named, base_fingerprint=base_fingerprint, method=spec.method)
    return facts.sha256


def make_adapter(base: ModelSpec, folder: Path, spec: MethodSpec) -> Path:
    """An adapter of any method on a base folder, a little off its start. Returns `folder`."""
    full = base.model_copy(update={"quantization": None})
    model = attach_adapter(
        load_base(base), spec, seed=1, base_name="tiny", num_steps=20, unquantized=lambda: load_base(full)
    )
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    folder.mkdir()
    save_adapter(model, folder, base="tiny", base_fingerprint=base_fingerprint(base), method=spec.method)
    return folder


def small_adapter(folder: Path, weights: str = "weights") -> Path:
    """An adapter folder with a manifest. Its bytes are never interpreted by the registry."""
    folder.mkdir(parents=True)
    tensor = torch.frombuffer(bytearray(weights.encode()), dtype=torch.uint8)
    save_file({"weights": tensor}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "template_contract.json").write_text("{}")
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    """Write a manifest that holds for the files as they are."""
    names = [file.name for file in folder.iterdir() if file.name not in ("adapter.json", "README.md")]
    write_json(folder / "adapter.json", {"format": 1, "files": manifest(folder, names)})

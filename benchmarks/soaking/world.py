"""What a soak asks: a base and adapters of several methods as registered versions of a running server."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from soaking.alone import answers_alone
from soaking.server import served
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import attach_adapter, base_fingerprint, load_base, load_tokenizer, save_adapter
from didact.registry import Registry
from didact.spec import BUNDLED_BASE, Ia3Spec, LoraSpec, MethodSpec, ModelSpec, PrefixSpec, TokensSpec
from didact.tokens import TemplateContract

NUM_REPLICAS = 2
VERSIONS_OF_A_NAME = 2
SPARE = 4
"""Adapters that come and go under names of their own."""
METHODS: tuple[MethodSpec, ...] = (
    *(LoraSpec(r=r) for r in (2, 4, 8, 16)),
    LoraSpec(r=8, target_modules=("q_proj", "v_proj")),
    LoraSpec(r=4, rslora=True),
    Ia3Spec(method="ia3"),
)
"""Of the adapters, in turn; these share a batch."""
OTHERS: tuple[MethodSpec, ...] = (LoraSpec(r=4, dora=True), PrefixSpec(method="prefix", num_virtual_tokens=5))
"""Of a few; each has a batch of its own."""


@dataclass(frozen=True)
class World:
    """A running server and what it should know."""

    url: str
    base_name: str
    process: subprocess.Popen[bytes]
    log: Path
    registry: Registry
    names: tuple[str, ...]
    """Registered models; each has versions 1 to `VERSIONS_OF_A_NAME`."""
    spare: tuple[Path, ...]
    """Adapter folders that are not registered yet."""
    expected: Mapping[tuple[str, int], str]
    """Content of a version and number of a prompt -> text of its answer."""

    @property
    def versions(self) -> list[str]:
        """All versions, as `NAME:VERSION`."""
        return [f"{name}:{number + 1}" for number in range(VERSIONS_OF_A_NAME) for name in self.names]


@contextmanager
def running(folder: Path, base: str, adapters: int, threads: int) -> Iterator[World]:
    """A server of two replicas with `adapters` registered versions; ends it.

    Args:
        folder: for everything that is written.
        base: `tiny`, `bundled` or a folder.
        adapters: registered versions.
        threads: of each replica.
    """
    disable_progress_bar()
    spec = ModelSpec(base=_base(folder / "tiny", base), dtype="float32")
    saved = save_adapters(spec, folder / "adapters", adapters + SPARE, 0.02 if base == "bundled" else 0.3)
    registry, folders = Registry(f"sqlite:///{folder}/mlflow.db"), list(saved.values())
    expected = answers_alone(spec, saved, registry.uri)
    names = tuple(f"tenant-{number:02d}" for number in range(adapters // VERSIONS_OF_A_NAME))
    for number, path in enumerate(folders[: len(names) * VERSIONS_OF_A_NAME]):
        alias = "champion" if number < len(names) else None
        register(registry, names[number % len(names)], path, alias)
    settings = [f"model.base={spec.base}", "model.dtype=float32", f"tracking_uri={registry.uri}"]
    settings += ["registry_poll_seconds=0.5", f"num_threads={threads}"]
    name = "smollm2-135m-instruct" if base == "bundled" else Path(spec.base).name
    with served(folder, settings, replicas=NUM_REPLICAS, threads=threads) as server:
        spare = tuple(folders[-SPARE:])
        yield World(server.url, name, server.process, server.log, registry, names, spare, expected)


def register(registry: Registry, name: str, folder: Path, alias: str | None = None) -> None:
    """Make a version of an adapter folder."""
    registry.register(name, folder, run_id=None, tags={"gate": "none"}, card="", alias=alias)


def save_adapters(spec: ModelSpec, folder: Path, count: int, scale: float) -> dict[str, Path]:
    """Adapters that change what the base answers, each differently, in folders as a run leaves them; by their digests.

    Args:
        spec: the base.
        folder: where they are written.
        count: how many.
        scale: of the random numbers that are added to fresh weights.
    """
    fingerprint, contract = base_fingerprint(spec), TemplateContract.of(load_tokenizer(spec), TokensSpec())
    folders = {}
    for number in range(count):
        method = OTHERS[number // 16 % len(OTHERS)] if number % 16 == 11 else METHODS[number % len(METHODS)]
        model = attach_adapter(load_base(spec), method, seed=number, base_name="random")
        torch.manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter) * scale)
        own = folder / f"{number:03d}"
        own.mkdir(parents=True)
        contract.save(own)
        facts = save_adapter(model, own, base="random", base_fingerprint=fingerprint, method=method.method)
        folders[facts.sha256] = own
    return folders


def _base(folder: Path, base: str) -> str:
    if base != "tiny":
        return BUNDLED_BASE if base == "bundled" else base
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "max_position_embeddings": 1024}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    special = {"bos_token_id": None, "eos_token_id": 256, "pad_token_id": 257}
    LlamaForCausalLM(LlamaConfig(vocab_size=272, **sizes, **heads, **special)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)

"""Before vLLM serves anybody: does a row of the base stay the base's beside rows of an adapter?

In vLLM's kernels for processors it does not (its issues 48421 and 49656): a row without an adapter gets the one in the
last place. Where the proof finds that, rows of the base are given an adapter that changes nothing, and it is run again.
"""

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from didact.adapter_folder import CONFIG, WEIGHTS
from didact.errors import DeviceError
from didact.files import write_json
from didact.logs import get_logger
from didact.serving.engine.on_vllm.vllm_adapters import FIRST_ID
from didact.serving.engine.protocol import AdapterRef, Delta, GenerationRequest, TokenLogprob

if TYPE_CHECKING:
    from didact.serving.engine.on_vllm.vllm_engine import VllmEngine

_log = get_logger(__name__)
_RANK = 8
_TOKENS = 6
_ENDLESS = 4096
"""Tokens that a row asks for which is to run until it is left."""
_TARGETS = ("o_proj", "q_proj", "v_proj", "qkv_proj", "query_key_value", "dense", "fc1", "fc2")
_TOP = 20
_NOTHING = 1e-3
_SHARE = 0.25
"""A row beside others is computed in another order of sums: that may move it by this share of what the probe does."""

_NULL_NUMBER, _PROBE_NUMBER = FIRST_ID - 1, FIRST_ID - 2


@dataclass(frozen=True, slots=True)
class _Row:
    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]


def prove_rows_apart(engine: "VllmEngine", base: Path, slots: int) -> None:
    """Leave `engine` such that rows of the base are the base's, whatever is beside them.

    Args:
        engine: has served nobody yet.
        base: the folder of its base.
        slots: vLLM's `max_loras`. The probe lies in all of them: the mistake takes the weights of one that no row uses.

    Raises:
        DeviceError: this vLLM mixes rows up on this machine, and a way around it was not found.
    """
    shapes = _shapes(base)
    if not shapes:
        _log.warning("no layer of %s is known by name; that vLLM keeps rows apart was not proved", base.name)
        return
    with tempfile.TemporaryDirectory() as scratch:
        probe = AdapterRef("didact-probe", _write(Path(scratch) / "probe", shapes, strength=1.0))
        null = AdapterRef("didact-null", _write(Path(scratch) / "null", shapes, strength=0.0))
        probes = [_PROBE_NUMBER - place for place in range(slots)]
        for number in reversed(probes):
            _load(engine, number, probe)
        try:
            if _apart(engine, probe):
                return
            engine.unload(probes.pop())
            _load(engine, _NULL_NUMBER, null)
            engine.base_number = _NULL_NUMBER
            if not _apart(engine, probe):
                raise DeviceError(
                    "this vLLM lets an adapter change the answers of the base beside it, on this machine; use another "
                    "version of vLLM, or engine: embedded"
                )
            _log.warning("vLLM gives rows of the base an adapter's weights here; they get one that changes nothing")
        finally:
            for number in probes:
                engine.unload(number)


def _apart(engine: "VllmEngine", probe: AdapterRef) -> bool:
    """Whether base rows answer the same alone and beside the probe, which must be seen to act."""
    with ThreadPoolExecutor(1) as other:  # Serve builds its replicas on an event loop that runs already
        alone = other.submit(asyncio.run, _ask(engine, probes=0)).result()
        mixed = other.submit(asyncio.run, _ask(engine, probes=min(2, max(1, engine.stats().max_running - 1)))).result()
    acts = _distance(alone[0], mixed[-1])
    if acts < _NOTHING:
        raise DeviceError("this vLLM computes nothing with a LoRA adapter; use another version, or engine: embedded")
    return max(_distance(one, other) for one, other in zip(alone, mixed[:2], strict=True)) < _SHARE * acts


async def _ask(engine: "VllmEngine", probes: int) -> list[_Row]:
    """Greedy answers to one prompt: two rows of the base, then so many of the probe, which run all the while.

    The base's are asked once the probe's have begun, and the probe's are left when the base's have ended: asked all at
    once, some could have ended before others began, and nothing would have been beside anything.
    """
    # With one place nothing is beside anything, and the next row waits for the end of the first.
    alone = engine.stats().max_running == 1
    beside = [_rows(engine, f"probe-{each}", _PROBE_NUMBER, _TOKENS if alone else _ENDLESS) for each in range(probes)]
    pieces = [[await anext(row)] for row in beside]
    base = await asyncio.gather(*(_read(_rows(engine, f"base-{each}", None, _TOKENS), []) for each in range(2)))
    return base + [await _read(row, begun) for row, begun in zip(beside, pieces, strict=True)]


def _rows(engine: "VllmEngine", name: str, number: int | None, length: int) -> AsyncGenerator[Delta, None]:
    prompt = tuple(3 + (step * 37 + 11) % (engine.vocabulary_size - 3) for step in range(16))
    return engine.probe(GenerationRequest(f"proof-{name}", prompt, None, length, logprobs=_TOP), number)


async def _read(row: AsyncGenerator[Delta, None], pieces: list[Delta]) -> _Row:
    """The first tokens of a row, of which some pieces were read; it is left then."""
    while sum(len(piece.token_ids) for piece in pieces) < _TOKENS:
        pieces.append(await anext(row))
    await row.aclose()
    tokens = tuple(token for piece in pieces for token in piece.token_ids)
    return _Row(tokens[:_TOKENS], tuple(each for piece in pieces for each in piece.logprobs)[:_TOKENS])


def _distance(one: _Row, other: _Row) -> float:
    """The largest difference of a token's logarithm, in nats, up to the first place where the tokens differ.

    Where the other row does not tell of a token, it is at most as likely as the least that is told.
    """
    largest = 0.0
    for first, second in zip(one.logprobs, other.logprobs, strict=True):
        told = dict(second.top)
        largest = max(largest, first.logprob - told.get(first.token_id, second.top[-1][1]), key=abs)
        if first.token_id != second.token_id:
            break
    return abs(largest)


def _load(engine: "VllmEngine", number: int, adapter: AdapterRef) -> None:
    loaded: Future[None] = Future()
    engine.load(
        number, adapter, lambda error: loaded.set_result(None) if error is None else loaded.set_exception(error)
    )
    loaded.result()


def _shapes(base: Path) -> dict[str, tuple[int, int]]:
    """Module -> (out, in) of one kind of linear layer, the first of `_TARGETS` that the base's weight files hold."""
    found: dict[str, tuple[int, int]] = {}
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118 - it is no mapping
                shape = weights.get_slice(name).get_shape()
                if name.endswith(".weight") and len(shape) == 2 and "layers." in name:
                    found[name.removesuffix(".weight")] = (shape[0], shape[1])
    for target in _TARGETS:
        if chosen := {name: shape for name, shape in found.items() if name.rpartition(".")[2] == target}:
            return chosen
    return {}


def _write(folder: Path, shapes: dict[str, tuple[int, int]], strength: float) -> Path:
    """A LoRA folder; with strength 0 it changes nothing."""
    draw = np.random.default_rng(0)
    tensors: dict[str, np.ndarray] = {}
    for name, (rows, columns) in shapes.items():
        down = draw.standard_normal((_RANK, columns), dtype=np.float32) / columns**0.5
        up = draw.standard_normal((rows, _RANK), dtype=np.float32) * strength
        tensors |= {f"base_model.model.{name}.lora_A.weight": down, f"base_model.model.{name}.lora_B.weight": up}
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS)
    targets = sorted({name.rpartition(".")[2] for name in shapes})
    config = {"peft_type": "LORA", "r": _RANK, "lora_alpha": _RANK, "target_modules": targets, "bias": "none"}
    write_json(folder / CONFIG, {**config, "task_type": "CAUSAL_LM"})
    return folder

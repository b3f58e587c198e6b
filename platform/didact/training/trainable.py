"""A recipe's base with its method attached, as workers train it and `didact plan --probe` measures it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from didact.devices import check_base, check_compile, this_machine
from didact.errors import ModelError
from didact.files import fingerprint
from didact.logs import get_logger
from didact.models import (
    attach_adapter,
    base_fingerprint,
    load_base,
    shares_prefixes,
    start_from,
    supports_packing,
    turn_off_dropout,
    use_packed_attention,
)
from didact.spec import FinetuneSpec, ModelSpec
from didact.training.dropping import with_dropout_layers

_LOG = get_logger(__name__)


def check_devices(spec: FinetuneSpec, device: torch.device) -> None:
    """Nothing, where a worker on `device` can compute what the recipe asks; known before a model is loaded.

    Raises:
        DeviceError: what cannot be, and the field to change.
    """
    machine, on_gpu, index = this_machine(), device.type == "cuda", device.index or 0
    check_base(spec.model, machine, on_gpu=on_gpu, index=index)
    if spec.training.compile:
        check_compile(machine, on_gpu=on_gpu, index=index)


def trainable_model(
    spec: FinetuneSpec,
    num_steps: int,
    device: torch.device,
    computes_on: torch.device | None = None,
    start: Path | None = None,
) -> tuple[torch.nn.Module, bool]:
    """Load the base, attach the method, and say whether rows are packed for it.

    Args:
        spec: the recipe.
        num_steps: optimizer steps of the run.
        device: where the base is read to.
        computes_on: where it will compute, when it is moved there later, block by block.
        start: adapter whose weights training begins with (`adapter.from`), checked; None for a fresh one.

    Raises:
        ModelError: the base or the method does not fit the recipe.
        AdapterError: `start` does not.
    """
    base, packing = base_to_train(spec, device, computes_on)
    model = attach_adapter(
        base,
        with_dropout_layers(spec),
        seed=spec.training.seed,
        base_name=spec.model.base,
        gradient_checkpointing=spec.training.gradient_checkpointing,
        num_steps=num_steps,
        unquantized=lambda: unquantized_base(spec),
    )
    if start is not None:
        start_from(model, start)
    return model, packing


def base_to_train(
    spec: FinetuneSpec, device: torch.device, computes_on: torch.device | None = None
) -> tuple[PreTrainedModel, bool]:
    """Load a recipe's base before a method is attached, and say whether rows are packed for it; see `trainable_model`.

    Raises:
        ModelError: the base does not fit the recipe.
    """
    base = load_base(_model_spec(spec), device, shared=not spec.adapter.trains_base)
    if not spec.training.base_dropout:
        turn_off_dropout(base)

    def packs(model: PreTrainedModel) -> bool:
        return _once("packing", spec, str(device), lambda: supports_packing(model))

    packing = resolve_packing(spec, base, packs)
    if packing:
        use_packed_attention(base, spec.tokens.max_length, computes_on or device)
    return base, packing


def unquantized_base(spec: FinetuneSpec) -> PreTrainedModel:
    """A recipe's base with all its bits, from which LoftQ takes what quantization lost."""
    return load_base(_model_spec(spec).model_copy(update={"quantization": None}))


def resolve_packing(
    spec: FinetuneSpec, model: PreTrainedModel, measure: Callable[[PreTrainedModel], bool] | None = None
) -> bool:
    """Whether to pack rows for this model: `tokens.packing: auto` pads where samples of a row would mix.

    Args:
        spec: the recipe.
        model: the base.
        measure: whether it keeps them apart; left out: `models.supports_packing`.

    Raises:
        ModelError: `tokens.packing: true` for a model that does not.
    """
    if not spec.packing or (measure or supports_packing)(model):
        return spec.packing
    reason = f"{type(model).__name__} does not keep samples of one row apart: they would attend to each other"
    if spec.tokens.packing is True:
        raise ModelError(f"{reason}; set tokens.packing to auto or false")
    _LOG.warning("rows are padded, not packed: %s", reason)  # a worker shows warnings only
    return False


def resolve_sharing(spec: FinetuneSpec, model: torch.nn.Module, packing: bool, device: torch.device) -> bool:
    """Whether samples of a packed row share first tokens that they have in common; see `models.shares_prefixes`.

    Args:
        spec: the recipe.
        model: with the method attached, not compiled yet.
        packing: whether rows are packed for it.
        device: where it will compute.
    """
    if not packing or spec.training.base_dropout:
        return False
    settings = spec.adapter.model_dump(mode="json")
    method = {name: value for name, value in settings.items() if name not in ("r", "alpha", "dropout")}
    return _once(
        "prefixes",
        spec,
        [method, bool(settings.get("dropout")), spec.tokens.max_length, str(device)],
        lambda: shares_prefixes(model, device),
    )


_MEASURED: dict[str, bool] = {}
"""What was measured in this process, for the next run of a worker that is kept."""


def _once(what: str, spec: FinetuneSpec, about: Any, measure: Callable[[], bool]) -> bool:
    """What a model can, measured on the first one of a description.

    Args:
        what: name of the question.
        spec: the recipe it was loaded for.
        about: what else decides it, as plain data; nothing that decides only numbers, such as a rank.
        measure: asks the model.
    """
    key = fingerprint([what, base_fingerprint(spec.model), spec.model.model_dump(mode="json"), about])
    if key not in _MEASURED:
        _MEASURED[key] = measure()
    return _MEASURED[key]


def _model_spec(spec: FinetuneSpec) -> ModelSpec:
    """The base as it is loaded for training: float32 weights when they are trained themselves."""
    if spec.adapter.trains_base:
        return spec.model.model_copy(update={"dtype": "float32"})
    return spec.model

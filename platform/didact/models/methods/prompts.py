"""Methods that put trained positions before every row: how many, and answers for the caller's positions only."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft import PeftModel

_CACHED = ("PREFIX_TUNING", "CARTRIDGE")  # keys and values, which add no positions to the logits


def num_trained_positions(model: Any) -> int:
    """Positions that the active adapter puts before every row, as keys and values or as embeddings; else 0."""
    config = getattr(model, "active_peft_config", None)
    return config.num_virtual_tokens if config is not None and config.is_prompt_learning else 0


def align_positions(model: PeftModel) -> None:
    """Make `model(...).logits` and `logits_to_keep` count from the first real token, not from the trained ones."""
    config = model.active_peft_config
    added = num_trained_positions(model)
    if not added or config.peft_type in _CACHED:
        return

    def shift(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        kept = kwargs.get("logits_to_keep")
        return args, {**kwargs, "logits_to_keep": kept + added} if isinstance(kept, torch.Tensor) else kwargs

    def trim(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if not isinstance(kwargs.get("logits_to_keep", 0), torch.Tensor) and not kwargs.get("logits_to_keep"):
            output.logits = output.logits[:, added:]
        return output

    model.register_forward_pre_hook(shift, with_kwargs=True)
    model.register_forward_hook(trim, with_kwargs=True)


def lstm_without_autocast(model: PeftModel) -> None:
    """Compute an encoder's LSTM in its own number format on processors: autocast would ask oneDNN for a bfloat16 one,
    which it does not have without AVX-512, and the encoder is small."""
    for module in model.modules():
        if isinstance(module, torch.nn.LSTM):
            module.forward = partial(_without_autocast, module.forward)


def _without_autocast(forward: Callable[..., Any], states: torch.Tensor, *args: Any) -> Any:
    if states.device.type != "cpu":
        return forward(states, *args)
    with torch.autocast("cpu", enabled=False):
        return forward(states, *args)

"""Models with trained input embeddings answer for the caller's positions only, as every other model does."""

from typing import Any

import torch
from peft import PeftModel

_CACHED = ("PREFIX_TUNING", "CARTRIDGE")  # keys and values, which add no positions to the logits


def align_positions(model: PeftModel) -> None:
    """Make `model(...).logits` and `logits_to_keep` count from the first real token, not from the trained ones."""
    config = model.active_peft_config
    if not config.is_prompt_learning or config.peft_type in _CACHED:
        return
    added = config.num_virtual_tokens

    def shift(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        kept = kwargs.get("logits_to_keep")
        return args, {**kwargs, "logits_to_keep": kept + added} if isinstance(kept, torch.Tensor) else kwargs

    def trim(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if not isinstance(kwargs.get("logits_to_keep", 0), torch.Tensor) and not kwargs.get("logits_to_keep"):
            output.logits = output.logits[:, added:]
        return output

    model.register_forward_pre_hook(shift, with_kwargs=True)
    model.register_forward_hook(trim, with_kwargs=True)

"""What a family says about itself, and how it refuses what it does not know."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from didact.errors import ModelError

Config = Mapping[str, Any]
"""The original's config.json."""
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Family:
    """One published architecture."""

    name: str
    config: Callable[[Config], PreTrainedConfig]
    """The native configuration. Raises ModelError for settings whose meaning is not proven."""
    tensors: Callable[[Config, str, torch.Tensor], Tensors]
    """What one original tensor becomes: none, one or several native ones."""
    tokenizer: Callable[[Path, Config], PreTrainedTokenizerBase]
    """The native tokenizer of the original folder."""


def require(family: str, config: Config, expected: Mapping[str, Any]) -> None:
    """Refuse settings other than the ones the conversion is proven for; an absent key counts as expected.

    Raises:
        ModelError: names the first key that differs.
    """
    for key, value in expected.items():
        found = config.get(key, value)
        if found != value:
            raise ModelError(
                f"config.json of this {family} model has {key} {found!r}; expected {value!r}. Set "
                "model.trust_remote_code to use the code in its folder, after reading it"
            )


def shared_fields(config: Config, *names: str) -> dict[str, Any]:
    """The fields that keep name and meaning, where present; `torch_dtype` becomes `dtype`."""
    fields = {name: config[name] for name in names if config.get(name) is not None}
    dtype = config.get("dtype") or config.get("torch_dtype")
    return fields | ({"dtype": dtype} if dtype else {})

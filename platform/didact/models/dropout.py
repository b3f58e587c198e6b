"""What a model drops. A base's own dropout is stated by its configuration: GPT-2, OPT and Seed-OSS drop a tenth."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_STATED = "_didact_stated_dropout"


def own_dropout(model: torch.nn.Module) -> float:
    """The largest share that any part of a model drops while it is trained; 0 where nothing is dropped."""
    return max((share for _, _, share in _places(model)), default=0.0)


def turn_off_dropout(model: Any) -> None:
    """Let a base drop nothing while it is trained; to be called before an adapter, which has its own, is attached.

    Its configuration is written with what it states nevertheless; see `stated_dropout`.

    Args:
        model: a model of transformers.
    """
    config = model.config.get_text_config()
    stated = {name: value for name, value in vars(config).items() if _is_share(name, value)}
    for owner, name, _ in list(_places(model)):
        setattr(owner, name, 0.0)
    for name in stated:  # some families ask their configuration in each forward pass
        setattr(config, name, 0.0)
    setattr(model, _STATED, stated)


@contextlib.contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Dropout off inside the block; afterwards the mode that was."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextlib.contextmanager
def stated_dropout(model: Any) -> Iterator[None]:
    """Within it a model's configuration says of dropout what it said when it was loaded."""
    stated: dict[str, float] = getattr(model, _STATED, {})
    config = model.config.get_text_config()
    used = {name: getattr(config, name) for name in stated}
    for name, value in stated.items():
        setattr(config, name, value)
    try:
        yield
    finally:
        for name, value in used.items():
            setattr(config, name, value)


def _places(model: torch.nn.Module) -> Iterator[tuple[Any, str, float]]:
    """Owner, attribute and share of each dropout, whether a module of torch or a number that a layer keeps."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.dropout._DropoutNd):
            if module.p:
                yield module, "p", module.p
            continue
        for name, value in list(vars(module).items()):
            if _is_share(name, value):
                yield module, name, value


def _is_share(name: str, value: object) -> bool:
    return "drop" in name.lower() and isinstance(value, float) and 0 < value <= 1

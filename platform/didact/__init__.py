"""didact (to instruct): an instruction-finetuning platform on Ray.

dataset -> mixture -> tokens -> base model + adapter -> train -> evaluate -> register -> serve
                         Ray Tune runs many such stories; MLflow remembers them all

`didact.notebook` says what the names below are; nothing is loaded before one of them is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from didact.notebook import (
        DidactError,
        cards,
        check_again,
        evaluate,
        finetune,
        load,
        plan,
        predict,
        promote,
        push,
        recipe,
        reproduce,
        sweep,
        trace,
        versions,
    )

__version__ = "0.1.0"
__all__ = [
    "DidactError",
    "cards",
    "check_again",
    "evaluate",
    "finetune",
    "load",
    "plan",
    "predict",
    "promote",
    "push",
    "recipe",
    "reproduce",
    "sweep",
    "trace",
    "versions",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'didact' has no attribute {name!r}")
    return getattr(import_module("didact.notebook"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

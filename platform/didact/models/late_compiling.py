"""bitsandbytes wraps kernels in `torch.compile` while it is imported, and PEFT imports it: that loads torch's compiler,
seconds of the start of every process, for kernels that few call. Here they are wrapped when they are called first.
"""

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_KERNELS = "bitsandbytes.backends.default.ops"


class _Finder:
    """Finds one module only, and has it run with `torch.compile` put off."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == _KERNELS else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            with _put_off():
                run(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextmanager
def _put_off() -> Iterator[None]:
    import torch

    compile_now = torch.compile

    def compile_later(model: Any = None, **options: Any) -> Any:
        # Another thread may compile something of its own meanwhile.
        if getattr(model, "__module__", None) != _KERNELS:
            return compile_now(model, **options)
        compiled: Callable[[], Callable[..., Any]] = functools.cache(lambda: compile_now(model, **options))
        return functools.wraps(model)(lambda *args, **kwargs: compiled()(*args, **kwargs))

    torch.compile = compile_later
    try:
        yield
    finally:
        torch.compile = compile_now


def compile_late() -> None:
    """Put it off from now on; call before anything imports bitsandbytes."""
    sys.meta_path.insert(0, _Finder)

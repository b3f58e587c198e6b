"""Adapters answering over HTTP: one base in memory, any number of registered versions on it.

    HTTP request -> Gateway (resolve the name) -> ModelReplica -> Engine -> tokens -> HTTP stream

This package itself exports the engine level, which knows neither Ray nor the registry; `serving.app` is the Ray Serve
application, `serving.deploy` starts it; `serving.predict`, `serving.chat` and `serving.model` use the same engine
without HTTP.

Example:
    >>> from didact.models import AdapterHost, base_fingerprint, load_base, load_tokenizer
    >>> from didact.serving import EmbeddedEngine
    >>> from didact.spec import ModelSpec
    >>> spec = ModelSpec()
    >>> engine = EmbeddedEngine(AdapterHost(load_base(spec), base_fingerprint(spec)), load_tokenizer(spec))
    >>> engine.close()
"""

from typing import TYPE_CHECKING, Any

from didact.serving.engine import (
    AdapterRef,
    DeadlineExceeded,
    Delta,
    Engine,
    EngineBusy,
    EngineDied,
    EngineStats,
    EngineStopped,
    GenerationFailed,
    GenerationRequest,
    Grammar,
    GrammarError,
    GrammarsMissing,
    PromptTooLong,
    Sampling,
)

if TYPE_CHECKING:
    from didact.serving.engine import EmbeddedEngine

__all__ = [
    "AdapterRef",
    "DeadlineExceeded",
    "Delta",
    "EmbeddedEngine",
    "Engine",
    "EngineBusy",
    "EngineDied",
    "EngineStats",
    "EngineStopped",
    "GenerationFailed",
    "GenerationRequest",
    "Grammar",
    "GrammarError",
    "GrammarsMissing",
    "PromptTooLong",
    "Sampling",
]


def __getattr__(name: str) -> Any:
    if name != "EmbeddedEngine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from didact.serving import engine

    return engine.EmbeddedEngine

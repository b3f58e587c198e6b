"""Generation: requests in, tokens out, one base and many adapters. Knows neither Ray, HTTP nor the registry.

    GenerationRequest -> EmbeddedEngine -> Row in a Batch of one adapter -> Sampling -> TextStream -> Delta, one by one

Example:
    >>> from didact.models import AdapterHost, load_base
    >>> from didact.serving.engine import EmbeddedEngine
    >>> EmbeddedEngine(AdapterHost(load_base(spec), fingerprint), tokenizer).close()  # doctest: +SKIP
"""

from didact.serving.engine.embedded import EmbeddedEngine
from didact.serving.engine.protocol import (
    AdapterRef,
    DeadlineExceeded,
    Delta,
    Engine,
    EngineBusy,
    EngineStats,
    GenerationFailed,
    GenerationRequest,
    PromptTooLong,
    Sampling,
)

__all__ = [
    "AdapterRef",
    "DeadlineExceeded",
    "Delta",
    "EmbeddedEngine",
    "Engine",
    "EngineBusy",
    "EngineStats",
    "GenerationFailed",
    "GenerationRequest",
    "PromptTooLong",
    "Sampling",
]

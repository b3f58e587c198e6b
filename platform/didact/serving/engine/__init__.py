"""Generation: requests in, tokens out, one base and many adapters. Knows neither Ray, HTTP nor the registry.

    GenerationRequest -> EmbeddedEngine -> BatchRow in a DecodingBatch -> Sampling -> TextStream -> Delta, one by one

Example:
    >>> import torch
    >>> from didact.serving.engine import Sampling
    >>> from didact.serving.engine.sampling import Sampler
    >>> Sampler(Sampling(temperature=0.0), torch.device("cpu")).draw(torch.tensor([0.1, 0.7, 0.2]), answer=[])
    1
"""

from typing import TYPE_CHECKING, Any

from didact.serving.engine.grammar.grammar import Grammar, GrammarError, GrammarsMissing
from didact.serving.engine.protocol import (
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
    PromptTooLong,
    Sampling,
    TokenLogprob,
)

if TYPE_CHECKING:
    from didact.serving.engine.embedded import EmbeddedEngine

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
    "TokenLogprob",
]


def __getattr__(name: str) -> Any:
    """The engine when it is asked for: the HTTP side of a server knows its words only, and loads no torch."""
    if name != "EmbeddedEngine":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from didact.serving.engine.embedded import EmbeddedEngine

    return EmbeddedEngine

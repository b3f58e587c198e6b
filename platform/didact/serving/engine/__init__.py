"""Generation: requests in, tokens out, one base and many adapters. Knows neither Ray, HTTP nor the registry.

    GenerationRequest -> EmbeddedEngine -> BatchRow in a DecodingBatch -> Sampling -> TextStream -> Delta, one by one

Example:
    >>> import torch
    >>> from didact.serving.engine import Sampling
    >>> from didact.serving.engine.sampling import Sampler
    >>> Sampler(Sampling(temperature=0.0), torch.device("cpu")).draw(torch.tensor([0.1, 0.7, 0.2]), answer=[])
    1
"""

from didact.serving.engine.embedded import EmbeddedEngine
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
)

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
    "PromptTooLong",
    "Sampling",
]

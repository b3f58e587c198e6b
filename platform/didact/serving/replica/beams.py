"""Beam search over any engine: several answers are followed at once, and the likeliest whole one is kept.

    request -> the likeliest next tokens of each beam, by a request each -> the best of all -> ... -> answer

As transformers does it (`num_beams`, no early stopping), and above the engine, as vLLM does it. A prompt is read once
and known from then on, and so is what a beam goes on from: a step reads one token for each beam.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from didact.errors import SpecError
from didact.serving.engine.protocol import Engine, FinishReason, GenerationRequest, Sampling

MOST_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class BeamAnswer:
    """The likeliest answer that was found."""

    token_ids: tuple[int, ...]
    """With the token that ended it."""
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class _Beam:
    ids: tuple[int, ...]
    score: float
    """Sum of the logarithms of its tokens' probabilities; of finished ones divided by a power of their number."""


async def beam_search(
    engine: Engine, request: GenerationRequest, num_beams: int, length_penalty: float = 1.0
) -> BeamAnswer:
    """Search the likeliest answer.

    Args:
        engine: tells how likely tokens are.
        request: prompt, adapter, longest answer and the tokens that end it; its sampling is not used.
        num_beams: answers that are followed at once.
        length_penalty: the power of an answer's length by which its score is divided; larger ones favour long answers.

    Raises:
        SpecError: more beams than an engine tells tokens for.
        EngineBusy, AdapterError, GenerationFailed, ...: as `Engine.generate`.
    """
    ends = frozenset(request.stop_token_ids)
    # All ends may be among the best, and as many beams must go on as before.
    num_kept = max(2, 1 + len(ends)) * num_beams
    check_beams(num_beams, len(ends))
    room = min(request.max_new_tokens, engine.context_length - len(request.prompt_ids))
    running, finished = [_Beam((), 0.0)], list[_Beam]()
    for length in range(1, room + 1):
        best = (await _continued(engine, request, running, num_kept))[:num_kept]
        for beam in best[:num_beams]:
            if length == room or beam.ids[-1] in ends:
                finished.append(replace(beam, score=beam.score / length**length_penalty))
        finished = sorted(finished, key=lambda beam: -beam.score)[:num_beams]
        running = [beam for beam in best if beam.ids[-1] not in ends][:num_beams]
        if not running or (
            len(finished) == num_beams and running[0].score / length**length_penalty <= finished[-1].score
        ):
            break
    ids = max(finished or running, key=lambda beam: beam.score).ids
    return BeamAnswer(ids, "stop" if ids[-1] in ends else "length")


def check_beams(num_beams: int, num_ends: int) -> None:
    """Raises SpecError for more beams than an engine tells tokens for.

    Args:
        num_beams: that are wanted.
        num_ends: tokens that end an answer.
    """
    most = MOST_LOGPROBS // max(2, 1 + num_ends)
    if not 1 <= num_beams <= most:
        raise SpecError(f"num_beams: found {num_beams}; expected 1 to {most} where {num_ends} tokens end an answer")


async def _continued(engine: Engine, request: GenerationRequest, beams: Sequence[_Beam], num_kept: int) -> list[_Beam]:
    """All beams, each with its likeliest next tokens, the best first."""
    tasks = [asyncio.create_task(_next(engine, request, beam, place, num_kept)) for place, beam in enumerate(beams)]
    try:
        found = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return sorted((beam for each in found for beam in each), key=lambda beam: -beam.score)


async def _next(engine: Engine, request: GenerationRequest, beam: _Beam, index: int, num_kept: int) -> list[_Beam]:
    asked = replace(
        request,
        request_id=f"{request.request_id}-{len(beam.ids)}-{index}",
        prompt_ids=request.prompt_ids + beam.ids,
        max_new_tokens=1,
        min_tokens=0,
        sampling=Sampling(),
        stop=(),
        stop_token_ids=(),
        logprobs=num_kept,
        grammar=None,
        search=request.request_id if beam.ids else None,
    )
    async with contextlib.aclosing(engine.generate(asked)) as pieces:
        told = [token async for delta in pieces for token in delta.logprobs]
    return [_Beam((*beam.ids, token), beam.score + logprob) for token, logprob in told[0].top]

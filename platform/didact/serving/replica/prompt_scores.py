"""How likely a model finds the tokens of a prompt: what evaluation harnesses ask with `echo` and `logprobs`."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from didact.serving.engine.protocol import (
    AdapterRef,
    DeadlineExceeded,
    Engine,
    EngineBusy,
    GenerationFailed,
    PromptTooLong,
    ScoresPrompts,
    TokenLogprob,
)

if TYPE_CHECKING:
    from didact.serving.engine.embedded import EmbeddedEngine

T = TypeVar("T")
_PIECE = 256
"""Tokens that are read between two rounds of generation, so that running answers go on."""


async def prompt_logprobs(
    engine: Engine, adapter: AdapterRef | None, ids: Sequence[int], num_top: int
) -> list[TokenLogprob]:
    """The logarithms of all tokens of a prompt but the first, which nothing comes before.

    Args:
        engine: has the model.
        adapter: in force meanwhile.
        ids: the prompt.
        num_top: likeliest tokens to tell beside each.

    Raises:
        AdapterError, EngineStopped: see `EmbeddedEngine.borrow`.
        GenerationFailed: the model computes numbers that are not finite.
    """
    if isinstance(engine, ScoresPrompts):
        return await engine.prompt_logprobs(adapter, ids, num_top)
    borrowed = cast("EmbeddedEngine", engine)
    reader = _Reader(ids, num_top)
    while not reader.is_done:
        await asyncio.wrap_future(borrowed.borrow(adapter, reader.read_piece))
    return reader.found


class Scoring:
    """Prompts that are only read, within the limits that generation has."""

    def __init__(self, context_length: int, most: int) -> None:
        """
        Args:
            context_length: tokens that a prompt may have.
            most: prompts that may be read together, each a piece in its turn.
        """
        self._context_length, self._most = context_length, most
        self._reading = 0

    async def read(self, length: int, deadline: float | None, reading: Coroutine[Any, Any, T]) -> T:
        """Await `reading`.

        Args:
            length: of the prompt, in tokens.
            deadline: when it must have ended, on `time.monotonic`.
            reading: reads it.

        Raises:
            PromptTooLong, EngineBusy, DeadlineExceeded: as the engine raises them for answers.
        """
        try:
            if length > self._context_length:
                raise PromptTooLong(
                    f"This model's maximum context length is {self._context_length} tokens; the prompt has {length}."
                )
            if self._reading >= self._most:
                raise EngineBusy(f"{self._reading} prompts are being read already; try again shortly")
        except BaseException:
            reading.close()
            raise
        self._reading += 1
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                return await reading
        except TimeoutError:
            raise DeadlineExceeded("the prompt was not read in its time") from None
        finally:
            self._reading -= 1


class _Reader:
    """Reads a prompt piece by piece; a model that puts positions of its own before it reads it at once."""

    def __init__(self, ids: Sequence[int], num_top: int) -> None:
        self._ids, self._num_top = ids, num_top
        self._position = 0
        self._cache: Any = None
        self.found: list[TokenLogprob] = []

    @property
    def is_done(self) -> bool:
        return self._position >= len(self._ids) - 1

    def read_piece(self, model: Any) -> None:
        import torch

        from didact.serving.engine.sampling import token_logprob

        config = getattr(model, "active_peft_config", None)
        at_once = config is not None and config.is_prompt_learning
        end = len(self._ids) - 1 if at_once else min(self._position + _PIECE, len(self._ids) - 1)
        piece = self._ids[self._position : end]
        device = next(model.parameters()).device
        given = {} if at_once else {"past_key_values": self._cache, "use_cache": True}
        with torch.inference_mode():
            output = model(input_ids=torch.tensor([piece], device=device), **given)
            self._cache = None if at_once else output.past_key_values
            logits = output.logits[0, -len(piece) :]
            if not bool(torch.isfinite(logits.amax(dim=-1)).all()):
                raise GenerationFailed("the model computes no finite numbers for this prompt")
            for row, token in zip(logits, self._ids[self._position + 1 : end + 1], strict=True):
                self.found.append(token_logprob(row, token, self._num_top))
        self._position = end

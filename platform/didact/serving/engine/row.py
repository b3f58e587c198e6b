"""One request on its way through the engine."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from didact.logs import get_logger
from didact.serving.engine.drafts import PromptLookup
from didact.serving.engine.grammar.grammar import GrammarError
from didact.serving.engine.grammar.matcher import Constraint
from didact.serving.engine.protocol import (
    DeadlineExceeded,
    Delta,
    FinishReason,
    GenerationFailed,
    GenerationRequest,
    PromptTooLong,
    TokenLogprob,
)
from didact.serving.engine.sampling import Sampler, token_logprob
from didact.serving.engine.text_stream import TextStream

_log = get_logger(__name__)


class AnswerRow:
    """A request, the answer so far, and the stream that its caller reads, whoever chooses the tokens."""

    def __init__(self, request: GenerationRequest, context_length: int, tokenizer: PreTrainedTokenizerBase) -> None:
        self.request = request
        self.answer: list[int] = []
        self.done = False
        self.cancelled = False
        self.begun: float | None = None
        """When it left the queue, on the clock of `time.monotonic`."""
        self._arrived = time.monotonic()
        self._context_length = context_length
        self._room = min(request.max_new_tokens, context_length - len(request.prompt_ids))
        self._logprobs: tuple[TokenLogprob, ...] = ()
        """Of the newest token."""
        self._text = TextStream(tokenizer, request.stop)
        self._queue: asyncio.Queue[Delta | Exception] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    @property
    def version_id(self) -> str | None:
        """The adapter version, None for the base."""
        return self.request.adapter.version_id if self.request.adapter else None

    @property
    def num_left(self) -> int:
        """Tokens that the answer may still have."""
        return self._room - len(self.answer)

    @property
    def may_end(self) -> bool:
        """Whether the next token may be the last: a stop token, or the end of a stop text."""
        return len(self.answer) >= self.request.min_tokens

    def take(self, token: int, logprobs: tuple[TokenLogprob, ...] = ()) -> None:
        """Add the next token and hand its text on; with the last one the row is `done`."""
        may_end = self.may_end
        self._logprobs = logprobs
        self.answer.append(token)
        if may_end and token in self.request.stop_token_ids:
            return self._finish(self._text.finish(), token, "stop")
        text = self._text.push(token, may_end)
        if self._text.met is not None:
            return self._finish(text, token, "stop")
        if len(self.answer) >= self._room:
            text += self._text.finish()
            return self._finish(text, token, "stop" if self._text.met is not None else "length")
        return self._send(Delta(text, (token,), logprobs=self._logprobs))

    def fail(self, error: Exception) -> None:
        """End the answer with an error."""
        self.done = True
        self._send(error)

    def expire(self) -> None:
        """Fail the row when its deadline has passed."""
        deadline = self.request.deadline
        if not self.done and deadline is not None and time.monotonic() > deadline:
            self.fail(DeadlineExceeded(f"not finished in time; {len(self.answer)} tokens were generated"))

    async def read(self, on_close: Callable[[str], None]) -> AsyncGenerator[Delta, None]:
        """The answer, piece by piece; `on_close` is called with the request's id however the reading ends."""
        try:
            while True:
                item = await self._queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
                if item.finish_reason:
                    return
        finally:
            on_close(self.request.request_id)

    def _finish(self, text: str, token: int, reason: FinishReason) -> None:
        self.done = True
        self._send(Delta(text, (token,), reason, self._logprobs, self._text.met))

    def _send(self, item: Delta | Exception) -> None:
        if isinstance(item, Delta) and len(self.answer) == 1:
            item = replace(item, queued_seconds=(self.begun or self._arrived) - self._arrived)
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
        except RuntimeError:  # the caller is gone with its event loop
            self.done = True


class BatchRow(AnswerRow):
    """A row of the embedded engine's batches.

    All that is needed to go on lies here and nothing of it in a batch, so a row can leave one batch and continue in
    another with the same answer.
    """

    def __init__(
        self, request: GenerationRequest, context_length: int, tokenizer: PreTrainedTokenizerBase, device: torch.device
    ) -> None:
        super().__init__(request, context_length, tokenizer)
        self.company: object | None = None
        """Rows share a batch only with those of the same company: set after the row was in a batch that failed."""
        self.group: str | None = None
        """The adapter version whose rows have a batch of their own; None for the batch that all others share."""
        self.slot: int | None = None
        """Where the adapter's weights lie for a row of the shared batch; None for the base."""
        self.deferred = False
        """It let another row of the same prompt go first."""
        self.lookup: PromptLookup | None = None
        """What guesses the tokens that come next; None for nothing."""
        self.constraint: Constraint | None = None
        """What the answer may still become; None for anything."""
        self._sampler = Sampler(request.sampling, device, request.prompt_ids)

    @property
    def kind(self) -> tuple[str | None, object | None]:
        """What rows of one batch have in common: group and company."""
        return self.group, self.company

    @property
    @override
    def may_end(self) -> bool:
        return super().may_end or (self.constraint is not None and self.constraint.is_complete)

    @property
    def ids(self) -> list[int]:
        """Prompt and answer so far: what a new batch has to read."""
        return [*self.request.prompt_ids, *self.answer]

    @property
    def full_length(self) -> int:
        """Tokens of the prompt and the longest answer."""
        return len(self.request.prompt_ids) + self.request.max_new_tokens

    def reserve(self, num_trained: int) -> None:
        """Leave `num_trained` positions of the context to the adapter; the row fails when nothing is left."""
        left = self._context_length - num_trained - len(self.request.prompt_ids)
        self._room = min(self.request.max_new_tokens, left)
        if left <= 0:
            self.fail(
                PromptTooLong(
                    f"This model's maximum context length is {self._context_length} tokens, of which the adapter takes "
                    f"{num_trained}; the prompt has {len(self.request.prompt_ids)} tokens."
                )
            )

    def advance(self, logits: torch.Tensor, likeliest: int) -> None:
        """Choose the next token and hand its text on. Whatever breaks here fails this row.

        Args:
            logits: float [vocabulary].
            likeliest: the token of the largest; known for all rows at once, which is faster than row by row on a GPU.
        """
        try:
            self._advance(logits, likeliest)
        except GrammarError as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001 - the rows beside it go on
            _log.exception("a row failed while its next token was chosen")
            self.fail(GenerationFailed(f"the next token could not be chosen ({type(error).__name__})"))

    def _advance(self, logits: torch.Tensor, likeliest: int) -> None:
        wanted = self.request
        forbidden = () if self.may_end else wanted.stop_token_ids
        token = likeliest
        if self.constraint is not None:
            token = self._constrained(self.constraint, logits, forbidden)
        elif forbidden or not self._sampler.takes_likeliest:
            token = self._sampler.draw(logits, self.answer, forbidden)
        self.take(token, () if wanted.logprobs is None else (token_logprob(logits, token, wanted.logprobs),))

    def _constrained(self, constraint: Constraint, logits: torch.Tensor, forbidden: Sequence[int]) -> int:
        ends = self.request.stop_token_ids
        token = self._sampler.draw(logits, self.answer, forbidden, constraint.allowed(ends))
        if token not in ends:
            constraint.take(token)
        return token


def with_room(rows: list[BatchRow], num_trained: int) -> list[BatchRow]:
    """The rows whose context has room for an answer beside the trained positions; the others fail."""
    for row in rows:
        row.reserve(num_trained)
    return [row for row in rows if not row.done]

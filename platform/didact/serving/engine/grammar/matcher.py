"""Compiled grammars, and the tokens that they allow.

llguidance finds them while an answer is written: little is worked out beforehand, so that no schema takes minutes.
"""

import asyncio
import importlib.util
import queue
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from didact.serving.engine.grammar.grammar import Grammar, GrammarError, GrammarsMissing
from didact.serving.engine.grammar.rehearsal import Rehearsal

if TYPE_CHECKING:
    import llguidance

_MOST_KEPT = 64
_COMPILERS = 2
_SECONDS = 10.0
_LIMITS: dict[str, Any] = {
    "max_grammar_size": 100_000,
    "max_items_in_row": 1_000,
    "step_max_items": 10_000,
    "step_lexer_fuel": 100_000,
    "max_lexer_states": 20_000,  # a kilobyte or two each
}
"""What a mask may cost: some 10 ms of the step thread. A grammar that costs more is refused, or its answer fails."""
_LONGEST_REASON = 300


def is_installed() -> bool:
    """Whether grammars can be compiled here."""
    return importlib.util.find_spec("llguidance") is not None


class Constraint:
    """What one answer may still become. Its row's, so asked by the step thread only."""

    def __init__(self, matcher: "llguidance.LLMatcher", grammar: Grammar, vocabulary_size: int) -> None:
        self._matcher, self._grammar, self._vocabulary_size = matcher, grammar, vocabulary_size

    @property
    def is_complete(self) -> bool:
        """Whether nothing can come any more."""
        return bool(self._matcher.is_stopped())

    def allowed(self, stop_token_ids: Sequence[int]) -> torch.Tensor:
        """bool [vocabulary]: the tokens that may come next; those that end the answer where it may end.

        Raises:
            GrammarError: to find out takes more than an answer may cost.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        flags = np.unpackbits(bits, bitorder="little", count=self._vocabulary_size).astype(bool)
        flags[list(stop_token_ids)] = self._matcher.is_accepting()
        return torch.from_numpy(flags)

    def take(self, token: int) -> None:
        """Go on with a token that was allowed and does not end the answer."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refused(self._grammar, self._matcher.get_error())


class Grammars:
    """Compiles grammars on threads of its own and keeps those that were asked for last, also as refused."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary_size: int, seconds: float = _SECONDS) -> None:
        """Nothing is loaded before the first grammar.

        Args:
            tokenizer: of the base.
            vocabulary_size: logits of a position.
            seconds: longest time that a request waits for its grammar.
        """
        self._tokenizer, self._vocabulary_size, self._seconds = tokenizer, vocabulary_size, seconds
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Future[llguidance.LLMatcher]] = OrderedDict()
        self._threads: ThreadPoolExecutor | None = None
        self._words: llguidance.LLTokenizer | None = None
        self._reading = threading.Lock()
        self._rehearsals: queue.SimpleQueue[Rehearsal] = queue.SimpleQueue()
        for _ in range(_COMPILERS):
            self._rehearsals.put(Rehearsal(seconds))

    def __len__(self) -> int:
        return len(self._kept)

    async def constraint(self, grammar: Grammar) -> Constraint:
        """A grammar at its beginning, for one answer.

        Raises:
            GrammarError: it cannot be followed, or costs too much.
            GrammarsMissing: llguidance is not installed.
        """
        check_installed(grammar)
        compiled = self._compiled(grammar)
        try:
            async with asyncio.timeout(self._seconds):
                matcher = await asyncio.shield(asyncio.wrap_future(compiled))
        except TimeoutError:
            raise GrammarError(f"{grammar.field}: not read in {self._seconds:g} seconds; expected less of it") from None
        except GrammarError as error:  # of another request, maybe, that asked the same in other words
            raise GrammarError(f"{grammar.field}: {str(error).partition(': ')[2]}") from None
        return Constraint(matcher.deep_copy(), grammar, self._vocabulary_size)

    def close(self) -> None:
        """End the threads, once they have done what they do."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        for _ in range(self._rehearsals.qsize()):
            self._rehearsals.get().close()

    def _compiled(self, grammar: Grammar) -> "Future[llguidance.LLMatcher]":
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(_COMPILERS, thread_name_prefix="grammar")
            if grammar.text not in self._kept:
                self._kept[grammar.text] = self._threads.submit(self._compile, grammar)
            self._kept.move_to_end(grammar.text)
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
            return self._kept[grammar.text]

    def _compile(self, grammar: Grammar) -> "llguidance.LLMatcher":
        import llguidance

        try:
            limits = llguidance.LLParserLimits(**_LIMITS, verbose_errors=False)
            text = llguidance.grammar_from("grammar", grammar.text) if not grammar.begin else grammar.text
            if (refusal := self._rehearsed(text)) is not None:
                raise ValueError(refusal)
            matcher = llguidance.LLMatcher(self._vocabulary(), text, log_level=0, limits=limits)
            if not matcher.is_error():
                matcher.compute_bitmask()  # the dearest one; copies begin with what it found
        except BaseException as error:  # noqa: BLE001 - whatever the library raises or panics with, it refuses this text
            raise _refused(grammar, str(error)) from None
        if matcher.is_error():
            raise _refused(grammar, matcher.get_error())
        return matcher

    def _rehearsed(self, text: str) -> str | None:
        rehearsal = self._rehearsals.get()
        try:
            return rehearsal.refusal(text, _LIMITS)
        finally:
            self._rehearsals.put(rehearsal)

    def _vocabulary(self) -> "llguidance.LLTokenizer":
        """The tokenizer's words as llguidance has them, read once: half a second for 49,152 of them."""
        with self._reading:
            if self._words is None:
                from llguidance.hf import from_tokenizer

                tokenizer: Any = self._tokenizer
                self._words = from_tokenizer(tokenizer, n_vocab=max(self._vocabulary_size, len(tokenizer)))
            return self._words


def check_installed(grammar: Grammar) -> None:
    """Raises GrammarsMissing, with what to install."""
    if not is_installed():
        raise GrammarsMissing(
            f"{grammar.field}: answers cannot be held to a form here; the server needs pip install 'didact[grammar]'"
        )


def _refused(grammar: Grammar, reason: str) -> GrammarError:
    """The library's reason without the grammar that it quotes."""
    lines = [line.strip() for line in reason.splitlines() if not re.match(r"\s*(\d+ \||\^)|<non-verbose", line)]
    words = " ".join(line for line in lines if line)
    words = re.sub(r"^at \d+\(\d+\): |failed to (compile JSON schema|parse \"%json\"): ", "", words)
    return GrammarError(f"{grammar.field}: {words[:_LONGEST_REASON] or 'it cannot be followed'}")

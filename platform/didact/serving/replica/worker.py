"""One replica's work, without Ray: from a prompt in words to pieces of text.

    Ask -> adapter on disk -> template contract -> token ids -> Engine -> Started, Delta, Delta ... | Refusal

What can be expected to go wrong is answered with a `Refusal` value and not raised: an exception that crosses Ray
carries the replica's traceback, which no client should see.
"""

import asyncio
import contextlib
import copy
import json
import re
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeGuard

from typing_extensions import override

from didact.adapter_folder import is_copy_of_plain
from didact.datasets.conversation import Message
from didact.errors import AdapterError, NoToolSyntax, RegistryError, SpecError, TemplateError
from didact.logs import get_logger
from didact.registry import ModelVersion
from didact.serving.engine.grammar.grammar import Grammar, GrammarError, GrammarsMissing
from didact.serving.engine.grammar.lark import behind_thoughts, calls_of
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
)
from didact.serving.metrics.answers import AnswerMetrics
from didact.serving.metrics.snapshots import Snapshot
from didact.serving.replica.adapter_store import AdapterStore, FolderVersion, say_of_another_base
from didact.serving.replica.backend import (
    Ask,
    Backend,
    BaseFacts,
    Event,
    Prompt,
    Refusal,
    RefusalKind,
    Speech,
    Spelled,
    Spelling,
    Started,
    TokenizerFacts,
)
from didact.serving.replica.beams import beam_search, check_beams
from didact.serving.replica.pieces import in_time, interval
from didact.serving.replica.prompt_scores import Scoring, prompt_logprobs
from didact.serving.replica.speech import forced_call, speech_of
from didact.serving.replica.token_words import TokenWords

if TYPE_CHECKING:  # the HTTP side shares the words of this module, and loads no torch
    from transformers import PreTrainedTokenizerBase

    from didact.tokens import TemplateContract

_log = get_logger(__name__)
_PATH = re.compile(r"(?<![\w.~/:-])(?:[A-Za-z][A-Za-z0-9+.-]*:/{2,}|~?/)[^\s'\"`,;)\]}]*[^\s'\"`,;:.)\]}]")
"""A path from the root or of the home folder, or an address."""

_MOST_SCORING = 128
_REFUSED = (
    GrammarError,
    EngineBusy,
    PromptTooLong,
    DeadlineExceeded,
    AdapterError,
    TemplateError,
    RegistryError,
    SpecError,
)


class Worker(Backend):
    """The `Backend` in this process."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: "PreTrainedTokenizerBase",
        store: AdapterStore,
        base_fingerprint: str,
        base_name: str = "base",
        max_waiting: int = _MOST_SCORING,
    ) -> None:
        """Take an engine.

        Args:
            engine: answers; `close` ends it.
            tokenizer: the base's.
            store: where the folders of versions come from.
            base_fingerprint: of the base's weights.
            base_name: what metrics call the base.
            max_waiting: prompts that may be scored together, each a piece in its turn.
        """
        self.engine, self._base_name = engine, base_name
        self._metrics, self._source = AnswerMetrics(base_name), uuid.uuid4().hex
        self._answering = 0  # asks that have begun and not ended
        self._facts = BaseFacts(base_fingerprint, engine.context_length)
        self._scoring = Scoring(engine.context_length, max_waiting)
        self._store = store
        # A tokenizer cannot encode in one thread while another changes its settings; the engine decodes with its own.
        self._tokenizer = copy.deepcopy(tokenizer)
        self._encoding = threading.Lock()
        self._words = TokenWords(self._tokenizer)
        from didact.tokens import TemplateContract

        self._contract = TemplateContract.build(tokenizer, "auto")
        self._contracts: dict[str, TemplateContract] = {}

    async def _started(self, ask: Ask, request: GenerationRequest) -> Started:
        ids = request.prompt_ids
        if not ask.echo:
            return Started(len(ids), ids, speech=self._speech(ask, request))
        with self._encoding:
            decoded = self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)
            text = ask.prompt if isinstance(ask.prompt, str) else decoded
        if ask.logprobs is None:
            return Started(len(ids), ids, text)
        found = await prompt_logprobs(self.engine, request.adapter, ids, ask.logprobs)
        return Started(len(ids), ids, text, tuple(map(self._words.of, found)))

    @override
    async def ask(self, ask: Ask) -> AsyncGenerator[Event, None]:
        arrived = time.monotonic()
        meter = self._metrics.begin(*_labels(ask.adapter))
        request = None

        def came(delta: Delta) -> Delta:
            meter.piece(delta)
            return self._words.worded(delta)

        def seconds() -> float | None:
            return None if ask.whole else interval(self._answering)

        self._answering += 1
        try:
            request = await asyncio.to_thread(self._request, ask, arrived)
            if not ask.max_new_tokens:  # only the prompt is wanted
                meter.queued(len(request.prompt_ids))
                yield await self._scoring.read(len(request.prompt_ids), request.deadline, self._started(ask, request))
                yield came(Delta("", (), "length"))
                return
            async with contextlib.aclosing(self._pieces(ask, request)) as pieces:
                meter.queued(len(request.prompt_ids))
                yield await self._started(ask, request)
                async with contextlib.aclosing(in_time(pieces, came, seconds)) as told:
                    async for piece in told:
                        yield piece
        except _REFUSED as error:
            if isinstance(error, AdapterError) and request is not None and request.adapter is not None:
                self._store.forget(request.adapter)
            meter.end("error")
            yield _refusal(error, ask.adapter)
        except GenerationFailed as error:
            meter.end("error")
            kinds: dict[type[Exception], RefusalKind] = {EngineStopped: "stopped", EngineDied: "died"}
            yield Refusal(kinds.get(type(error), "failed"), str(error))
        finally:
            self._answering -= 1
            meter.end("abort")  # the client left

    def _pieces(self, ask: Ask, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        return self.engine.generate(request) if ask.num_beams == 1 else self._searched(ask, request)

    async def _searched(self, ask: Ask, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """A searched answer, which is known only as a whole."""
        found = await beam_search(self.engine, request, ask.num_beams, ask.length_penalty)
        ids = found.token_ids[:-1] if found.finish_reason == "stop" else found.token_ids
        with self._encoding:
            text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        yield Delta(text, found.token_ids, found.finish_reason)

    @override
    def prepare(self, version: ModelVersion | FolderVersion) -> None:
        adapter = self._store.fetch(version, self._facts.fingerprint)
        self._contract_of(adapter)
        say_of_another_base(adapter.folder, version.name, self._base_name)
        self.engine.preload(adapter).result()

    @override
    async def stats(self) -> EngineStats:
        self.engine.health()
        return self.engine.stats()

    @override
    async def metrics(self) -> Sequence[Snapshot]:
        return [self._metrics.snapshot(self._source, self.engine.stats(), self._facts.context_length)]

    @override
    async def facts(self) -> BaseFacts:
        return self._facts

    @override
    async def spell(self, spelling: Spelling) -> Spelled | Refusal:
        try:
            return await asyncio.to_thread(self._spell, spelling)
        except (AdapterError, TemplateError, RegistryError) as error:
            return _refusal(error, spelling.adapter)

    @override
    async def tokenizer(self) -> TokenizerFacts:
        special = {
            name: str(text) for name, text in self._tokenizer.special_tokens_map.items() if isinstance(text, str)
        }
        kind = type(self._tokenizer).__name__
        return TokenizerFacts(kind, self._contract.standalone, special, self.engine.vocabulary_size)

    def close(self) -> None:
        """Stop the engine."""
        self.engine.close()

    def _spell(self, spelling: Spelling) -> Spelled:
        adapter = self._folder_of(spelling.adapter)
        contract, prompt = self._contract_of(adapter), spelling.prompt
        ids = self._encode(prompt, contract, special=spelling.add_special_tokens, header=spelling.add_generation_prompt)
        with self._encoding:
            tokens = tuple(map(str, self._tokenizer.convert_ids_to_tokens(ids)))
            return Spelled(tuple(ids), tokens, self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _speech(self, ask: Ask, request: GenerationRequest) -> Speech:
        """How the answer is to be read: chats only, completions are text."""
        if not _is_chat(ask.prompt):
            return Speech()
        speech = speech_of(self._contract_of(request.adapter))
        begun = "" if ask.must_call is None else forced_call(speech, ask.must_call)
        return replace(speech, begun=begun or self._begun_thoughts(speech, request.prompt_ids))

    def _begun_thoughts(self, speech: Speech, ids: Sequence[int]) -> str:
        """The mark of thoughts, where the prompt ends with it."""
        if not speech.thoughts:
            return ""
        with self._encoding:
            end = self._tokenizer.decode(ids[-16:], clean_up_tokenization_spaces=False)
        return speech.thoughts[0] if end.rstrip().endswith(speech.thoughts[0]) else ""

    def _grammar(self, ask: Ask, contract: "TemplateContract", ids: Sequence[int]) -> Grammar | None:
        """What the answer must be, in the way that its template speaks."""
        if not _is_chat(ask.prompt):
            return ask.grammar
        speech = speech_of(contract)
        if ask.must_call is not None:
            offered = ask.prompt[0].tools
            assert speech.calls is not None and offered is not None and offered.offered is not None
            functions = [each["function"] for each in json.loads(offered.offered)]
            if not self.engine.takes_grammars:
                return None
            return calls_of(speech.calls, functions, ask.must_call, one_call=ask.one_call)
        if ask.grammar is None or speech.thoughts is None:
            return ask.grammar
        return behind_thoughts(ask.grammar, speech.thoughts, bool(self._begun_thoughts(speech, ids)))

    def _folder_of(self, adapter: ModelVersion | FolderVersion | AdapterRef | None) -> AdapterRef | None:
        if not isinstance(adapter, ModelVersion | FolderVersion):
            return adapter
        return self._store.fetch(adapter, self._facts.fingerprint)

    def _check_known(self, ids: list[int]) -> None:
        if ids and max(ids) >= self.engine.vocabulary_size:
            raise TemplateError(f"token id {max(ids)} is not in the vocabulary of {self.engine.vocabulary_size}")

    def _request(self, ask: Ask, arrived: float) -> GenerationRequest:
        adapter = self._folder_of(ask.adapter)
        contract = self._contract_of(adapter)
        ids = self._encode(ask.prompt, contract)
        if ask.must_call is not None:
            ids += self._encode(forced_call(speech_of(contract), ask.must_call), contract, special=False)
        if not ids:
            raise TemplateError("the prompt holds no tokens; expected at least one")
        self._check_known([*(token for token, _ in ask.sampling.logit_bias), *ask.stop_token_ids])
        ends = (*(() if ask.ignore_eos else contract.stop_token_ids), *ask.stop_token_ids)
        if ask.num_beams > 1:
            check_beams(ask.num_beams, len(set(ends)))
        return GenerationRequest(
            request_id=ask.request_id,
            prompt_ids=tuple(ids),
            adapter=adapter,
            max_new_tokens=max(ask.max_new_tokens, 1),
            sampling=ask.sampling,
            stop=ask.stop,
            stop_token_ids=ends,
            min_tokens=ask.min_tokens,
            logprobs=ask.logprobs,
            priority=ask.priority,
            grammar=self._grammar(ask, contract, ids),
            deadline=arrived + ask.timeout_seconds,
        )

    def _contract_of(self, adapter: AdapterRef | None) -> "TemplateContract":
        """How this adapter was taught to be asked: its own template, which must be over the base's own tokens."""
        if adapter is None:
            return self._contract
        if adapter.version_id not in self._contracts:
            if is_copy_of_plain(adapter.folder):
                return self._contract
            try:
                contract = type(self._contract).load(adapter.folder)
            except TemplateError as error:
                raise AdapterError(f"adapter {adapter.version_id} cannot be asked: {error}") from error
            if contract.tokenizer_sha256 != self._contract.tokenizer_sha256:
                raise AdapterError(
                    f"adapter {adapter.version_id} was trained with another tokenizer "
                    f"({contract.tokenizer_sha256[:12]}) than the base's ({self._contract.tokenizer_sha256[:12]})"
                )
            self._contracts[adapter.version_id] = contract
        return self._contracts[adapter.version_id]

    def _encode(
        self, prompt: Prompt, contract: "TemplateContract", *, special: bool = True, header: bool = True
    ) -> list[int]:
        with self._encoding:
            if isinstance(prompt, str):
                ids = list(self._tokenizer(prompt, add_special_tokens=special, verbose=False)["input_ids"])
            elif prompt and isinstance(prompt[0], Message):
                ids = contract.prompt_ids(self._tokenizer, prompt, add_generation_prompt=header)
            else:
                ids = [int(token) for token in prompt]  # type: ignore[arg-type]
        self._check_known(ids)
        return ids


def _is_chat(prompt: Prompt) -> TypeGuard[tuple[Message, ...]]:
    return isinstance(prompt, tuple) and isinstance(prompt[0], Message)


def words_for_clients(error: Exception, name: str) -> str:
    """An error's message without the server's folders and addresses.

    Args:
        error: its message may name the folder of an adapter, a database or a base.
        name: what the client calls the adapter.
    """
    if isinstance(error, RegistryError):
        return f"The model registry cannot be read, and {name} was not used here before; try again shortly."
    text = re.sub(r"\badapter " + _PATH.pattern, f"adapter {name}", str(error))
    text = _PATH.sub(lambda found: found[0].rstrip("/").rpartition("/")[2] or "...", text)
    return f"{name}: {text}" if isinstance(error, AdapterError) and name not in text else text


def _refusal(error: Exception, asked: ModelVersion | FolderVersion | AdapterRef | None) -> Refusal:
    kinds: dict[type[Exception], RefusalKind] = {
        NoToolSyntax: "no_tools",
        GrammarsMissing: "no_grammars",
        GrammarError: "bad_grammar",
        EngineBusy: "busy",
        PromptTooLong: "too_long",
        DeadlineExceeded: "timeout",
        TemplateError: "bad_prompt",
        SpecError: "bad_prompt",  # a parameter that this engine does not have
        AdapterError: "bad_adapter",
        RegistryError: "registry",
    }
    kind = next(kind for cause, kind in kinds.items() if isinstance(error, cause))
    if isinstance(error, AdapterError | RegistryError):
        _log.warning("%s could not answer: %s", _name_of(asked), error)
    return Refusal(kind, words_for_clients(error, _name_of(asked)))


def _name_of(adapter: ModelVersion | FolderVersion | AdapterRef | None) -> str:
    if adapter is None:
        return "the base"
    return adapter.version_id if isinstance(adapter, AdapterRef) else adapter.id


def _labels(adapter: ModelVersion | FolderVersion | AdapterRef | None) -> tuple[str | None, str, tuple[str, ...]]:
    """Model, version, and all names of an adapter, for metrics."""
    if adapter is None:
        return None, "", ()
    if isinstance(adapter, AdapterRef):
        return adapter.version_id, "", (adapter.version_id,)
    if isinstance(adapter, FolderVersion):
        return adapter.name, "", (adapter.name,)
    aliases = (f"{adapter.name}@{alias}" for alias in adapter.aliases)
    return adapter.name, str(adapter.version), (adapter.name, adapter.id, *aliases)

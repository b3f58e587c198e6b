"""Our own engine as a model that an evaluation asks: one base in memory, and any of the adapters on it.

Ask -> token ids by the template contract -> engine, or a forward pass between two of its rounds -> Answer
"""

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import torch

from didact.cluster.asking.subjects import HeldOutRows, Subject, SubjectFacts
from didact.errors import DataError, DidactError, TemplateError
from didact.evaluation import (
    Answer,
    Ask,
    Generation,
    Identity,
    Likelihood,
    Likely,
    Prompt,
    TaskResult,
    Text,
    TokenIds,
    held_out_result,
    log_likelihoods,
)
from didact.files import fingerprint
from didact.models import (
    AdapterHost,
    base_fingerprint,
    base_folder,
    base_of,
    load_base,
    load_tokenizer,
    packed_attention_inside,
    shares_prefixes,
    supports_packing,
    verify_adapter,
    weights_digest,
)
from didact.serving.engine import AdapterRef, EmbeddedEngine, EngineDied, EngineStopped, GenerationRequest, Sampling
from didact.spec import ModelSpec
from didact.tokens import TemplateContract

_Found = TypeVar("_Found")
_ENGINE = "1"
"""Raise when the engine computes otherwise, so that answers of before are not taken for its own."""
_NO_LIMIT = 2**31
_ROWS_AT_ONCE = 64
"""Sequences that are scored between two rounds of generation."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A subject that was looked at."""

    facts: SubjectFacts
    adapter: AdapterRef | None
    scorer: "_Scorer"


class EngineModels:
    """A base in memory with its engine, and the subjects that stand on it."""

    def __init__(self, subjects: Mapping[str, Subject], *, device: torch.device, batch_size: int) -> None:
        """Load the base and look at each subject.

        Args:
            subjects: by the key that `answer` takes; all of one base.
            device: where it lies.
            batch_size: rows in generation.

        Raises:
            ModelError: the base cannot be loaded.
            AdapterError: an adapter cannot be used.
            TemplateError: an adapter was taught to be asked otherwise.
        """
        model = next(iter(subjects.values())).model
        self._device, self._batch_size = device, batch_size
        self._tokenizer = load_tokenizer(model)
        identity = base_fingerprint(model)
        self.base = load_base(model, device, shared=True)
        self.host = AdapterHost(self.base, identity)
        self.engine = EmbeddedEngine(
            self.host,
            self._tokenizer,
            max_adapters=max(1, len(subjects)),
            max_batch_size=batch_size,
            max_waiting=_NO_LIMIT,
        )
        digests = {"base": identity, "weights": weights_digest(base_folder(model)), **_computing(self.base, model)}
        self._ready = {key: self._look_at(subject, digests) for key, subject in subjects.items()}

    def _look_at(self, subject: Subject, digests: dict[str, str]) -> _Ready:
        contract, adapter = TemplateContract.of(self._tokenizer, subject.tokens), None
        if subject.adapter is not None:
            sha256 = verify_adapter(subject.adapter, digests["base"]).sha256
            adapter = AdapterRef(f"{subject.adapter.name}#{sha256[:12]}", subject.adapter)
            own = TemplateContract.load(subject.adapter)
            expected = contract if subject.strict else replace(own, tokenizer_sha256=contract.tokenizer_sha256)
            own.check(expected, f"adapter {subject.adapter}")
            contract, digests = own, {**digests, "adapter": sha256}
        identity = Identity(subject.name, {**digests, "template": contract.fingerprint})
        facts = SubjectFacts(identity, contract, self.engine.context_length)
        return _Ready(facts, adapter, _Scorer(self.engine, adapter))

    @property
    def facts(self) -> dict[str, SubjectFacts]:
        """By subject."""
        return {key: ready.facts for key, ready in self._ready.items()}

    async def answer(self, key: str, ask: Ask) -> Answer:
        """Answer one ask; what concerns it alone comes back as the answer's `problem`.

        Raises:
            EngineStopped: nothing can be answered any more.
        """
        started, subject = time.perf_counter(), self._ready[key]
        try:
            prompt = self._encode(ask.prompt, subject.facts.contract)
            if isinstance(ask, Generation):
                answer = Answer(texts=await self._generate(subject, ask, prompt))
            else:
                answer = Answer(likelihoods=await self._score(subject, ask, prompt))
        except (EngineStopped, EngineDied):
            raise
        except DidactError as error:  # one question that breaks costs itself
            return Answer(problem=f"{type(error).__name__}: {error}")
        return replace(answer, num_prompt_tokens=len(prompt), seconds=time.perf_counter() - started)

    def borrow(self, key: str, function: Callable[[Any], _Found]) -> "Future[_Found]":
        """Call `function` with the subject's model, between two rounds of the engine."""
        return self.engine.borrow(self._ready[key].adapter, function)

    async def held_out(self, key: str, rows: HeldOutRows) -> TaskResult:
        """Losses of a subject on held-out rows, in forward passes between two rounds of the engine."""
        samples = rows.open()
        packing = rows.recipe.packing and supports_packing(self.base)

        def measure(model: Any) -> TaskResult:
            longest = rows.recipe.tokens.max_length
            on_cpu = packing and self._device.type == "cpu"
            with packed_attention_inside(base_of(model), longest) if on_cpu else contextlib.nullcontext():
                shares = packing and shares_prefixes(model, self._device)
                return held_out_result(
                    model, samples, batch_size=self._batch_size, packing=packing, share_prefixes=shares
                )

        return await asyncio.wrap_future(self.borrow(key, measure))

    def close(self) -> None:
        """Stop the engine."""
        self.engine.close()

    async def _generate(self, subject: _Ready, ask: Generation, prompt: list[int]) -> tuple[Text, ...]:
        opened = [*prompt, *self._plain(ask.opening)] if ask.opening else prompt
        requests = [
            GenerationRequest(
                request_id=uuid.uuid4().hex,
                prompt_ids=tuple(opened),
                adapter=subject.adapter,
                max_new_tokens=ask.max_new_tokens,
                sampling=Sampling(temperature=ask.temperature, top_p=ask.top_p, seed=ask.seed + number),
                stop=ask.stop,
                stop_token_ids=subject.facts.contract.stop_token_ids,
            )
            for number in range(ask.num_samples)
        ]
        return tuple(await asyncio.gather(*map(self._text, requests)))

    async def _text(self, request: GenerationRequest) -> Text:
        pieces: list[str] = []
        tokens: list[int] = []
        finish = None
        async for delta in self.engine.generate(request):
            pieces.append(delta.text)
            tokens += delta.token_ids
            finish = delta.finish_reason
        ended = bool(tokens) and tokens[-1] in request.stop_token_ids
        return Text("".join(pieces), len(tokens) - ended, finish or "length")

    async def _score(self, subject: _Ready, ask: Likelihood, prompt: list[int]) -> tuple[Likely, ...]:
        encoded = [self._plain(each) if isinstance(each, str) else list(each.ids) for each in ask.continuations]
        if not all(encoded):
            raise DataError(f"continuation {encoded.index([])} has no tokens; expected some text")
        longest = len(prompt) + max(map(len, encoded)) - 1
        if longest > self.engine.context_length:
            raise DataError(
                f"prompt and continuation have {longest} tokens; the model reads {self.engine.context_length}"
            )
        return await subject.scorer.score([(prompt, each) for each in encoded])

    def _encode(self, prompt: Prompt, contract: TemplateContract) -> list[int]:
        if isinstance(prompt, TokenIds):
            ids = list(prompt.ids)
        elif isinstance(prompt, str):
            ids = self._plain(prompt) or self._first()
        else:
            ids = contract.prompt_ids(self._tokenizer, prompt)
        if not ids:
            raise TemplateError("the prompt renders to no tokens; expected at least one message with text")
        return ids

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _first(self) -> list[int]:
        """What stands before a text that follows nothing."""
        first = (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id)
        return [next((token for token in first if token is not None), 0)]


class _Scorer:
    """Sequences that wait together are scored together, in forward passes between the engine's rounds."""

    def __init__(self, engine: EmbeddedEngine, adapter: AdapterRef | None) -> None:
        self._engine, self._adapter = engine, adapter
        self._waiting: deque[tuple[list[tuple[list[int], list[int]]], asyncio.Future[tuple[Likely, ...]]]] = deque()
        self._working: asyncio.Task[None] | None = None

    async def score(self, pairs: list[tuple[list[int], list[int]]]) -> tuple[Likely, ...]:
        future: asyncio.Future[tuple[Likely, ...]] = asyncio.get_running_loop().create_future()
        self._waiting.append((pairs, future))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        await asyncio.sleep(0)  # what is asked in the same moment waits here as well
        while self._waiting:
            taken = [self._waiting.popleft()]
            while self._waiting and sum(len(pairs) for pairs, _ in taken) < _ROWS_AT_ONCE:
                taken.append(self._waiting.popleft())
            pairs = [pair for each, _ in taken for pair in each]
            try:
                borrowed = self._engine.borrow(self._adapter, partial(log_likelihoods, pairs=pairs))
                likely = await asyncio.wrap_future(borrowed)
            except Exception as error:  # noqa: BLE001 - raised where each of them is waited for
                for _, future in taken:
                    future.set_exception(error)
            else:
                found = iter(likely)
                for each, future in taken:
                    future.set_result(tuple(next(found) for _ in each))


def _computing(base: Any, model: ModelSpec) -> dict[str, str]:
    """How the base computes, which decides answers as its weights do."""
    held = model.quantization
    return {
        "numbers": str(base.dtype).removeprefix("torch."),
        "quantization": fingerprint([held.model_dump(mode="json"), version("bitsandbytes")]) if held else "none",
        "attention": str(base.config._attn_implementation),
        "device": base.device.type,
        "engine": _ENGINE,
    }

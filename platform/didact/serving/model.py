"""A base, and an adapter on it, in this process: asked from Python, where an event loop may be running already.

name or folder -> load_model -> Model -> chat, stream, predict_rows, predict_file
"""

import asyncio
import threading
import uuid
import weakref
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, overload

from rich.table import Table
from rich.text import Text
from typing_extensions import override

from didact import env
from didact.datasets.places.in_memory import json_lines
from didact.display import Shown
from didact.models import verify_adapter
from didact.registry import locate_adapter, open_registry, recorded_base, whole_model
from didact.serving.chat import answer_pieces
from didact.serving.engine.protocol import AdapterRef, Sampling
from didact.serving.predict import PredictReport, PredictSettings, answered_in_order, batch_models, predict_file
from didact.serving.prompt_rows import PromptRow, prompt_of
from didact.serving.replica.assemble import base_name, pinned_names
from didact.serving.replica.backend import Ask
from didact.serving.replica.load_worker import build_worker
from didact.serving.replica.pinned import PinnedNames
from didact.serving.replica.worker import Worker
from didact.spec import PREDICTED_TOKENS, ModelSpec, ServeSpec

_Result = TypeVar("_Result")
_SHOWN_ROWS = 20
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Predictions(Shown, Sequence[dict[str, Any]]):
    """The rows that were asked, each with `prediction` and `model` added, or `error` and `line` where it has none."""

    rows: tuple[dict[str, Any], ...]

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[dict[str, Any], ...]: ...
    @override
    def __getitem__(self, index: int | slice) -> dict[str, Any] | tuple[dict[str, Any], ...]:
        return self.rows[index]

    @override
    def __len__(self) -> int:
        return len(self.rows)

    @override
    def __rich__(self) -> Table:
        shown = self.rows[:_SHOWN_ROWS]
        more = f"{len(shown)} of {len(self)} rows" if len(shown) < len(self) else None
        table = Table("", "asked", "prediction", caption=more)
        for number, row in enumerate(shown, 1):
            answer = Text(_cut(row["prediction"])) if "prediction" in row else Text(row["error"], style="red")
            table.add_row(str(number), Text(_cut(_asked(row))), answer)
        return table


class Model(Shown):
    """A model in memory that answers. Close it, or use it in a `with` block, to give the memory back."""

    def __init__(
        self,
        worker: Worker,
        name: str,
        spec: ServeSpec,
        adapter: AdapterRef | None = None,
        reference: str | None = None,
    ) -> None:
        """Take over a worker.

        Args:
            worker: from `build_worker`; closed with the model.
            name: what answers are said to come from.
            spec: what the worker was built from.
            adapter: what answers; None is the base.
            reference: what the user calls it.
        """
        self.worker, self.name, self.spec, self.adapter = worker, name, spec, adapter
        self._reference = reference
        # A notebook's cells run inside a loop, in which no other can be run: this one has a thread of its own.
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, name=f"model {name}", daemon=True)
        thread.start()
        self._close = weakref.finalize(self, _close, worker, self._loop, thread)

    def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        max_new_tokens: int = PREDICTED_TOKENS,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> str:
        """The model's next turn.

        Args:
            messages: what the user says, or the turns so far as `{"role": ..., "content": ...}`, the user's last or a
                tool's result; calls as `tool_calls`.
            tools: what the model may call, as OpenAI lists it. Calls come as text in the template's own syntax.
            max_new_tokens: longest answer, in tokens.
            temperature: 0 is greedy.
            seed: the same seed gives the same answer; None draws one.

        Raises:
            DataError: the turns are no conversation.
            ChatError: no answer.
        """
        pieces = self.stream(messages, tools=tools, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        return "".join(pieces)

    def stream(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        max_new_tokens: int = PREDICTED_TOKENS,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The model's next turn, piece by piece; see `chat`."""
        turns = (
            [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(each) for each in messages]
        )
        asked = {"messages": turns, "tools": [dict(each) for each in tools or ()]}
        sampling = Sampling(temperature=temperature, seed=seed)
        ask = Ask(uuid.uuid4().hex, prompt_of(asked), self.adapter, max_new_tokens, 3600, sampling)
        return answer_pieces(self.worker, ask, self._run)

    def predict_rows(self, rows: Any, settings: PredictSettings | None = None) -> Predictions:
        """Answer rows that are in memory, each as `predict_file` answers a line.

        Args:
            rows: texts, dicts, or a table.
            settings: how answers are generated.

        Raises:
            DataError: `rows` are none of these.
        """
        if isinstance(rows, list | tuple):
            rows = [{"prompt": each} if isinstance(each, str) else each for each in rows]
        asked = [PromptRow.parse(number, line) for number, line in enumerate(json_lines(rows), 1)]
        return Predictions(tuple(self._run(self._answers(asked, settings or PredictSettings()))))

    def predict_file(self, source: Path, output: Path, settings: PredictSettings | None = None) -> PredictReport:
        """Answer a file of prompts or batch lines; see `predict.predict_file`."""
        found = FoundModel(self.name, self.spec, self.adapter)
        return predict_file(
            self.worker,
            source,
            output,
            model=self.name,
            adapter=self.adapter,
            settings=settings,
            names=found.names(batch_models(source), self._reference),
            run=self._run,
        )

    def close(self) -> None:
        """Stop the engine; the model cannot be asked any more."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @override
    def __rich__(self) -> Text:
        return Text(f"{self.name}{'' if self._close.alive else ' (closed)'}")

    async def _answers(self, rows: list[PromptRow], settings: PredictSettings) -> list[dict[str, Any]]:
        answers = answered_in_order(self.worker, rows, self.adapter, settings, self.name)
        return [answer async for answer in answers]

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run it in the model's loop; an interrupt of the caller ends it there as well."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that is not in memory yet."""

    name: str
    """What its answers are said to come from."""
    spec: ServeSpec
    adapter: AdapterRef | None = None
    """None is the base."""

    def load(self, reference: str | None = None) -> "Model":
        """Bring it into memory.

        Args:
            reference: what the user calls it.

        Raises:
            ModelError: the base cannot be loaded.
        """
        return Model(build_worker(self.spec, env.threads()), self.name, self.spec, self.adapter, reference)

    def names(self, asked: Iterable[str], reference: str | None = None) -> PinnedNames:
        """What batch lines may name: this model, its base, and what is registered.

        Args:
            asked: the names.
            reference: what the user calls the model.

        Raises:
            RegistryError: the registry cannot be reached.
        """
        called = {self.name, *([reference] if reference else [])}
        return pinned_names(self.spec, asked, dict.fromkeys(called, self.adapter))


def find_model(reference: str | None, base: ModelSpec | None = None, *, max_adapters: int | None = None) -> FoundModel:
    """Find out what a reference means.

    Args:
        reference: a run folder, an adapter folder, or `name`, `name@alias`, `name:version`; None is the base alone.
        base: the base; None for the one that the adapter was trained on.
        max_adapters: adapters in memory; None for as many as a server holds.

    Raises:
        AdapterError, NotRegistered, RegistryError: the adapter cannot be used.
    """
    places = {} if max_adapters is None else {"max_adapters": max_adapters}
    if reference is not None and (whole := whole_model(reference)) is not None:
        model = (base or recorded_base(whole)).model_copy(update={"base": str(whole)})
        return FoundModel(reference, ServeSpec(model=model, **places))
    if reference is None:
        spec = ServeSpec(model=base or ModelSpec(), **places)
        return FoundModel(base_name(spec), spec)
    folder = locate_adapter(reference, open_registry())
    adapter = AdapterRef(f"{reference}#{verify_adapter(folder).sha256[:12]}", folder)
    return FoundModel(adapter.version_id, ServeSpec(model=base or recorded_base(folder), **places), adapter)


def load_model(reference: str | None, base: ModelSpec | None = None) -> Model:
    """Bring a model into memory; see `find_model`.

    Raises:
        AdapterError, NotRegistered, RegistryError: the adapter cannot be used.
        ModelError: the base cannot be loaded.
    """
    return find_model(reference, base).load(reference)


def _close(worker: Worker, loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    worker.close()


def _asked(row: Mapping[str, Any]) -> str:
    if isinstance(turns := row.get("messages"), list) and turns:
        return str(turns[-1].get("content", "")) if isinstance(turns[-1], dict) else ""
    return "\n".join(str(row[key]) for key in ("prompt", "instruction", "input") if row.get(key))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " ..."

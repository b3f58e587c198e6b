"""Batch prediction: a file of prompts or of OpenAI's batch lines in, one line with an answer out for each.

    input.jsonl -> rows or batch lines -> a Backend (an engine here, or on Ray workers) -> output.jsonl

An interrupted run goes on behind the last complete line of its output.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from typing_extensions import override

from didact.errors import DataError, SpecError
from didact.files import append_jsonl, cut_to_lines, numbered_lines, write_json
from didact.logs import get_logger
from didact.registry import ModelVersion
from didact.serving.api.answers import whole_text
from didact.serving.api.gateway import Gateway, GatewaySettings
from didact.serving.batch.lines import (
    BatchLine,
    answered_line,
    are_batch_lines,
    check_same,
    has_failed,
    without_doubles,
)
from didact.serving.engine.protocol import AdapterRef, Sampling
from didact.serving.prompt_rows import ADDED_FIELDS, PromptRow
from didact.serving.replica.backend import Ask, Backend
from didact.serving.replica.pinned import PinnedNames
from didact.spec import PREDICTED_TOKENS

_log = get_logger(__name__)
_DECIDING = ("max_new_tokens", "temperature", "top_p", "num_beams", "seed")
"""Settings that decide what is answered."""
_AHEAD = 8
"""Rows that may be answered before one in front of them is, as a multiple of those in work."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class PredictSettings:
    """How the answers are generated."""

    max_new_tokens: int = PREDICTED_TOKENS
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    num_beams: int = 1
    """Answers that are followed at once, of which the likeliest is written; above 1, nothing is sampled."""
    seed: int = 0
    """Of sampling; each line draws its own stream from it."""
    concurrency: int = 32
    """Rows in the engine at once."""
    timeout_seconds: float = 3600
    """Longest time for one row."""

    def __post_init__(self) -> None:
        if self.num_beams > 1 and self.temperature:
            raise SpecError(
                f"num_beams: found {self.num_beams} beside a temperature of {self.temperature:g}; beams follow the "
                "likeliest answers and sample none: leave one of them out"
            )


@dataclass(frozen=True, slots=True)
class PredictReport:
    """What was done."""

    num_answered: int
    num_failed: int
    """Rows with `error` instead of `prediction`."""
    num_kept: int
    """Rows that an earlier, interrupted run had already written."""

    def render(self) -> str:
        """One line for people."""
        kept = f", {self.num_kept} kept from before" if self.num_kept else ""
        return f"{self.num_answered} rows answered, {self.num_failed} could not be{kept}"


def predict_file(
    backend: Backend,
    source: Path,
    output: Path,
    *,
    model: str,
    adapter: ModelVersion | AdapterRef | None = None,
    settings: PredictSettings | None = None,
    names: PinnedNames | None = None,
    run: Callable[[Coroutine[Any, Any, int]], int] = asyncio.run,
) -> PredictReport:
    """Answer every line of `source`; line k of `output` belongs to the k-th line of `source` that is not blank.

    A row is a JSON object with `prompt` (one user turn), `messages` (ending with the user's or a tool's result), or
    Alpaca's `instruction` and `input`; `tools` beside them are on offer. Its fields are kept; `prediction` and `model`
    are added, or `error` and `line` for a row that cannot be answered.

    Where the lines are OpenAI's batch lines, each names its own model and settings, and gets the answer that the API
    would give it.

    Args:
        backend: who answers, such as a worker from `build_worker`; stays open.
        source: JSON lines.
        output: JSON lines.
        model: what `model` says in the output, and what batch lines mean that name none.
        adapter: what answers; None is the base.
        settings: how answers are generated.
        names: what else batch lines may name; None for `model` alone.
        run: runs a coroutine to its end, where an event loop may be running already.

    Raises:
        DataError: `source` is missing, or `output` was written for other rows or another model.
    """
    settings = settings or PredictSettings()
    if output.exists() and output.resolve() == source.resolve():
        raise DataError(f"{output} is the input itself; give another output")
    try:
        texts = list(numbered_lines(source))
    except FileNotFoundError:
        raise DataError(f"{source} does not exist; expected JSON lines with prompts") from None
    work: _Work
    if are_batch_lines(text for _, text in texts):
        lines = without_doubles(BatchLine.parse(number, text) for number, text in texts)
        names = names or PinnedNames(model, {model: adapter})
        work = _BatchWork(backend, lines, model, settings, names)
    else:
        rows = [PromptRow.parse(number, text) for number, text in texts]
        _check_rows(rows, source)
        work = _RowWork(backend, rows, model, adapter, settings)
    kept = _already_written(output, work)
    _check_settings(output, settings, begun=kept > 0)
    failed = run(_write_answers(work, kept, output, settings.concurrency))
    report = PredictReport(len(texts) - kept - failed, failed, kept)
    _log.info("%s: %d answered, %d failed, %d kept", output, report.num_answered, report.num_failed, report.num_kept)
    return report


def _check_rows(rows: Sequence[PromptRow], source: Path) -> None:
    """Say which fields of the input the output does not keep.

    Raises:
        DataError: no row can be answered: the file holds something else.
    """
    if rows and all(row.error for row in rows):
        raise DataError(
            f"{source}: none of its {len(rows):,} lines can be answered; line {rows[0].line}: {rows[0].error}"
        )
    if replaced := sorted({name for row in rows for name in ADDED_FIELDS if name in row.fields}):
        _log.warning("%s: the output has its own %s in the place of the input's", source, ", ".join(replaced))


async def answered_in_order(
    backend: Backend,
    rows: Sequence[PromptRow],
    adapter: ModelVersion | AdapterRef | None,
    settings: PredictSettings,
    model: str,
) -> AsyncIterator[dict[str, Any]]:
    """Each row with `prediction` and `model` added, or `error`, `line` and `model`; see `predict_file`."""
    work = _RowWork(backend, rows, model, adapter, settings)
    async for record in _in_order(work.answered, range(len(rows)), settings.concurrency):
        yield record


def batch_models(source: Path) -> tuple[str, ...]:
    """The models that a file's batch lines name, each once; none where it holds other rows, or is not there."""
    if not source.is_file():
        return ()
    texts = list(numbered_lines(source))
    if not are_batch_lines(text for _, text in texts):
        return ()
    named = (BatchLine.parse(number, text).model for number, text in texts)
    return tuple(dict.fromkeys(name for name in named if name is not None))


class _Work(Protocol):
    """The lines of an input, by number."""

    def check(self, number: int, record: dict[str, Any], output: Path) -> None:
        """Raise DataError where a record of an earlier output does not belong to this line, or there is none."""
        ...

    def __len__(self) -> int: ...

    async def answered(self, number: int) -> dict[str, Any]:
        """The output of a line."""
        ...

    def has_failed(self, record: dict[str, Any]) -> bool:
        """Whether an output holds no answer."""
        ...


class _RowWork(_Work):
    """Rows with prompts."""

    def __init__(
        self,
        backend: Backend,
        rows: Sequence[PromptRow],
        model: str,
        adapter: ModelVersion | AdapterRef | None,
        settings: PredictSettings,
    ) -> None:
        self._backend, self._rows, self._model, self._adapter = backend, rows, model, adapter
        self._settings = settings

    def __len__(self) -> int:
        return len(self._rows)

    @override
    def check(self, number: int, record: dict[str, Any], output: Path) -> None:
        row = self._rows[number] if number < len(self._rows) else None
        if row is None or {key: value for key, value in record.items() if key not in ADDED_FIELDS} != row.record():
            raise DataError(f"{output} holds answers to other rows than this input's; give another output or remove it")
        if (found := record.get("model")) != self._model:
            raise DataError(f"{output} was begun with model {found!r}, not {self._model!r}; give another output")

    @override
    async def answered(self, number: int) -> dict[str, Any]:
        row = self._rows[number]
        answer, error = await self._answer(row)
        if error:
            return row.record(error=error, line=row.line, model=self._model)
        return row.record(prediction=answer, model=self._model)

    @override
    def has_failed(self, record: dict[str, Any]) -> bool:
        return "error" in record

    async def _answer(self, row: PromptRow) -> tuple[str, str]:
        settings = self._settings
        if row.prompt is None:
            return "", row.error
        ask = Ask(
            request_id=f"line-{row.line}",
            prompt=row.prompt,
            adapter=self._adapter,
            max_new_tokens=settings.max_new_tokens,
            timeout_seconds=settings.timeout_seconds,
            sampling=Sampling(settings.temperature, settings.top_p, seed=settings.seed + row.line),
            num_beams=settings.num_beams,
        )
        text, refusal = await whole_text(self._backend.ask(ask))
        return text, refusal.message if refusal else ""


class _BatchWork(_Work):
    """OpenAI's batch lines."""

    def __init__(
        self, backend: Backend, lines: Sequence[BatchLine], model: str, settings: PredictSettings, names: PinnedNames
    ) -> None:
        self._lines = lines
        promised = GatewaySettings(settings.max_new_tokens, settings.timeout_seconds)
        self._gateway = Gateway(backend, names, promised)
        if settings.temperature:
            _log.warning("temperature has no effect on batch lines: each says its own")
        if settings.num_beams > 1:
            _log.warning("num_beams has no effect on batch lines: each says its own")
        for line in lines:
            if line.body is not None:
                line.body.setdefault("model", model)

    def __len__(self) -> int:
        return len(self._lines)

    @override
    def check(self, number: int, record: dict[str, Any], output: Path) -> None:
        check_same(record, self._lines[number] if number < len(self._lines) else None, output)

    @override
    async def answered(self, number: int) -> dict[str, Any]:
        return await answered_line(self._gateway, self._lines[number])

    @override
    def has_failed(self, record: dict[str, Any]) -> bool:
        return has_failed(record)


def _already_written(output: Path, work: _Work) -> int:
    """Complete lines of an earlier run. A last line without its end is cut off."""
    if not output.exists():
        return 0
    cut_to_lines(output)
    count = 0
    with output.open("rb") as lines:
        for count, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise DataError(f"{output}, line {count}, is no answer of an earlier run; give another output")
            work.check(count - 1, record, output)
    return count


def _check_settings(output: Path, settings: PredictSettings, *, begun: bool) -> None:
    """One file holds answers of one kind. How they were asked for stands beside it, in a hidden file.

    Raises:
        DataError: it was begun with others.
    """
    deciding = {name: getattr(settings, name) for name in _DECIDING}
    file = output.with_name(f".{output.name}.settings")
    earlier: Any = None
    if begun and file.is_file():
        with contextlib.suppress(ValueError):
            earlier = json.loads(file.read_text(encoding="utf-8"))
    for name in _DECIDING if isinstance(earlier, dict) else ():
        if name in earlier and earlier[name] != deciding[name]:
            raise DataError(
                f"{output} was begun with {name} {earlier[name]}, not {deciding[name]}; give another output"
            )
    if begun:
        return  # what older versions have begun has no such file
    write_json(file, deciding)


async def _write_answers(work: _Work, kept: int, output: Path, concurrency: int) -> int:
    """Write what is missing; returns how many lines could not be answered."""
    failed = 0
    async for record in _in_order(work.answered, range(kept, len(work)), concurrency):
        failed += work.has_failed(record)
        append_jsonl(output, record)
    return failed


async def _in_order(
    answered: Callable[[int], Awaitable[_Answer]], numbers: range, concurrency: int
) -> AsyncGenerator[_Answer, None]:
    """The answer of each number, in order, with `concurrency` of them in work.

    One that takes long holds up what is written behind it, and not what is computed, up to `_AHEAD` times as many.
    """
    free = asyncio.Semaphore(concurrency)

    async def one(number: int) -> _Answer:
        async with free:
            return await answered(number)

    running: deque[asyncio.Task[_Answer]] = deque()
    waiting = iter(numbers)
    try:
        while True:
            while len(running) < _AHEAD * concurrency and (number := next(waiting, None)) is not None:
                running.append(asyncio.create_task(one(number)))
            if not running:
                return
            yield await running[0]
            running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

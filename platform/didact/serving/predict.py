"""Batch prediction: a file of prompts in, the same rows with answers out.

    prompts.jsonl -> read rows -> Worker (the engine of the API, without HTTP) -> answers.jsonl

An interrupted run goes on behind the last complete line of its output.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from didact.datasets.conversation import Message
from didact.datasets.forms.turns import prompt_turns
from didact.errors import DataError
from didact.files import append_jsonl
from didact.logs import get_logger
from didact.registry import ModelVersion
from didact.serving.api.answers import whole_text
from didact.serving.engine.protocol import AdapterRef, Sampling
from didact.serving.replica.backend import Ask, Prompt
from didact.serving.replica.worker import Worker
from didact.spec import PREDICTED_TOKENS

_log = get_logger(__name__)
_ADDED = ("prediction", "model", "error", "line")


@dataclass(frozen=True, slots=True)
class PredictSettings:
    """How the answers are generated."""

    max_new_tokens: int = PREDICTED_TOKENS
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    """Of sampling; each line draws its own stream from it."""
    concurrency: int = 32
    """Rows in the engine at once."""
    timeout_seconds: float = 3600
    """Longest time for one row."""


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
    worker: Worker,
    source: Path,
    output: Path,
    *,
    model: str,
    adapter: ModelVersion | AdapterRef | None = None,
    settings: PredictSettings | None = None,
    run: Callable[[Coroutine[Any, Any, int]], int] = asyncio.run,
) -> PredictReport:
    """Answer every line of `source`; line k of `output` belongs to the k-th line of `source` that is not blank.

    A row is a JSON object with `prompt` (one user turn), `messages` (ending with the user's or a tool's result), or
    Alpaca's `instruction` and `input`; `tools` beside them are on offer. Its fields are kept; `prediction` and `model`
    are added, or `error` and `line` for a row that cannot be answered.

    Args:
        worker: from `build_worker`; stays open.
        model: what `model` says in the output.
        adapter: what answers; None is the base.
        settings: how answers are generated.
        run: runs a coroutine to its end, where an event loop may be running already.

    Raises:
        DataError: `source` is missing, or `output` was written for other rows or another model.
    """
    settings = settings or PredictSettings()
    try:
        rows = [PromptRow.parse(number, line) for number, line in _lines(source)]
    except FileNotFoundError:
        raise DataError(f"{source} does not exist; expected JSON lines with prompts") from None
    kept = _already_written(output, rows, model)
    failed = run(_answer_rows(worker, rows[kept:], output, model, adapter, settings))
    report = PredictReport(len(rows) - kept - failed, failed, kept)
    _log.info("%s: %d answered, %d failed, %d kept", output, report.num_answered, report.num_failed, report.num_kept)
    return report


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One line of the input."""

    line: int
    """Counted from 1."""
    fields: dict[str, Any]
    prompt: Prompt | None
    """None when the row is bad."""
    error: str = ""

    @classmethod
    def parse(cls, line: int, text: bytes) -> "PromptRow":
        """Read one line; what is wrong with it goes into `error`."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            return cls(line, {}, None, f"not valid JSON: {error}")
        if not isinstance(values, dict):
            return cls(line, {}, None, f"expected a JSON object, found {type(values).__name__}")
        try:
            json.dumps(values, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            return cls(line, {}, None, "holds half of a surrogate pair, which is no character")
        try:
            return cls(line, values, prompt_of(values))
        except DataError as error:
            return cls(line, values, None, str(error))

    def record(self, **added: Any) -> dict[str, Any]:
        """The output line: the input's fields and what is added."""
        return {**{key: value for key, value in self.fields.items() if key not in _ADDED}, **added}


def prompt_of(values: dict[str, Any]) -> tuple[Message, ...]:
    """What a row asks.

    Raises:
        DataError: it has none of the fields, or they hold something else.
    """
    values = {
        field: value for field, value in values.items() if value is not None
    }  # a table has all, some of them null
    if "messages" in values:
        return prompt_turns(values)
    if "prompt" in values:
        return _asked(values, _text(values, "prompt"))
    if "instruction" in values:
        parts = [_text(values, "instruction"), _text(values, "input") if values.get("input") else ""]
        return _asked(values, "\n\n".join(part for part in parts if part))
    raise DataError(f"expected a field prompt, messages or instruction; found {sorted(values)}")


def _asked(values: dict[str, Any], text: str) -> tuple[Message, ...]:
    return prompt_turns({**values, "messages": [{"role": "user", "content": text}]})


def _text(values: dict[str, Any], field: str) -> str:
    text = values[field]
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{field}: expected text, found {str(text)[:50]!r}")
    return text


def _lines(source: Path) -> Iterator[tuple[int, bytes]]:
    with source.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, line


def _already_written(output: Path, rows: list[PromptRow], model: str) -> int:
    """Complete lines of an earlier run. A last line without its end is cut off."""
    if not output.exists():
        return 0
    content = output.read_bytes()
    complete = content[: content.rfind(b"\n") + 1]
    lines = complete.splitlines()
    if len(complete) < len(content):
        with output.open("r+b") as stream:
            stream.truncate(len(complete))
    if not lines:
        return 0
    last = json.loads(lines[-1])
    row = rows[len(lines) - 1] if len(lines) <= len(rows) else None
    if row is None or {key: value for key, value in last.items() if key not in _ADDED} != row.record():
        raise DataError(f"{output} holds answers to other rows than this input's; give another output or remove it")
    if last.get("model") != model:
        raise DataError(f"{output} was begun with model {last.get('model')!r}, not {model!r}; give another output")
    return len(lines)


async def _answer_rows(
    worker: Worker,
    rows: list[PromptRow],
    output: Path,
    model: str,
    adapter: ModelVersion | AdapterRef | None,
    settings: PredictSettings,
) -> int:
    failed = 0
    async for answered in answered_in_order(worker, rows, adapter, settings, model):
        failed += "error" in answered
        append_jsonl(output, answered)
    return failed


async def answered_in_order(
    worker: Worker,
    rows: list[PromptRow],
    adapter: ModelVersion | AdapterRef | None,
    settings: PredictSettings,
    model: str,
) -> AsyncIterator[dict[str, Any]]:
    """Each row with `prediction` and `model` added, or `error`, `line` and `model`; see `predict_file`."""
    async for row, answer, error in _in_order(worker, rows, adapter, settings):
        if error:
            yield row.record(error=error, line=row.line, model=model)
        else:
            yield row.record(prediction=answer, model=model)


async def _in_order(
    worker: Worker, rows: list[PromptRow], adapter: ModelVersion | AdapterRef | None, settings: PredictSettings
) -> AsyncIterator[tuple[PromptRow, str, str]]:
    """Row, answer and error of each row, in order, with `concurrency` rows in work."""
    running: deque[tuple[PromptRow, asyncio.Task[tuple[str, str]]]] = deque()
    waiting = iter(rows)
    try:
        while True:
            while len(running) < settings.concurrency and (row := next(waiting, None)) is not None:
                running.append((row, asyncio.create_task(_answer(worker, row, adapter, settings))))
            if not running:
                return
            row, task = running.popleft()
            yield (row, *await task)
    finally:
        for _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)


async def _answer(
    worker: Worker, row: PromptRow, adapter: ModelVersion | AdapterRef | None, settings: PredictSettings
) -> tuple[str, str]:
    if row.prompt is None:
        return "", row.error
    ask = Ask(
        request_id=f"line-{row.line}",
        prompt=row.prompt,
        adapter=adapter,
        max_new_tokens=settings.max_new_tokens,
        timeout_seconds=settings.timeout_seconds,
        sampling=Sampling(settings.temperature, settings.top_p, seed=settings.seed + row.line),
    )
    text, refusal = await whole_text(worker.ask(ask))
    return text, refusal.message if refusal else ""

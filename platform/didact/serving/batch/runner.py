"""Batches answered in the background, behind whatever else the server is asked.

    batch.json -> check all lines -> answer those that are not in the results -> output and error files

A gateway that finds a batch which nobody runs goes on with it, so a batch outlives the server: each line is answered
once, and only lines that were in work at a kill are asked again.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from didact.files import append_jsonl, cut_to_lines, numbered_lines, read_jsonl
from didact.logs import get_logger
from didact.serving.api.gateway import Gateway
from didact.serving.api.keys import Key
from didact.serving.batch.lines import BatchLine, answered_line, has_failed, without_doubles
from didact.serving.batch.store import ACTIVE, BatchStore, Status, StoredBatch, moved, new_file_id
from didact.spec import BatchesSpec

_log = get_logger(__name__)
_LOOK_SECONDS = 1.0
_BUSY_SECONDS = 0.1
_SWEEP_SECONDS = 3600.0
_MOST_ERRORS = 100
_OUTPUT, _ERRORS = "output.jsonl", "errors.jsonl"


class BatchRunner:
    """Runs the batches of a store.

    Args:
        gateway: answers lines.
        store: the batches.
        spec: how many at once.
    """

    def __init__(self, gateway: Gateway, store: BatchStore, spec: BatchesSpec) -> None:
        self._gateway, self._store, self._spec = gateway, store, spec
        self._free = asyncio.Semaphore(spec.concurrency)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._asked = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look for batches and run them inside the block."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            tasks = [watching, *self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def look(self) -> None:
        """There is something new."""
        self._asked.set()

    async def _watch(self) -> None:
        swept = 0.0
        while True:
            try:
                for batch in await asyncio.to_thread(self._store.batches):
                    if batch.status in ACTIVE and batch.id not in self._running:
                        self._running[batch.id] = asyncio.create_task(self._run(batch.id, batch.owner))
                if time.monotonic() > swept + _SWEEP_SECONDS or not swept:
                    swept = time.monotonic()
                    await asyncio.to_thread(self._store.sweep, time.time())
            except Exception:  # noqa: BLE001 - a watch that ended would leave every batch for good
                _log.exception("looking for batches failed")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), _LOOK_SECONDS)
            self._asked.clear()

    async def _run(self, number: str, owner: str | None) -> None:
        try:
            with self._store.claimed(number) as ours:
                if ours and (batch := self._store.batch(number, owner)) is not None and batch.status in ACTIVE:
                    await self._run_claimed(batch)
        except Exception:  # noqa: BLE001 - told in the batch, whose client waits for it
            _log.exception("batch %s failed", number)
            self._fail(number, [_problem("internal_error", "The server failed to run this batch.")])
        finally:
            self._running.pop(number, None)

    async def _run_claimed(self, batch: StoredBatch) -> None:
        key, admitted = self._gateway.admission.owner_key(batch.owner)
        if not admitted:
            return self._fail(batch.id, [_problem("invalid_api_key", "The key of this batch is not valid any more.")])
        file = self._store.file(batch.input_file_id, batch.owner)
        if file is None and batch.status == "validating":
            return self._fail(batch.id, [_problem("file_not_found", "The input file is gone.", "input_file_id")])
        source = None if file is None else self._store.content(file)
        if batch.status == "validating" and source is not None:
            total, errors = await asyncio.to_thread(check_lines, source, batch.endpoint, self._spec.max_requests)
            if errors:
                return self._fail(batch.id, errors)
            batch = self._change(batch.id, lambda now: _begun(now, total))
        if batch.status == "in_progress" and source is not None:
            batch = await self._answer_all(batch, source, key)
        await asyncio.to_thread(self._finish, batch.id)
        return None

    async def _answer_all(self, batch: StoredBatch, source: Path, key: Key | None) -> StoredBatch:
        """Answer what is missing, until it is done, cancelled or too late."""
        folder = self._store.folder(batch.id)
        done = await asyncio.to_thread(_written, folder)
        lines = (each for each in _lines(source) if each.custom_id not in done)
        tasks = [
            asyncio.create_task(self._answer_some(batch, lines, key, folder)) for _ in range(self._spec.concurrency)
        ]
        counting = asyncio.create_task(self._stopped(batch))
        try:
            working: asyncio.Future[Any] = asyncio.gather(*tasks)
            await asyncio.wait([working, counting], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in (*tasks, counting):
                task.cancel()
            await asyncio.gather(*tasks, counting, return_exceptions=True)
        return self._change(batch.id, lambda now: now)

    async def _answer_some(self, batch: StoredBatch, lines: Iterator[BatchLine], key: Key | None, folder: Path) -> None:
        for line in lines:
            async with self._free:
                await self._room()
                patience = max(0.0, batch.expires_at - time.time())
                record = await answered_line(self._gateway, line, key, patience_seconds=patience)
            append_jsonl(folder / (_ERRORS if has_failed(record) else _OUTPUT), record)

    async def _room(self) -> None:
        """Wait until nobody else waits, and there is room for one more."""
        while True:
            stats = await self._gateway.backend.stats()
            if not stats.num_waiting and (not stats.max_running or stats.num_running < stats.max_running):
                return
            await asyncio.sleep(_BUSY_SECONDS)

    async def _stopped(self, batch: StoredBatch) -> None:
        """Return when the batch is cancelled or too late; keeps its counts until then."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            counts = await asyncio.to_thread(_counts, self._store.folder(batch.id))
            now = self._change(batch.id, partial(_counted, counts=counts))
            if now.status != "in_progress" or time.time() >= now.expires_at:
                return

    def _finish(self, number: str) -> None:
        """Make files of the results, and tell how it ended. A kill in between is gone on from."""
        folder = self._store.folder(number)

        def counted(now: StoredBatch) -> StoredBatch:
            if now.status in ("finalizing", "cancelling") and now.times.get("finalizing_at"):
                return now  # an earlier process came this far, and may have moved the results
            completed, failed = _counts(folder)
            ids = {
                "output_file_id": new_file_id() if completed else None,
                "error_file_id": new_file_id() if failed else None,
            }
            status = now.status
            now = moved(now, "finalizing", completed=completed, failed=failed, **ids)
            return replace(now, status=status) if status == "cancelling" else now

        batch = self._change(number, counted)
        for name, file_id in ((_OUTPUT, batch.output_file_id), (_ERRORS, batch.error_file_id)):
            if file_id is not None and (folder / name).is_file():
                self._store.keep(folder / name, batch.owner, f"{number}_{name}", "batch_output", file_id)
        status: Status = "completed" if batch.completed + batch.failed >= batch.total else "expired"
        if batch.status == "cancelling":
            status = "cancelled"
        self._change(number, lambda now: moved(now, status))

    def _fail(self, number: str, errors: list[dict[str, Any]]) -> None:
        self._change(number, lambda now: moved(now, "failed", errors=errors))

    def _change(self, number: str, changed: Callable[[StoredBatch], StoredBatch]) -> StoredBatch:
        return self._store.change(number, changed)


def check_lines(source: Path, endpoint: str, most: int) -> tuple[int, list[dict[str, Any]]]:
    """How many lines a batch has, and what keeps it from being one, as OpenAI tells it.

    Args:
        source: the input.
        endpoint: where all lines must go.
        most: lines that are allowed.
    """
    lines = without_doubles(_lines(source))
    if not lines or len(lines) > most:
        words = f"{len(lines):,} lines" if lines else "no line"
        return len(lines), [_problem("invalid_file", f"The input file has {words}; expected 1 to {most:,}.")]
    errors = []
    for each in lines:
        if each.error is not None:
            errors.append(_problem(each.error.code, each.error.message, each.error.param, each.line))
        elif each.url != endpoint:
            message = f"line {each.line}: url: found {each.url}; expected {endpoint}, as the batch says"
            errors.append(_problem("mismatched_endpoint", message, "url", each.line))
    return len(lines), errors[:_MOST_ERRORS]


def _begun(batch: StoredBatch, total: int) -> StoredBatch:
    """In progress, unless it was cancelled meanwhile."""
    return replace(batch, total=total) if batch.status == "cancelling" else moved(batch, "in_progress", total=total)


def _counted(batch: StoredBatch, counts: tuple[int, int]) -> StoredBatch:
    return replace(batch, completed=counts[0], failed=counts[1])


def _lines(source: Path) -> Iterator[BatchLine]:
    return (BatchLine.parse(number, text) for number, text in numbered_lines(source))


def _written(folder: Path) -> set[str]:
    """The ids that have a result."""
    done: set[str] = set()
    for name in (_OUTPUT, _ERRORS):
        cut_to_lines(folder / name)
        done |= {record["custom_id"] for record in read_jsonl(folder / name)}
    return done


def _counts(folder: Path) -> tuple[int, int]:
    """Answered and failed lines."""
    found = []
    for name in (_OUTPUT, _ERRORS):
        try:
            with (folder / name).open("rb") as stream:
                found.append(sum(1 for _ in stream))
        except FileNotFoundError:
            found.append(0)
    return found[0], found[1]


def _problem(code: str, message: str, param: str | None = None, line: int | None = None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": param, "line": line}

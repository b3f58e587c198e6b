"""OpenAI's `/v1/files` and `/v1/batches`, over a `BatchStore`.

BatchesSpec -> Batches -> routes of a gateway, and a `BatchRunner` beside it
"""

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, Response
from pydantic import Field
from typing_extensions import override

from didact.serving.api.api_errors import ApiError
from didact.serving.api.application import Extension, documented
from didact.serving.api.chat_types import Body
from didact.serving.api.gateway import Gateway
from didact.serving.api.keys import Key
from didact.serving.batch.runner import BatchRunner
from didact.serving.batch.store import ACTIVE, BatchStore, StoredBatch, StoredFile, moved
from didact.serving.batch.upload import received
from didact.spec import BatchesSpec

_WINDOW = re.compile(r"([1-9][0-9]?)([hd])")
_SECONDS = {"h": 3600, "d": 86_400}
_PURPOSES = ("batch",)
_PAGE, _LONGEST_PAGE = 20, 100
_Value = Annotated[str, Field(max_length=512)]


class BatchRequest(Body):
    """POST /v1/batches."""

    input_file_id: str = Field(min_length=1, max_length=100, description="the id of an uploaded file")
    endpoint: Literal["/v1/chat/completions", "/v1/completions"]
    completion_window: str = Field(
        pattern=rf"^{_WINDOW.pattern}$", description="24h, or another number of hours (h) or days (d) of two digits"
    )
    metadata: Annotated[dict[Annotated[str, Field(max_length=64)], _Value], Field(max_length=16)] | None = Field(
        default=None, description="at most 16 texts of 512 characters, by names of 64"
    )


class Batches(Extension):
    """The routes. Each key sees its own files and batches only."""

    def __init__(self, spec: BatchesSpec) -> None:
        self._spec, self._store = spec, BatchStore(spec)
        self._runner: BatchRunner | None = None
        self._gateway: Gateway | None = None

    @override
    def add_to(self, app: FastAPI, gateway: Gateway) -> None:
        self._gateway = gateway
        self._runner = BatchRunner(gateway, self._store, self._spec)
        keyed: dict[str, Any] = {"dependencies": [Depends(gateway.admission.authorise)]}
        app.post("/v1/files", **keyed, openapi_extra=_UPLOAD)(self.upload)
        app.get("/v1/files", **keyed)(self.files)
        app.get("/v1/files/{file_id}", **keyed)(self.file)
        app.delete("/v1/files/{file_id}", **keyed)(self.delete)
        app.get("/v1/files/{file_id}/content", **keyed, response_model=None)(self.content)
        app.post("/v1/batches", **keyed, openapi_extra=documented(BatchRequest))(self.create)
        app.get("/v1/batches", **keyed)(self.batches)
        app.get("/v1/batches/{batch_id}", **keyed)(self.batch)
        app.post("/v1/batches/{batch_id}/cancel", **keyed)(self.cancel)

    @override
    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        assert self._runner is not None, "routes are added before the application runs"
        async with self._runner.running():
            yield

    async def upload(self, request: Request) -> dict[str, Any]:
        """POST /v1/files."""
        assert self._gateway is not None
        most, room = self._spec.max_file_mib * 2**20, await asyncio.to_thread(self._store.room)
        if room <= 0:
            message = "The server's storage of files is full; delete files, or come again later."
            raise ApiError(429, message, code="storage_full", retry_after=60)
        place, seconds = self._store.scratch(), self._gateway.settings.body_seconds
        async with received(request, place, most_bytes=min(most, room), piece_seconds=seconds) as upload:
            if (purpose := upload.fields.get("purpose")) not in _PURPOSES:
                message = f"purpose: found {(purpose or 'nothing')[:80]!r}; expected {' or '.join(_PURPOSES)}."
                raise ApiError(400, message, code="invalid_value", param="purpose")
            file = await asyncio.to_thread(self._store.keep, place, _owner(request), upload.filename, purpose)
        return file.told()

    async def files(self, request: Request) -> dict[str, Any]:
        """GET /v1/files."""
        found = await asyncio.to_thread(self._store.files, _owner(request))
        purpose = request.query_params.get("purpose")
        return _page([each for each in found if purpose in (None, each.purpose)], request)

    async def file(self, file_id: str, request: Request) -> dict[str, Any]:
        """GET /v1/files/{id}."""
        return self._file(file_id, request).told()

    async def content(self, file_id: str, request: Request) -> Response:
        """GET /v1/files/{id}/content."""
        place = self._store.content(self._file(file_id, request))
        if not place.is_file():
            raise _unknown("file", file_id)
        return FileResponse(place, media_type="application/jsonl")

    async def delete(self, file_id: str, request: Request) -> dict[str, Any]:
        """DELETE /v1/files/{id}."""
        file = self._file(file_id, request)
        using = [each for each in self._mine(request) if each.input_file_id == file.id and each.status in ACTIVE]
        if using:
            message = f"file {file.id} is the input of batch {using[0].id}; cancel that first."
            raise ApiError(409, message, code="file_in_use", param="file_id")
        self._store.delete(file)
        return {"id": file.id, "object": "file", "deleted": True}

    async def create(self, request: Request) -> dict[str, Any]:
        """POST /v1/batches."""
        assert self._gateway is not None and self._runner is not None
        body = await self._gateway.read(request, BatchRequest)
        file = self._store.file(body.input_file_id, _owner(request))
        if file is None:
            raise _unknown("file", body.input_file_id, "input_file_id")
        active = sum(each.status in ACTIVE for each in self._mine(request))
        if active >= self._spec.max_active:
            message = f"{active} batches are not done yet; expected fewer than {self._spec.max_active}."
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after=60)
        window = _WINDOW.fullmatch(body.completion_window)
        assert window is not None, "the body was checked"
        now = int(time.time())
        batch = StoredBatch(
            id=f"batch_{uuid.uuid4().hex}",
            owner=_owner(request),
            endpoint=body.endpoint,
            input_file_id=file.id,
            completion_window=body.completion_window,
            status="validating",
            created_at=now,
            expires_at=now + int(window[1]) * _SECONDS[window[2]],
            metadata=body.metadata,
        )
        await asyncio.to_thread(self._store.create, batch)
        self._runner.look()
        return batch.told()

    async def batches(self, request: Request) -> dict[str, Any]:
        """GET /v1/batches."""
        return _page(await asyncio.to_thread(self._mine, request), request)

    async def batch(self, batch_id: str, request: Request) -> dict[str, Any]:
        """GET /v1/batches/{id}."""
        return self._batch(batch_id, request).told()

    async def cancel(self, batch_id: str, request: Request) -> dict[str, Any]:
        """POST /v1/batches/{id}/cancel."""
        batch = self._batch(batch_id, request)

        def cancelled(now: StoredBatch) -> StoredBatch:
            return moved(now, "cancelling") if now.status in ("validating", "in_progress") else now

        after = await asyncio.to_thread(self._store.change, batch.id, cancelled)
        if after.status not in ("cancelling", "cancelled"):
            message = f"batch {batch.id} is {after.status}; expected one that is not done."
            raise ApiError(409, message, code="batch_not_active", param="batch_id")
        return after.told()

    def _mine(self, request: Request) -> list[StoredBatch]:
        owner = _owner(request)
        return [each for each in self._store.batches() if each.owner == owner]

    def _file(self, number: str, request: Request) -> StoredFile:
        found = self._store.file(number, _owner(request))
        if found is None:
            raise _unknown("file", number)
        return found

    def _batch(self, number: str, request: Request) -> StoredBatch:
        found = self._store.batch(number, _owner(request))
        if found is None:
            raise _unknown("batch", number)
        return found


_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(_PURPOSES)},
                    },
                }
            }
        },
    }
}


def _owner(request: Request) -> str | None:
    key: Key | None = request.state.key
    return None if key is None else key.name


def _unknown(kind: str, number: str, param: str | None = None) -> ApiError:
    return ApiError(404, f"There is no {kind} {number[:100]!r}.", code="not_found", param=param or f"{kind}_id")


def _page(found: Sequence[StoredFile] | Sequence[StoredBatch], request: Request) -> dict[str, Any]:
    """A part of a list, as `limit`, `after` and `order` ask for it."""
    limit, after = request.query_params.get("limit", str(_PAGE)), request.query_params.get("after")
    if not limit.isdecimal() or len(limit) > 5 or not 1 <= int(limit) <= 10_000:
        raise ApiError(
            400, f"limit: found {limit[:20]!r}; expected a number from 1.", code="invalid_value", param="limit"
        )
    if request.query_params.get("order") == "asc":
        found = found[::-1]
    if after is not None:
        ids = [each.id for each in found]
        if after not in ids:
            raise ApiError(400, f"after: there is no {after[:100]!r}.", code="invalid_value", param="after")
        found = found[ids.index(after) + 1 :]
    page = found[: min(int(limit), _LONGEST_PAGE)]
    ends: dict[str, Any] = {"first_id": page[0].id if page else None, "last_id": page[-1].id if page else None}
    return {"object": "list", "data": [each.told() for each in page], "has_more": len(found) > len(page), **ends}

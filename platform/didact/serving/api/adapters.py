"""Adapters loaded and unloaded while the server runs, under vLLM's names: `/v1/load_lora_adapter`, `/v1/unload_...`.

For controllers of gateways. Off unless the server has adapter roots, and for keys of role admin only.
"""

import asyncio
from typing import Any

from fastapi import Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import Field
from typing_extensions import override

from didact.errors import AdapterError
from didact.serving.api.api_errors import ApiError
from didact.serving.api.chat_types import Body
from didact.serving.api.gateway import Gateway
from didact.serving.engine.protocol import ReplicaLost
from didact.serving.replica.loaded import LoadedAdapters, NotLoaded
from didact.serving.replica.worker import words_for_clients

_LONGEST_PATH = 4096


class LoadRequest(Body):
    """POST /v1/load_lora_adapter."""

    lora_name: str = Field(min_length=1, max_length=128, description="a name of at most 128 characters")
    lora_path: str = Field(min_length=1, max_length=_LONGEST_PATH, description="a folder below an adapter root")
    load_inplace: bool = False
    base_model_name: str | None = Field(default=None, max_length=512, description="the base's name")


class UnloadRequest(Body):
    """POST /v1/unload_lora_adapter."""

    lora_name: str = Field(min_length=1, max_length=128, description="a name of at most 128 characters")
    lora_int_id: int | None = None
    """Taken without effect, as vLLM does."""


class AdminError(ApiError):
    """An error as vLLM's controllers read it: its fields at the top as well."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(status, message, code=kind, param=param)
        self._kind = kind

    @property
    @override
    def body(self) -> dict[str, Any]:
        told = {"message": self.message, "type": self._kind, "param": self.param, "code": self.status}
        return {"object": "error", **told, "error": told}


async def load_adapter(gateway: Gateway, request: Request) -> Response:
    """POST /v1/load_lora_adapter."""
    loaded = _loaded(gateway)
    body = await gateway.read(request, LoadRequest)
    base, name = gateway.catalog.base_name, body.lora_name
    if body.base_model_name not in (None, base):
        message = f"base_model_name: found {body.base_model_name!r}; the base that is served here is {base!r}"
        raise AdminError(400, "InvalidUserInput", message, "base_model_name")
    if name == base or name in {offer.version.name for offer in gateway.catalog.offers()}:
        message = f"lora_name: {name!r} is the base or a registered model; expected another name"
        raise AdminError(400, "InvalidUserInput", message, "lora_name")

    def load() -> None:
        loaded.load(name, body.lora_path, gateway.backend.prepare, in_place=body.load_inplace)

    try:
        await asyncio.to_thread(load)
    except NotLoaded as error:
        raise AdminError(400, "InvalidUserInput", str(error), str(error).partition(":")[0]) from None
    except AdapterError as error:
        raise AdminError(400, "InvalidUserInput", words_for_clients(error, name), "lora_path") from None
    except ReplicaLost:
        raise AdminError(503, "ServiceUnavailableError", "The replica was lost; try again.") from None
    return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")


async def unload_adapter(gateway: Gateway, request: Request) -> Response:
    """POST /v1/unload_lora_adapter."""
    body = await gateway.read(request, UnloadRequest)
    if not await asyncio.to_thread(_loaded(gateway).unload, body.lora_name):
        raise AdminError(404, "NotFoundError", f"The lora adapter '{body.lora_name}' cannot be found.", "lora_name")
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")


def _loaded(gateway: Gateway) -> LoadedAdapters:
    assert gateway.loaded is not None, "the routes are there only where adapters may be loaded"
    return gateway.loaded

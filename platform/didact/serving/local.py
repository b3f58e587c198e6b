"""Predict and chat without a server: the engine in this process, the adapter from a folder or the registry."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from didact import env
from didact.models import verify_adapter
from didact.registry import locate_adapter, open_registry
from didact.serving.chat import HttpTalk, LocalTalk, chat_loop
from didact.serving.engine.protocol import AdapterRef
from didact.serving.predict import PredictReport, PredictSettings, predict_file
from didact.serving.replica.assemble import base_name, build_catalog, build_worker
from didact.serving.replica.worker import Worker
from didact.spec import PREDICTED_TOKENS, ModelSpec, ServeSpec


def predict_locally(
    model: ModelSpec,
    adapter: str | None,
    source: Path,
    output: Path,
    *,
    max_new_tokens: int = PREDICTED_TOKENS,
    temperature: float = 0.0,
) -> PredictReport:
    """Answer a file of prompts; see `predict_file`.

    Args:
        model: the base.
        adapter: a run folder, an adapter folder, or `name`, `name@alias`, `name:version`; None is the base alone.
        source: JSON lines.
        output: JSON lines; an interrupted run's output is continued.
        max_new_tokens: longest answer, in tokens.
        temperature: 0 is greedy.

    Raises:
        AdapterError, NotRegistered, RegistryError: the adapter cannot be used.
        DataError: see `predict_file`.
        ModelError: the base cannot be loaded.
    """
    spec = ServeSpec(model=model)
    found = _local_adapter(adapter)
    settings = PredictSettings(max_new_tokens=max_new_tokens, temperature=temperature)
    name = found.version_id if found else base_name(spec)
    with _worker(spec) as worker:
        return predict_file(worker, source, output, model=name, adapter=found, settings=settings)


def chat_locally(model: ModelSpec, adapter: str | None = None) -> None:
    """Chat in the terminal with a base and the adapters registered for it; see `chat_loop`.

    Raises:
        AdapterError, NotRegistered, RegistryError: the adapter cannot be used.
        ModelError: the base cannot be loaded.
    """
    spec = ServeSpec(model=model)
    found = _local_adapter(adapter)
    with _worker(spec) as worker:
        talk = LocalTalk(worker, build_catalog(spec, worker), {adapter: found} if adapter and found else {})
        chat_loop(talk, adapter)


def chat_over_http(url: str, model: str | None = None) -> None:
    """Chat in the terminal with a running server; the first of `DIDACT_API_KEYS` is sent as key.

    Raises:
        ChatError: the server cannot be reached.
    """
    chat_loop(HttpTalk(url, next(iter(env.api_keys()), None)), model)


def _local_adapter(reference: str | None) -> AdapterRef | None:
    if reference is None:
        return None
    folder = locate_adapter(reference, open_registry())
    return AdapterRef(f"{reference}#{verify_adapter(folder).sha256[:12]}", folder)


@contextlib.contextmanager
def _worker(spec: ServeSpec) -> Iterator[Worker]:
    worker = build_worker(spec, env.threads())
    try:
        yield worker
    finally:
        worker.close()

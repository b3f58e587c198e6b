"""Predict and chat without a server: the engine in this process or on Ray workers, the adapter from a folder or the
registry."""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from didact import env
from didact.connect import check_ray, ray_cluster
from didact.errors import AdapterError, DataError, NotRegistered
from didact.files import check_output, numbered_lines
from didact.logs import get_logger
from didact.registry import locate_adapter, open_registry, recorded_base
from didact.serving.chat import HttpTalk, LocalTalk, chat_loop
from didact.serving.model import FoundModel, find_model, load_model
from didact.serving.predict import PredictReport, PredictSettings, batch_models, predict_file
from didact.serving.replica.assemble import base_name, build_catalog, tracking_uri
from didact.serving.replica.pinned import PinnedNames
from didact.serving.workers import WorkerBackend
from didact.spec import PREDICTED_TOKENS, ModelSpec, ServeSpec

_log = get_logger(__name__)
_MOST_ADAPTERS = 64
"""Adapters in memory, however many batch lines name."""


def predict_locally(
    model: ModelSpec | None,
    adapter: str | None,
    source: Path,
    output: Path,
    *,
    max_new_tokens: int = PREDICTED_TOKENS,
    temperature: float = 0.0,
    num_beams: int = 1,
    workers: int | None = None,
    cpus_per_worker: int = 1,
) -> PredictReport:
    """Answer a file of prompts or of batch lines; see `predict_file`.

    In this process, where no Ray is to be joined and no number of workers is given; else on Ray workers.

    Args:
        model: the base; None for the one that the adapter, or else the first adapter that batch lines name, was
            trained on.
        adapter: a run folder, an adapter folder, or `name`, `name@alias`, `name:version`; None is the base alone.
        source: JSON lines.
        output: JSON lines; an interrupted run's output is continued.
        max_new_tokens: longest answer, in tokens; of batch lines those that do not say.
        temperature: 0 is greedy.
        num_beams: answers that are followed at once, of which the likeliest is written.
        workers: Ray workers at most; None for as many as the cluster at `RAY_ADDRESS` has room for.
        cpus_per_worker: of each of them.

    Raises:
        AdapterError, NotRegistered, RegistryError: the adapter cannot be used.
        ClusterError, PlacementError: Ray cannot be joined, or has no room.
        DataError: see `predict_file`.
        SpecError: beams beside a temperature.
        ModelError: the base cannot be loaded.
    """
    settings = PredictSettings(max_new_tokens=max_new_tokens, temperature=temperature, num_beams=num_beams)
    if not source.is_file():  # before a base is loaded for it
        said = "is a folder" if source.is_dir() else "does not exist"
        raise DataError(f"{source} {said}; expected a file of JSON lines with prompts")
    check_output(output)
    named = batch_models(source)
    if model is None and adapter is None and named:
        model = _base_of(named)
    places = min(max(ServeSpec().max_adapters, len(named)), _MOST_ADAPTERS)
    found = find_model(adapter, model, max_adapters=places)
    if workers is None and env.ray_address() is None:
        with found.load(adapter) as loaded:
            return loaded.predict_file(source, output, settings)
    return _predict_on_ray(found, found.names(named, adapter), source, output, settings, workers, cpus_per_worker)


def _predict_on_ray(
    found: FoundModel,
    names: PinnedNames,
    source: Path,
    output: Path,
    settings: PredictSettings,
    most: int | None,
    cpus_per_worker: int,
) -> PredictReport:
    check_ray()
    with ray_cluster():
        spec, num_lines = _for_other_processes(found.spec), _num_lines(source)
        backend = WorkerBackend(spec, most=most, num_asks=num_lines, num_cpus=cpus_per_worker)
        _log.info("answering %s on %d Ray workers", source, backend.num_workers)
        return predict_file(
            backend,
            source,
            output,
            model=found.name,
            adapter=found.adapter,
            settings=replace(settings, concurrency=settings.concurrency * backend.num_workers),
            names=names,
            run=lambda work: asyncio.run(_among(backend, work)),
        )


async def _among(backend: WorkerBackend, work: Coroutine[Any, Any, int]) -> int:
    async with backend:
        return await work


def _base_of(named: Sequence[str]) -> ModelSpec | None:
    """The base of the first registered adapter; None where the bundled base itself is named, or none is registered."""
    if base_name(ServeSpec()) in named:
        return None
    registry = open_registry()
    for name in named:
        with contextlib.suppress(NotRegistered, AdapterError):
            return recorded_base(locate_adapter(name, registry))
    return None


def _for_other_processes(spec: ServeSpec) -> ServeSpec:
    """The spec with absolute paths: workers have another working directory."""
    base = Path(spec.model.base).expanduser()
    model = spec.model.model_copy(update={"base": str(base.resolve())}) if base.is_dir() else spec.model
    changes = {"model": model, "model_name": base_name(spec), "tracking_uri": tracking_uri(spec)}
    return spec.model_copy(update=changes)


def _num_lines(source: Path) -> int:
    if not source.is_file():
        return 0
    return sum(1 for _ in numbered_lines(source))


def chat_locally(model: ModelSpec | None, adapter: str | None = None) -> None:
    """Chat in the terminal with a base and the adapters registered for it; see `chat_loop`.

    Args:
        model: the base; None for the one that the adapter was trained on, else the bundled one.
        adapter: as for `predict_locally`.

    Raises:
        AdapterError, NotRegistered, RegistryError: the adapter cannot be used.
        ModelError: the base cannot be loaded.
    """
    with load_model(adapter, model) as loaded:
        catalog = build_catalog(loaded.spec, loaded.worker)
        folders = {adapter: loaded.adapter} if adapter and loaded.adapter else {}
        chat_loop(LocalTalk(loaded.worker, catalog, folders), adapter)


def chat_over_http(url: str, model: str | None = None) -> None:
    """Chat in the terminal with a running server; the first of `DIDACT_API_KEYS` is sent as key.

    Raises:
        ChatError: the server cannot be reached.
    """
    chat_loop(HttpTalk(url, next(iter(env.api_keys()), None)), model)

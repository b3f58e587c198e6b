"""The Ray Serve application: one `Gateway` before any number of `ModelReplica`s.

import_path: didact.serving.app:build        # in serve/*.yaml; `args` are the fields of ServeSpec
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle
from typing_extensions import override

from didact import env, logs
from didact.connect import receive
from didact.errors import AdapterError, RegistryError
from didact.registry import ModelVersion
from didact.serving.api.access import ACCESS_LOG
from didact.serving.api.application import Extension, build_gateway
from didact.serving.api.gateway import GatewaySettings
from didact.serving.batch.routes import Batches
from didact.serving.engine.protocol import EngineDied, EngineStats, ReplicaLost
from didact.serving.metrics.requests import HttpMetrics
from didact.serving.metrics.snapshots import Snapshot
from didact.serving.replica.adapter_store import FolderVersion
from didact.serving.replica.assemble import base_name, build_catalog, tracking_uri
from didact.serving.replica.backend import Ask, Backend, BaseFacts, Event, Refusal, Spelled, Spelling, TokenizerFacts
from didact.serving.tracing import Tracing
from didact.spec import ServeSpec, validate

_LOST = (RayActorError, ReplicaUnavailableError, DeploymentUnavailableError)
_PREPARE_SECONDS = 600.0
_METRICS_SECONDS = 5.0


@serve.deployment(name="ModelReplica", ray_actor_options={"num_cpus": 1}, health_check_period_s=5)
class ModelReplica:
    """One base in memory with its engine."""

    def __init__(self, spec: ServeSpec) -> None:
        logs.configure()
        receive()
        env.quiet_libraries()
        from didact.serving.replica.load_worker import build_worker  # torch and transformers, for this process only

        given = ray.get_runtime_context().get_assigned_resources()
        self._worker = build_worker(spec, num_threads=max(int(given.get("CPU", 1)), 1), on_gpu="GPU" in given)

    async def ask(self, ask: Ask) -> AsyncGenerator[Event, None]:
        """Pieces of one answer, as they come from the worker."""
        async with contextlib.aclosing(self._worker.ask(ask)) as events:
            async for event in events:
                yield event

    async def prepare(self, version: ModelVersion | FolderVersion) -> Refusal | None:
        """Bring a version into memory; what is wrong with it is returned, because Serve would wrap an error."""
        try:
            await asyncio.to_thread(self._worker.prepare, version)
        except AdapterError as error:
            return Refusal("bad_adapter", str(error))
        except RegistryError as error:
            return Refusal("registry", str(error))
        return None

    async def stats(self) -> EngineStats:
        """Figures of this replica's engine; raises when it does not work."""
        return await self._worker.stats()

    async def metrics(self) -> Sequence[Snapshot]:
        """What this replica has counted."""
        return await self._worker.metrics()

    async def facts(self) -> BaseFacts:
        """The base."""
        return await self._worker.facts()

    async def spell(self, spelling: Spelling) -> Spelled | Refusal:
        """Tokenize, or put tokens together."""
        return await self._worker.spell(spelling)

    async def tokenizer(self) -> TokenizerFacts:
        """The base's tokenizer."""
        return await self._worker.tokenizer()

    def check_health(self) -> None:
        """Asked by Serve; raising replaces this replica."""
        self._worker.engine.health()


def ended(error: RayActorError) -> ReplicaLost | EngineDied:
    """What the end of a replica means for the requests that it had: whether one of them may be the cause."""
    # Serve ends replicas itself when it scales down, deploys anew, or finds an engine dead, which has said so before.
    if error.preempted or "killed by `ray.kill`" in str(error):
        return ReplicaLost("the replica was taken away")
    return EngineDied("the engine ended before the answer was finished")


class RayBackend(Backend):
    """The `Backend` whose replicas Ray Serve places, scales and replaces."""

    def __init__(self, replicas: DeploymentHandle) -> None:
        self._replicas = replicas
        self._asks = replicas.options(stream=True)

    @override
    async def ask(self, ask: Ask) -> AsyncGenerator[Event, None]:
        events = self._asks.ask.remote(ask)
        try:
            async for event in events:
                yield event
        except RayActorError as error:
            raise ended(error) from None
        except _LOST as error:
            raise ReplicaLost(f"the replica is gone ({type(error).__name__})") from None
        except BackPressureError:
            yield Refusal("busy", "too many requests are waiting already; try again shortly")
        finally:
            events.cancel()

    @override
    def prepare(self, version: ModelVersion | FolderVersion) -> None:
        """Call from a thread without an event loop."""
        try:
            refusal = self._replicas.prepare.remote(version).result(timeout_s=_PREPARE_SECONDS)
        except _LOST as error:
            raise ReplicaLost(f"the replica is gone ({type(error).__name__})") from None
        if refusal is not None:
            raise (RegistryError if refusal.kind == "registry" else AdapterError)(refusal.message)

    @override
    async def stats(self) -> EngineStats:
        return await self._replicas.stats.remote()

    @override
    async def metrics(self) -> Sequence[Snapshot]:
        return await _of_all(self._replicas, "metrics")

    @override
    async def facts(self) -> BaseFacts:
        return await self._replicas.facts.remote()

    @override
    async def spell(self, spelling: Spelling) -> Spelled | Refusal:
        return await self._replicas.spell.remote(spelling)

    @override
    async def tokenizer(self) -> TokenizerFacts:
        return await self._replicas.tokenizer.remote()


async def _of_all(replicas: DeploymentHandle, method: str) -> list[Snapshot]:
    """What all replicas of a deployment have counted, as far as they answer in time."""
    with contextlib.suppress(TimeoutError, *_LOST):
        answers = replicas.broadcast(method)
        found = await answers.results_async(timeout_s=_METRICS_SECONDS, return_exceptions=True)
        return [snapshot for each in found if not isinstance(each, BaseException) for snapshot in each]
    return []


@serve.deployment(name="Gateway", max_ongoing_requests=4096, ray_actor_options={"num_cpus": 0})
@serve.ingress()
class GatewayIngress:
    """The HTTP side. It computes nothing, so it takes no CPU from the replicas."""

    def __init__(self, spec: ServeSpec, replicas: DeploymentHandle) -> None:
        logs.configure()
        receive()
        env.quiet_libraries()
        backend = RayBackend(replicas)
        logs.configure_plain(ACCESS_LOG)
        settings = GatewaySettings(
            spec.max_new_tokens,
            spec.request_timeout_seconds,
            api_keys=env.api_keys(),
            keys_file=env.keys_file(),
            cors_origins=spec.cors_origins,
            log_prompts=spec.log_prompts,
            behind_serve=True,
            adapter_roots=tuple(map(Path, spec.adapter_roots)),
            loaded_record=env.runs_dir() / "serving" / f"{base_name(spec)}-loaded.json",
        )
        self._requests = HttpMetrics()
        self._gateways: DeploymentHandle | None = None
        self._app = build_gateway(
            backend,
            build_catalog(spec, backend),
            settings,
            requests=self._requests,
            gateways=self._all_gateways,
            extensions=_extensions(spec),
        )

    async def metrics(self) -> Sequence[Snapshot]:
        """What this gateway has counted."""
        return [self._requests.snapshot()]

    async def _all_gateways(self) -> Sequence[Snapshot]:
        if self._gateways is None:  # one for good: each handle keeps a connection to the controller
            place = serve.get_replica_context()
            self._gateways = serve.get_deployment_handle(place.deployment, place.app_name)
        return await _of_all(self._gateways, "metrics")

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The application, built where it runs: it holds a thread and locks, which do not travel."""
        return self._app


def _extensions(spec: ServeSpec) -> list[Extension]:
    found: list[Extension] = [] if spec.batches is None else [Batches(spec.batches)]
    if (address := env.traces_endpoint()) is not None:
        found.append(Tracing(address))
    return found


def build(args: ServeSpec | dict[str, Any]) -> serve.Application:
    """The application that Serve deploys; `args` as in the YAML.

    Raises:
        SpecError: an argument is unknown or wrong.
    """
    return application(args if isinstance(args, ServeSpec) else validate(ServeSpec, args, "args"), {})


def application(spec: ServeSpec, options: Mapping[str, Mapping[str, Any]]) -> serve.Application:
    """The application with `options` by deployment name, as in a YAML's `deployments`.

    Raises:
        SpecError: the registry's address cannot be used from another process.
    """
    # The engine refuses what it cannot queue with a 429 in OpenAI's form; Serve must not refuse before.
    places = {"max_ongoing_requests": 2 * (spec.max_waiting + spec.max_batch_size)}
    resolved = spec.model_copy(update={"tracking_uri": tracking_uri(spec), "model_name": base_name(spec)})
    replicas = _deployment(ModelReplica).options(**{**places, **options.get("ModelReplica", {})}).bind(resolved)
    return _deployment(GatewayIngress).options(**options.get("Gateway", {})).bind(resolved, replicas)


def _deployment(decorated: Any) -> serve.Deployment:
    """What Serve's decorator makes of a class, which no type says."""
    return decorated

"""`ServeSpec` -> names and the catalog, for the HTTP side of a server, which loads no torch."""

from collections.abc import Iterable, Mapping

from didact import env
from didact.registry import ModelVersion, Registry
from didact.serving.engine.on_vllm.served import why_not_served
from didact.serving.engine.protocol import AdapterRef
from didact.serving.replica.backend import Backend
from didact.serving.replica.catalog import Catalog
from didact.serving.replica.pinned import PinnedNames
from didact.spec import ServeSpec, TrackingSpec
from didact.tracking import resolve_uri


def base_name(spec: ServeSpec) -> str:
    """The base's name in the API."""
    return spec.model_name or spec.model.base.rstrip("/").rpartition("/")[2]


def tracking_uri(spec: ServeSpec) -> str:
    """The registry's address, absolute.

    Raises:
        SpecError: an address that cannot be used from another process.
    """
    return resolve_uri(TrackingSpec(uri=spec.tracking_uri), env.runs_dir())


def build_catalog(spec: ServeSpec, backend: Backend | None) -> Catalog:
    """Names for `backend`'s adapters, from the spec's registry; without a backend, to be looked at only."""

    def unfit(version: ModelVersion) -> str | None:
        return why_not_served(version.tags, spec.vllm.max_lora_rank) if spec.engine == "vllm" else None

    return Catalog(
        base_name(spec),
        Registry(tracking_uri(spec)),
        (lambda version: None) if backend is None else backend.prepare,
        default_alias=spec.default_alias,
        poll_seconds=spec.registry_poll_seconds,
        unfit=unfit,
    )


def pinned_names(
    spec: ServeSpec, names: Iterable[str], also: Mapping[str, ModelVersion | AdapterRef | None]
) -> PinnedNames:
    """What `names` mean now in the spec's registry, which is not asked where there are none.

    Raises:
        RegistryError: the registry cannot be reached.
    """
    asked = [name for name in names if name not in also and name != base_name(spec)]
    if not asked:
        return PinnedNames(base_name(spec), also)
    return PinnedNames.of(build_catalog(spec, None), asked, also)

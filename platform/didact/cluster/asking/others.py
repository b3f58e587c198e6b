"""The judge of an evaluation's answers, and the rival that they are compared with, asked beside the models themselves.

    AnswererSpec -> an endpoint, or a subject on a Ray worker -> Asked, by role

A base that is evaluated as well is held once: its worker answers in both roles. Another one has a worker of its own.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import cast

from didact.capacity import Cluster, WorkerResources, asked_in_words
from didact.cluster.asking.answerers import Answerers
from didact.cluster.asking.asked import asked_by_role
from didact.cluster.asking.subjects import Subject
from didact.errors import PlacementError
from didact.evaluation import Asked, TaskResult
from didact.evaluation.asks import Model, Role
from didact.evaluation.endpoint import Endpoint
from didact.evaluation.judge import self_preference
from didact.registry import locate_adapter, open_registry, recorded_base, whole_model
from didact.spec import AnswererSpec, EvaluationSpec, ModelSpec, absolute_base

_ROLES: tuple[Role, ...] = ("judge", "rival")


@dataclass(frozen=True)
class Others:
    """Who is asked beside the models that are evaluated."""

    endpoints: Mapping[Role, Endpoint]
    subjects: Mapping[Role, Subject]
    """Models of this machine."""

    @classmethod
    def of(cls, evaluation: EvaluationSpec, base: Subject) -> "Others":
        """Find the models that an evaluation names.

        Args:
            evaluation: with its judge and rival.
            base: what is evaluated; the same base is loaded in the same way.

        Raises:
            EndpointRefused: the environment has no key.
            NotRegistered, RegistryError, AdapterError: there is no such adapter.
        """
        named: dict[Role, AnswererSpec] = {
            role: spec for role in _ROLES if (spec := getattr(evaluation, role)) is not None
        }
        return cls(
            {role: Endpoint(spec.endpoint) for role, spec in named.items() if spec.endpoint is not None},
            {role: _subject(spec, base) for role, spec in named.items() if spec.endpoint is None},
        )

    def guests(self, base: ModelSpec) -> dict[str, Subject]:
        """Those that stand on this base, by a key that no evaluated model has."""
        return {_key(role): subject for role, subject in self.subjects.items() if subject.model == base}

    def num_places(self, base: ModelSpec, resources: WorkerResources, cluster: Cluster) -> int:
        """Workers that are left for a base that is evaluated.

        Args:
            base: that base.
            resources: of a worker.
            cluster: where all of them stand.

        Raises:
            PlacementError: none is.
        """
        room = cluster.room(resources.bundle())
        alone = [role for role, subject in self.subjects.items() if subject.model != base]
        if alone and room <= len(alone):
            names = " and ".join(f"evaluation.{role} ({self.subjects[role].name})" for role in alone)
            needs = "needs a worker of its own" if len(alone) == 1 else "need a worker each"
            raise PlacementError(
                f"{names} {needs} beside one for {base.base}, and the cluster has no room for "
                f"{asked_in_words(resources.bundle(), len(alone) + 1)}, only for {room}. Name an endpoint "
                "(endpoint: {url: ..., model: ...}), a model on the base that is evaluated, or start a larger cluster"
            )
        return max(1, room - len(alone))

    @asynccontextmanager
    async def asked(
        self, answerers: Answerers, base: ModelSpec, resources: WorkerResources, batch_size: int
    ) -> AsyncIterator[dict[Role, Asked]]:
        """Each of them, ready to be asked.

        Args:
            answerers: of the base that is evaluated, with `guests` among its subjects.
            base: that base.
            resources: of a worker.
            batch_size: asks that a worker answers together.
        """
        models: dict[Role, Model] = {
            role: answerers.model(_key(role)) for role, each in self.subjects.items() if each.model == base
        }
        async with AsyncExitStack() as stack:
            for role, subject in self.subjects.items():
                if role not in models:
                    alone = Answerers({role: subject}, resources, batch_size=batch_size, num_asks=1)
                    models[role] = (await stack.enter_async_context(alone)).model(role)
            yield await stack.enter_async_context(asked_by_role({**models, **self.endpoints}))


def with_preference(result: TaskResult, asked: Mapping[Role, Asked]) -> TaskResult:
    """A result with what tells that the judge stands on the base of one of two that it compares."""
    if "rival name" not in result.judge or result.metric != "win_rate":
        return result
    found = self_preference(
        asked["judge"].model.identity,
        asked["model"].model.identity,
        asked["rival"].model.identity,
        result.metrics.get(f"eval/{result.task}/win_rate"),
    )
    if found is None:
        return result
    name = f"eval/{result.task}/self_preference"
    count = result.counts[f"eval/{result.task}/win_rate"]
    return replace(result, metrics={**result.metrics, name: found}, counts={**result.counts, name: count})


def check_others(evaluation: EvaluationSpec | None) -> None:
    """Find out early whether endpoints have their keys.

    Raises:
        EndpointRefused: the environment has no key.
    """
    for role in _ROLES:
        spec = cast("AnswererSpec | None", getattr(evaluation, role, None))
        if spec is not None and spec.endpoint is not None:
            Endpoint(spec.endpoint)


def _subject(spec: AnswererSpec, base: Subject) -> Subject:
    whole = whole_model(spec.adapter) if spec.adapter else None
    if whole is not None:
        return Subject(str(spec.adapter), ModelSpec(base=str(whole)))
    folder = locate_adapter(spec.adapter, open_registry()) if spec.adapter else None
    model = absolute_base(ModelSpec(base=spec.base) if spec.base or folder is None else recorded_base(folder))
    # Named alike, it is the base that is evaluated, in the same number format.
    model = base.model if model.base == base.model.base else model
    return Subject(spec.adapter or model.base, model, adapter=folder)


def _key(role: Role) -> str:
    return f"<{role}>"

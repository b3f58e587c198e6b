"""Models that are asked in an evaluation, from opening their kept answers to closing what is open."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from didact import env
from didact.evaluation import Asked
from didact.evaluation.asks import Model, Role
from didact.evaluation.endpoint import Endpoint
from didact.logs import get_logger

_log = get_logger(__name__)


@asynccontextmanager
async def asked_by_role(models: Mapping[Role, Model]) -> AsyncIterator[dict[Role, Asked]]:
    """Each model ready to be asked; of endpoints it is logged at the end what they were asked.

    Args:
        models: the one that is evaluated may not fail, its judge and its rival may.
    """
    asked = {role: _asked(model, may_fail=role != "model") for role, model in models.items()}
    try:
        yield asked
    finally:
        for role, each in asked.items():
            each.close()
            if isinstance(each.model, Endpoint):
                await each.model.close()
                _log.info("%s %s: %s", role, each.model.identity.name, each.model.usage.words)


def _asked(model: Model, *, may_fail: bool) -> Asked:
    keep_days = model.spec.keep_days if isinstance(model, Endpoint) else None
    return Asked(model, env.cache_dir(), may_fail=may_fail, keep_days=keep_days)

"""MLflow's errors in our words, so that callers need not import MLflow to catch them."""

import contextlib
from collections.abc import Callable, Iterator

from didact.errors import DidactError, RegistryError
from didact.tracking import mlflow_tracker

_ABSENT = "RESOURCE_DOES_NOT_EXIST"


@contextlib.contextmanager
def asking(uri: str, what: str, if_absent: Callable[[], DidactError] | None = None) -> Iterator[None]:
    """Around calls of an MLflow client: for what does not exist, the error that `if_absent` makes is raised.

    Raises:
        RegistryError: MLflow is dead, or refuses; its own words are in the message.
    """
    try:
        yield
    except mlflow_tracker.failures() as error:
        if if_absent is not None and getattr(error, "error_code", None) == _ABSENT:
            raise if_absent() from error
        raise RegistryError(f"registry {uri} could not {what}: {error}") from error

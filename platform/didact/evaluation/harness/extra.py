"""Whether the extra that brings lm-eval is there."""

from importlib.util import find_spec

from didact.errors import DataError

_EXTRA = "didact[lm-eval]"


def missing_extra(package: str) -> str | None:
    """What to install for `package`; None where it is there."""
    return None if find_spec(package) else f'{package} is not installed; pip install "{_EXTRA}" brings it'


def require_lm_eval(task: str) -> None:
    """Refuse a task that needs lm-eval where it is not installed.

    Raises:
        DataError: it is not; says how to install it.
    """
    if missing := missing_extra("lm_eval"):
        raise DataError(f"task {task}: {missing}")

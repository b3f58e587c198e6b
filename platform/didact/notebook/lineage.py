"""Where a result comes from, from Python."""

from typing import TYPE_CHECKING, Any

from didact import env
from didact.notebook.runs import reference_of

if TYPE_CHECKING:
    from didact.lineage import Trace


def trace(asked: Any) -> "Trace":
    """What a version or run was made of; or which runs and versions were trained on some data.

    Args:
        asked: goes back: `name`, `name@alias`, `name:version`, a run or adapter folder, what `finetune` returned, or a
            version. Goes forward: a data file, `card:NAME`, `licence:TEXT`, `sha256:DIGEST` or a source as recipes
            write it.

    Raises:
        NotRegistered, RegistryError, RunError: nothing is known of it.
    """
    env.quiet_libraries()
    from didact.lineage import trace as follow

    return follow(reference_of(asked))

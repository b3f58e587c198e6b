"""Where a run lives and who made it.

    FinetuneSpec -> start_run -> Run (a folder with the recipe, provenance, steps, checkpoints, adapter, report)

Example:
    >>> from pathlib import Path
    >>> from didact.runs import start_run
    >>> from didact.spec import FinetuneSpec, load_spec
    >>> run = start_run(load_spec(FinetuneSpec, "jobs/recipes/demo.yaml"), Path("runs"))
"""

from didact.runs.branched import branch
from didact.runs.continued import Descent, descents, go_on, note_start
from didact.runs.provenance import git_state, package_versions, processor, provenance
from didact.runs.recorded import (
    RecordedAdapter,
    RecordedRun,
    RecordedSource,
    commit_in,
    record_of,
    recorded_adapter,
    recorded_runs,
)
from didact.runs.run import (
    Run,
    check_name_is_free,
    differences,
    folder_named,
    locked,
    of_other_settings,
    open_run,
    start_run,
)

__all__ = [
    "Descent",
    "RecordedAdapter",
    "RecordedRun",
    "RecordedSource",
    "Run",
    "branch",
    "check_name_is_free",
    "commit_in",
    "descents",
    "differences",
    "folder_named",
    "git_state",
    "go_on",
    "locked",
    "note_start",
    "of_other_settings",
    "open_run",
    "package_versions",
    "processor",
    "provenance",
    "record_of",
    "recorded_adapter",
    "recorded_runs",
    "start_run",
]

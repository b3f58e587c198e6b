"""With what environment workers begin; knows nothing of Ray, so that it can be asked before Ray is loaded."""

import json
from pathlib import Path
from typing import Any

import didact
from didact import env
from didact.connect.forking import begin

SOURCE_ROOT = str(Path(didact.__file__).resolve().parents[1])


def begin_early() -> None:
    """Have what workers of a local Ray are forked from import beside this process; nothing where none will be started.

    For a command that is about to import for seconds itself, once it knows that it will train or ask.
    """
    if env.ray_address() is None:
        begin(runtime_env("")["env_vars"])


def runtime_env(key: str) -> dict[str, Any]:
    """Environment of workers: the source root on their path, quiet libraries, an allocator, the user's didact settings.

    Args:
        key: under which they find what is handed over to them.

    The source root has the same path on every node: an installed package, a shared folder, or the `working_dir` of a
    Ray job, which Ray unpacks at one place everywhere. Variables that the job itself sets are left to it.
    """
    variables = {**worker_variables(key), **env.for_training()}
    taken = json.loads(env.ray_job_config() or "{}").get("runtime_env", {}).get("env_vars", {})
    return {"env_vars": {name: value for name, value in variables.items() if name not in taken}}


def worker_variables(key: str) -> dict[str, str]:
    """Environment variables that every process needs which Ray starts for us. None is a secret; see `handover`."""
    return {
        **{"PYTHONPATH": SOURCE_ROOT, "TOKENIZERS_PARALLELISM": "false", "DIDACT_HANDED_OVER": key},
        **env.for_workers(),
    }

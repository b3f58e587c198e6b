"""Where a result comes from, from Python."""

from typing import TYPE_CHECKING, Any

from didact import env
from didact.notebook.runs import reference_of

if TYPE_CHECKING:
    from didact.lineage import Trace
    from didact.lineage.comparison import Comparison
    from didact.lineage.reproduction import Reproduction


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


def check_again(asked: Any) -> "Reproduction":
    """What is missing or different from when a run was done: `reproduce` would start from it. Starts nothing.

    Args:
        asked: a run folder, the name of a run, `name:version`, what `finetune` returned, or a version.

    Raises:
        NotRegistered, RegistryError, RunError: there is no such run, or its recipe is not recorded.
    """
    env.quiet_libraries()
    from didact.lineage.reproduction import plan_reproduction

    return plan_reproduction(reference_of(asked))


def reproduce(asked: Any, name: str | None = None) -> "Comparison":
    """Do a run again from what was recorded of it, in a folder of its own, and compare the two.

    Args:
        asked: see `check_again`.
        name: of the new run; left out: the old one's with `-again`.

    Raises:
        RunError: something that it needs is missing or not what it was.
        DidactError: see `finetune`.
    """
    env.quiet_libraries()
    from didact.cluster.reproduce import reproduce as do_again
    from didact.lineage.reproduction import plan_reproduction

    return do_again(plan_reproduction(reference_of(asked), name=name))


def push(asked: Any, repo: str, *, public: bool = False) -> str:
    """Upload adapter, model card and proof to the Hugging Face hub. Returns the commit's address.

    Args:
        asked: `name`, `name@alias`, `name:version`, a run folder, what `finetune` returned, or a version.
        repo: `OWNER/REPO`.
        public: whether everybody may read it; nobody is asked again.

    Raises:
        AdapterError: a file is damaged, or holds a secret or a folder of this machine.
        RegistryError: the repository is public though it was to be private, or the hub refuses or does not answer.
    """
    env.quiet_libraries()
    from didact.lineage.push import plan_push
    from didact.lineage.push import push as upload

    return upload(plan_push(reference_of(asked), repo, public=public))

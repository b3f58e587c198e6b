"""What led to a version, kept with it: so that another machine can tell it without the run folder."""

from pathlib import Path

from didact.errors import DidactError
from didact.lineage.records import LINEAGE_FILE, Records
from didact.lineage.trace import trace_version
from didact.logs import get_logger
from didact.registry import ModelVersion, Registry
from didact.runs import Run

_LOG = get_logger(__name__)


def keep_lineage(registry: Registry, version: ModelVersion, run: Run, runs_dir: Path | None = None) -> None:
    """Keep a version's trace beside its adapter in the registry.

    A version that was registered is not undone for it: what goes wrong is a warning.

    Args:
        registry: that holds the version.
        version: just registered.
        run: that it was made of.
        runs_dir: where runs lie whose adapters this one may have begun with; default the folder that the run lies in.
    """
    records = Records(runs_dir or run.path.parent, registry, of_versions={version.id: run})
    try:
        graph = trace_version(version.id, version, records).graph
        # Aliases move: what points to the version is asked of the registry each time.
        lasting = [node.id for node in graph.nodes.values() if node.kind not in ("version", "alias")]
        texts = {LINEAGE_FILE: graph.only(lasting).to_json()}
        registry.keep_proof(version, texts)
    except (DidactError, OSError, UnicodeDecodeError) as error:
        _LOG.warning("%s is registered, but its lineage could not be kept with it: %s", version.id, error)

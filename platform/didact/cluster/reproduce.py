"""A run done again from what was recorded of it, and put beside the first."""

import json
from pathlib import Path

from didact.cluster.finetuning import finetune
from didact.files import write_json
from didact.lineage.comparison import Comparison, compare, comparison_file
from didact.lineage.reproduction import Reproduction, begin_again


def reproduce(plan: Reproduction, runs_dir: Path | None = None) -> Comparison:
    """Train a run again in a folder of its own; called again after an interruption, it goes on.

    Args:
        plan: see `plan_reproduction`.
        runs_dir: where the new run's folder is made; default `DIDACT_RUNS`.

    Raises:
        RunError: something that the run needs is missing or not what it was; nothing was started.
        DidactError: see `finetune`.
    """
    run = begin_again(plan, runs_dir)
    result = finetune(plan.spec, runs_dir)
    comparison = compare(plan, result.run)
    file = comparison_file(run)
    write_json(file, {**json.loads(file.read_text(encoding="utf-8")), "outcome": comparison.to_plain()})
    return comparison

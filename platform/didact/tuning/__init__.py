"""Many trials of one recipe: search spaces, early stopping, the best one registered.

    SweepSpec -> load_search -> run_sweep -> (Ray Tune trials, each a finetuning run) -> SweepResult

Example:
    >>> from pathlib import Path
    >>> from didact.spec import SweepSpec, load_spec
    >>> from didact.tuning import load_search
    >>> file = Path("tune_spaces/lora.yaml")
    >>> load_search(load_spec(SweepSpec, file), file).longest().training.steps
    30
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.tuning.export import export_recipe
    from didact.tuning.records import TrialResult
    from didact.tuning.results import SweepResult, read_results
    from didact.tuning.search import Search, load_search, trial_spec
    from didact.tuning.sweep import run_sweep

__all__ = [
    "Search",
    "SweepResult",
    "TrialResult",
    "export_recipe",
    "load_search",
    "read_results",
    "run_sweep",
    "trial_spec",
]

__getattr__ = lazily(__name__)

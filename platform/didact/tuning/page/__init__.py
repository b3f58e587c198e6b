"""A sweep on one HTML page: what was tried, what moved the metric, which mixtures won, how losses went.

    SweepResult, its trials' run folders -> sweep_facts -> render_sweep -> one HTML file without anything beside it

Example:
    >>> from pathlib import Path
    >>> from didact.tuning import SweepResult, TrialResult
    >>> from didact.tuning.page import render_sweep, sweep_facts
    >>> trial = TrialResult("lora-1", {"adapter.r": 8}, 1.5, 30, "finished", Path("nowhere"))
    >>> page = render_sweep(sweep_facts(SweepResult("lora", "eval/loss", "min", (trial,), trial)))
    >>> "lora-1" in page
    True
"""

from didact.tuning.page.facts import SweepFacts, TrialFacts, sweep_facts
from didact.tuning.page.page import render_sweep

__all__ = ["SweepFacts", "TrialFacts", "render_sweep", "sweep_facts"]

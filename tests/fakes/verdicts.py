"""Verdicts as a gate writes them, for adapters that tests make."""

from pathlib import Path

from didact.adapter_folder import check_folder
from didact.evaluation.checks import Check, Outcome
from didact.registry import Verdict

KEY = "0123456789abcdef0123456789abcdef"


def verdict_on(folder: Path, outcome: Outcome = "passed") -> Verdict:
    """One line with this outcome, on exactly the adapter in `folder`."""
    line = Check("least", "eval/sums/accuracy", "better by 0.2000", "at least 0.1000", outcome)
    return Verdict(check_folder(folder).sha256, (line,), {"report": "r" * 64}, made="2026-01-01T00:00:00+00:00")

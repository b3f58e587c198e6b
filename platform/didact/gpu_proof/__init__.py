"""What works on this machine's GPU, and how closely: every path that a GPU changes, beside its twin on the CPU.

    checks -> run one by one -> a line each: passed, failed with its reason, or skipped -> exit code

Needs neither Ray nor MLflow nor a hub, so it runs from a source tree on a machine that has little more than PyTorch,
transformers and PEFT; `bare_machine.txt` lists the packages to carry there.

Example:
    >>> from didact.gpu_proof import all_checks
    >>> sorted({check.group for check in all_checks()})[:3]
    ['attention', 'bases', 'compile']
"""

from didact.gpu_proof.checks import Check, Outcome, Result, Unavailable
from didact.gpu_proof.proof import all_checks, prove

__all__ = ["Check", "Outcome", "Result", "Unavailable", "all_checks", "prove"]

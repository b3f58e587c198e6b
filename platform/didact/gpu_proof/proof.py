"""Which checks there are, and how they are run."""

from collections.abc import Callable, Sequence

import torch

from didact.gpu_proof import bases, engine, fused, memory, methods, numerics, sharded
from didact.gpu_proof.checks import Check, Result, run_check


def all_checks() -> list[Check]:
    """Every check, cheap ones first."""
    modules = (numerics, bases, methods, fused, engine, sharded, memory)
    return [check for module in modules for check in module.checks()]


def prove(
    device: torch.device, checks: Sequence[Check], tell: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """Run `checks` on `device`, telling each result as it comes."""
    # Otherwise float32 products on a GPU are rounded to ten bits, and no twin is near.
    torch.backends.cuda.matmul.allow_tf32 = False
    results = []
    for check in checks:
        results.append(run_check(check, device))
        tell(results[-1])
    return results

"""A check, what comes of it, and how two results are compared."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.multiprocessing import ProcessRaisedException

from didact.errors import DidactError


class Unavailable(Exception):
    """This machine cannot do what the check is about; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A distance that was measured, and the one that is allowed."""

    measured: float
    allowed: float
    words: str = ""
    """What else there is to say, in a few words."""

    @property
    def good(self) -> bool:
        """Whether the distance is allowed; NaN never is."""
        return self.measured <= self.allowed


@dataclass(frozen=True, slots=True)
class Check:
    """One path beside its twin."""

    group: str
    name: str
    run: Callable[[torch.device], Outcome]
    """Computes on the given device.

    Raises:
        Unavailable: the machine lacks what is needed.
    """


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a check."""

    group: str
    name: str
    verdict: Literal["passed", "failed", "skipped"]
    words: str
    seconds: float

    def line(self) -> str:
        """For a terminal."""
        return f"{self.verdict:<8} {self.group:<10} {self.name:<58} {self.seconds:6.1f} s  {self.words}"


def run_check(check: Check, device: torch.device) -> Result:
    """Run one check; whatever it raises becomes its result, so that the others still run."""
    began = time.monotonic()
    verdict: Literal["passed", "failed", "skipped"]
    try:
        outcome = check.run(device)
        verdict = "passed" if outcome.good else "failed"
        words = f"{outcome.measured:.1e} of {outcome.allowed:.0e}" + (f", {outcome.words}" if outcome.words else "")
    except Unavailable as reason:
        verdict, words = "skipped", str(reason)
    except DidactError as error:
        verdict, words = "failed", str(error)
    except Exception as error:  # noqa: BLE001 - the next check may still tell something
        verdict, words = "failed", _reason(error)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return Result(check.group, check.name, verdict, words, time.monotonic() - began)


def _reason(error: Exception) -> str:
    """Type, first line and place; of an error of another process the last line, which holds its own type."""
    lines = str(error).strip().splitlines() or [""]
    if isinstance(error, ProcessRaisedException):
        return lines[-1]
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {lines[0]} ({place.filename.rpartition('/')[2]}:{place.lineno})"


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is wanted, in float64; NaN where either is not finite."""
    found, wanted = found.detach().double().cpu().flatten(), wanted.detach().double().cpu().flatten()
    if not (torch.isfinite(found).all() and torch.isfinite(wanted).all()):
        return float("nan")
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))


def farthest(found: Sequence[float], wanted: Sequence[float]) -> float:
    """The largest relative difference of two rows of figures."""
    return max(abs(a - b) / max(abs(b), 1e-30) for a, b in zip(found, wanted, strict=True))

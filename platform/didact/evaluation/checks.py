"""What a gate looks at, one line each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "not measured"]
_MARKS = {"passed": "pass", "failed": "FAIL", "not measured": "NOT MEASURED"}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a verdict."""

    check: str
    """The field of the gate that asked, such as `least`."""
    of: str
    """The metric or the part that it was asked of."""
    figure: str
    """What was found, in words."""
    limit: str
    """What was asked for."""
    outcome: Outcome
    """`not measured` does not pass: what nobody looked at is not known to be good."""

    def __str__(self) -> str:
        return f"{self.of}: {self.figure}, asked for {self.limit}: {_MARKS[self.outcome]}"


def all_passed(checks: Sequence[Check]) -> bool:
    """Whether nothing failed and nothing was left unmeasured; also where nothing was asked."""
    return all(check.outcome == "passed" for check in checks)

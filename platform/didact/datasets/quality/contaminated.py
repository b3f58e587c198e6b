"""Training rows that hold questions of an evaluation: found, then dropped or refused."""

from collections.abc import Sequence

from didact.datasets.dataset import Dataset
from didact.datasets.quality.contamination import ContaminationIndex
from didact.datasets.quality.marks import SHOWN, Marks
from didact.datasets.quality.types import Kept, Match
from didact.errors import DataError

_REASON = "contaminated:"


def find_contaminated(dataset: Dataset, index: ContaminationIndex) -> Kept:
    """The training rows that hold no question; the others go for the reason `contaminated:<evaluation set>`."""
    marks = Marks(dataset)
    for position, matches in enumerate(index.search(dataset.train)):
        if matches:
            marks.drop(position, {f"{_REASON}{match.set_name}": match for match in matches})
    return marks.kept()


def evaluation_set(reason: str) -> str | None:
    """The evaluation set of a reason; None for a reason of another kind."""
    return reason.removeprefix(_REASON) if reason.startswith(_REASON) else None


def refuse_contaminated(datasets: Sequence[Dataset], kept: Sequence[Kept]) -> None:
    """Stop where a row would have to go.

    Raises:
        DataError: counts for each data set, most first, and for each the longest of the words found in its rows.
    """
    bad = [(dataset.name, each) for dataset, each in zip(datasets, kept, strict=True) if each.found]
    if not bad:
        return
    lines = []
    for name, each in sorted(bad, key=lambda pair: -sum(pair[1].found.values())):
        counts = (f"{count:,} rows with questions of {evaluation_set(reason)}" for reason, count in each.found.items())
        lines.append(f"  - {name}: {', '.join(counts)}")
        matches = [(found.row, found.cause) for found in each.examples if isinstance(found.cause, Match)]
        longest = sorted(matches, key=lambda pair: -len(pair[1].words))[:SHOWN]
        lines += [f"      row {row}: {match.set_name} {match.item}: {match.words!r}" for row, match in longest]
    raise DataError(
        "training rows hold questions of an evaluation; set data.contamination.policy to drop, or remove the sources:\n"
        + "\n".join(lines)
    )

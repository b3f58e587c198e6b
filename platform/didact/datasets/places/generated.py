"""`reasoning-gym:TASK`: questions made on the spot, with answers that can be checked."""

import dataclasses
import difflib
import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from didact.datasets.rows.raw_row import RawRow
from didact.errors import DataError

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

PREFIX = "reasoning-gym:"
DEFAULT_ROWS = 1000
DEFAULT_SEED = 42


def open_generator(task: str, size: int, options: Mapping[str, Any]) -> "ProceduralDataset":
    """A `reasoning_gym` data set: `len(it)`, `it[i]` and `it.score_answer(text, entry)`.

    Args:
        task: name of the generator, such as `chain_sum`.
        size: number of items.
        options: `seed` (42 when left out) and the task's own settings.

    Raises:
        DataError: no such task or option, or a value that the task refuses.
    """
    import reasoning_gym  # takes seconds, and only recipes with generated data need it
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        raise DataError(f"{PREFIX}{task}: no such task; {_close(task, list(DATASETS))}")
    known = sorted({field.name for field in dataclasses.fields(DATASETS[task][1])} - {"size"})
    for option in options:
        if option == "size":
            raise DataError(f"{PREFIX}{task}: options.size is set by max_rows (or num_items); remove it from options")
        if option not in known:
            raise DataError(f"{PREFIX}{task}: no option {option!r}; {_close(option, known)}")
    seed = options.get("seed", DEFAULT_SEED)
    if not isinstance(seed, int):
        raise DataError(f"{PREFIX}{task}: options.seed is {seed!r}, expected a whole number")
    try:
        return reasoning_gym.create_dataset(task, **{**options, "size": size, "seed": seed})
    except (AssertionError, TypeError, ValueError) as error:
        raise DataError(f"{PREFIX}{task}: options {dict(options)} are refused: {error}") from error


def generated_rows(task: str, size: int, options: Mapping[str, Any], start: int, stop: int) -> Iterator[RawRow]:
    """Items `start` to `stop - 1` of a generator as raw rows."""
    dataset = open_generator(task, size, options)
    for index in range(start, stop):
        yield RawRow(PREFIX + task, index + 1, None, dataset[index])


def generator_version() -> str:
    """Version of the installed `reasoning-gym`: another version may ask other questions."""
    return importlib.metadata.version("reasoning-gym")


def _close(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(sorted(known))}"

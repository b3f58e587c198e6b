"""Questions with a checkable answer: where they come from, and when a model's text counts as correct."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from didact.datasets import open_generator, open_hub
from didact.datasets.quality import EvalText
from didact.errors import DataError
from didact.evaluation.scorers.numbers import is_number, last_number, numbers_equal
from didact.logs import get_logger
from didact.spec import Gsm8kTask, ReasoningGymTask, TaskSpec

_log = get_logger(__name__)
_FRESH_SEED = 1_000_003
_HUB = "hf:"


@dataclass(frozen=True, slots=True)
class Item:
    """One question."""

    question: str
    """What the user asks."""
    expected: str
    """The answer in the source's own words; empty where a generator accepts many and names none."""
    is_correct: Callable[[str], bool]
    """Whether a model's whole text answers the question."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question with what a model said."""

    question: str
    expected: str
    answer: str
    """The model's whole text."""
    correct: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """One question, answered by the base and by the adapter."""

    task: str
    question: str
    expected: str
    base_answer: str
    base_correct: bool
    adapter_answer: str | None
    """None where only the base was evaluated."""
    adapter_correct: bool | None


def score_answers(items: Sequence[Item], texts: Sequence[str]) -> tuple[Example, ...]:
    """Judge one text an item, in order.

    Raises:
        ValueError: the two sequences differ in length.
    """
    return tuple(
        Example(item.question, item.expected, text, item.is_correct(text))
        for item, text in zip(items, texts, strict=True)
    )


def reasoning_gym_items(task: ReasoningGymTask) -> tuple[Item, ...]:
    """Freshly generated questions; correct means a full score from the generator's own scorer.

    Raises:
        DataError: no such generator, or options that it refuses.
    """
    generator = open_generator(task.name, task.num_items, {"seed": _FRESH_SEED, **task.options})
    entries = [generator[index] for index in range(task.num_items)]
    return tuple(
        Item(entry["question"], entry["answer"] or "", partial(_full_score, generator, entry)) for entry in entries
    )


def gsm8k_items(task: Gsm8kTask) -> tuple[Item, ...]:
    """A random choice (seed 0) of GSM8K questions; correct means that the text's last number equals the expected one.

    Raises:
        DataError: the file is missing or empty, or a line is not a GSM8K row; names file and line.
    """
    items = [_gsm8k_item(row, place) for row, place in _gsm8k_rows(task.path)]
    if not items:
        raise DataError(f"{task.path} holds no rows; expected JSON lines with question and answer")
    if len(items) < task.num_items:
        _log.warning(f"gsm8k: {task.path} holds {len(items)} items; num_items={task.num_items} uses them all")
    return tuple(random.Random(0).sample(items, min(task.num_items, len(items))))


def task_texts(tasks: Sequence[TaskSpec]) -> Iterator[EvalText]:
    """Every question of every task that asks questions, named by task and number; held-out rows are none.

    Raises:
        DataError: a question file that cannot be read, or a generator that does not exist.
    """
    for task in tasks:
        if isinstance(task, Gsm8kTask):
            name, items = "gsm8k", gsm8k_items(task)
        elif isinstance(task, ReasoningGymTask):
            name, items = task.name, reasoning_gym_items(task)
        else:
            continue
        for number, item in enumerate(items):
            yield EvalText(name, str(number), item.question)


def _full_score(generator: Any, entry: dict[str, Any], text: str) -> bool:
    expected = entry["answer"]
    answer = last_number(text) if expected is not None and is_number(expected) else text.strip()
    try:
        return float(generator.score_answer(answer, entry)) == 1.0
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return False  # some scorers parse the text and raise on anything of another form


def _gsm8k_rows(path: str) -> Iterator[tuple[Any, str]]:
    """Rows, each with the place to name in errors."""
    if path.startswith(_HUB):
        for index, row in enumerate(open_hub(path, split="test", revision=None)):
            yield row, f"{path}, row {index}"
        return
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"{path} is not a file; expected GSM8K's JSON lines, or hf:openai/gsm8k:main")
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                yield json.loads(line.decode("utf-8")), place
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                raise DataError(f"{place}: {error}; expected a JSON object with question and answer") from error


def _gsm8k_item(row: Any, place: str) -> Item:
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("question", "answer")):
        raise DataError(f"{place}: found {str(row)[:80]!r}; expected an object with texts question and answer")
    _, mark, tail = row["answer"].rpartition("####")
    expected = tail.strip()
    if not mark or not is_number(expected):
        raise DataError(f"{place}: answer ends in {row['answer'][-40:]!r}; expected a number after ####")
    return Item(row["question"], expected, partial(_same_last_number, expected))


def _same_last_number(expected: str, text: str) -> bool:
    return numbers_equal(last_number(text), expected)

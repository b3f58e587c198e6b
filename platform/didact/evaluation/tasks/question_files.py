"""Questions out of files in any container that the house reads, or of the hub, under the rule of training rows: what
cannot be used is named with its place and counted, and too much of it stops the evaluation.

    path -> rows -> (a benchmark's reader) -> questions, and what was left out
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from didact.datasets import open_hub
from didact.datasets.conversation import Message, Role
from didact.datasets.places.file_kinds import beginning
from didact.datasets.places.hub import PREFIX, hub_rows
from didact.datasets.places.locate import LocatedFile, locate
from didact.datasets.places.remote import is_remote
from didact.datasets.quality.evaluation_sets import against_texts
from didact.datasets.quality.texts import normalise
from didact.datasets.readers import Layout, read
from didact.datasets.readers.columnar import first_row
from didact.datasets.rows.decoding import decode_json
from didact.datasets.rows.fields import Record, first_of, optional_text, written
from didact.datasets.rows.options import Container, RowOptions
from didact.datasets.rows.quarantine import reject
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.datasets.sources import inspect
from didact.errors import DataError
from didact.spec import ContaminationSpec, EvaluationSetSpec

_Each = TypeVar("_Each")
_SHOWN = 3
_ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """One record of a question file."""

    place: str
    """`file:line`, as errors name it."""
    stem: str
    """The file's name without folder and ending; the configuration of a hub data set."""
    number: int
    """In its file, from 1."""
    record: Record


@dataclass(frozen=True, slots=True)
class Questions(Generic[_Each]):
    """What the rows became."""

    found: tuple[_Each, ...]
    left_out: tuple[str, ...]
    """Place and reason of each row that could not be used."""


def read_questions(
    task: str,
    path: str,
    make: Callable[[QuestionRow], _Each | None],
    *,
    split: str = "test",
    each: str | None = None,
    columns: Sequence[str] = (),
    container: Container | None = None,
    options: RowOptions | None = None,
    max_bad_rows_share: float = 0.0,
) -> Questions[_Each]:
    """Read questions.

    Args:
        task: its name, for errors.
        path: a file, folder, glob or URL, or `hf:OWNER/NAME[:CONFIG]`.
        make: question of a row, None for a row that is not wanted; raises `BadRow` for one that cannot be used.
        split: of a hub data set; of a folder with folders in it, the one that is read.
        each: the list that holds the rows, in JSON files that are one object.
        columns: what the columns of CSV files mean whose first row names none of them.
        container: how rows stand in the files; None where that is told by name and beginning.
        options: all that is said of how files are written, in place of `each` and `container`.
        max_bad_rows_share: as `data.max_bad_rows_share` of training rows.

    Raises:
        DataError: nothing is there, it is damaged or empty, or more rows than that cannot be used; names the first.
    """
    found: list[_Each] = []
    left_out: list[str] = []
    num_rows = 0
    row_options = options or RowOptions(each=each, container=container)
    for raw, stem, number in _raw_rows(task, path, split, row_options, columns):
        num_rows += 1
        try:
            if (question := make(QuestionRow(raw.place, stem, number, _record(raw)))) is not None:
                found.append(question)
        except BadRow as bad:
            left_out.append(reject(raw, bad).summary)
    if len(left_out) > max_bad_rows_share * num_rows:
        raise DataError(
            f"evaluation task {task}: {len(left_out):,} of {num_rows:,} rows of {path} cannot be used, more than its "
            f"max_bad_rows_share = {max_bad_rows_share:g} allows. First: {'; '.join(left_out[:_SHOWN])}. Repair or "
            "remove these rows, or raise max_bad_rows_share"
        )
    if not num_rows:
        raise DataError(f"evaluation task {task}: {path} holds no rows")
    return Questions(tuple(found), tuple(left_out))


def questions_in(task: str, path: str, questions: Iterable[str]) -> set[str]:
    """Those of some questions that stand in a file of training rows, alone or inside a longer prompt.

    Args:
        task: its name, for errors.
        path: training rows in any known form, or `hf:OWNER/NAME`.
        questions: their texts; case, white space and the width of letters do not count.

    Raises:
        DataError: the file cannot be read, or is in no known form.
    """
    against = EvaluationSetSpec(name=task, path=path, split="train")
    prompts = {normalise(each.text) for each in against_texts(ContaminationSpec(against=(against,)))}
    all_of_them = "\n".join(prompts)
    return {text for text in questions if (plain := normalise(text)) in prompts or plain in all_of_them}


def turns_of(record: Mapping[str, Any], asked: tuple[str, ...] = ("question",)) -> list[Message]:
    """The turns of `messages`, or the question alone.

    Args:
        record: the row.
        asked: fields of which the first that is there holds the question; `input` beside it is put below it, where
            more than one name is known.

    Raises:
        BadRow: there is no question, or a turn that is none; says which.
    """
    given = parsed(record.get("messages"))
    if given is None:
        return [Message("user", _question(record, asked))]
    if not isinstance(given, list) or not given:
        raise BadRow("wrong_type", "`messages` is no list of turns, each with role and content")
    turns = []
    for turn in given:
        fields = turn if isinstance(turn, dict) else {}
        role = next((each for each in _ROLES if each == fields.get("role")), None)
        content = fields.get("content")
        if role is None or not isinstance(content, str):
            raise BadRow(
                "wrong_turns",
                f"a turn of `messages` is {str(turn)[:60]!r}, expected role and content; roles are {', '.join(_ROLES)}",
            )
        turns.append(Message(role, content))
    if turns[-1].role != "user":
        raise BadRow("wrong_turns", f"`messages` ends with a turn of the {turns[-1].role}, expected the user's")
    return turns


def parsed(value: Any) -> Any:
    """JSON in a text, as tables of columns hold lists."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


def _raw_rows(
    task: str, path: str, split: str, options: RowOptions, columns: Sequence[str]
) -> Iterator[tuple[RawRow, str, int]]:
    """Each row with the name of its file and its number there."""
    if path.startswith(PREFIX):
        configuration = path[len(PREFIX) :].partition(":")[2]
        num_rows = len(open_hub(path, split, revision=None))
        for number, raw in enumerate(hub_rows(path, split, None, 0, num_rows), start=1):
            yield raw, configuration, number
        return
    for file in locate(f"evaluation task {task}", _place(task, path, split), where="evaluation.tasks"):
        layout = _layout(task, file, options, columns)
        for number, raw in enumerate(read(layout), start=1):
            yield raw, Path(file.name).name.partition(".")[0], number


def _place(task: str, path: str, split: str) -> str:
    """A folder of splits stands for one of them."""
    folder = Path(path).expanduser()
    if is_remote(path) or not folder.is_dir() or any(each.is_file() for each in folder.iterdir()):
        return path
    if not (folder / split).is_dir():
        inside = ", ".join(sorted(each.name for each in folder.iterdir())[:10]) or "nothing"
        raise DataError(f"evaluation task {task}: {path} holds {inside}; expected question files or a folder {split!r}")
    return str(folder / split)


def _layout(task: str, file: LocatedFile, options: RowOptions, columns: Sequence[str]) -> Layout:
    layout = inspect(f"evaluation task {task}", file, options, format=None)
    if not columns or layout.container != "delimited":
        return layout
    names = [name.strip().casefold() for name in first_row(beginning(file.path, layout.file), layout.delimited)]
    if len(names) != len(columns) or {name.casefold() for name in columns if len(name) > 1} & set(names):
        return layout  # a letter may be an option or an answer as well
    return replace(layout, delimited=replace(layout.delimited, columns=tuple(columns)))


def _record(raw: RawRow) -> Record:
    if raw.fault is not None:
        raise raw.fault
    record = decode_json(raw.content) if isinstance(raw.content, bytes) else raw.content
    try:
        json.dumps(record, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise BadRow("lone_surrogate", f"half a character, {error.object[error.start]!r}, in a text") from None
    return record


def _question(record: Mapping[str, Any], asked: tuple[str, ...]) -> str:
    name = first_of(record, asked)
    if record.get(name) is None:
        found = ", ".join(map(repr, record)) or "none"
        hint = "; another field is named by `fields: {question: FIELD}`" if len(asked) == 1 else ""
        if inside := next((field for field, value in record.items() if _holds_rows(value)), None):
            hint = f"; if `{inside}` is the list of rows: `options: {{each: {inside}}}`"
        expected = " or ".join(f"`{each}`" for each in (*asked, "messages"))
        raise BadRow("missing_field", f"there is no question; expected {expected}, found {found}{hint}")
    context = optional_text(record, "input") if len(asked) > 1 else ""
    return f"{written(record, name)}\n\n{context}" if context else written(record, name)


def _holds_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)

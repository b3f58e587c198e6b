"""What the rows of a question file say: turns, accepted answers, options, and what a scorer needs beside these."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from didact.datasets.conversation import Message
from didact.datasets.forms.field_mapping import FieldMapping, map_record
from didact.datasets.rows.fields import optional_text
from didact.datasets.rows.raw_row import BadRow
from didact.evaluation.questions import Question
from didact.evaluation.scorers.code import tests_of
from didact.evaluation.scorers.json_text import check_schema, fault_of, schema_of_file
from didact.evaluation.scorers.numbers import is_number
from didact.evaluation.scorers.options import LETTERS, equal_options, key_of
from didact.evaluation.tasks.own.answers import accepted_answers
from didact.evaluation.tasks.own.template import Render
from didact.evaluation.tasks.question_files import QuestionRow, parsed, turns_of
from didact.spec import (
    ChoiceScorer,
    CodeScorer,
    ContainsScorer,
    ExactScorer,
    F1Scorer,
    FunctionScorer,
    JsonSchemaScorer,
    JudgeScorer,
    NumberScorer,
    RegexScorer,
    RougeScorer,
)

_OF_TEXTS = (ContainsScorer, ExactScorer, F1Scorer, RougeScorer)
_NO_ANSWER_NEEDED = (CodeScorer, FunctionScorer, JsonSchemaScorer, JudgeScorer, RegexScorer)


@dataclass
class RowReader:
    """Makes a question of each row of one file or folder, in order."""

    scorer: Any
    """A `ScorerSpec`, which decides what a row must have."""
    fields: Mapping[str, str | Sequence[str]]
    """Role -> where a row keeps it."""
    template: Render
    system: str | None
    _seen: set[str] = field(default_factory=set)

    @cached_property
    def _file_schema(self) -> dict[str, Any] | None:
        file = self.scorer.schema_file
        return None if file is None else schema_of_file(file)

    def question(self, row: QuestionRow) -> Question:
        """The question of a row.

        Raises:
            BadRow: it has none, or lacks what its scorer needs.
        """
        record = self._named(dict(row.record))
        options = _options(record.get("options"))
        answers = accepted_answers(record, self.scorer)
        question = Question(
            id=self._id(record, row),
            messages=self._messages(record, options),
            expected=answers[0] if answers else "",
            options=options,
            group=_group(record),
            passage=optional_text(record, "passage"),
            rationale=optional_text(record, "rationale"),
            data={**record, "options": options, "answers": list(answers)},
        )
        self._check(question, record)
        return question

    def _named(self, record: dict[str, Any]) -> dict[str, Any]:
        """The row's fields, with what `fields` names under the names that are known here."""
        rules: dict[str, Any] = {}
        for role, rule in self.fields.items():
            if role == "options" and not isinstance(rule, str):
                rules |= {f"options.{place}": f"{name}?" for place, name in enumerate(rule)}
            else:
                rules[role] = rule if isinstance(rule, str) else tuple(rule)
        if not rules:
            return record
        (found,) = map_record(FieldMapping(fields=rules), record)
        if isinstance(found, BadRow):
            raise found
        # In its place, so that a column without a text makes no other option of the next one.
        columns = [found.pop(name, None) for name in rules if name.startswith("options.")]
        listed = [None if each == "" else each for each in columns]
        return {**record, **found, **({"options": listed} if any(each is not None for each in listed) else {})}

    def _id(self, record: Mapping[str, Any], row: QuestionRow) -> str:
        given = record.get("id")
        name = str(given) if isinstance(given, str | int) and str(given).strip() else ""
        if name in self._seen:
            raise BadRow("duplicate_key", f"the id {name!r} is that of another row as well")
        name = name or str(row.number)
        name = name if name not in self._seen else f"{row.stem}:{row.number}"
        self._seen.add(name)
        return name

    def _messages(self, record: Mapping[str, Any], options: tuple[str, ...]) -> tuple[Message, ...]:
        *before, last = turns_of(record)
        text = self.template({**record, "options": options, "question": last.content})
        if not text.strip():
            raise BadRow("empty_prompt", "the question is empty")
        system = optional_text(record, "system") or self.system
        if system and not any(turn.role == "system" for turn in before):
            before = [Message("system", system), *before]
        return (*before, Message("user", text))

    def _check(self, question: Question, record: Mapping[str, Any]) -> None:
        if not question.expected.strip() and not isinstance(self.scorer, _NO_ANSWER_NEEDED):
            found = ", ".join(repr(name) for name, value in record.items() if value)
            raise BadRow(
                "missing_field",
                f"it has no answer for the scorer {self.scorer.name} to compare with; found {found}; another field is "
                "named by `fields: {answer: FIELD}`",
            )
        if isinstance(self.scorer, NumberScorer) and not all(map(is_number, question.data["answers"])):
            raise BadRow("wrong_type", f"the answer {question.expected[:60]!r} is no number, as scorer number expects")
        if isinstance(self.scorer, ChoiceScorer):
            _check_choice(question, self.scorer)
        elif question.options and isinstance(self.scorer, _OF_TEXTS):
            _check_among_options(question, self.scorer.name)
        if isinstance(self.scorer, CodeScorer):
            _check_code(question)
        if isinstance(self.scorer, JsonSchemaScorer):
            _check_schema(question, self._file_schema)


def _group(record: Mapping[str, Any]) -> str:
    value = record.get("class")
    if isinstance(value, Mapping | list | tuple):
        raise BadRow(
            "wrong_type", f"field 'class' is {json.dumps(value, default=str)[:60]}; expected a text or a number"
        )
    return "" if value is None else str(value).strip()


def _options(value: Any) -> tuple[str, ...]:
    value = parsed(value)
    if value is None or value == "":
        return ()
    if isinstance(value, Mapping):
        value = _in_order(value)
    if not isinstance(value, list):
        raise BadRow("wrong_type", f"`options` is {str(value)[:60]!r}, expected a list of texts")
    while value and value[-1] is None:  # a table with columns for more options than the row has
        value = value[:-1]
    if odd := [each for each in value if not isinstance(each, str | int | float) or each != each]:
        raise BadRow(
            "wrong_type", f"`options` holds {json.dumps(odd[0], default=str)[:60]}; expected texts and numbers"
        )
    texts = tuple(str(each).strip() for each in value)
    if not 2 <= len(texts) <= len(LETTERS) or not all(texts):
        raise BadRow("wrong_type", f"`options` holds {len(texts)}; expected 2 to {len(LETTERS)}, none of them empty")
    return texts


def _in_order(value: Mapping[Any, Any]) -> list[Any]:
    """Options that stand under their letters, in the order of these."""
    by_letter = {str(name).strip().upper(): each for name, each in value.items()}
    letters = list(LETTERS[: len(by_letter)])
    if sorted(by_letter) != letters or len(by_letter) < len(value):
        names = ", ".join(map(repr, value))[:60]
        raise BadRow(
            "wrong_type", f"`options` has the names {names}; expected the letters A, B, ... or a list of texts"
        )
    return [by_letter[letter] for letter in letters]


def _check_choice(question: Question, scorer: ChoiceScorer) -> None:
    texts = question.options
    if not texts:
        raise BadRow("missing_field", "it has no `options` for the scorer choice to choose from")
    if twice := equal_options(texts):
        raise BadRow("unknown_label", f"its options {twice}: which one is right cannot be told")
    try:
        key_of(question.data["answers"], texts, scorer.several, scorer.key)
    except ValueError as error:
        raise BadRow("unknown_label", str(error)) from None


def _check_among_options(question: Question, scorer: str) -> None:
    """An answer that is compared as a text must be one of the options, or its letter."""
    said = {each.casefold() for each in (*question.options, *LETTERS[: len(question.options)])}
    answers = question.data["answers"]
    if not any(answer.strip().casefold() in said for answer in answers):
        raise BadRow(
            "unknown_label",
            f"its answer {answers[0][:60]!r} is none of its options and no letter of one, and scorer {scorer} compares "
            "with the text; `scorer: choice` takes an option's number too",
        )


def _check_code(question: Question) -> None:
    tests = tests_of(question)
    if not tests:
        raise BadRow("missing_field", "it has no `tests` with Python code for the scorer code")
    for test in tests:
        try:
            compile(test, "tests", "exec")
        except (SyntaxError, ValueError, RecursionError) as error:
            raise BadRow("unusable_field", f"its `tests` are no Python: {error}") from None


def _check_schema(question: Question, of_file: dict[str, Any] | None) -> None:
    schema = of_file
    if schema is None:
        schema = parsed(question.data.get("schema"))
        if schema is None:
            raise BadRow("missing_field", "it has no `schema`, and scorer.schema_file is not set")
        if (wrong := check_schema(schema)) is not None:
            raise BadRow("unusable_field", f"its `schema` {wrong}")
    for answer in question.data["answers"]:
        if (wrong := fault_of(answer, schema)) is not None:
            raise BadRow("unknown_label", f"its answer {answer[:60]} is not as its schema says: {wrong}")

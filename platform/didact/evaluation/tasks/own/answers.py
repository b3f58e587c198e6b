"""What a row says is right: one answer, or several that are all accepted, as data sets write them."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from didact.datasets.rows.raw_row import BadRow
from didact.evaluation.tasks.question_files import parsed
from didact.spec import CodeScorer, FunctionScorer, JsonSchemaScorer, JudgeScorer

_ANY_VALUE = (CodeScorer, FunctionScorer, JudgeScorer)
"""Scorers that may know what to do with an object or a list of lists."""
_OF_TEXTS = re.compile(r"\s*(?:\[\s*[\"{]|\{\s*\")")
_TEXTS = ("text", "texts")
_OF_SQUAD = {"text", "texts", "answer_start", "answer_end", "answer_id"}


def accepted_answers(record: Mapping[str, Any], scorer: Any) -> tuple[str, ...]:
    """All accepted answers of a row; what is no text is written as JSON.

    A list is several answers; so are SQuAD's `{text: [...], answer_start: [...]}`, its list of such, and TriviaQA's
    `{value: ..., aliases: [...]}`. For the scorer `json_schema`, `answer` is one JSON value, whatever it is.

    Args:
        record: the row, under the names that are known here.
        scorer: a `ScorerSpec`.

    Raises:
        BadRow: an object, or a list in a list, that the scorer cannot compare a text with.
    """
    key = "answer" if record.get("answer") is not None else "answers"
    value = record.get(key)
    if isinstance(scorer, JsonSchemaScorer):
        return _values(value, several=key == "answers")
    # `[1, 2]` as one answer is an interval, or a program's list; as `answers` it can only be several.
    if isinstance(value, str) and (_OF_TEXTS.match(value) or (key == "answers" and value.lstrip().startswith("["))):
        value = _listed(value)  # a list in a table of columns
    several = _flat(value)
    odd = next((each for each in several if isinstance(each, Mapping | list | tuple)), None)
    if odd is not None and not isinstance(scorer, _ANY_VALUE):
        raise BadRow(
            "wrong_type",
            f"`{key}` holds {json.dumps(odd, ensure_ascii=False)[:60]}; expected a text, a number, a list of these, or "
            "SQuAD's {text: [...]}",
        )
    return tuple(each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in several)


def _listed(value: str) -> Any:
    """A list of answers out of a column; an object only where it holds some, since it may be one itself."""
    found = parsed(value)
    return found if isinstance(found, list) or _texts_of(found) is not None else value


def _flat(value: Any) -> list[Any]:
    if (texts := _texts_of(value)) is not None:
        return texts
    if not isinstance(value, list):
        return [] if value is None else [value]
    found: list[Any] = []
    for each in value:
        texts = _texts_of(each)
        found += texts if texts is not None else [] if each is None else [each]
    return list(dict.fromkeys(found)) if all(isinstance(each, str) for each in found) else found


def _texts_of(value: Any) -> list[Any] | None:
    """The texts of an object that holds answers and says where they stand, or other names of them."""
    if not isinstance(value, Mapping):
        return None
    if set(value) & set(_TEXTS) and not set(value) - _OF_SQUAD:
        held = next(value[name] for name in _TEXTS if name in value)
    elif isinstance(value.get("value"), str) and isinstance(value.get("aliases"), Sequence):
        held = [value["value"], *value["aliases"]]
    else:
        return None
    held = held if isinstance(held, list | tuple) else [held]
    return list(dict.fromkeys(held)) if all(isinstance(each, str) for each in held) else None


def _values(value: Any, several: bool) -> tuple[str, ...]:
    """JSON values as JSON; a text that is none is the JSON of a text."""
    if value is None:
        return ()
    given = value if several and isinstance(value, list) else [value]
    return tuple(_as_json(each) for each in given)


def _as_json(value: Any) -> str:
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            return json.dumps(json.loads(value), ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False)

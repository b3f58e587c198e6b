"""What to say of records in no known form: the forms that are nearest, and the list that holds the rows."""

import difflib
from collections.abc import Iterable
from typing import Any

from didact.datasets.forms.table_of_forms import FORMS, RecordForm, recognise
from didact.spec.data import Form

_SHOWN = 5
_USUAL: tuple[Form, ...] = ("alpaca", "prompt_completion", "messages", "sharegpt", "question_answer")
_LOOKED_AT = 50


def nearest_forms(keys: Iterable[str]) -> str:
    """A handful of forms with the fields that tell them, those first whose fields these keys are most like."""
    found = [key.strip().lower() for key in keys][:_LOOKED_AT]
    ranked = sorted((form for form in FORMS if form.needs or form.one_of), key=lambda form: _rank(form, found))
    best: dict[Form, RecordForm] = {}
    for form in ranked:
        best.setdefault(form.name, form)
    return "; ".join(f"{form.name} ({_told_by(form)})" for form in list(best.values())[:_SHOWN])


def rows_inside(record: dict[str, Any]) -> str | None:
    """Where a record holds a list of rows, as `data` or `result.rows`; None where it holds none."""
    for name, value in record.items():
        if _is_rows(value):
            return name
    for name, value in record.items():
        if isinstance(value, dict) and (inside := next((key for key in value if _is_rows(value[key])), None)):
            return f"{name}.{inside}"
    return None


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and recognise(value[0]) is not None


def _rank(form: RecordForm, found: list[str]) -> tuple[float, int]:
    likeness = [_likeness(name, found) for name in form.needs]
    if form.one_of:
        likeness.append(max(_likeness(name, found) for name in form.one_of))
    usual = _USUAL.index(form.name) if form.name in _USUAL else len(_USUAL)
    return -sum(likeness) / len(likeness), usual


def _likeness(name: str, found: list[str]) -> float:
    close = difflib.get_close_matches(name.lower(), found, n=1, cutoff=0.75)
    return difflib.SequenceMatcher(None, name.lower(), close[0]).ratio() if close else 0.0


def _told_by(form: RecordForm) -> str:
    return ", ".join((*form.needs, *([" or ".join(form.one_of)] if form.one_of else [])))

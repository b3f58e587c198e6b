"""A scorer of one's own: a Python function, named by its import path."""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from didact.errors import DidactError, SpecError
from didact.evaluation.questions import Question, Score
from didact.evaluation.scorers.own_code import own_code
from didact.evaluation.scorers.scorer import NamedScorer
from didact.files import fingerprint, sha256_file
from didact.spec import FunctionScorer


def function_scorer(spec: FunctionScorer) -> NamedScorer:
    """The scorer that a function makes. Its version holds digests of its module's file and of those of one's own that
    this one imports, so a change is seen.

    Raises:
        SpecError: there is no such module or function, or it cannot be called with a question and a text.
    """
    module, _, name = spec.path.partition(":")
    with _working_directory_first():
        function = _function(spec, module, name)
        code = own_code(function)
    version = fingerprint([spec.path, code or _installed(function), spec.options])
    return NamedScorer(partial(_score, function, spec), f"{spec.path}, {version}", metric=spec.metric)


def _function(spec: FunctionScorer, module: str, name: str) -> Callable[..., Any]:
    where = f"scorer.path: {spec.path}"
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:
        raise SpecError(
            f"{where}: the module {module!r} cannot be imported: {type(error).__name__}: {error}; expected a module "
            f"that is installed or lies in {Path.cwd()}"
        ) from error
    if not callable(found):
        raise SpecError(f"{where}: the module {module!r} has no function {name!r}")
    try:
        inspect.signature(found).bind("question", "text", **spec.options)
    except TypeError as error:
        raise SpecError(f"{where}: cannot be called with a question, a text and the given options: {error}") from None
    function: Callable[..., Any] = found
    return function


def _installed(function: Callable[..., Any]) -> str:
    """The digest of an installed module's file."""
    file = Path(inspect.getsourcefile(function) or "")
    return sha256_file(file) if file.is_file() else ""


@contextmanager
def _working_directory_first() -> Iterator[None]:
    # A command's path begins with the folder of the command, not with the one that the user is in.
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _score(function: Callable[..., Any], spec: FunctionScorer, question: Question, text: str) -> Score:
    try:
        found = function(question, text, **spec.options)
    except DidactError:
        raise
    except Exception as error:  # noqa: BLE001 - one question that it cannot score must not end the evaluation
        return Score(problem=f"{spec.path} raised {type(error).__name__}: {error}")
    if isinstance(found, Score):
        return found
    if isinstance(found, bool | int | float) and abs(float(found)) != float("inf") and found == found:
        return Score({spec.metric: float(found)}, extracted=text.strip() or None)
    return Score(problem=f"{spec.path} returned {str(found)[:80]!r}; expected a Score, a number, or true or false")

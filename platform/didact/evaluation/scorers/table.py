"""The table of scorers: from a name with options to a function with a version."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from didact.evaluation.scorers.choice import choice_scorer
from didact.evaluation.scorers.code import code_scorer
from didact.evaluation.scorers.function import function_scorer
from didact.evaluation.scorers.json_text import json_schema_scorer
from didact.evaluation.scorers.numbers import number_scorer
from didact.evaluation.scorers.overlap import f1_scorer, rouge_scorer
from didact.evaluation.scorers.scorer import NamedScorer
from didact.evaluation.scorers.texts import contains_scorer, exact_scorer, regex_scorer, set_scorer
from didact.files import fingerprint
from didact.spec import (
    ChoiceScorer,
    CodeScorer,
    ContainsScorer,
    ExactScorer,
    F1Scorer,
    FunctionScorer,
    JsonSchemaScorer,
    NumberScorer,
    RegexScorer,
    RougeScorer,
    ScorerSpec,
    SetScorer,
    full_scorer,
)

_BUILDERS: dict[type, Callable[[Any], NamedScorer]] = {
    ExactScorer: exact_scorer,
    NumberScorer: number_scorer,
    SetScorer: set_scorer,
    ChoiceScorer: choice_scorer,
    ContainsScorer: contains_scorer,
    RegexScorer: regex_scorer,
    F1Scorer: f1_scorer,
    RougeScorer: rouge_scorer,
    JsonSchemaScorer: json_schema_scorer,
    CodeScorer: code_scorer,
    FunctionScorer: function_scorer,
}


def build_scorer(scorer: ScorerSpec | str) -> NamedScorer:
    """The scorer that a recipe names.

    Args:
        scorer: a name, the path of a function, or a name with options.

    Raises:
        SpecError: a pattern that cannot be read, or a function that is not there.
        DataError: a schema's file that cannot be read.
    """
    full = full_scorer(scorer)
    built = _BUILDERS[type(full)](full)
    # Options decide what is right as much as the code does.
    return replace(built, version=f"{built.version}, {fingerprint(full.model_dump(mode='json'))[:12]}")

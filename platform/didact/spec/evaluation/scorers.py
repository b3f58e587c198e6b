"""When a text counts as right: one class a scorer, each with its name under `name`."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from didact.spec.base import Spec
from didact.spec.evaluation.judging import JudgingSpec
from didact.spec.explain.schema import Says


class ExactScorer(Spec):
    """The text is an accepted answer; case, blanks, width of letters and marks at the ends aside."""

    name: Literal["exact"]


class NumberScorer(Spec):
    """The last number of the text is the accepted one, as a quantity: `1,000.0` is `1000`."""

    name: Literal["number"]
    tolerance: float = Field(default=0.0, ge=0)
    """Largest difference that still counts, as a share of the accepted number: 0.01 is one per cent."""


class SetScorer(Spec):
    """The text names the accepted items, all of them and no others, in any order."""

    name: Literal["set"]
    separator: str | None = Field(default=None, min_length=1)
    """What stands between two items; left out: line breaks, commas, semicolons and `and`."""


class ChoiceScorer(Spec):
    """The text names the right one of the row's `options`, by letter or in the option's own words."""

    name: Literal["choice"]
    several: bool = False
    """Whether more than one option may be right: the text must name all of these and no others."""
    key: Literal["letter", "number", "text"] | None = None
    """What a row's `answer` is: the right option's letter, its number from 0, or its own words. Left out, any of these;
    a row whose answer may mean two options (2 beside the options 1, 2 and 3) is then refused."""


class ContainsScorer(Spec):
    """An accepted answer stands somewhere in the text."""

    name: Literal["contains"]
    all: bool = False
    """Whether every accepted answer must be there."""
    words: bool = True
    """Whether it must stand as whole words: `art` is not in `start`. In Chinese, without blanks, it may be anywhere."""


class RegexScorer(Spec):
    """What a pattern finds in the text is an accepted answer; where a row has none, finding something is right."""

    name: Literal["regex"]
    pattern: str = Field(min_length=1)
    """In the syntax of Python's `regex`; its first group is the answer, or all that it finds where it has no group."""
    take: Literal["first", "last"] = "last"
    """Which of several finds."""
    ignore_case: bool = False
    """Whether `a` finds `A`."""
    seconds: float = Field(default=1.0, gt=0)
    """Longest search in one text; a question whose text takes longer is counted as one that could not be scored."""


class F1Scorer(Spec):
    """Words that the text shares with the nearest accepted answer, as SQuAD measures them; Chinese by characters."""

    name: Literal["f1"]


class RougeScorer(Spec):
    """ROUGE-1, ROUGE-2 and ROUGE-L (F) with the nearest accepted answer; Chinese by characters."""

    name: Literal["rouge"]
    stemmer: bool = False
    """Whether English endings are cut off before words are compared."""


class JsonSchemaScorer(Spec):
    """The JSON in the text is as a schema says, and equals the accepted answer where the row has one."""

    name: Literal["json_schema"]
    schema_file: str | None = None
    """A JSON file with the schema; left out, each row has it in its field `schema`."""


class CodeScorer(Spec):
    """The Python code in the text passes the row's `tests`, in a process of its own without network."""

    name: Literal["code"]
    seconds: float = Field(default=5.0, gt=0)
    """Longest run of code and tests together."""
    memory_mb: int = Field(default=512, ge=64)
    """Most memory, in MiB."""
    file_mb: int = Field(default=16, ge=0)
    """Largest file that it may write in its working folder, in MiB."""


class JudgeScorer(JudgingSpec):
    """A model reads question and text and says what it is worth, 0 to 1; `evaluation.judge` says which model."""

    name: Literal["judge"]


FunctionPath = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"),
    Says("a Python function such as my_package.my_module:my_scorer"),
]


class FunctionScorer(Spec):
    """A Python function of one's own: a question and a text in, a `Score`, a number or true or false out."""

    name: Literal["function"]
    path: FunctionPath
    """Module and function, such as `my_package.my_module:my_scorer`; modules in the working directory are found."""
    metric: str = Field(default="accuracy", pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    """What a plain number that it returns is called, and the figure that the task is judged by."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Named arguments that it is given beside question and text."""


ScorerSpec = Annotated[
    ExactScorer
    | NumberScorer
    | SetScorer
    | ChoiceScorer
    | ContainsScorer
    | RegexScorer
    | F1Scorer
    | RougeScorer
    | JsonSchemaScorer
    | CodeScorer
    | FunctionScorer
    | JudgeScorer,
    Field(discriminator="name"),
]

_PLAIN: dict[str, Any] = {
    "exact": ExactScorer,
    "number": NumberScorer,
    "set": SetScorer,
    "choice": ChoiceScorer,
    "contains": ContainsScorer,
    "f1": F1Scorer,
    "rouge": RougeScorer,
    "json_schema": JsonSchemaScorer,
    "code": CodeScorer,
    "judge": JudgeScorer,
}
ScorerName = Literal["exact", "number", "set", "choice", "contains", "f1", "rouge", "json_schema", "code", "judge"]
"""Scorers that need no option: their name alone will do."""


def full_scorer(scorer: Any) -> Any:
    """A scorer with all its options, where a recipe has only its name or the function's path.

    Args:
        scorer: as in the recipe: a `ScorerSpec`, a name or a path.
    """
    if not isinstance(scorer, str):
        return scorer
    plain = _PLAIN.get(scorer)
    return plain(name=scorer) if plain else FunctionScorer(name="function", path=scorer)

"""What is wrong in a file, in its own words: pydantic's errors -> file, line, field, found, expected, what to write.

    pydantic errors + the data -> complaints -> lines of a SpecError

Settings of other programs are translated by the table in `words.yaml`.

Example:
    >>> from didact.errors import SpecError
    >>> from didact.spec import FinetuneSpec, validate
    >>> try:
    ...     validate(FinetuneSpec, {"name": "x", "load_in_4bit": True}, "recipe.yaml")
    ... except SpecError as error:
    ...     print("`load_in_4bit: true` is written model.quantization.bits: 4" in str(error))
    True
"""

from didact.spec.explain.complaints import complaints
from didact.spec.explain.schema import Says
from didact.spec.explain.where import Lined, plain

__all__ = ["Lined", "Says", "complaints", "plain"]

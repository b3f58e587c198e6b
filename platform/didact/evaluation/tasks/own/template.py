"""A row of a question file as what the user says."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from didact.datasets.rows.raw_row import BadRow
from didact.errors import TemplateError
from didact.evaluation.scorers.options import LETTERS
from didact.spec import check_syntax
from didact.spec.paths import JINJA_FILES

_HOLE = re.compile(r"\{(\w+)\}")
_JINJA = re.compile(r"\{[{%#]")

Render = Callable[[Mapping[str, Any]], str]
"""Fields of a row -> the text; raises `BadRow` where a field is missing."""


def template_of(template: str | None, origin: str) -> Render:
    """The template of a task.

    Args:
        template: text with `{field}`, Jinja text, or a Jinja file; None for passage, question and options.
        origin: the field that holds it, for errors.

    Raises:
        TemplateError: there is no such file, or Jinja cannot read it; names the line.
    """
    if template is None:
        return _plainly
    if template.endswith(JINJA_FILES):
        file = Path(template).expanduser()
        try:
            return _jinja(file.read_text(encoding="utf-8"), f"{origin}: {file}")
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateError(f"{origin}: {file} cannot be read as text: {error}") from None
    if _JINJA.search(template):
        return _jinja(template, origin)
    if not _HOLE.search(template):
        raise TemplateError(f"{origin}: {template[:60]!r} holds no field of a row; expected one such as {{question}}")
    return lambda fields: _HOLE.sub(lambda hole: _written(fields, hole[1]), template)


def lettered(options: tuple[str, ...]) -> str:
    """Options with letters, one a line."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))


def _plainly(fields: Mapping[str, Any]) -> str:
    options = lettered(tuple(fields.get("options") or ()))
    asked = "\n".join(part for part in (str(fields["question"]), options) if part)
    passage = fields.get("passage")
    return f"{passage}\n\n{asked}" if passage else asked


def _written(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise BadRow("missing_field", f"the template's {{{name}}} is no field of the row; found {', '.join(fields)}")
    if name == "options":
        return lettered(tuple(value))
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _jinja(text: str, origin: str) -> Render:
    import jinja2
    import jinja2.sandbox

    check_syntax(text, origin)
    sandbox = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    compiled = sandbox.from_string(text)

    def render(fields: Mapping[str, Any]) -> str:
        try:
            return compiled.render({"lettered": lettered(tuple(fields.get("options") or ())), **fields})
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise BadRow("unusable_field", f"the template cannot be filled: {error}") from None

    return render

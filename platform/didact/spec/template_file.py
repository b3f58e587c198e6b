"""Chat templates of one's own: read from their file, and refused with the line where their syntax breaks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from didact.errors import TemplateError

if TYPE_CHECKING:
    import jinja2

NAMED_TEMPLATES = ("auto", "model", "alpaca")
"""Values of `tokens.template` that are no template themselves."""
_MARKS = ("{%", "{{", "{#")


def read_template(template: str) -> str:
    """A template of one's own as Jinja text, its syntax checked; a named one stays its name.

    Args:
        template: `tokens.template`.

    Raises:
        TemplateError: there is no such file, it holds no text, or its syntax is broken; names file and line.
    """
    if template in NAMED_TEMPLATES:
        return template
    if any(mark in template for mark in _MARKS):
        check_syntax(template, "tokens.template")
        return template
    file = Path(template).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise TemplateError(f"tokens.template: there is no file {file.absolute()}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"tokens.template: {file} cannot be read as text: {error}") from None
    check_syntax(text, f"tokens.template: {file}")
    if not any(mark in text for mark in _MARKS):
        raise TemplateError(f"tokens.template: {file} holds no Jinja; expected a template over `messages`")
    return text


def check_syntax(text: str, origin: str) -> None:
    """Refuse a template that Jinja cannot read.

    Raises:
        TemplateError: names `origin`, the line and what stands there.
    """
    import jinja2  # reading a recipe without a template of its own needs none

    try:
        chat_environment().compile(text)
    except jinja2.TemplateSyntaxError as error:
        lines = text.splitlines()
        found = lines[error.lineno - 1].strip() if 0 < error.lineno <= len(lines) else ""
        shown = found if len(found) <= 80 else f"{found[:80]}..."
        raise TemplateError(f"{origin}, line {error.lineno}: {error.message}; found {shown!r}") from None


def chat_environment() -> "jinja2.Environment":
    """Jinja with what chat templates may hold beside its own words, for reading them and not for rendering."""
    import jinja2
    import jinja2.ext
    import jinja2.nodes

    class Generation(jinja2.ext.Extension):
        """transformers' marks around what the assistant says."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        @override
        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return jinja2.nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True))

    return jinja2.Environment(extensions=[Generation, jinja2.ext.loopcontrols], autoescape=False)

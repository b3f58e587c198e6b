"""The forms as a table: `python -m didact.datasets.forms.page docs/forms.md` brings a page up to date."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from didact.datasets.forms.table_of_forms import COLUMN_FORMS, FORMS, RecordForm
from didact.errors import DataError
from didact.files import write_text

BEGIN = "<!-- forms: written by python -m didact.datasets.forms.page docs/forms.md -->"
END = "<!-- end of forms -->"
_COLUMNS = {"cot_tsv": "question, answer, rationale", "csl": "task, text, target"}


def markdown_table() -> str:
    """One line a form and a set of fields that tells it, in Markdown."""
    lines = ["| Form | Told by | Reads as well | Does not use |", "| --- | --- | --- | --- |"]
    lines += [_line(form) for form in FORMS]
    lines += [f"| `{name}` | three columns without names: {_COLUMNS[name]} | | |" for name in COLUMN_FORMS]
    return "\n".join(dict.fromkeys(lines)) + "\n"


def updated_page(text: str) -> str:
    """A page with the table between its marks.

    Raises:
        DataError: the page has no marks.
    """
    return with_part(text, BEGIN, END, markdown_table())


def _line(form: RecordForm) -> str:
    told = ", ".join(f"`{name}`" for name in form.needs)
    one_of = " or ".join(f"`{name}`" for name in form.one_of)
    also = [f"`{name}`" for name in dict.fromkeys(form.also) if name not in (*form.needs, *form.one_of)]
    told = ", ".join(part for part in (told, one_of) if part) or "`format` alone"
    return f"| `{form.name}` | {told} | {', '.join(also)} | {', '.join(f'`{name}`' for name in form.unused)} |"


def with_part(text: str, begin: str, end: str, part: str) -> str:
    """A page with `part` between its two marks.

    Raises:
        DataError: the page has no marks.
    """
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise DataError(f"the page has no lines {begin} and {end}")
    return f"{before}{begin}\n\n{part}\n{end}{after}"


def update_pages(pages: Iterable[str], updated: Callable[[str], str]) -> None:
    """Write pages of the docs anew, each as `updated` makes it of its text."""
    for page in map(Path, pages):
        write_text(page, updated(page.read_text(encoding="utf-8")))


def main(pages: list[str]) -> None:
    """Bring pages up to date.

    Args:
        pages: Markdown files with the two marks.
    """
    update_pages(pages, updated_page)


if __name__ == "__main__":
    main(sys.argv[1:])

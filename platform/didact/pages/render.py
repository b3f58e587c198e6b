"""How a template becomes a page."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render_page(template: Path, filters: Mapping[str, Callable[..., Any]] | None = None, **shown: Any) -> str:
    """The page as text; every text that is shown is escaped, `Markup` aside.

    Args:
        template: Jinja file of a room. It includes `style.css.jinja`, which all pages share, `plots.css.jinja` where
            it draws plots, and files beside it.
        filters: its own filters, beside `short`, `share` and `spent`.
        **shown: what the template names.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({"short": short, "share": share, "spent": spent, **(filters or {})})
    return environment.get_template(template.name).render(**shown)


def short(number: float) -> str:
    """A count in few characters: whole below ten thousand."""
    for least, size, unit in ((1e9, 1e9, "B"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if number >= least:
            scaled = number / size
            return f"{scaled:.0f}{unit}" if scaled >= 100 else f"{scaled:.1f}".removesuffix(".0") + unit
    return f"{number:,.0f}"


def share(part: float) -> str:
    """A share in percent, with a digit after the point below ten percent."""
    return f"{part:.1%}" if 0 < part < 0.0995 else f"{part:.0%}"


def spent(seconds: float) -> str:
    """A time in few characters."""
    for least, size, unit in ((5400, 3600, "h"), (100, 60, "min")):
        if seconds >= least:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"

"""HTML pages that ask for nothing beside them: one style, small drawings, how a template becomes a page.

    a room's template + what it shows -> render_page -> text of one file

Example:
    >>> from didact.pages import histogram
    >>> str(histogram([1, 3], [0, 1, 2], first=0, last=1, middle=1.5)).count("<rect")
    2
"""

from didact.pages.charts import Axis, histogram, place_of, radar
from didact.pages.plots import Scale, Series, parallel, plot, triangle
from didact.pages.render import render_page, share, short, spent

__all__ = [
    "Axis",
    "Scale",
    "Series",
    "histogram",
    "parallel",
    "place_of",
    "plot",
    "radar",
    "render_page",
    "share",
    "short",
    "spent",
    "triangle",
]

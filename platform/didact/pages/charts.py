"""Figures as small drawings: SVG that scales, coloured by the page's style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

_WIDTH = 240
_HEIGHT = 64
_NAME = 15
"""Characters of an axis's name that there is room for."""


def histogram(counts: Sequence[int], edges: Sequence[float], first: int, last: int, middle: float) -> Markup:
    """Bars of equal width for bins `first` to `last`, and a line at the median.

    Args:
        counts: rows in each bin.
        edges: where each bin begins.
        first: first bin drawn, the same for all sources so that they can be compared.
        last: last bin drawn.
        middle: the median, on the scale of the edges.
    """
    most = max(1, *counts)
    width = _WIDTH / (last - first + 1)
    bars = []
    for place, count in enumerate(counts[first : last + 1]):
        if count:
            height = max(1.5, (_HEIGHT - 4) * count / most)
            bars.append(
                f'<rect x="{place * width + 0.75:.2f}" y="{_HEIGHT - height:.2f}" width="{width - 1.5:.2f}" '
                f'height="{height:.2f}" rx="1.2"/>'
            )
    x = _WIDTH * (place_of(middle, edges) - first) / (last - first + 1)
    line = f'<line x1="{x:.2f}" x2="{x:.2f}" y1="0" y2="{_HEIGHT}"/>'
    return Markup(  # numbers only
        f'<svg class="histogram" viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f"{''.join(bars)}{line}</svg>"
    )


def place_of(value: float, edges: Sequence[float]) -> float:
    """Where a value lies among bins of equal width, in bins; within a bin in proportion."""
    for index, (low, high) in enumerate(pairwise(edges)):
        if value < high:
            return index + max(0.0, value - low) / (high - low)
    return float(len(edges) - 1)


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction of a radar."""

    name: str
    values: tuple[float | None, ...]
    """One a line, 0 to 1; None where it could not be told."""


def radar(axes: Sequence[Axis], num_lines: int) -> Markup:
    """Lines around a centre: 0 in the middle, 1 on the rim. Names stand outside, cut where they are long.

    Args:
        axes: at least three, clockwise from the top.
        num_lines: lines, which the style colours by number.
    """
    width, height, rim = 400.0, 262.0, 104.0
    middle, centre = width / 2, height / 2

    def at(axis: int, value: float) -> tuple[float, float]:
        angle = 2 * math.pi * axis / len(axes)
        return middle + rim * value * math.sin(angle), centre - rim * value * math.cos(angle)

    def points(values: Sequence[float]) -> str:
        return " ".join("{:.1f},{:.1f}".format(*at(number, value)) for number, value in enumerate(values))

    drawn = [f'<polygon class="ring" points="{points([level] * len(axes))}"/>' for level in (0.25, 0.5, 0.75, 1.0)]
    for number, axis in enumerate(axes):
        x, y = at(number, 1.0)
        drawn.append(f'<line class="spoke" x1="{middle}" y1="{centre}" x2="{x:.1f}" y2="{y:.1f}"/>')
        x, y = at(number, 1.1)
        anchor = "middle" if abs(x - middle) < 12 else "start" if x > middle else "end"
        name = axis.name if len(axis.name) <= _NAME else axis.name[: _NAME - 1] + "…"
        drawn.append(
            f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="{anchor}"><title>{escape(axis.name)}</title>'
            f"{escape(name)}</text>"
        )
    for line in range(num_lines):
        values = [axis.values[line] or 0.0 for axis in axes]
        drawn.append(f'<polygon class="line m{line + 1}" points="{points(values)}"/>')
    return Markup(f'<svg class="radar" viewBox="0 0 {width:.0f} {height:.0f}" role="img">{"".join(drawn)}</svg>')

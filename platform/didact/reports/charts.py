"""Figures as small drawings: SVG that scales, coloured by the page's style."""

from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

_WIDTH = 240
_HEIGHT = 64


def histogram(counts: Sequence[int], edges: Sequence[int], first: int, last: int, middle: float) -> Markup:
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


def place_of(value: float, edges: Sequence[int]) -> float:
    """Where a value lies among bins of equal width, in bins; within a bin in proportion."""
    for index, (low, high) in enumerate(pairwise(edges)):
        if value < high:
            return index + max(0.0, value - low) / (high - low)
    return float(len(edges) - 1)

"""Lines and points between two axes: SVG that scales, coloured by the page's style."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 380.0, 226.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 10.0, 10.0, 34.0
_ROOM = 6.0
"""Between the outermost values and the axes, so that a point is seen whole."""
_LETTER = 6.2
"""Width of a letter of a title, at most in the mean."""
_FLAT = 0.05
"""Share of a value by which an axis is widened on both sides where all values are equal."""


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis: where a value lies on it, and which values are written beside it.

    Example:
        >>> scale = Scale.over([0.001, 0.1], log=True)
        >>> round(scale.place(0.01), 6), [shown for _, shown in scale.ticks()]
        (0.5, ['0.001', '0.01', '0.1'])
    """

    name: str
    low: float
    high: float
    log: bool = False
    names: tuple[str, ...] = ()
    """Of an axis of categories: their names; a category's value is its number."""

    @classmethod
    def over(cls, values: Sequence[float], name: str = "", *, log: bool = False) -> "Scale":
        """An axis that holds all values; they are finite, and positive for a logarithmic one."""
        low, high = min(values), max(values)
        if low == high:
            wider = abs(low) * _FLAT or _FLAT
            low, high = (low / (1 + _FLAT), high * (1 + _FLAT)) if log else (low - wider, high + wider)
        return cls(name, low, high, log)

    @classmethod
    def of_names(cls, names: Sequence[str], name: str = "") -> "Scale":
        """An axis of categories with some room on both sides."""
        return cls(name, -0.5, len(names) - 0.5, names=tuple(names))

    def place(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high one."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Round values on the axis with what is written beside them."""
        if self.names:
            return [(float(number), name) for number, name in enumerate(self.names)]
        found = list(self._powers() if self.log else ())
        if len(found) < 2:  # a logarithmic axis within one power of ten too
            found = list(self._steps(most))
        while len(found) > most:
            found = found[::2]
        return [(value, f"{value:.4g}") for value in found]

    def _powers(self) -> Iterator[float]:
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            if self.low * 0.999 <= 10.0**power <= self.high * 1.001:
                yield 10.0**power

    def _steps(self, most: int) -> Iterator[float]:
        raw = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * size for size in (1, 2, 5, 10) if power * size >= raw)
        number = math.ceil(self.low / step - 1e-9)
        while number * step <= self.high + step * 1e-9:
            yield number * step
            number += 1


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind, drawn as they are or joined to a line."""

    points: tuple[tuple[float, float], ...]
    title: str = ""
    """Shown when a pointer rests on it."""
    style: str = ""
    """Classes of the page's style."""


def plot(x: Scale, y: Scale, lines: Sequence[Series] = (), dots: Sequence[Series] = ()) -> Markup:
    """A drawing with both axes.

    Args:
        x: the axis below.
        y: the axis at the left.
        lines: each joined by straight lines, as far as the axes go; one of a single point is a disc.
        dots: each point as a disc.
    """
    drawn, curves = [*_axes(x, y)], []
    for line in lines:
        title = f"<title>{escape(line.title)}</title>" if line.title else ""
        if len(line.points) > 1:
            curves.append(
                f'<polyline class="curve {escape(line.style)}" points="{_points(x, y, line)}">{title}</polyline>'
            )
    if curves:  # a drawing inside the drawing cuts off what leaves it
        left, top, width, height = _LEFT, _TOP / 2, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM - _TOP / 2
        frame = f'x="{left}" y="{top}" width="{width}" height="{height}" viewBox="{left} {top} {width} {height}"'
        drawn.append(f"<svg {frame}>{''.join(curves)}</svg>")
    for dot in [*(line for line in lines if len(line.points) == 1), *dots]:
        for right, up in dot.points:
            drawn.append(
                f'<circle class="dot {escape(dot.style)}" cx="{_across(x, right):.1f}" cy="{_down(y, up):.1f}" r="4">'
                f"<title>{escape(dot.title)}</title></circle>"
            )
    return Markup(f'<svg class="plot" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img">{"".join(drawn)}</svg>')


def parallel(axes: Sequence[Scale], lines: Sequence[Series]) -> Markup:
    """Parallel coordinates: an upright axis a setting, a line a trial. Names stand in two rows in turn, cut where even
    these have no room.

    Args:
        axes: at least two, from left to right.
        lines: points are (number of the axis, value on it); what is missing is left out. Later ones lie on top.
    """
    width, height, top, bottom, side = 760.0, 282.0, 46.0, 18.0, 62.0
    gap = (width - 2 * side) / max(1, len(axes) - 1)

    def at(axis: int, value: float) -> tuple[float, float]:
        return side + gap * axis, top + (1 - axes[axis].place(value)) * (height - top - bottom)

    drawn = []
    for line in lines:
        points = [at(int(axis), value) for axis, value in line.points]
        curves = "".join(_bend(left, right) for left, right in pairwise(points))
        if curves:
            start = "M{:.1f},{:.1f}".format(*points[0])
            title = f"<title>{escape(line.title)}</title>"
            drawn.append(f'<path class="curve {escape(line.style)}" d="{start}{curves}">{title}</path>')
    for number, axis in enumerate(axes):
        x = side + gap * number
        ends = f'y1="{top}" y2="{height - bottom}"'
        drawn.append(f'<line class="axis-line" x1="{x:.1f}" x2="{x:.1f}" {ends}/>')
        room = gap + min(gap, x, width - x) - _LETTER
        drawn.append(_name_above(axis.name, x, 14.0 + 14 * (number % 2), room, width))
        for value, shown in axis.ticks():
            _, y = at(number, value)
            drawn.append(f'<text class="halo" x="{x + 5:.1f}" y="{y + 3:.1f}">{escape(shown)}</text>')
    return Markup(f'<svg class="parallel" viewBox="0 0 {width:.0f} {height:.0f}" role="img">{"".join(drawn)}</svg>')


def _name_above(name: str, x: float, y: float, room: float, width: float) -> str:
    """Centred over its axis, but inside the drawing."""
    shown = name if len(name) * _LETTER <= room else f"{name[: int(room / _LETTER) - 1]}…"
    half = len(shown) * _LETTER / 2
    anchor, at = ("start", 2.0) if x < half else ("end", width - 2) if x > width - half else ("middle", x)
    text = f"{escape(shown)}<title>{escape(name)}</title>"
    return f'<text class="title" x="{at:.1f}" y="{y:.0f}" text-anchor="{anchor}">{text}</text>'


def triangle(names: Sequence[str], dots: Sequence[tuple[tuple[float, float, float], str, str]]) -> Markup:
    """Shares of three parts as points of a triangle.

    Args:
        names: of the parts: at the top, at the lower left, at the lower right.
        dots: shares that add up to one, a title, classes of the style.
    """
    width, height, margin = 380.0, 326.0, 30.0
    side = width - 2 * margin
    tall = side * math.sqrt(3) / 2
    corners = ((width / 2, margin), (margin, margin + tall), (width - margin, margin + tall))

    def at(shares: Sequence[float]) -> tuple[float, float]:
        return (
            sum(share * x for share, (x, _) in zip(shares, corners, strict=True)),
            sum(share * y for share, (_, y) in zip(shares, corners, strict=True)),
        )

    rim = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    drawn = [f'<polygon class="ring" points="{rim}"/>']
    for level in (0.25, 0.5, 0.75):
        for turn in range(3):
            ends = ([level, 1 - level, 0.0], [level, 0.0, 1 - level])
            (x1, y1), (x2, y2) = (at(end[-turn:] + end[:-turn]) for end in ends)
            drawn.append(f'<line class="spoke" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')
    places = ((width / 2, margin - 10, "middle"), (4, height - 6, "start"), (width - 4, height - 6, "end"))
    for name, (x, y, anchor) in zip(names, places, strict=True):
        drawn.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(name)}</text>')
    for shares, title, style in dots:
        x, y = at(shares)
        told = f"<title>{escape(title)}</title>"
        drawn.append(f'<circle class="dot {escape(style)}" cx="{x:.1f}" cy="{y:.1f}" r="5">{told}</circle>')
    return Markup(f'<svg class="triangle" viewBox="0 0 {width:.0f} {height:.0f}" role="img">{"".join(drawn)}</svg>')


def _axes(x: Scale, y: Scale) -> Iterator[str]:
    floor = _HEIGHT - _BOTTOM
    for value, shown in y.ticks(5):
        at = _down(y, value)
        yield f'<line class="grid-line" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text x="{_LEFT - 5}" y="{at + 3:.1f}" text-anchor="end">{escape(shown)}</text>'
    for value, shown in x.ticks():
        at = _across(x, value)
        yield f'<line class="axis-line" x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 3}"/>'
        yield f'<text x="{at:.1f}" y="{floor + 13}" text-anchor="middle">{escape(shown)}</text>'
    yield f'<line class="axis-line" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/>'
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    yield f'<text class="title" x="{middle:.1f}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(x.name)}</text>'


def _across(x: Scale, value: float) -> float:
    return _LEFT + _ROOM + x.place(value) * (_WIDTH - _LEFT - _RIGHT - 2 * _ROOM)


def _down(y: Scale, value: float) -> float:
    return _HEIGHT - _BOTTOM - _ROOM - y.place(value) * (_HEIGHT - _TOP - _BOTTOM - _ROOM)


def _points(x: Scale, y: Scale, series: Series) -> str:
    return " ".join(f"{_across(x, right):.1f},{_down(y, up):.1f}" for right, up in series.points)


def _bend(left: tuple[float, float], right: tuple[float, float]) -> str:
    middle = (left[0] + right[0]) / 2
    return f"C{middle:.1f},{left[1]:.1f} {middle:.1f},{right[1]:.1f} {right[0]:.1f},{right[1]:.1f}"

"""A trace as a picture: a column for each kind, from data on the left to aliases on the right."""

import io
import textwrap
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.path import Path as Curve

from didact.errors import DataError
from didact.files import write_bytes
from didact.lineage.graph import KINDS, Graph, Node
from didact.lineage.words import details, title

SUFFIXES = (".svg", ".png")
_COLUMN, _BOX, _LINE, _GAP, _MARGIN = 2.6, 2.1, 0.15, 0.18, 0.25
"""Inches: from column to column, width of a box, height of a line of text, between boxes, around all."""
_CHARACTERS, _LINES = 34, 6
_DOTS_PER_INCH = 120
_COLOURS = {
    **dict.fromkeys(("file", "source", "questions"), "#e3f2fd"),
    **dict.fromkeys(("cache", "mixture"), "#e8f5e9"),
    **dict.fromkeys(("sweep", "trial", "base"), "#f5f5f5"),
    **dict.fromkeys(("run", "checkpoint"), "#fff8e1"),
    **dict.fromkeys(("adapter", "evaluation", "verdict"), "#fce4ec"),
    **dict.fromkeys(("version", "alias"), "#ede7f6"),
}


def save_picture(graph: Graph, path: Path) -> None:
    """Write an SVG or PNG file; the same graph makes the same bytes.

    Raises:
        DataError: a file name that ends in neither.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: pictures are written as {' or '.join(SUFFIXES)}; change the file's name")
    stream = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with rc_context({"svg.hashsalt": "didact", "svg.fonttype": "none"}):
        lineage_figure(graph).savefig(stream, format=path.suffix[1:], dpi=_DOTS_PER_INCH, metadata=metadata)
    write_bytes(path, stream.getvalue())


def lineage_figure(graph: Graph) -> Figure:
    """The picture as a matplotlib figure."""
    columns = _columns(graph)
    texts = {node.id: _text(node) for column in columns for node in column}
    heights = [sum(_height(texts[node.id]) + _GAP for node in column) for column in columns]
    width, height = _COLUMN * len(columns) + 2 * _MARGIN - (_COLUMN - _BOX), max(heights, default=1.0) + 2 * _MARGIN
    figure = Figure(figsize=(max(width, 3.0), height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, max(width, 3.0))
    axes.set_ylim(height, 0)
    axes.axis("off")
    places: dict[str, tuple[float, float]] = {}
    for number, column in enumerate(columns):
        left, top = _MARGIN + number * _COLUMN, (height - heights[number]) / 2 + _GAP / 2
        for node in column:
            lines = texts[node.id]
            _box(axes, node, lines, left, top)
            places[node.id] = (left, top + _height(lines) / 2)
            top += _height(lines) + _GAP
    for first, then in graph.arrows:
        if first in places and then in places:
            _arrow(axes, places[first], places[then])
    return figure


def _columns(graph: Graph) -> list[list[Node]]:
    """Nodes by the longest way that leads on from them, so that arrows point to the right and most are short."""
    left: dict[str, int] = {}
    for _ in graph.nodes:  # as many rounds as the longest way can have
        settled = {name: max((left.get(each, 0) + 1 for each in graph.after(name)), default=0) for name in graph.nodes}
        if settled == left:
            break
        left = settled
    columns: list[list[Node]] = [[] for _ in range(max(left.values(), default=0) + 1)]
    for name, node in graph.nodes.items():
        columns[-1 - left[name]].append(node)
    return [sorted(column, key=lambda node: KINDS.index(node.kind)) for column in columns]


def _text(node: Node) -> list[str]:
    wrapped = [piece for line in (title(node), *details(node)) for piece in textwrap.wrap(line, _CHARACTERS) or [""]]
    return wrapped if len(wrapped) <= _LINES else [*wrapped[: _LINES - 1], "..."]


def _height(lines: list[str]) -> float:
    return _LINE * (len(lines) + 1)


def _box(axes: Axes, node: Node, lines: list[str], left: float, top: float) -> None:
    loud = node.kind == "source" and node.facts.get("commercial") is False
    shape = FancyBboxPatch(
        (left, top),
        _BOX,
        _height(lines),
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=_COLOURS[node.kind],
        edgecolor="#c62828" if loud else "#90a4ae",
        linewidth=1.6 if loud else 0.8,
        zorder=1,  # over arrows that pass by
    )
    axes.add_patch(shape)
    for number, line in enumerate(lines):
        axes.text(
            *(left + 0.08, top + _LINE * (number + 0.95), line),
            fontsize=6.5,
            va="center",
            fontweight="bold" if number == 0 else "normal",
            parse_math=False,
            zorder=2,
        )


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    (left, top), (right, bottom) = (start[0] + _BOX, start[1]), (end[0] - 0.03, end[1])
    middle = (left + right) / 2
    curve = Curve([(left, top), (middle, top), (middle, bottom), (right, bottom)], [1, 4, 4, 4])
    axes.add_patch(PathPatch(curve, fill=False, edgecolor="#78909c", linewidth=0.9, zorder=0))
    head = [(right + 0.03, bottom), (right - 0.05, bottom - 0.035), (right - 0.05, bottom + 0.035)]
    axes.fill([x for x, _ in head], [y for _, y in head], color="#78909c", zorder=0)

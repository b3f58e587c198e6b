"""An overlap matrix as a picture."""

import io
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from didact.datasets.quality.overlap import Overlap, percent
from didact.errors import DataError
from didact.files import write_bytes

KINDS = (".svg", ".png")
_CELL_INCHES = 0.62
_DOTS_PER_INCH = 160


def overlap_figure(overlap: Overlap) -> Figure:
    """Lines are the sources asked about, columns where their rows are found again; cells in percent."""
    count = len(overlap.names)
    label_inches = 0.085 * max(len(name) for name in overlap.names) + 0.3
    figure = Figure(figsize=(_CELL_INCHES * count + label_inches + 0.9, _CELL_INCHES * count + label_inches + 0.9))
    axes = figure.add_subplot()
    shares = [[overlap.share(left, right) for right in range(count)] for left in range(count)]
    # A square root lets small overlaps be seen, and they are what one looks for.
    axes.imshow([[share**0.5 for share in row] for row in shares], cmap="Blues", vmin=0, vmax=1.15)
    for left in range(count):
        for right in range(count):
            share = shares[left][right]
            colour = "white" if share > 0.35 else "#1a2733" if share else "#b6c0ca"
            axes.text(right, left, percent(share), ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(count), overlap.names, rotation=40, ha="left", rotation_mode="anchor", fontsize=9)
    axes.set_yticks(range(count), [f"{n}  ({r:,})" for n, r in zip(overlap.names, overlap.num_rows, strict=True)])
    axes.tick_params(axis="y", labelsize=9)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    axes.set_xticks([position - 0.5 for position in range(1, count)], minor=True)
    axes.set_yticks([position - 0.5 for position in range(1, count)], minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel(overlap.caption.replace(" duplicate ", " duplicate\n"), fontsize=9, labelpad=10)
    return figure


def write_picture(overlap: Overlap, path: Path) -> None:
    """Write an SVG or PNG file; the same overlap makes the same bytes.

    Raises:
        DataError: a file name that ends in neither.
    """
    if path.suffix not in KINDS:
        raise DataError(f"{path}: pictures are written as {' or '.join(KINDS)}; change the file's name")
    stream = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with rc_context({"svg.hashsalt": "didact"}):
        overlap_figure(overlap).savefig(
            stream, format=path.suffix[1:], dpi=_DOTS_PER_INCH, bbox_inches="tight", metadata=metadata
        )
    write_bytes(path, stream.getvalue())

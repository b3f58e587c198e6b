import re
from itertools import pairwise

import pytest

from didact.pages import Scale, Series, parallel, plot, triangle


@pytest.mark.parametrize(
    ("values", "log", "shown"),
    [
        ([0.0, 40.0], False, ["0", "10", "20", "30", "40"]),
        ([1.2, 2.1], False, ["1.2", "1.4", "1.6", "1.8", "2"]),
        ([-3e-4, 5e-4], False, ["-0.0002", "0", "0.0002", "0.0004"]),
        ([1e-5, 1e-2], True, ["1e-05", "0.0001", "0.001", "0.01"]),
        ([2.0, 8.0], True, ["2", "4", "6", "8"]),
        ([1e-9, 1e9], True, ["1e-09", "1e-05", "0.1", "1000", "1e+07"]),
    ],
)
def test_round_values_stand_beside_an_axis(values: list[float], log: bool, shown: list[str]) -> None:
    scale = Scale.over(values, log=log)
    assert [text for _, text in scale.ticks()] == shown
    assert all(-1e-9 <= scale.place(value) <= 1 + 1e-9 for value, _ in scale.ticks())


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_an_axis_of_one_value_has_it_in_the_middle(value: float) -> None:
    assert Scale.over([value]).place(value) == pytest.approx(0.5)


def test_places_on_a_logarithmic_axis_follow_powers() -> None:
    scale = Scale.over([1e-4, 1.0], log=True)
    assert [scale.place(10.0**power) for power in (-4, -3, -2, 0)] == pytest.approx([0, 0.25, 0.5, 1])


def test_categories_have_their_names_and_room_on_both_sides() -> None:
    scale = Scale.of_names(["dora", "ia3"])
    assert scale.ticks() == [(0.0, "dora"), (1.0, "ia3")]
    assert (scale.place(0.0), scale.place(1.0)) == (0.25, 0.75)


def test_a_plot_puts_low_values_low_and_writes_names_as_text() -> None:
    drawn = str(
        plot(
            Scale.over([0.0, 10.0], "step <1>"),
            Scale.over([0.0, 1.0]),
            lines=[Series(((0.0, 0.0), (10.0, 1.0)), "a & b", "q1")],
            dots=[Series(((5.0, 0.5),), "middle")],
        )
    )
    assert "step &lt;1&gt;" in drawn and "a &amp; b" in drawn
    (points,) = re.findall(r'<polyline class="curve q1" points="([^"]*)"', drawn)
    (x1, y1), (x2, y2) = (map(float, each.split(",")) for each in points.split())
    assert x1 < x2 and y1 > y2
    (x, y) = map(float, *re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn))
    assert (x, y) == (pytest.approx((x1 + x2) / 2), pytest.approx((y1 + y2) / 2))


def test_a_line_of_parallel_coordinates_leaves_out_what_it_has_not() -> None:
    axes = [Scale.over([0.0, 1.0], name) for name in "abc"]
    drawn = str(parallel(axes, [Series(((0, 0.5), (2, 1.0)), "two"), Series(((1, 0.5),), "one")]))
    assert drawn.count('<path class="curve') == 1 and drawn.count("axis-line") == 3


@pytest.mark.parametrize("count", [2, 3, 7, 10])
def test_names_of_parallel_axes_never_lie_on_each_other_or_outside(count: int) -> None:
    names = [f"{'a rather long name of a setting' * (place % 2 + 1)} {place}" for place in range(count)]
    drawn = str(parallel([Scale.over([0.0, 1.0], name) for name in names], []))
    width = float(re.findall(r'viewBox="0 0 (\d+)', drawn)[0])
    rows: dict[str, list[tuple[float, float]]] = {}
    found = re.findall(r'class="title" x="([\d.]+)" y="(\d+)" text-anchor="(\w+)">([^<]*)<title>([^<]*)<', drawn)
    assert [whole for *_, whole in found] == names
    for x, row, anchor, shown, whole in found:
        wide = 5.5 * len(shown)
        left = float(x) - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
        assert whole.startswith(shown.removesuffix("…")) and left >= 0 and left + wide <= width
        rows.setdefault(row, []).append((left, left + wide))
    for row in rows.values():
        assert all(one[1] < other[0] for one, other in pairwise(row))


def test_the_corners_of_a_triangle_are_its_parts() -> None:
    corners = [((1.0, 0.0, 0.0), "top", ""), ((0.0, 1.0, 0.0), "left", ""), ((0.0, 0.0, 1.0), "right", "")]
    drawn = str(triangle(["x", "y", "z"], corners))
    (rim,) = re.findall(r'<polygon class="ring" points="([^"]*)"', drawn)
    found = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn)
    assert [",".join(each) for each in found] == rim.split()

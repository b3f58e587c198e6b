"""Strategies, limits and curricula, as properties over random settings, against plain sequential counting."""

import logging
import pickle
import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from didact.errors import DataError
from didact.mixtures import Mixture, SampleId, build_mixture
from didact.mixtures.schedule import lay_out, piece_length
from didact.spec import DataSpec

SEEDS = range(12)


def data(names: list[str], **fields: Any) -> DataSpec:
    own = fields.pop("own", {})
    return DataSpec(sources=[{"name": name, "path": "-", **own.get(name, {})} for name in names], **fields)


def stages(*pairs: tuple[float, dict[str, float]]) -> list[dict[str, Any]]:
    return [{"until": until, "weights": weights} for until, weights in pairs]


def random_curriculum(seed: int) -> tuple[DataSpec, list[int], list[float], int]:
    draw = random.Random(seed)
    names = [f"s{index}" for index in range(draw.randint(1, 7))]
    ends = sorted({round(draw.random(), 3) for _ in range(draw.randint(0, 4))} - {0.0, 1.0})
    parts = [
        {name: draw.choice([0.0, 1e-4, draw.random(), 5 * draw.random()]) for name in names} | {names[0]: 1.0}
        for _ in [*ends, 1.0]
    ]
    parts[-1] = {name: weight or 0.01 for name, weight in parts[-1].items()}
    given = data(
        names,
        curriculum=stages(*zip([*ends, 1.0], parts, strict=True)),
        interpolate=draw.choice(["step", "linear"]),
        weight_unit=draw.choice(["tokens", "rows"]),
        seed=seed,
    )
    rows = [draw.choice([1, 3, 50, 2_000, 10**9]) for _ in names]
    return given, rows, [draw.uniform(5, 300) for _ in names], draw.choice([1, 7, 150, 3_001, 12_345])


def random_limits(seed: int) -> tuple[DataSpec, list[int], list[float], int]:
    draw = random.Random(seed)
    names = [f"s{index}" for index in range(draw.randint(2, 8))]
    rows = [draw.choice([1, 3, 50, 400, 2_000]) for _ in names]
    own = {
        name: {"weight": 10 ** draw.uniform(-4, 1), "max_epochs": draw.choice([None, 1, 0.5, 2.7])} for name in names
    }
    given = data(names, own=own, max_epochs=draw.choice([1, 1.5, 3]), seed=seed)
    limits = [
        int(count * (own[name]["max_epochs"] or given.max_epochs)) for name, count in zip(names, rows, strict=True)
    ]
    return given, rows, [draw.uniform(5, 300) for _ in names], draw.randint(1, max(1, sum(limits)))


def drawn_one_by_one(mixture: Mixture, num_samples: int) -> list[SampleId]:
    """The oracle: walk through all pieces from the first position and count draws as they come."""
    rows_left: list[set[int]] = [set(range(min(rows, 5_000))) for rows in mixture.rows]
    counts, found = [0] * len(mixture.names), []
    for position in range(num_samples):
        sample = mixture.sample(position)
        rows = mixture.rows[sample.source]
        assert sample.epoch == counts[sample.source] // rows
        if rows <= 5_000:
            rows_left[sample.source].remove(sample.row)  # fails when a row comes twice within a pass
            rows_left[sample.source] = rows_left[sample.source] or set(range(rows))
        counts[sample.source] += 1
        found.append(sample)
    return found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("made", [random_curriculum, random_limits])
def test_random_access_equals_sequential_counting(made: Any, seed: int) -> None:
    given, rows, mean_tokens, num_samples = made(seed)
    mixture = build_mixture(given, rows, mean_tokens, num_samples)
    found = drawn_one_by_one(mixture, num_samples)
    again = pickle.loads(pickle.dumps(build_mixture(given, rows, mean_tokens, num_samples)))
    for position in random.Random(seed).sample(range(num_samples), min(60, num_samples)):
        assert again.sample(position) == found[position]
    start = num_samples // 3
    counts = [sum(sample.source == source for sample in found[start:]) for source in range(len(rows))]
    assert [row.samples for row in mixture.describe(num_samples, start)] == counts
    assert mixture.ids(num_samples, num_samples + 5), "the stream goes on after the run"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("made", [random_curriculum, random_limits])
def test_every_prefix_is_within_one_sample_of_its_target(made: Any, seed: int) -> None:
    given, rows, mean_tokens, num_samples = made(seed)
    mixture = build_mixture(given, rows, mean_tokens, num_samples)
    order = np.array([sample.source for sample in mixture.ids(0, num_samples)])
    starts = [piece.start for piece in mixture.pieces] + [num_samples]
    assert max(np.diff(starts)) <= piece_length(num_samples)
    for source in range(len(rows)):
        drawn = np.concatenate([[0], np.cumsum(order == source)])
        for piece in mixture.pieces:
            length, count = sum(piece.counts), piece.counts[source]
            within = drawn[piece.start : piece.start + length + 1] - piece.drawn[source]
            # in exact whole numbers: |drawn - positions * count / length| < 1
            assert np.abs(within * length - np.arange(length + 1) * count).max() < length
            assert within[-1] == count


@pytest.mark.parametrize("seed", SEEDS)
def test_pieces_keep_to_the_exact_cumulative_share(seed: int) -> None:
    draw = random.Random(seed)
    num_sources, num_pieces, unit = draw.randint(1, 9), draw.randint(1, 60), 10**6
    lengths = [draw.choice([1, 2, 99, 100]) for _ in range(num_pieces)]
    shares = []
    for _ in range(num_pieces):
        cuts = sorted(
            draw.choice([0, unit, draw.randint(0, unit), draw.randint(0, 99)]) for _ in range(num_sources - 1)
        )
        shares.append([high - low for low, high in zip([0, *cuts], [*cuts, unit], strict=True)])
    exact = [Fraction(0)] * num_sources
    for piece, length, share in zip(lay_out(lengths, shares), lengths, shares, strict=True):
        assert all(count >= 0 for count in piece.counts)
        assert sum(piece.counts) == length
        exact = [total + Fraction(length * part, unit) for total, part in zip(exact, share, strict=True)]
        ends = [before + count for before, count in zip(piece.drawn, piece.counts, strict=True)]
        assert all(abs(end - total) < 1 for end, total in zip(ends, exact, strict=True))


def test_a_stage_draws_by_its_own_weights() -> None:
    given = data(
        ["a", "b", "c"],
        weight_unit="rows",
        curriculum=stages((0.3, {"a": 8, "b": 2}), (1.0, {"a": 1, "b": 1, "c": 2})),
    )
    mixture = build_mixture(given, [500, 60, 7], [10.0, 20.0, 30.0], 10_000)
    assert [(stage.start, stage.stop) for stage in mixture.stages] == [(0, 3_000), (3_000, 10_000)]
    first, second = (mixture.describe(stage.stop, stage.start) for stage in mixture.stages)
    assert [row.samples for row in first] == [2_400, 600, 0]
    assert [row.samples for row in second] == [1_750, 1_750, 3_500]
    assert [row.tokens for row in first] == [24_000, 12_000, 0]
    assert [row.epochs for row in first] == [4.8, 10, 0]
    assert [row.samples for row in mixture.describe(10_000)] == [4_150, 2_350, 3_500]


def test_stage_weights_in_tokens_are_shares_of_tokens() -> None:
    given = data(["a", "b"], curriculum=stages((0.5, {"a": 0.9, "b": 0.1}), (1.0, {"a": 0.2, "b": 0.8})))
    mixture = build_mixture(given, [500, 60], [10.0, 90.0], 20_000)
    shares = [[row.share_of_tokens for row in mixture.describe(s.stop, s.start)] for s in mixture.stages]
    assert shares[0] == pytest.approx([0.9, 0.1], abs=0.001)
    assert shares[1] == pytest.approx([0.2, 0.8], abs=0.001)


def test_linear_weights_are_reached_at_the_end_of_their_stage() -> None:
    ramp = stages((0.0, {"a": 1.0}), (0.5, {"b": 1.0}), (1.0, {"b": 1.0}))
    mixture = build_mixture(
        data(["a", "b"], weight_unit="rows", interpolate="linear", curriculum=ramp), [9, 9], [1.0, 1.0], 20_000
    )
    for share in (0.1, 0.2, 0.35, 0.5):
        # the integral of a straight line from 1 at progress 0 to 0 at progress 0.5
        expected = 20_000 * (share - share**2)
        assert abs(mixture.describe(round(share * 20_000))[0].samples - expected) < 1
    assert mixture.describe(20_000, 10_000)[0].samples == 0


def test_a_curriculum_that_never_changes_has_the_shares_of_constant_weights() -> None:
    weights = {"a": 0.5, "b": 0.3, "c": 0.2}
    same = data(list(weights), curriculum=stages((0.25, weights), (1.0, weights)))
    plain = data(list(weights), own={name: {"weight": weight} for name, weight in weights.items()})
    sizes = [100, 70, 3], [10.0, 20.0, 40.0]
    found = [build_mixture(each, *sizes, 5_000).describe(5_000) for each in (same, plain)]
    for one, other in zip(*found, strict=True):
        assert abs(one.samples - other.samples) <= 1.5


@pytest.mark.parametrize("seed", SEEDS)
def test_no_source_passes_its_limit_and_the_others_keep_their_proportions(seed: int) -> None:
    given, rows, mean_tokens, num_samples = random_limits(seed)
    mixture = build_mixture(given, rows, mean_tokens, num_samples)
    seen = mixture.describe(num_samples)
    assert sum(row.samples for row in seen) == num_samples
    free = []
    for source, row, mean in zip(given.sources, seen, mean_tokens, strict=True):
        limit = source.max_epochs or given.max_epochs
        assert row.epochs <= limit
        if row.samples < int(row.rows * limit):
            free.append((row.samples, source.weight / mean))
    factors = [(samples - 1) / weight for samples, weight in free], [(samples + 1) / weight for samples, weight in free]
    assert not free or max(factors[0]) <= min(factors[1]), "one factor explains all free sources, within rounding"


def test_surplus_goes_round_by_round_to_those_below_their_limit(caplog: pytest.LogCaptureFixture) -> None:
    given = data(["a", "b", "c"], weight_unit="rows", max_epochs=2, own={"c": {"max_epochs": 100}})
    with caplog.at_level(logging.WARNING):
        mixture = build_mixture(given, [10, 160, 1_000], [1.0, 1.0, 1.0], 900)
    # 300 each; a stops at 20 of them, the rest makes 440 each; then b stops at 320
    assert [row.samples for row in mixture.describe(900)] == [20, 320, 560]
    assert "source a: max_epochs holds it at 20 samples of 300" in caplog.text
    assert "source b: max_epochs holds it at 320" in caplog.text
    assert "source c" not in caplog.text


def test_a_run_longer_than_all_limits_is_refused_and_one_just_as_long_is_not() -> None:
    given = data(["a", "b"], max_epochs=1.5)
    assert [row.epochs for row in build_mixture(given, [10, 20], [5.0, 6.0], 45).describe(45)] == [1.5, 1.5]
    with pytest.raises(DataError, match=r"asks for 46 samples, but max_epochs allows 45 of a, b; lower training.steps"):
        build_mixture(given, [10, 20], [5.0, 6.0], 46)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"strategy": "proportional"}, [0.8, 0.16, 0.04]),
        ({"strategy": "proportional", "weight_unit": "rows"}, [0.8, 0.16, 0.04]),
        ({"strategy": "uniform", "weight_unit": "rows"}, [1 / 3, 1 / 3, 1 / 3]),
        ({"strategy": "temperature", "temperature": 1, "weight_unit": "rows"}, [0.8, 0.16, 0.04]),
        (
            {"strategy": "temperature", "temperature": 2, "weight_unit": "rows"},
            [20 / 33.416, 8.944 / 33.416, 4.472 / 33.416],
        ),
        ({"strategy": "temperature", "temperature": 1e6, "weight_unit": "rows"}, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_strategies_weigh_by_size(fields: dict[str, Any], expected: list[float]) -> None:
    mixture = build_mixture(data(["a", "b", "c"], **fields), [400, 80, 20], [11.0, 50.0, 200.0], 700)
    shares = [row.samples / 100_000 for row in mixture.describe(100_000)]
    assert shares == pytest.approx(expected, abs=2e-4)


def test_size_is_counted_in_the_weight_unit() -> None:
    given = data(["a", "b"], strategy="temperature", temperature=2)
    seen = build_mixture(given, [400, 100], [10.0, 360.0], 700).describe(100_000)
    assert [row.share_of_tokens for row in seen] == pytest.approx([1 / 4, 3 / 4], abs=2e-3)  # roots of 4,000 and 36,000


def test_extreme_temperatures_still_draw_from_every_source() -> None:
    given = data(["a", "b"], strategy="temperature", temperature=0.01)
    assert [row.samples for row in build_mixture(given, [10**9, 1], [10.0, 10.0], 5).describe(10_000)] == [9_999, 1]


def test_constant_weights_do_not_depend_on_the_length_of_the_run() -> None:
    sizes = [400, 100], [10.0, 40.0]
    plain = data(["a", "b"], own={"a": {"weight": 3.0}})
    by_hand = Mixture.build(["a", "b"], *sizes, [3.0, 1.0], unit="tokens", seed=0)
    assert build_mixture(plain, *sizes, 10) == build_mixture(plain, *sizes, 10**6) == by_hand
    # pinned: caches and checkpoints of earlier runs are found by it
    assert by_hand.fingerprint(["x", "y"]) == "0cd7c39701403c65df1a554012882d09a621831353ec1bf13a55764a2b4c0d96"


def test_the_fingerprint_follows_curriculum_limits_and_length_of_the_run() -> None:
    sizes = [400, 100], [10.0, 40.0]
    ways = [
        data(["a", "b"]),
        data(["a", "b"], max_epochs=2),
        data(["a", "b"], curriculum=stages((0.5, {"a": 1}), (1, {"b": 1}))),
        data(["a", "b"], curriculum=stages((0.5, {"a": 1}), (1, {"b": 1})), interpolate="linear"),
    ]
    found = [build_mixture(way, *sizes, 800).fingerprint(["x", "y"]) for way in ways]
    found += [build_mixture(ways[2], *sizes, 900).fingerprint(["x", "y"])]
    assert len(set(found)) == 5
    assert build_mixture(ways[2], *sizes, 800).fingerprint(["x", "y"]) == found[2]


def test_a_huge_run_over_huge_sources_needs_little_memory() -> None:
    ramp = stages((0.2, {"a": 1.0}), (1.0, {"a": 0.1, "b": 0.9}))
    mixture = build_mixture(
        data(["a", "b"], interpolate="linear", curriculum=ramp), [10**11, 10**12], [500.0, 700.0], 10**7
    )
    assert len(mixture.pieces) <= 1002
    assert mixture.sample(9_999_999).epoch == 0
    assert sum(row.samples for row in mixture.describe(10**7)) == 10**7


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"strategy": "uniform", "own": {"a": {"weight": 2.0}}}, "weight of source a has no effect"),
        (
            {"curriculum": stages((1, {"a": 1, "b": 1})), "own": {"b": {"weight": 2.0}}},
            "weight of source b has no effect",
        ),
        ({"temperature": 3.0}, "data.temperature has no effect"),
        ({"interpolate": "linear"}, "data.interpolate has no effect"),
    ],
)
def test_settings_without_effect_are_named(
    fields: dict[str, Any], warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    build_mixture(data(["a", "b"], **fields), [4, 5], [1.0, 1.0], 100)
    assert warning in caplog.text


def test_a_source_without_rows_is_named_whatever_decides_the_weights() -> None:
    for fields in ({"strategy": "proportional"}, {"max_epochs": 1}, {"curriculum": stages((1, {"a": 1, "b": 1}))}):
        with pytest.raises(DataError, match="'b' has no rows"):
            build_mixture(data(["a", "b"], **fields), [4, 0], [1.0, 1.0], 10)


@pytest.mark.parametrize("limits", [{}, {"max_epochs": 2}])
def test_a_source_of_weight_0_is_never_drawn(limits: dict[str, Any]) -> None:
    given = data(["a", "b", "c"], own={"b": {"weight": 0}, "a": {"weight": 3}}, **limits)
    mixture = build_mixture(given, [400, 5, 100], [10.0, 40.0, 10.0], 500)
    assert [row.samples for row in mixture.describe(500)] in ([375, 0, 125], [300, 0, 200])
    assert {sample.source for sample in mixture.ids(0, 500)} == {0, 2}


def test_limits_that_would_need_a_source_of_weight_0_are_refused() -> None:
    given = data(["a", "b"], own={"b": {"weight": 0}}, max_epochs=1)
    with pytest.raises(DataError, match="max_epochs allows 400 of a, b"):
        build_mixture(given, [400, 5000], [10.0, 10.0], 500)

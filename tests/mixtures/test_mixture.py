import pickle
from collections import Counter
from typing import Any

import pytest

from didact.errors import DataError
from didact.mixtures import Mixture, SampleId

NAMES, ROWS, TOKENS, WEIGHTS = ("chat", "sums", "tiny"), (1000, 57, 3), (200.0, 20.0, 50.0), (0.7, 0.25, 0.05)


def build(**changes: Any) -> Mixture:
    given = {"names": NAMES, "rows": ROWS, "mean_tokens": TOKENS, "weights": WEIGHTS, "unit": "tokens", "seed": 0}
    return Mixture.build(**{**given, **changes})


def test_random_access_equals_the_sequence() -> None:
    mixture = build()
    sequence = mixture.ids(0, 25_000)
    for position in (0, 1, 9_999, 10_000, 10_001, 24_999):
        assert build().sample(position) == sequence[position]
    assert mixture.ids(12_345, 12_400) == sequence[12_345:12_400]
    assert mixture.ids(7, 7) == ()


def test_each_pass_over_a_source_takes_every_row_once() -> None:
    drawn = build().ids(0, 25_000)
    for source, rows in enumerate(ROWS):
        mine = [sample for sample in drawn if sample.source == source]
        assert [sample.epoch for sample in mine] == [draw // rows for draw in range(len(mine))]
        for epoch in range(len(mine) // rows):
            assert sorted(sample.row for sample in mine[epoch * rows : (epoch + 1) * rows]) == list(range(rows))


def test_passes_differ_in_order() -> None:
    drawn = [sample for sample in build().ids(0, 10_000) if sample.source == 1]
    first, second = drawn[:57], drawn[57:114]
    assert [sample.row for sample in first] != [sample.row for sample in second]


def test_the_seed_decides_the_rows() -> None:
    assert build(seed=1).ids(0, 100) != build(seed=0).ids(0, 100)
    assert build(seed=1).ids(0, 100) == build(seed=1).ids(0, 100)


def test_the_order_of_sources_does_not_depend_on_their_rows() -> None:
    order = [sample.source for sample in build().ids(0, 20_000)]
    assert [sample.source for sample in build(rows=(3, 9_999_999, 70)).ids(0, 20_000)] == order
    assert order[:10_000] == order[10_000:]


def test_a_source_keeps_its_rows_when_another_source_changes_size() -> None:
    mine = [sample for sample in build().ids(0, 5_000) if sample.source == 0]
    assert [sample for sample in build(rows=(1000, 8, 900)).ids(0, 5_000) if sample.source == 0] == mine


def test_weights_in_tokens_are_shares_of_tokens_and_in_rows_shares_of_samples() -> None:
    by_tokens = build().describe(10_000)
    assert [row.share_of_tokens for row in by_tokens] == pytest.approx(WEIGHTS, abs=0.002)
    by_rows = build(unit="rows").describe(10_000)
    assert [row.samples for row in by_rows] == [7000, 2500, 500]


@pytest.mark.parametrize("num_samples", [1, 17, 10_000, 23_456])
def test_describe_counts_what_is_drawn(num_samples: int) -> None:
    mixture = build()
    counts = Counter(sample.source for sample in mixture.ids(0, num_samples))
    table = mixture.describe(num_samples)
    assert [row.samples for row in table] == [counts[source] for source in range(3)]
    assert [row.tokens for row in table] == [counts[source] * TOKENS[source] for source in range(3)]
    assert [row.epochs for row in table] == [counts[source] / ROWS[source] for source in range(3)]
    assert [(row.name, row.rows) for row in table] == list(zip(NAMES, ROWS, strict=True))
    assert sum(row.share_of_tokens for row in table) == pytest.approx(1)


def test_describing_no_samples_is_possible() -> None:
    assert [row.share_of_tokens for row in build().describe(0)] == [0, 0, 0]


def test_one_source_alone_is_walked_through_row_by_row() -> None:
    mixture = Mixture.build(["only"], [5], [10.0], [1.0], unit="tokens", seed=3)
    assert mixture.num_rows == 5
    assert sorted(mixture.ids(0, 5), key=lambda sample: sample.row) == [SampleId(0, row, 0) for row in range(5)]
    assert {sample.epoch for sample in mixture.ids(5, 10)} == {1}


def test_num_rows_is_one_epoch() -> None:
    assert build().num_rows == 1060


def test_the_fingerprint_follows_what_decides_the_stream() -> None:
    prints = ["a", "b", "c"]
    plain = build().fingerprint(prints)
    assert build().fingerprint(prints) == plain
    assert build(weights=(1.4, 0.5, 0.1)).fingerprint(prints) == plain
    others = [build(seed=1), build(rows=(1000, 57, 4)), build(weights=(0.6, 0.35, 0.05)), build(unit="rows")]
    assert len({plain, build().fingerprint(["a", "b", "d"]), *(other.fingerprint(prints) for other in others)}) == 6
    with pytest.raises(ValueError, match="2 fingerprints for 3 sources"):
        build().fingerprint(["a", "b"])


def test_a_mixture_crosses_processes() -> None:
    mixture = pickle.loads(pickle.dumps(build()))
    assert mixture == build()
    assert mixture.ids(0, 50) == build().ids(0, 50)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rows": (1000, 0, 3)}, "'sums' has no rows"),
        ({"weights": (0.7, 0.25, -0.1)}, "'tiny' has weight -0.1"),
        ({"weights": (0, 0, 0)}, "all weights are 0"),
        ({"weights": (float("nan"), 0.25, 0.1)}, "'chat' has weight nan"),
        ({"mean_tokens": (200.0, 0.0, 50.0)}, "'sums' has 0.0 tokens"),
        ({"names": ("chat", "chat", "tiny")}, "same name"),
        ({"names": (), "rows": (), "mean_tokens": (), "weights": ()}, "data.sources"),
    ],
)
def test_what_cannot_be_mixed_is_named(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        build(**changes)


def test_a_negative_position_is_refused() -> None:
    with pytest.raises(ValueError, match="position is -1"):
        build().sample(-1)


def test_a_weight_below_the_smallest_share_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    build(weights=(1.0, 1.0, 1e-7))
    assert "tiny" in caplog.text and "raised to 1/10000" in caplog.text

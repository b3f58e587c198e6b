import numpy as np
import pytest

from didact.errors import DataError
from didact.evaluation import TaskResult, held_out_loss, held_out_result
from didact.evaluation.losses import sample_losses
from didact.tokens.types import Sample
from tests.fakes.models import tiny_model


def run(held_out: dict[str, list[Sample]], packing: bool = True) -> TaskResult:
    return held_out_result(tiny_model(), held_out, batch_size=3, packing=packing)


def samples(count: int, length: int, seed: int) -> list[Sample]:
    rng = np.random.default_rng(seed)
    mask = np.arange(length) > 2
    return [Sample(rng.integers(0, 256, length).astype(np.int32), mask) for _ in range(count)]


@pytest.mark.parametrize("packing", [True, False])
def test_held_out_losses_by_source_and_over_all_tokens(packing: bool) -> None:
    short, long = samples(3, 6, 0), samples(2, 40, 1)
    result = run({"short": short, "long": long, "none": []}, packing)
    assert set(result.metrics) == {"eval/short/loss", "eval/long/loss", "eval/loss"}
    assert result.counts == {"eval/short/loss": 3, "eval/long/loss": 2, "eval/loss": 5}
    whole = held_out_loss(tiny_model(), [*short, *long], pad_id=0, packing=False)
    alone = held_out_loss(tiny_model(), long, pad_id=0, packing=False)
    assert result.metrics["eval/loss"] == pytest.approx(whole.mean, abs=1e-6)
    assert result.metrics["eval/long/loss"] == pytest.approx(alone.mean, abs=1e-6)
    assert (result.task, result.num_items, result.scored) == ("held_out", 5, ())
    assert result.seconds > 0


def test_held_out_without_rows_says_what_to_set() -> None:
    with pytest.raises(DataError, match="held_out_rows"):
        run({"alpaca": []})


def test_a_source_without_targets_is_named() -> None:
    silent = Sample(np.arange(5, dtype=np.int32), np.zeros(5, dtype=bool))
    with pytest.raises(DataError, match="source quiet: none of 1"):
        run({"quiet": [silent]})


@pytest.mark.parametrize("packing", [True, False])
def test_short_and_long_samples_have_figures_of_their_own(packing: bool) -> None:
    short, long = samples(3, 40, 0), samples(2, 200, 1)
    result = run({"mixed": [long[0], *short, long[1]]}, packing)
    assert result.counts["eval/held_out/0-127_tokens/loss"] == 3
    assert result.counts["eval/held_out/128-511_tokens/loss"] == 2
    for name, part in {"0-127_tokens": short, "128-511_tokens": long}.items():
        alone = held_out_loss(tiny_model(), part, pad_id=0, packing=False)
        assert result.metrics[f"eval/held_out/{name}/loss"] == pytest.approx(alone.mean, abs=1e-6)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_each_sample_has_its_own_loss(packing: bool, batch_size: int) -> None:
    mixed = [*samples(2, 6, 0), *samples(2, 40, 1), *samples(1, 17, 2)]
    mixed.append(Sample(mixed[0].ids, np.zeros(6, dtype=bool)))
    summed, learned = sample_losses(tiny_model(), mixed, pad_id=0, packing=packing, batch_size=batch_size)
    for index, sample in enumerate(mixed[:-1]):
        alone = held_out_loss(tiny_model(), [sample], pad_id=0, packing=False)
        assert summed[index].item() / learned[index].item() == pytest.approx(alone.mean, abs=1e-6)
        assert learned[index] == alone.num_supervised
    assert (summed[-1], learned[-1]) == (0.0, 0)

"""Which tokens can be drawn, and how often."""

import pytest
import torch

from didact.serving.engine.protocol import Sampling
from didact.serving.engine.sampling import Sampler

LOGITS = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()


def drawn(answer: tuple[int, ...] = (), **sampling: float) -> list[int]:
    """How often each of four tokens comes in 400 draws."""
    sampler = Sampler(Sampling(seed=0, **sampling), torch.device("cpu"))
    counts = [0] * 4
    for _ in range(400):
        counts[sampler.draw(LOGITS, list(answer))] += 1
    return counts


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        ({"temperature": 0.0}, {1}),
        ({"temperature": 1.0}, {0, 1, 2, 3}),
        ({"temperature": 1.0, "top_k": 2}, {1, 3}),
        ({"temperature": 1.0, "top_p": 0.69}, {1, 3}),
        ({"temperature": 1.0, "top_p": 0.71}, {1, 2, 3}),
        ({"temperature": 1.0, "top_p": 0.01}, {1}),
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.75}, {1, 3}),
    ],
)
def test_which_tokens_can_come(sampling: dict[str, float], possible: set[int]) -> None:
    assert {token for token, count in enumerate(drawn(**sampling)) if count} == possible


def test_temperature_sharpens() -> None:
    plain, sharp = drawn(temperature=1.0), drawn(temperature=0.25)
    assert plain[1] == pytest.approx(160, abs=30)
    assert sharp[1] > 250


def test_penalties_count_the_answer() -> None:
    once, often = (1,), (1, 1, 1, 1)
    assert drawn(once, temperature=0.0, presence_penalty=0.1)[1] == 400
    assert drawn(once, temperature=0.0, presence_penalty=0.5)[3] == 400
    assert drawn(once, temperature=0.0, frequency_penalty=0.1)[1] == 400
    assert drawn(often, temperature=0.0, frequency_penalty=0.1)[3] == 400

import pytest
import torch

from didact.evaluation import log_likelihoods
from didact.models.adapter.attach import attach_adapter
from didact.spec import LoraSpec, PrefixSpec
from tests.fakes.models import tiny_model

GENERATOR = torch.Generator().manual_seed(0)
PAIRS = [
    ([5, 6, 7], [8]),
    ([5, 6, 7], [9]),
    ([5, 6, 7], [8, 9, 10]),
    ([5], [6, 7, 8]),
    (list(range(10, 40)), [3, 4]),
    ([5, 6, 7], [8]),
]


def lively(family: str, spec: LoraSpec | PrefixSpec | None = None) -> torch.nn.Module:
    model = tiny_model(family)
    model = model if spec is None else attach_adapter(model, spec, seed=0, base_name="tiny")
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return model.eval()


def plain(model: torch.nn.Module, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """The oracle: one sequence, all logits."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([context + continuation]), use_cache=False).logits[0].float()
    rows = logits[-len(continuation) - 1 : -1].log_softmax(-1)
    chances = rows[range(len(continuation)), continuation]
    return chances.sum().item(), bool((rows.argmax(-1) == torch.tensor(continuation)).all())


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize(
    "spec", [None, LoraSpec(r=4), PrefixSpec(method="prefix", num_virtual_tokens=5)], ids=["base", "lora", "prefix"]
)
@pytest.mark.parametrize("batch_tokens", [1, 16, 4096])
def test_as_one_sequence_at_a_time(family: str, spec: LoraSpec | PrefixSpec | None, batch_tokens: int) -> None:
    model = lively(family, spec)
    found = log_likelihoods(model, PAIRS, batch_tokens=batch_tokens)
    for (context, continuation), likely in zip(PAIRS, found, strict=True):
        expected, greedy = plain(model, context, continuation)
        assert likely.log_likelihood == pytest.approx(expected, rel=1e-5, abs=1e-5)
        assert (likely.num_tokens, likely.greedy) == (len(continuation), greedy)


def test_the_likeliest_continuation_is_greedy() -> None:
    model = lively("llama")
    with torch.inference_mode():
        first = int(model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1].argmax())
    likely, other = log_likelihoods(model, [([5, 6, 7], [first]), ([5, 6, 7], [first + 1])])
    assert likely.greedy and not other.greedy
    assert likely.log_likelihood > other.log_likelihood


def test_letters_of_a_choice_share_one_row() -> None:
    model = lively("llama")
    shapes: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    log_likelihoods(model, [([1, 2, 3, 4], [letter]) for letter in range(60, 64)])
    assert shapes == [(1, 4)]


@pytest.mark.parametrize("pair", [([], [1]), ([1], [])])
def test_nothing_to_read_or_to_predict_is_refused(pair: tuple[list[int], list[int]]) -> None:
    with pytest.raises(ValueError, match="expected some each"):
        log_likelihoods(lively("llama"), [pair])

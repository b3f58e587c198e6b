"""Prompts that begin alike are read once, and answered as if each were alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import DynamicCache

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import EmbeddedEngine, Sampling
from didact.serving.engine.memory.prefix_cache import PrefixCache
from didact.spec import PrefixSpec
from tests.fakes.adapters import TINY_BASE
from tests.fakes.generation import answers, make_adapter, oracle, request
from tests.fakes.models import tiny_model

SYSTEM = tuple(40 + (index * 7) % 90 for index in range(50))
TOKEN_BYTES = 2 * 3 * 4 * 2
"""Of one layer's keys and values: two heads of size 3 in float32."""


def read(ids: tuple[int, ...]) -> tuple[DynamicCache, torch.Tensor]:
    """A cache in which each token's keys are its id, after two columns of padding."""
    states = torch.tensor([0, 0, *ids], dtype=torch.float32).expand(1, 2, -1).unsqueeze(-1).expand(-1, -1, -1, 3)
    cache = DynamicCache()
    cache.update(states, -states, 0)
    return cache, torch.arange(2, len(ids) + 2)


def kept(known: PrefixCache, version_id: str | None, ids: tuple[int, ...]) -> PrefixCache:
    cache, columns = read(ids)
    known.keep(version_id, ids, cache, 0, columns)
    return known


def test_known_tokens_count_in_blocks_and_leave_the_last_one_to_read() -> None:
    known = kept(PrefixCache(10**6), "a", tuple(range(40)))
    assert known.match("a", range(40)) == 32
    assert known.match("a", range(33)) == 32
    assert known.match("a", range(32)) == 16
    assert known.match("a", [*range(20), 99, *range(21, 40)]) == 16
    assert known.match("a", [99, *range(1, 40)]) == 0
    assert known.match("b", range(40)) == known.match(None, range(40)) == 0
    layer = known.take([("a", range(40), None), ("a", [*range(33)], None)], 32).layers[0]
    assert layer.keys.shape == (2, 2, 32, 3)
    assert torch.equal(layer.keys[:, 0, :, 0], torch.arange(32.0).expand(2, -1))
    assert torch.equal(layer.values, -layer.keys)


def test_texts_of_a_search_are_known_to_the_token_while_they_are_the_longest() -> None:
    known = kept(PrefixCache(10**6), "a", tuple(range(40)))
    assert (known.match("a", range(39)), known.match("a", range(39), "beams")) == (32, 38)
    for length in (41, 42, 43):
        for last in (7, 8):
            ids = (*range(length - 1), last)
            cache, columns = read(ids)
            known.keep("a", ids, cache, 0, columns, "beams")
            known.keep("a", ids, cache, 0, columns, "beams")  # once more changes nothing
            assert known.match("a", (*ids, 1), "beams") == length
            layer = known.take([("a", (*ids, 1), "beams")], length).layers[0]
            assert torch.equal(layer.keys[0, 0, :, 0], torch.tensor(ids, dtype=torch.float32))
    # The prompt, and the last two steps of the search.
    assert known.num_bytes == (40 + 2 * 42 + 2 * 43) * TOKEN_BYTES
    assert known.match("a", range(43), "others") == 42
    assert known.match("b", range(43), "beams") == 0


def test_the_least_recently_used_prompt_is_forgotten_first() -> None:
    known = PrefixCache(100 * TOKEN_BYTES)
    for name in ("a", "b"):
        kept(known, name, tuple(range(40)))
    known.take([("a", range(40), None)], 32)
    kept(known, "c", tuple(range(40)))
    assert [bool(known.match(name, range(40))) for name in ("a", "b", "c")] == [True, False, True]
    assert known.num_bytes == 80 * TOKEN_BYTES
    kept(known, "d", tuple(range(60)))  # more than half of the memory
    kept(known, "a", tuple(range(45)))  # hardly more than is known
    assert known.num_bytes == 80 * TOKEN_BYTES
    assert kept(PrefixCache(0), "a", tuple(range(40))).num_bytes == 0


@pytest.fixture()
def larger() -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), byte_tokenizer())
    yield engine
    engine.close()


def test_answers_after_known_tokens_are_those_of_generate(larger: EmbeddedEngine, tmp_path: Path) -> None:
    adapters = [None, make_adapter(tmp_path / "a", 1), make_adapter(tmp_path / "b", 2)]
    adapters.append(make_adapter(tmp_path / "p", 3, spec=PrefixSpec(method="prefix", num_virtual_tokens=5)))
    tails = [(), (60, 61), tuple(range(70, 100)), (60, 61, 62)]
    wanted = [request((*SYSTEM, *tail), adapter, tokens=8) for tail in tails for adapter in adapters]
    expected = [oracle("llama", each) for each in wanted]
    assert answers(larger, wanted[:4]) == expected[:4]
    assert larger.stats().cached_prompt_tokens == 0
    assert answers(larger, wanted) == expected
    assert larger.stats().cached_prompt_tokens >= 3 * 4 * 48  # of all but those with trained positions


def test_several_answers_to_one_prompt_read_it_once(larger: EmbeddedEngine) -> None:
    one = request(SYSTEM, tokens=6, sampling=Sampling(temperature=1.0, seed=1))
    wanted = [replace(one, request_id=str(seed), sampling=replace(one.sampling, seed=seed)) for seed in range(5)]
    together = answers(larger, wanted)
    stats = larger.stats()
    assert (stats.prompt_tokens, stats.cached_prompt_tokens) == (50 + 4 * 2, 4 * 48)
    assert together == [answers(larger, [each])[0] for each in wanted]
    assert len({tuple(each) for each in together}) > 1

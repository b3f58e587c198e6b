"""Decoding steps as they are recorded on a GPU, computed here without recording, beside the plain batch."""

import random
from pathlib import Path

import pytest
import torch

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import AdapterRef, EmbeddedEngine, GenerationFailed
from didact.serving.engine.fixed_layer import FixedLayer, rounded_columns, rounded_rows
from didact.serving.engine.memory.row_cache import RowLayer, keeping_order, row_cache
from didact.serving.engine.step_graphs import StepGraphs, recorder_for
from didact.spec import Ia3Spec, LoraSpec
from tests.fakes.adapters import TINY_BASE
from tests.fakes.generation import PROMPTS, answers, make_adapter, oracle, request
from tests.fakes.models import tiny_model

SPECS = [LoraSpec(r=4), LoraSpec(r=7, target_modules=["q_proj", "v_proj"]), Ia3Spec(method="ia3"), LoraSpec(r=9)]


def recording_engine(base: torch.nn.Module, **options: int) -> EmbeddedEngine:
    return EmbeddedEngine(AdapterHost(base, TINY_BASE), byte_tokenizer(), record_steps=True, **options)


def graphs_of(engine: EmbeddedEngine) -> StepGraphs:
    graphs = engine._rounds.graphs
    assert graphs is not None
    return graphs


@pytest.mark.parametrize(
    ("family", "lengths"),
    [("llama", (90, 2, 150, 9, 40)), *((family, (12, 2, 20, 9, 5)) for family in ("gpt2", "gpt_neox", "gemma", "opt"))],
)
def test_answers_are_those_of_each_prompt_alone(family: str, lengths: tuple[int, ...]) -> None:
    engine = recording_engine(tiny_model(family), max_batch_size=3)
    wanted = [request(prompt, tokens=tokens) for prompt, tokens in zip(PROMPTS, lengths, strict=True)]
    try:
        assert answers(engine, wanted) == [oracle(family, each) for each in wanted]
        assert graphs_of(engine).on
    finally:
        engine.close()


def test_rows_of_base_lora_and_ia3_come_and_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refs: list[AdapterRef | None] = [None]
    refs += [make_adapter(tmp_path / str(seed), seed, spec=spec) for seed, spec in enumerate(SPECS)]
    choose = random.Random(0)
    wanted = [
        request(choose.choice(PROMPTS), choose.choice(refs), tokens=choose.choice([1, 5, 30, 80])) for _ in range(16)
    ]
    engine = recording_engine(tiny_model(), max_batch_size=5, max_adapters=3, prompt_tokens_per_round=16)
    try:
        found = answers(engine, wanted)
        assert graphs_of(engine).on
        assert True in graphs_of(engine)._proven
    finally:
        engine.close()
    assert found == [oracle("llama", each) for each in wanted]
    assert "failed" not in caplog.text, "a batch that fails is answered all the same, row by row"


def test_a_step_that_is_another_is_found_out_and_the_plain_one_taken() -> None:
    base = tiny_model()
    real = base.forward

    def forward(*args: object, attention_mask: torch.Tensor, **fields: object) -> object:
        if attention_mask.dim() == 4:  # as a base would that reads its own meaning out of a mask
            attention_mask = torch.ones_like(attention_mask)
        return real(*args, attention_mask=attention_mask, **fields)

    base.forward = forward
    engine = recording_engine(base)
    wanted = [request(prompt, tokens=8) for prompt in PROMPTS]
    try:
        assert answers(engine, wanted) == [oracle("llama", each) for each in wanted]
        assert not graphs_of(engine).on
    finally:
        engine.close()


def test_a_row_that_is_not_finite_leaves_nothing_behind() -> None:
    base = tiny_model()
    with torch.no_grad():
        base.get_input_embeddings().weight[99] = float("nan")
    engine = recording_engine(base, max_batch_size=2)
    good = [request(prompt, tokens=20) for prompt in PROMPTS]
    wanted = [good[0], request((99, 40, 41), tokens=20), *good[1:]]
    try:
        found = answers(engine, wanted)
    finally:
        engine.close()
    assert isinstance(found.pop(1), GenerationFailed)
    assert found == [oracle("llama", each) for each in good]


def test_a_batch_that_fails_gives_its_memory_back_and_the_next_begins_anew() -> None:
    engine = recording_engine(tiny_model())
    graphs = graphs_of(engine)
    try:
        first = answers(engine, [request(PROMPTS[1])])
        assert graphs._layers
        assert graphs._recorded
        graphs.release()
        assert answers(engine, [request(PROMPTS[1])]) == first
    finally:
        engine.close()


def test_bases_that_do_not_attend_to_all_are_not_recorded() -> None:
    assert recorder_for(tiny_model(), None, 4, None) is None, "on a processor nothing is won"
    assert recorder_for(tiny_model(), None, 4, False) is None
    assert recorder_for(tiny_model("mistral"), None, 4, True) is None, "its window would be lost"
    base = tiny_model()
    base.set_attn_implementation("eager")
    assert recorder_for(base, None, 4, True) is None
    assert recorder_for(tiny_model("bloom"), None, 4, True) is None, "its own attention adds to the mask"


@pytest.mark.parametrize("seed", range(4))
def test_memory_that_stays_holds_what_copying_holds(seed: int) -> None:
    choose, torch_random = random.Random(seed), torch.Generator().manual_seed(seed)

    def fill(rows: int, columns: int) -> RowLayer:
        cache, states = row_cache(), torch.randn(rows, 2, columns, 3, generator=torch_random)
        cache.update(states, states + 1, 0)
        return cache.layers[0]

    fixed, plain = FixedLayer(), fill(2, 5)
    fixed.join(plain)
    moves = 0
    for _ in range(300):
        change = choose.choice(["step"] * 6 + ["join", "leave"])
        rows = len(plain.keys)
        if change == "join" and rows < 9:
            more = fill(choose.randint(1, 3), choose.randint(1, 90))
            fixed.join(more)
            plain.join(more)
        elif change == "leave" and rows > 1:
            order = keeping_order(sorted(choose.sample(range(rows), choose.randint(1, rows))))
            surplus = choose.randint(0, min(40, plain.keys.shape[2] - 1))
            fixed.keep(order, surplus)
            plain.keep(order, surplus)
        else:
            states = torch.randn(rows, 2, 1, 3, generator=torch_random)
            before = fixed.place
            fixed.make_room(rounded_rows(rows))
            moves += before != fixed.place
            fixed.update(states, states + 1)
            plain.update(states, states + 1)
        assert torch.equal(fixed.keys, plain.keys)
        assert torch.equal(fixed.values, plain.values)
        assert all(bool(torch.isfinite(memory[: len(plain.keys)]).all()) for memory in fixed._memory)
    assert moves < 8


def test_sizes_are_rounded_to_few() -> None:
    for count in range(1, 600):
        assert count <= rounded_rows(count) <= max(count + 7, 1.5 * count)
        assert count <= rounded_columns(count) <= max(count + 127, 1.3 * count)
    assert len({rounded_rows(count) for count in range(1, 257)}) < 20
    assert len({rounded_columns(count) for count in range(1, 8193)}) < 40

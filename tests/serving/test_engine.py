"""The embedded engine against `generate()` of the same model, and under everything that can go wrong."""

import asyncio
import contextlib
import itertools
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from didact.errors import AdapterError
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import (
    DeadlineExceeded,
    EmbeddedEngine,
    EngineBusy,
    GenerationFailed,
    GenerationRequest,
    PromptTooLong,
    Sampling,
)
from didact.serving.engine.batch import DecodingBatch
from didact.serving.engine.memory import row_attention
from didact.serving.engine.row import BatchRow
from didact.spec import MethodSpec, PrefixSpec, PromptSpec, PTuningSpec
from tests.fakes.adapters import TINY_BASE
from tests.fakes.generation import PROMPTS, answer, answers, answers_beside, make_adapter, oracle, request
from tests.fakes.models import FAMILIES, tiny_model

TRAINED_POSITIONS = [
    PrefixSpec(method="prefix", num_virtual_tokens=5),
    PromptSpec(method="prompt", num_virtual_tokens=5),
    PTuningSpec(method="p_tuning", num_virtual_tokens=5, encoder_size=16),
]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_answers_equal_generate_in_mixed_company(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_attention, "_WORTH", 0)  # rows as short as these are read together
    adapters = [None, make_adapter(tmp_path / "a", 1, family), make_adapter(tmp_path / "b", 2, family)]
    wanted = [request(prompt, adapter) for prompt in PROMPTS for adapter in adapters]
    engine = EmbeddedEngine(
        AdapterHost(tiny_model(family), TINY_BASE),
        byte_tokenizer(),
        max_adapters=1,
        max_batch_size=6,
        prompt_tokens_per_round=24,  # less than the rows' prompts, which are read in pieces
    )
    try:
        got = answers(engine, wanted)
        stats = engine.stats()
    finally:
        engine.close()
    assert got == [oracle(family, each) for each in wanted]
    assert len({tuple(tokens) for tokens in got}) > len(PROMPTS)  # the adapters do change the answers
    assert stats.adapter_evictions >= 1
    assert (stats.num_running, stats.num_waiting) == (0, 0)


@pytest.mark.parametrize("spec", TRAINED_POSITIONS, ids=lambda spec: spec.method)
def test_trained_positions_and_lora_share_one_base(spec: MethodSpec, engine: EmbeddedEngine, tmp_path: Path) -> None:
    trained, lora = make_adapter(tmp_path / "p", 3, spec=spec), make_adapter(tmp_path / "l", 4)
    wanted = [request(prompt, adapter, tokens=9) for adapter in (trained, None, lora) for prompt in PROMPTS]
    got = answers(engine, wanted)
    assert got == [oracle("llama", each) for each in wanted]
    assert got[0] != got[len(PROMPTS)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma", "bloom"])
@pytest.mark.parametrize("spec", TRAINED_POSITIONS, ids=lambda spec: spec.method)
@pytest.mark.parametrize("pieces", [None, 12])
def test_logits_after_trained_positions_are_those_of_each_row_alone(
    spec: MethodSpec, family: str, pieces: int | None, tmp_path: Path
) -> None:
    host = AdapterHost(tiny_model(family), TINY_BASE)
    host.load("only", make_adapter(tmp_path / "p", 3, family, spec).folder)

    async def rows_of_a_loop() -> list[BatchRow]:
        return [BatchRow(request(prompt), 1024, byte_tokenizer(), host.base.device) for prompt in PROMPTS]

    rows = asyncio.run(rows_of_a_loop())
    with host.active("only") as model, torch.inference_mode():
        batch = DecodingBatch(host.base, rows)
        batch.open(model.get_prompt(len(rows)))
        while (logits := batch.read(pieces)) is None:
            pass
        found = [logits]
        for row in rows:
            row.answer.append(65)
        found.append(batch.step())
        for more, logits in zip(((), (65,)), found, strict=True):
            expected = torch.cat(
                [model(input_ids=torch.tensor([[*prompt, *more]])).logits[:, -1] for prompt in PROMPTS]
            )
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_rows_that_join_and_leave_at_different_times_keep_their_answers(engine: EmbeddedEngine) -> None:
    wanted = [request(prompt, tokens=5 + 9 * index) for index, prompt in enumerate(PROMPTS * 2)]

    async def staggered() -> list[list[int]]:
        tasks = []
        for each in wanted:
            tasks.append(asyncio.create_task(answer(engine, each)))
            while not tasks[-1].done() and engine.stats().num_waiting > 1:
                await asyncio.sleep(0)
        return await asyncio.gather(*tasks)

    assert asyncio.run(staggered()) == [oracle("llama", each) for each in wanted]


def test_a_stop_token_ends_the_answer_and_is_not_text(engine: EmbeddedEngine) -> None:
    free = oracle("llama", request(PROMPTS[0], tokens=12))
    stop = free[5]
    wanted = request(PROMPTS[0], stop_token_ids=(stop,))

    async def deltas() -> list:
        return [delta async for delta in engine.generate(wanted)]

    pieces = asyncio.run(deltas())
    tokens = [token for piece in pieces for token in piece.token_ids]
    assert tokens == free[: free.index(stop) + 1]
    assert pieces[-1].finish_reason == "stop"
    visible = byte_tokenizer().decode(tokens[:-1], skip_special_tokens=True)
    assert "".join(piece.text for piece in pieces) == visible


def test_seeded_sampling_repeats_alone_and_in_company(engine: EmbeddedEngine) -> None:
    sampling = Sampling(temperature=1.0, top_p=0.9, top_k=50, seed=7)
    alone = answers(engine, [request(PROMPTS[1], sampling=sampling)])[0]
    crowd = answers(engine, [request(prompt, sampling=sampling) for prompt in PROMPTS])
    other = answers(engine, [request(PROMPTS[1], sampling=replace(sampling, seed=8))])[0]
    assert crowd[1] == alone
    assert other != alone


def test_frequency_penalty_ends_repetition(engine: EmbeddedEngine) -> None:
    plain = answers(engine, [request(PROMPTS[0], tokens=40)])[0]
    varied = answers(engine, [request(PROMPTS[0], tokens=40, sampling=Sampling(frequency_penalty=2.0))])[0]
    assert len(set(plain)) < len(set(varied))


def test_least_recently_used_adapter_leaves_and_a_bad_one_costs_nobody_their_place(
    tmp_path: Path, engine: EmbeddedEngine
) -> None:
    a, b, c = (make_adapter(tmp_path / name, seed) for seed, name in enumerate("abc"))
    bad = make_adapter(tmp_path / "bad", 9)
    (bad.folder / "adapter_model.safetensors").write_bytes(b"not tensors")
    for adapter in (a, b, a):
        answers(engine, [request(PROMPTS[0], adapter)])
    assert isinstance(answers(engine, [request(PROMPTS[0], bad)])[0], AdapterError)
    assert engine.stats().adapters == (b.version_id, a.version_id)
    answers(engine, [request(PROMPTS[0], c)])
    assert engine.stats().adapters == (a.version_id, c.version_id)
    assert (engine.stats().adapter_loads, engine.stats().adapter_evictions) == (3, 1)


def test_preload_reports_a_bad_adapter_and_loads_a_good_one(tmp_path: Path, engine: EmbeddedEngine) -> None:
    good, bad = make_adapter(tmp_path / "good", 1), make_adapter(tmp_path / "bad", 2)
    (bad.folder / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match="missing"):
        engine.preload(bad).result(timeout=20)
    engine.preload(good).result(timeout=20)
    assert engine.stats().adapters == (good.version_id,)


def test_more_versions_than_places_all_get_their_turn(tmp_path: Path) -> None:
    adapters = [make_adapter(tmp_path / str(seed), seed) for seed in range(4)]
    engine = EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), byte_tokenizer(), max_adapters=1, max_batch_size=2)
    try:
        got = answers(engine, [request(PROMPTS[0], adapter, tokens=6) for adapter in adapters * 3])
    finally:
        engine.close()
    assert [len(tokens) for tokens in got] == [6] * 12


def test_a_short_request_is_not_held_up_by_a_long_one_of_another_adapter(
    tmp_path: Path, engine: EmbeddedEngine
) -> None:
    adapter = make_adapter(tmp_path / "a", 1)
    finished: list[str] = []

    async def run(name: str, wanted: GenerationRequest, started: asyncio.Event) -> None:
        async for _ in engine.generate(wanted):
            started.set()
        finished.append(name)

    async def both() -> None:
        started = asyncio.Event()
        long = asyncio.create_task(run("long", request(PROMPTS[0], tokens=400), started))
        await started.wait()
        await run("short", request(PROMPTS[0], adapter, tokens=4), asyncio.Event())
        await long

    asyncio.run(both())
    assert finished == ["short", "long"]


def test_closing_the_iterator_cancels(engine: EmbeddedEngine) -> None:
    async def read_two() -> None:
        pieces = engine.generate(request(PROMPTS[0], tokens=900))
        await anext(pieces)
        await anext(pieces)
        await pieces.aclose()
        while engine.stats().num_running:
            await asyncio.sleep(0)

    asyncio.run(read_two())
    assert engine.stats().generated_tokens < 900


def test_a_request_can_be_cancelled_while_its_prompt_is_read() -> None:
    model, reading, go_on = tiny_model(), threading.Event(), threading.Event()
    model.register_forward_pre_hook(lambda *_: (reading.set(), go_on.wait())[:0] or None)
    engine = EmbeddedEngine(AdapterHost(model, TINY_BASE), byte_tokenizer())

    async def leave() -> None:
        first = asyncio.create_task(anext(engine.generate(request(PROMPTS[0], tokens=900))))
        await asyncio.to_thread(reading.wait)
        first.cancel()
        await asyncio.wait([first])
        go_on.set()
        await answer(engine, request(PROMPTS[1], tokens=4))
        while engine.stats().num_running:
            await asyncio.sleep(0)

    try:
        asyncio.run(leave())
        assert engine.stats().generated_tokens < 100
    finally:
        go_on.set()
        engine.close()


def test_a_client_that_leaves_frees_its_place_before_its_prompt_is_read_to_the_end() -> None:
    model, read, go_on = tiny_model(), [], threading.Event()

    def note(module: torch.nn.Module, arguments: tuple, inputs: dict) -> None:
        read.append(inputs["input_ids"].shape[1])
        go_on.wait()

    model.register_forward_pre_hook(note, with_kwargs=True)
    engine = EmbeddedEngine(AdapterHost(model, TINY_BASE), byte_tokenizer(), prompt_tokens_per_round=32)
    long = tuple(40 + index % 50 for index in range(900))

    async def leave() -> list[int]:
        tasks = [asyncio.create_task(anext(engine.generate(request(long, tokens=50)))) for _ in range(3)]
        while not read:
            await asyncio.sleep(0)
        # Those whose prompts are being read count as running, and nobody waits: all three, or the later two do.
        stats = engine.stats()
        assert stats.num_running + stats.num_waiting == 3
        assert stats.num_running >= 1
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        stats = engine.stats()
        assert (stats.num_running, stats.num_waiting) == (0, 0)
        go_on.set()
        return await answer(engine, request(PROMPTS[1], tokens=4))

    try:
        assert asyncio.run(leave()) == oracle("llama", request(PROMPTS[1], tokens=4))
        assert sum(read) < 300
        assert engine.stats().prompt_tokens < 300
    finally:
        go_on.set()
        engine.close()


@pytest.mark.parametrize("leaves", [0, 1, 2])
@pytest.mark.parametrize("trained", [None, *TRAINED_POSITIONS[:2]], ids=lambda spec: spec.method if spec else "base")
def test_rows_that_stay_keep_their_answers_when_one_leaves_during_reading(
    leaves: int, trained: MethodSpec | None, tmp_path: Path
) -> None:
    adapter = None if trained is None else make_adapter(tmp_path / "a", 3, spec=trained)
    wanted = [request(tuple(range(40, 40 + length)), adapter, tokens=6) for length in (90, 20, 50)]
    model, pieces, go_on = tiny_model(), [], threading.Event()

    def note(module: torch.nn.Module, arguments: tuple, inputs: dict) -> None:
        pieces.append(1)
        if len(pieces) == 2:
            go_on.wait()

    model.register_forward_pre_hook(note, with_kwargs=True)
    engine = EmbeddedEngine(AdapterHost(model, TINY_BASE), byte_tokenizer(), prompt_tokens_per_round=60)
    if adapter is not None:
        engine.preload(adapter).result(timeout=20)

    async def leave() -> list:
        tasks = [asyncio.create_task(answer(engine, each)) for each in wanted]
        while len(pieces) < 2:
            await asyncio.sleep(0)
        tasks[leaves].cancel()
        await asyncio.sleep(0)
        await asyncio.wait([tasks[leaves]])
        go_on.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    try:
        got = asyncio.run(leave())
    finally:
        go_on.set()
        engine.close()
    for index, (tokens, each) in enumerate(zip(got, wanted, strict=True)):
        if index != leaves:
            assert tokens == oracle("llama", each)


def test_a_long_prompt_is_read_between_the_steps_of_others() -> None:
    model, columns = tiny_model(), []

    def note(module: torch.nn.Module, arguments: tuple, inputs: dict) -> None:
        columns.append(inputs["input_ids"].shape[1])

    model.register_forward_pre_hook(note, with_kwargs=True)
    engine = EmbeddedEngine(AdapterHost(model, TINY_BASE), byte_tokenizer(), prompt_tokens_per_round=100)
    short, long = request(PROMPTS[0], tokens=400), request(tuple(40 + index % 50 for index in range(600)), tokens=3)

    try:
        assert asyncio.run(answers_beside(engine, short, long)) == [oracle("llama", short), oracle("llama", long)]
    finally:
        engine.close()
    pieces = [place for place, width in enumerate(columns) if width > 1][1:]
    assert len(pieces) >= 6
    assert max(columns) <= 100
    assert sum(columns[place] for place in pieces) == 600
    assert all(later - earlier == 5 for earlier, later in itertools.pairwise(pieces))


def test_deadline_ends_a_request(engine: EmbeddedEngine) -> None:
    late = request(PROMPTS[0], tokens=900, deadline=time.monotonic() - 1)
    fine = request(PROMPTS[1], tokens=4)
    got = answers(engine, [late, fine])
    assert isinstance(got[0], DeadlineExceeded)
    assert len(got[1]) == 4


def small_engine(**limits: int) -> contextlib.closing[EmbeddedEngine]:
    return contextlib.closing(EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), byte_tokenizer(), **limits))


def test_requests_that_have_a_place_among_the_running_do_not_count_as_waiting() -> None:
    with small_engine(max_batch_size=12, max_waiting=1) as wide:
        got = answers(wide, [request(PROMPTS[0], tokens=4) for _ in range(12)])
    assert all(isinstance(each, list) for each in got)


def test_full_queue_and_long_prompts_are_refused_at_once(engine: EmbeddedEngine) -> None:
    with small_engine(max_batch_size=1, max_waiting=2) as small:
        got = answers(small, [request(PROMPTS[0], tokens=30) for _ in range(30)])
    assert any(isinstance(each, EngineBusy) for each in got)
    assert sum(isinstance(each, list) for each in got) >= 2
    too_long = answers(engine, [request(tuple([40] * 1024))])[0]
    assert isinstance(too_long, PromptTooLong)
    assert "1024" in str(too_long)
    assert len(answers(engine, [request(tuple([40] * 1020))])[0]) == 4


def test_close_fails_what_is_unfinished_and_refuses_more(engine: EmbeddedEngine) -> None:
    async def close_in_the_middle() -> None:
        pieces = engine.generate(request(PROMPTS[0], tokens=900))
        await anext(pieces)
        threading.Thread(target=engine.close).start()
        with pytest.raises(GenerationFailed):
            async for _ in pieces:
                pass

    asyncio.run(close_in_the_middle())
    with pytest.raises(GenerationFailed):
        engine.health()

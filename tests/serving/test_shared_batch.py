"""Rows of the base and of many adapters in one forward pass, beside the same rows each alone."""

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.models.adapter import RowSlots, load_row_adapter
from didact.serving import AdapterRef, DeadlineExceeded, EmbeddedEngine
from didact.serving.engine import adapter_pool
from didact.spec import BottleneckSpec, Ia3Spec, LoraSpec, MethodSpec, PartialSpec
from tests.fakes.adapters import TINY_BASE, save_tiny_adapter
from tests.fakes.generation import PROMPTS, answer, answers, make_adapter, oracle, request
from tests.fakes.models import tiny_model

SHARED = [
    LoraSpec(r=4),
    LoraSpec(r=9, alpha=5, rslora=True),
    LoraSpec(r=1, target_modules=["q_proj", "v_proj"]),
    LoraSpec(r=2, target_modules=["down_proj"]),
    Ia3Spec(method="ia3"),
]
ALONE = [
    LoraSpec(r=4, dora=True),
    BottleneckSpec(method="bottleneck"),
    PartialSpec(method="partial", last_n_layers=1),
]


@pytest.fixture(scope="module")
def refs(tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    """One adapter of each method that shares a batch."""
    folder = tmp_path_factory.mktemp("shared")
    return [make_adapter(folder / str(seed), seed, spec=spec) for seed, spec in enumerate(SHARED)]


def slots_with(refs: list[AdapterRef], num_slots: int, seats: list[int]) -> tuple[AdapterHost, RowSlots]:
    host = AdapterHost(tiny_model(), TINY_BASE)
    slots = RowSlots(host.base, num_slots)
    slots.keep_row_by_row()
    for seat, ref in zip(seats, refs, strict=True):
        adapter = load_row_adapter(ref.folder, host, slots)
        assert adapter is not None
        slots.put(seat, adapter)
    return host, slots


def alone(host: AdapterHost, ref: AdapterRef | None, ids: torch.Tensor) -> torch.Tensor:
    """The plain twin: PEFT with one adapter."""
    if ref is not None:
        host.load(ref.version_id, ref.folder)
    with host.active(ref.version_id if ref else None) as model, torch.inference_mode():
        return model(input_ids=ids).logits


@pytest.mark.parametrize(
    "rows",
    [
        [0, 1, 2, 3, 4],  # as they lie
        [None, 0, None],
        [3, 3, 3],
        [4, 2, None, 0, 2, 2, 1, 3, 4, None],
        [0, 0, 1, 1, 2, 2],
        [4, 0],  # far apart
        [None, None, 4],
    ],
)
@pytest.mark.parametrize("seats", [[0, 1, 2, 3, 4], [11, 5, 0, 7, 2]], ids=["dense", "scattered"])
def test_every_row_computes_what_it_would_alone(
    rows: list[int | None], seats: list[int], refs: list[AdapterRef]
) -> None:
    host, slots = slots_with(refs, 12, seats)
    ids = torch.randint(0, 200, (len(rows), 7), generator=torch.Generator().manual_seed(3))
    with slots.rows([None if row is None else seats[row] for row in rows], 7), torch.inference_mode():
        found = host.base(input_ids=ids).logits
    twin = AdapterHost(tiny_model(), TINY_BASE)
    for row, each, logits in zip(rows, ids, found, strict=True):
        expected = alone(twin, None if row is None else refs[row], each[None])[0]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(host.base(input_ids=ids).logits, alone(twin, None, ids))


def test_a_slot_forgets_who_was_there_before(refs: list[AdapterRef]) -> None:
    host, slots = slots_with(refs[:1], 3, [1])
    ids = torch.tensor([[5, 6, 7], [5, 6, 7]])
    for ref in refs[1:]:
        adapter = load_row_adapter(ref.folder, host, slots)
        assert adapter is not None
        slots.put(1, adapter)
        with slots.everywhere(1), torch.inference_mode():
            found = host.base(input_ids=ids).logits
        expected = alone(AdapterHost(tiny_model(), TINY_BASE), ref, ids)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", ALONE, ids=lambda spec: spec.method)
def test_what_needs_the_whole_model_is_told_apart(spec: MethodSpec, tmp_path: Path) -> None:
    ref = make_adapter(tmp_path / "a", 1, spec=spec)
    host = AdapterHost(tiny_model(), TINY_BASE)
    assert load_row_adapter(ref.folder, host, RowSlots(host.base, 2)) is None


def test_all_methods_answer_together_and_share_their_steps(refs: list[AdapterRef], tmp_path: Path) -> None:
    own = [make_adapter(tmp_path / str(seed), seed, spec=spec) for seed, spec in enumerate(ALONE, 20)]
    wanted = [request(PROMPTS[1], each, tokens=8) for each in (None, *refs)]
    crowd = [request(PROMPTS[3], each, tokens=8) for each in own]
    expected = [oracle("llama", each) for each in (*wanted, *crowd)]
    model, sizes = tiny_model(), []
    model.register_forward_pre_hook(lambda _, args, inputs: sizes.append(inputs["input_ids"].shape), with_kwargs=True)
    engine = EmbeddedEngine(AdapterHost(model, TINY_BASE), byte_tokenizer(), max_adapters=9)
    try:
        for each in (*refs, *own):
            engine.preload(each).result(timeout=30)
        sizes.clear()
        assert answers(engine, [*wanted, *crowd]) == expected
    finally:
        engine.close()
    assert sum(1 for shape in sizes if tuple(shape) == (len(wanted), 1)) >= 5  # base and all five adapters, at once
    assert len({tuple(each) for each in expected}) == len(expected)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "phi", "mixtral", "qwen2_moe"])
def test_other_families_share_a_batch_too(family: str, tmp_path: Path) -> None:
    adapters = [None, *(make_adapter(tmp_path / str(seed), seed, family, LoraSpec(r=2 + seed)) for seed in (1, 2))]
    wanted = [request(prompt, adapter, tokens=6) for prompt in PROMPTS[:3] for adapter in adapters]
    expected = [oracle(family, each) for each in wanted]
    engine = EmbeddedEngine(AdapterHost(tiny_model(family), TINY_BASE), byte_tokenizer())
    try:
        assert answers(engine, wanted) == expected
        shared = engine._rounds.pool.group(adapters[1].version_id) is None
    finally:
        engine.close()
    assert shared == (family != "mixtral")  # its adapters are on experts, which see some of the tokens only


def test_a_base_whose_rows_see_each_other_gives_every_adapter_its_own_batch(
    refs: list[AdapterRef], caplog: pytest.LogCaptureFixture
) -> None:
    wanted = [request(PROMPTS[1], each, tokens=6) for each in (None, refs[0], refs[1])]
    expected = [oracle("llama", each) for each in wanted]
    model = tiny_model()

    def turned(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return args[0].flip(0), *args[1:]

    layer = model.model.layers[1].mlp  # its rows come in another order than they are asked in
    layer.register_forward_pre_hook(turned)
    layer.register_forward_hook(lambda _, args, output: output.flip(0))
    engine = EmbeddedEngine(AdapterHost(model, TINY_BASE), byte_tokenizer())
    try:
        assert answers(engine, wanted) == expected
        assert engine._rounds.pool.slots is None
    finally:
        engine.close()
    assert "a batch of its own on this base" in caplog.text


@pytest.mark.fault("S13")
def test_an_adapter_that_takes_long_to_read_holds_up_nobody_else(
    refs: list[AdapterRef], engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, read = threading.Event(), adapter_pool.load_row_adapter

    def slowly(folder: Path, *rest: Any) -> Any:
        if folder == refs[1].folder:
            go_on.wait()
        return read(folder, *rest)

    monkeypatch.setattr(adapter_pool, "load_row_adapter", slowly)
    late = request(PROMPTS[0], refs[1], tokens=3, deadline=time.monotonic() + 0.2)
    patient, others = request(PROMPTS[0], refs[1], tokens=3), [request(PROMPTS[0], each) for each in (None, refs[0])]

    async def all_of_them() -> list[Any]:
        slow = [asyncio.create_task(answer(engine, each)) for each in (late, patient)]
        found = await asyncio.gather(*(answer(engine, each) for each in others))
        with pytest.raises(DeadlineExceeded):
            await slow[0]
        assert not slow[1].done()
        go_on.set()
        return [*found, await slow[1]]

    try:
        found = asyncio.run(all_of_them())
    finally:
        go_on.set()
    assert found == [oracle("llama", each) for each in (*others, patient)]


def test_a_version_that_was_read_for_nobody_is_let_go(
    refs: list[AdapterRef], engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, read = threading.Event(), adapter_pool.load_row_adapter
    monkeypatch.setattr(adapter_pool, "load_row_adapter", lambda *args: (go_on.wait(), read(*args))[1])

    async def leave() -> None:
        asked = asyncio.create_task(answer(engine, request(PROMPTS[0], refs[0])))
        while not engine._rounds.pool._reading:
            await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
        go_on.set()
        await answer(engine, request(PROMPTS[0], tokens=2))
        while engine._rounds.pool._reading:
            await answer(engine, request(PROMPTS[0], tokens=2))

    try:
        asyncio.run(leave())
    finally:
        go_on.set()
    assert engine.stats().adapters == ()


def test_hundreds_of_versions_pass_through_few_places(tmp_path: Path) -> None:
    folders = [tmp_path / str(seed) for seed in range(4)]
    for seed, folder in enumerate(folders):
        save_tiny_adapter(folder, seed, spec=LoraSpec(r=1 + seed, target_modules=["q_proj"]))
    versions = [AdapterRef(f"a:{number}#0", folders[number % 4]) for number in range(200)]
    plain = [request(PROMPTS[1], version, tokens=3) for version in versions[:4]]
    expected = [oracle("llama", each) for each in plain]
    engine = EmbeddedEngine(
        AdapterHost(tiny_model(), TINY_BASE), byte_tokenizer(), max_adapters=12, max_batch_size=8, max_waiting=200
    )
    try:
        found = answers(engine, [replace(plain[0], request_id=each.version_id, adapter=each) for each in versions])
        stats = engine.stats()
    finally:
        engine.close()
    assert found == expected * 50
    assert (stats.adapter_loads, stats.adapter_evictions, len(stats.adapters)) == (200, 188, 12)


def test_a_version_with_many_requests_leaves_others_their_share(refs: list[AdapterRef]) -> None:
    busy = [request(PROMPTS[0], refs[0], tokens=40) for _ in range(12)]
    rare = [request(PROMPTS[0], each, tokens=40) for each in (None, refs[1])]
    engine = EmbeddedEngine(AdapterHost(tiny_model(), TINY_BASE), byte_tokenizer(), max_batch_size=3)
    ended: list[str] = []

    async def run(name: str, wanted: Any) -> None:
        await answer(engine, wanted)
        ended.append(name)

    async def all_of_them() -> None:
        await asyncio.gather(*(run("busy", each) for each in busy), *(run("rare", each) for each in rare))

    try:
        for ref in refs[:2]:
            engine.preload(ref).result(timeout=30)
        asyncio.run(all_of_them())
    finally:
        engine.close()
    assert sorted(ended[-6:]) == ["busy"] * 6

"""The compiled kernel for adapters of single rows, beside torch's products."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from didact import env
from didact.models.adapter import row_kernel as built
from didact.models.adapter.row_adapter import LoraPart, RowAdapter
from didact.models.adapter.row_kernel import RowGroups, RowKernel, row_kernel
from didact.models.adapter.row_slots import RowSlots
from tests.fakes.models import tiny_model

CPU = torch.device("cpu")
ROWS = {2: [0, 4], 0: [1], 5: [3, 5, 6, 7, 8]}
"""By slot; row 2 is the base's."""


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> RowKernel:
    if shutil.which(env.cpp_compiler()) is None:
        pytest.skip(f"there is no C++ compiler ({env.cpp_compiler()})")
    kernel = row_kernel(CPU, request.param)
    assert kernel is not None
    return kernel


@pytest.mark.parametrize(("kernel", "dtype"), [(each, each) for each in built._ENTRIES], indirect=["kernel"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("inputs", "outputs", "rank", "length"), [(64, 128, 8, 1), (37, 91, 3, 1), (50, 33, 13, 3), (16, 200, 64, 2)]
)
def test_every_row_gets_what_its_adapter_adds_in_float64(
    kernel: RowKernel,
    dtype: torch.dtype,
    threads: int,
    inputs: int,
    outputs: int,
    rank: int,
    length: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(built, "_PRODUCTS_A_THREAD", 1)  # as if it were worth all of them
    random = torch.Generator().manual_seed(inputs)
    states, first, second, output = (
        torch.randn(*shape, generator=random).to(dtype)
        for shape in ((9, length, inputs), (6, rank + 2, inputs), (6, rank + 2, outputs), (9, length, outputs))
    )
    before, wanted = output.clone(), output.double()
    for slot, rows in ROWS.items():
        inner = states[rows].double() @ first[slot, :rank].double().t()
        wanted[rows] += inner @ second[slot, :rank].double()
    groups, ran_with = RowGroups(ROWS), torch.get_num_threads()
    assert kernel.takes(states, output, rank, groups)
    torch.set_num_threads(threads)
    try:
        assert kernel.addition(states, first, second, rank, groups)(states, output)
    finally:
        torch.set_num_threads(ran_with)
    assert torch.equal(output[2], before[2])
    # One rounding at the end: half of the last place of the number format, and float32's own sums.
    allowed = (wanted.abs() * torch.finfo(dtype).eps / 2 + 1e-4 * wanted.abs().mean()).clamp(min=1e-6)
    assert bool(((output.double() - wanted).abs() <= allowed).all())


@pytest.mark.parametrize(
    ("rows", "rank", "features", "threads"),
    [(16, 8, 576 + 576, 1), (16, 8, 576 + 1536, 1), (256, 8, 576 + 576, 8), (64, 8, 1152, 2), (0, 8, 1152, 1)],
)
def test_a_step_of_a_small_base_wakes_no_thread(rows: int, rank: int, features: int, threads: int) -> None:
    assert built.threads_for(rows * rank * features, 8) == threads
    assert built.threads_for(rows * rank * features, 1) == 1


@pytest.mark.parametrize("kernel", [torch.float32], indirect=True)
def test_what_is_not_a_number_stays_in_its_row(kernel: RowKernel) -> None:
    states, output = torch.ones(9, 1, 32), torch.zeros(9, 1, 48)
    states[4] = torch.nan
    assert kernel.addition(states, torch.ones(6, 2, 32), torch.ones(6, 2, 48), 2, RowGroups(ROWS))(states, output)
    assert output[4].isnan().all()
    assert output[[0, 1, 3, 5, 6, 7, 8]].eq(64).all()


@pytest.mark.parametrize("kernel", [torch.bfloat16], indirect=True)
def test_other_number_formats_strides_and_long_prompts_are_left_to_torch(kernel: RowKernel) -> None:
    groups, output = RowGroups({0: [0, 1]}), torch.zeros(2, 2, 8, dtype=torch.bfloat16)
    states = torch.zeros(2, 2, 8, dtype=torch.bfloat16)
    assert kernel.takes(states, output, 4, groups)
    assert not kernel.takes(states.float(), output, 4, groups)
    assert not kernel.takes(states, output.float(), 4, groups)
    assert not kernel.takes(states.transpose(0, 1), output, 4, groups)
    assert not kernel.takes(states, output, 1000, groups)
    assert not kernel.takes(states.new_zeros(2, 17, 8), output, 4, groups)


def test_steps_of_one_batch_see_weights_that_change_between_them() -> None:
    slots = RowSlots(tiny_model(), 3)
    slots.keep_row_by_row()
    if slots.kernel is None:
        pytest.skip("there is no C++ compiler")
    kernel, ids = slots.kernel, torch.arange(12).view(4, 3)
    rows = (0, 1, None, 1)

    def logits(length: int) -> torch.Tensor:
        with torch.inference_mode():
            return slots._logits(ids[:, :length], rows)

    for seeds, rank in (((1, 2), 2), ((3, 2), 2), ((3, 4), 9)):  # the last takes more memory for all slots
        for slot, seed in enumerate(seeds):
            parts = slots._made_up(seed).parts
            slots.put(slot, RowAdapter({name: widened(part, rank) for name, part in parts.items()}))
        for length in (1, 1, 3, 1, 3):
            slots.kernel = kernel
            found = logits(length)
            assert slots._known[rows].ready
            slots.kernel = None
            slots._known.clear()
            torch.testing.assert_close(found, logits(length), rtol=1e-4, atol=1e-5)


def widened(part: LoraPart, rank: int) -> LoraPart:
    more = torch.ones(rank - len(part.first), 1) * 0.01
    return LoraPart(torch.cat([part.first, more * part.first[:1]]), torch.cat([part.second, more * part.second[:1]]))


@pytest.mark.parametrize("kernel", [torch.float32], indirect=True)
def test_tensors_of_another_kind_are_not_added_to(kernel: RowKernel) -> None:
    states, output = torch.ones(2, 1, 8), torch.zeros(2, 1, 4)
    weights = torch.ones(1, 2, 8), torch.ones(1, 2, 4)
    add = kernel.addition(states, *weights, 2, RowGroups({0: [0, 1]}))
    for entered, left in (
        (states[:1], output[:1]),
        (states.double(), output),
        (states, output.double()),
        (torch.ones(2, 1, 16)[..., ::2], output),
        (states, torch.zeros(2, 1, 8)[..., ::2]),
    ):
        assert not add(entered, left) and not left.any()
    assert add(states, output) and output.eq(16).all()


def test_a_kernel_that_computes_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = RowSlots(tiny_model(), 3)
    slots.keep_row_by_row()
    if slots.kernel is None:
        pytest.skip("there is no C++ compiler")
    wrong = SimpleNamespace(takes=lambda *_: True, addition=lambda *_: lambda _, output: output.add_(1) is not None)
    monkeypatch.setattr(slots, "kernel", wrong)
    slots.prove()
    assert slots.kernel is None


def test_without_a_compiler_torch_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert built._library.__wrapped__("AVX2") is None


def test_code_that_does_not_compile_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'row_kernel.cpp:1: no such register' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", str(compiler))
    assert built._library.__wrapped__("AVX2") is None
    assert "no such register" in caplog.text
    assert list((tmp_path / "cache" / "kernels").iterdir()) == []

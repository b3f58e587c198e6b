"""What is refused on which machine, in words; the machines are made of facts, as `this_machine` gives them."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from didact.devices import (
    Gpu,
    Machine,
    check_base,
    check_compile,
    is_out_of_memory,
    this_machine,
    why_no_flash_attention,
    why_no_gpu,
)
from didact.errors import DeviceError
from didact.models import compute_dtype
from didact.spec import ModelSpec

K80, V100, T4 = Gpu("Tesla K80", (3, 7), 11.2), Gpu("Tesla V100", (7, 0), 16.0), Gpu("Tesla T4", (7, 5), 14.6)
A100, L4 = Gpu("NVIDIA A100-SXM4-40GB", (8, 0), 39.4), Gpu("NVIDIA L4", (8, 9), 22.0)
H100, FUTURE = Gpu("NVIDIA H100", (9, 0), 79.1), Gpu("NVIDIA X", (13, 0), 300.0)
WHOLE = Machine(
    gpus=(A100,),
    torch_version="2.13.0+cu130",
    torch_cuda="13.0",
    architectures=("sm_75", "sm_80", "sm_86", "sm_90a", "sm_90", "compute_120"),
    driver_cuda=(13, 1),
    bitsandbytes="gpu",
    flash_attention=True,
    triton=True,
    cpp_compiler=True,
)


def model(**fields: Any) -> ModelSpec:
    return ModelSpec.model_validate(fields)


EVERYTHING = model(dtype="bfloat16", quantization={"bits": 8}, attention="flash_attention_2")


@pytest.mark.parametrize("gpu", [A100, L4, H100, FUTURE], ids=str)
def test_a_whole_machine_refuses_nothing(gpu: Gpu) -> None:
    machine = replace(WHOLE, gpus=(gpu,))
    check_base(EVERYTHING, machine, on_gpu=True)
    check_compile(machine, on_gpu=True)


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (
            {"torch_cuda": None},
            r"torch 2\.13\.0\+cu130 is a build without CUDA, though the NVIDIA driver runs CUDA 13\.1",
        ),
        ({"torch_cuda": None, "driver_cuda": None}, "is a build without CUDA; install a build with it"),
        ({"driver_cuda": None}, "there is no NVIDIA driver"),
        (
            {"driver_cuda": (12, 2)},
            r"driver is too old: it runs CUDA 12\.2, .* is built for CUDA 13\.0; update the driver",
        ),
        ({"visible": "7"}, "CUDA_VISIBLE_DEVICES is '7', and torch can use none"),
        ({"visible": ""}, "CUDA_VISIBLE_DEVICES is ''"),
        ({}, "the NVIDIA driver names none"),
    ],
)
def test_a_missing_gpu_has_a_reason(facts: dict[str, Any], found: str) -> None:
    machine = replace(WHOLE, gpus=(), **facts)
    with pytest.raises(DeviceError, match=f"a GPU is asked for, but torch finds none: .*{found}"):
        check_base(model(), machine, on_gpu=True)
    assert "\n" not in why_no_gpu(machine)
    check_base(model(), machine, on_gpu=False)


@pytest.mark.parametrize(
    ("asked", "gpu", "facts", "found"),
    [
        ({}, K80, {}, r"no kernels for Tesla K80 \(compute capability 3\.7\), only for sm_75, sm_80"),
        ({}, V100, {}, "no kernels for Tesla V100"),
        ({}, FUTURE, {"architectures": ("sm_90", "sm_120")}, "no kernels for NVIDIA X"),
        ({}, L4, {"architectures": ("sm_90",)}, "no kernels for NVIDIA L4"),
        (
            {"dtype": "bfloat16"},
            T4,
            {},
            r"model\.dtype is bfloat16, which Tesla T4 .*does not.*set model\.dtype to float16",
        ),
        ({"quantization": {"bits": 4}}, A100, {"bitsandbytes": "absent"}, "bitsandbytes, which is not installed"),
        ({"quantization": {"bits": 4}}, A100, {"bitsandbytes": "cpu"}, r"bitsandbytes has no library for CUDA 13\.0"),
        ({"quantization": {"bits": 8}}, V100, {"architectures": ()}, r"model\.quantization\.bits is 8.*set it to 4"),
        (
            {"attention": "flash_attention_2"},
            A100,
            {"flash_attention": False},
            "flash-attn is not installed; set it to",
        ),
        ({"attention": "flash_attention_2"}, T4, {}, r"needs compute capability 8\.0 or later, and this is Tesla T4"),
        ({"attention": "flash_attention_2", "dtype": "float32"}, A100, {}, r"model\.dtype is float32"),
    ],
)
def test_what_a_gpu_cannot_do_is_refused(asked: dict[str, Any], gpu: Gpu, facts: dict[str, Any], found: str) -> None:
    with pytest.raises(DeviceError, match=found) as refused:
        check_base(model(**asked), replace(WHOLE, gpus=(gpu,), **facts), on_gpu=True)
    assert "\n" not in str(refused.value)


def test_the_gpu_of_the_index_counts() -> None:
    mixed = replace(WHOLE, gpus=(A100, T4))
    check_base(EVERYTHING, mixed, on_gpu=True, index=0)
    with pytest.raises(DeviceError, match="Tesla T4"):
        check_base(EVERYTHING, mixed, on_gpu=True, index=1)


def test_processors_have_no_flash_attention_and_need_no_cuda_library() -> None:
    processor = Machine(bitsandbytes="cpu")
    check_base(model(quantization={"bits": 8}), processor, on_gpu=False)
    with pytest.raises(DeviceError, match="flash_attention_2, but it computes on GPUs only"):
        check_base(model(attention="flash_attention_2"), processor, on_gpu=False)
    with pytest.raises(DeviceError, match="bitsandbytes, which is not installed"):
        check_base(model(quantization={"bits": 8}), Machine(), on_gpu=False)


@pytest.mark.parametrize(
    ("facts", "on_gpu", "found"),
    [
        ({"triton": False}, True, "triton is not installed"),
        ({"gpus": (K80,), "architectures": ()}, True, r"kernels for compute capability 7\.0 and later"),
        ({"cpp_compiler": False}, False, r"there is no C\+\+ compiler"),
    ],
)
def test_compiling_without_a_compiler_is_refused(facts: dict[str, Any], on_gpu: bool, found: str) -> None:
    with pytest.raises(DeviceError, match=rf"training\.compile is true, but .*{found}"):
        check_compile(replace(WHOLE, **facts), on_gpu=on_gpu)


def test_bfloat16_is_what_the_device_computes_in() -> None:
    machine = replace(WHOLE, gpus=(A100, T4), cpu_bfloat16=False)
    found = [machine.bfloat16(torch.device(name)) for name in ("cuda:0", "cuda:1", "cuda", "cpu")]
    assert found == [True, False, True, False]
    assert machine.gpu(torch.device("cuda:7")) is None
    assert machine.device.type == "cuda" and Machine().device.type == "cpu"


def test_flash_attention_may_come_from_the_hub() -> None:
    machine = replace(WHOLE, flash_attention=False, hub_kernels=True)
    assert why_no_flash_attention(model(), machine, A100) is None


def test_this_machine_is_as_torch_says() -> None:
    machine = this_machine()
    assert len(machine.gpus) == torch.cuda.device_count()
    assert machine.torch_version == torch.__version__ and machine.bitsandbytes != "absent"
    wide = compute_dtype(ModelSpec()) == torch.float32
    assert wide != machine.cpu_bfloat16
    if not machine.gpus:
        assert "torch" in why_no_gpu(machine) or "driver" in why_no_gpu(machine)


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("NCCL error: unhandled cuda error: Cuda failure 2 'out of memory'"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_known_by_type_or_words(error: Exception, memory: bool) -> None:
    assert is_out_of_memory(error) is memory

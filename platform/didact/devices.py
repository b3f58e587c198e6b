"""What computes on this machine, and which settings it cannot do. The one place that asks torch for its devices.

    this_machine() -> Machine: its GPUs, driver and packages
    check_base(ModelSpec, Machine, on_gpu=) -> nothing, or DeviceError with the field to change

Example:
    >>> from didact.devices import check_base, this_machine
    >>> from didact.spec import ModelSpec
    >>> check_base(ModelSpec(), this_machine(), on_gpu=False)
"""

import ctypes
import functools
import importlib.util
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from didact import env
from didact.errors import DeviceError
from didact.spec import ModelSpec

if TYPE_CHECKING:
    import torch  # where it is used it is imported there: plans that were made before are shown without it

_GIB = 2**30
_ADVICE = " If reserved but unallocated memory"  # torch goes on with settings that nothing here has a use for
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")  # NVIDIA's, under Windows, AMD's
_AMPERE, _TURING, _VOLTA = (8, 0), (7, 5), (7, 0)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU."""

    name: str
    """As its driver says, such as `NVIDIA A100-SXM4-40GB`."""
    capability: tuple[int, int]
    """Compute capability; 8.0 is Ampere (A100), 9.0 Hopper (H100)."""
    memory_gib: float

    @property
    def bfloat16(self) -> bool:
        """Whether its matrix units compute in bfloat16. Older ones have it emulated, slower than float32."""
        return self.capability >= _AMPERE

    def __str__(self) -> str:
        return f"{self.name} (compute capability {_dotted(self.capability)})"


@dataclass(frozen=True, slots=True)
class Machine:
    """What a process finds on its machine."""

    gpus: tuple[Gpu, ...] = ()
    """Those that torch computes on in this process, by index."""
    memory_gib: float = 0.0
    """Main memory."""
    cpu_bfloat16: bool = False
    """The processor has instructions for bfloat16."""
    torch_version: str = ""
    """Version of torch."""
    torch_cuda: str | None = None
    """CUDA that torch was built with; None for a build without."""
    architectures: tuple[str, ...] = ()
    """GPUs that torch has kernels for: `sm_80` for 8.0 to 8.x, `compute_90` for 9.0 and all later ones."""
    driver_cuda: tuple[int, int] | None = None
    """Newest CUDA that the NVIDIA driver runs; None without a driver."""
    visible: str | None = None
    """`CUDA_VISIBLE_DEVICES`; None when it is not set."""
    bitsandbytes: Literal["absent", "cpu", "gpu"] = "absent"
    """What the installed bitsandbytes has a library for."""
    flash_attention: bool = False
    """The package flash_attn is installed."""
    hub_kernels: bool = False
    """The package kernels is installed, from which transformers gets flash attention otherwise."""
    triton: bool = False
    """The package triton is installed, which `torch.compile` needs on a GPU."""
    cpp_compiler: bool = False
    """A C++ compiler is installed, which `torch.compile` needs on a processor."""

    @property
    def device(self) -> "torch.device":
        """Where a process that was told nothing computes: on the first GPU, else on the processor."""
        import torch

        return torch.device("cuda" if self.gpus else "cpu")

    def gpu(self, device: "torch.device") -> Gpu | None:
        """The GPU of that index (default the first); None for a processor, or where there is none."""
        index = device.index or 0
        return self.gpus[index] if device.type == "cuda" and index < len(self.gpus) else None

    def bfloat16(self, device: "torch.device") -> bool:
        """Whether that device computes in bfloat16."""
        gpu = self.gpu(device)
        return gpu.bfloat16 if gpu else self.cpu_bfloat16


@functools.cache
def this_machine() -> Machine:
    """The machine that this process runs on. Starts CUDA where there is any, so not before a process is forked."""
    import torch

    gpus = []
    for index in range(num_gpus()):
        found = torch.cuda.get_device_properties(index)
        gpus.append(Gpu(found.name, (found.major, found.minor), found.total_memory / _GIB))
    features = torch.cpu.get_capabilities()
    return Machine(
        gpus=tuple(gpus),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB,
        cpu_bfloat16=any(features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16")),
        torch_version=torch.__version__,
        torch_cuda=torch.version.cuda,
        architectures=tuple(torch.cuda.get_arch_list()),
        driver_cuda=_driver_cuda(),
        visible=env.visible_gpus(),
        bitsandbytes=_bitsandbytes(),
        flash_attention=_installed("flash_attn"),
        hub_kernels=_installed("kernels"),
        triton=_installed("triton"),
        cpp_compiler=shutil.which(env.cpp_compiler()) is not None,
    )


def cpu_capability() -> str:
    """The instructions that torch computes with on this processor, such as `AVX2`: others round otherwise."""
    import torch

    return torch.backends.cpu.get_cpu_capability()


def num_gpus() -> int:
    """How many GPUs torch computes on here; unlike `this_machine` it starts nothing on them."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def sees_gpu() -> bool:
    """Whether torch computes on a GPU here. Where no driver has made a device, torch is not loaded to find out."""
    return any(Path(each).exists() for each in _GPU_DEVICES) and num_gpus() > 0


def memory_of_a_worker(nodes: Sequence[Mapping[str, float]] | None, *, on_gpu: bool, gpus: float = 1) -> float | None:
    """GiB of what a worker computes on; None where Ray does not say, as of a cluster's GPUs.

    Args:
        nodes: resources of a cluster's nodes, as Ray names them; None for this machine.
        on_gpu: whether it computes on one.
        gpus: of a worker.
    """
    if nodes is None:
        machine = this_machine()
        return machine.gpus[0].memory_gib * gpus if on_gpu and machine.gpus else machine.memory_gib
    given = [] if on_gpu else [node["memory"] / 2**30 for node in nodes if node.get("memory")]
    return max(given, default=None)


def processor() -> str:
    """The kind of processor and what it can, as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = {line.partition(":")[0].strip(): line for line in lines}
    found = [named[key] for key in ("model name", "flags", "Features") if key in named]
    return "\n".join(found) or platform.processor()


def why_no_gpu(machine: Machine) -> str:
    """Why torch computes on no GPU here, and what to do."""
    driver = machine.driver_cuda
    if machine.torch_cuda is None:
        seen = f", though the NVIDIA driver runs CUDA {_dotted(driver)}" if driver else ""
        return f"torch {machine.torch_version} is a build without CUDA{seen}; install a build with it"
    if driver is None:
        return "there is no NVIDIA driver (libcuda.so.1); install one"
    if driver[0] < int(machine.torch_cuda.split(".")[0]):
        return (
            f"the NVIDIA driver is too old: it runs CUDA {_dotted(driver)}, and torch {machine.torch_version} is built "
            f"for CUDA {machine.torch_cuda}; update the driver, or install a torch built for CUDA {driver[0]}"
        )
    if machine.visible is not None:
        return f"CUDA_VISIBLE_DEVICES is {machine.visible!r}, and torch can use none of these; see `nvidia-smi -L`"
    return "the NVIDIA driver names none; see `nvidia-smi -L`"


def check_base(model: ModelSpec, machine: Machine, *, on_gpu: bool, index: int = 0) -> None:
    """Nothing, where a base can be held and computed with as `model` says.

    Args:
        model: the base and how it is held.
        machine: where.
        on_gpu: on a GPU, else on the processor.
        index: of the GPU.

    Raises:
        DeviceError: what cannot be, and the field to change.
    """
    gpu = _usable_gpu(machine, index) if on_gpu else None
    if gpu and model.dtype == "bfloat16" and not gpu.bfloat16:
        raise DeviceError(
            f"model.dtype is bfloat16, which {gpu} does not compute in (8.0 and later do); set model.dtype to float16, "
            "or to float32, which auto takes there"
        )
    if model.quantization is not None:
        _check_bitsandbytes(model.quantization.bits, machine, gpu)
    if model.attention == "flash_attention_2" and (reason := why_no_flash_attention(model, machine, gpu)):
        raise DeviceError(f"model.attention is flash_attention_2, but {reason}; set it to auto")


def check_compile(machine: Machine, *, on_gpu: bool, index: int = 0) -> None:
    """Nothing, where `training.compile` has the compiler it needs.

    Raises:
        DeviceError: it has not.
    """
    gpu = _usable_gpu(machine, index) if on_gpu else None
    if gpu is None:
        reason = "" if machine.cpp_compiler else f"there is no C++ compiler ({env.cpp_compiler()}, or another in CXX)"
    elif gpu.capability < _VOLTA:
        reason = f"triton makes kernels for compute capability 7.0 and later, and this is {gpu}"
    else:
        reason = "" if machine.triton else "the package triton is not installed"
    if reason:
        raise DeviceError(f"training.compile is true, but {reason}; set it to false")


def why_no_flash_attention(model: ModelSpec, machine: Machine, gpu: Gpu | None) -> str | None:
    """Why `flash_attention_2` cannot be had for this base, or None when it can."""
    if gpu is None:
        return "it computes on GPUs only"
    if not machine.flash_attention and not machine.hub_kernels:
        return "the package flash-attn is not installed"
    if gpu.capability < _AMPERE:
        return f"it needs compute capability 8.0 or later, and this is {gpu}"
    return "it computes in bfloat16 and float16, and model.dtype is float32" if model.dtype == "float32" else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up, of the machine or of a GPU, whichever library says it."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in words for sign in _NO_MEMORY)


def memory_words(error: BaseException, device: "torch.device") -> str:
    """What a library says of memory that is used up, in one line, after what there is.

    Args:
        error: one that `is_out_of_memory`.
        device: where the worker computes.
    """
    machine = this_machine()
    gpu = machine.gpu(device)
    there = f"{gpu.name} with {gpu.memory_gib:.1f} GiB" if gpu else f"a machine with {machine.memory_gib:.1f} GiB"
    said = " ".join(str(error).split()).partition(_ADVICE)[0]
    return f"out of memory on {there}: {said or type(error).__name__}"


# What libraries say where they have no type for it: torch's CPU allocator, CUDA, cuBLAS, NCCL.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "status_alloc_failed")


def _usable_gpu(machine: Machine, index: int) -> Gpu:
    if not machine.gpus:
        raise DeviceError(f"a GPU is asked for, but torch finds none: {why_no_gpu(machine)}")
    gpu = machine.gpus[index]
    if not machine.architectures or any(_runs(each, gpu.capability) for each in machine.architectures):
        return gpu
    raise DeviceError(
        f"torch {machine.torch_version} has no kernels for {gpu}, only for {', '.join(machine.architectures)}; install "
        "a torch build that has, or hide the GPU with CUDA_VISIBLE_DEVICES="
    )


def _runs(architecture: str, capability: tuple[int, int]) -> bool:
    """Machine code runs on later GPUs of its generation, intermediate code on all later ones."""
    kind, _, number = architecture.partition("_")
    digits = number.rstrip("af")
    if not digits.isdigit():
        return True  # not NVIDIA's
    made_for = (int(digits[:-1]), int(digits[-1]))
    return made_for <= capability and (kind == "compute" or made_for[0] == capability[0])


def _check_bitsandbytes(bits: int, machine: Machine, gpu: Gpu | None) -> None:
    if machine.bitsandbytes == "absent":
        raise DeviceError("model.quantization needs the package bitsandbytes, which is not installed")
    if gpu is None:
        return
    if machine.bitsandbytes != "gpu":
        raise DeviceError(
            f"model.quantization: the installed bitsandbytes has no library for CUDA {machine.torch_cuda} that can be "
            "loaded (`python -m bitsandbytes` says why); install one that has, or remove model.quantization"
        )
    if bits == 8 and gpu.capability < _TURING:
        raise DeviceError(
            f"model.quantization.bits is 8, whose kernels need compute capability 7.5 or later, and this is {gpu}; set "
            "it to 4"
        )


def _bitsandbytes() -> Literal["absent", "cpu", "gpu"]:
    try:
        from bitsandbytes.cextension import lib
    except ImportError:
        return "absent"
    return "gpu" if lib.compiled_with_cuda else "cpu"


def _driver_cuda() -> tuple[int, int] | None:
    """Asked of the driver itself: torch's builds without CUDA do not know, others refuse to say when it is too old."""
    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except OSError:
        return None
    return None if failed else (version.value // 1000, version.value % 1000 // 10)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _dotted(version: tuple[int, int] | None) -> str:
    return ".".join(map(str, version or ()))

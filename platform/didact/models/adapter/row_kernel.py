"""LoRA of each row's own adapter in one pass over the adapters' weights, on processors: compiled C++, built once.

A step of generation gives a layer one token a row. As batched products (`RowSlots`' plain way, the twin of this one)
that is as many matrix products of one row as there are adapters, and the price of each product is many times that of
its arithmetic, above all in bfloat16. The kernel's price is that of reading the weights.
"""

import ctypes
import functools
import hashlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from didact import env
from didact.cache import new_file
from didact.logs import get_logger

_log = get_logger(__name__)
_FLAGS = {
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-DLANES=16"),
    "AVX2": ("-mavx2", "-mfma", "-DLANES=8"),
}
"""By what torch computes with here, so that an order to do with less than the processor has holds for both."""
_ENTRIES = {torch.float32: "add_float32", torch.bfloat16: "add_bfloat16"}
_MOST_TOKENS = {torch.float32: 4096, torch.bfloat16: 32}
"""Tokens of one adapter up to which the kernel was measured to be faster than torch's products."""
_MOST_SECONDS = 60
_PRODUCTS_A_THREAD = 2**18
"""Fewer take a thread less time than waking another; where others use the cores, waiting for it takes milliseconds."""


class _Layer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("inputs", "outputs", "rank", "most_rank")]


class _Batch(ctypes.Structure):
    _fields_ = [(name, ctypes.POINTER(ctypes.c_int64)) for name in ("slots", "starts", "rows")] + [
        (name, ctypes.c_int64) for name in ("groups", "length", "threads")
    ]


class _Call(ctypes.Structure):
    _fields_ = [("first", ctypes.c_void_p), ("second", ctypes.c_void_p), ("layer", _Layer), ("batch", _Batch)]


class RowGroups:
    """Which rows of a batch have which slot, as the kernel reads it."""

    def __init__(self, groups: Mapping[int, Sequence[int]]) -> None:
        """Rows by slot; rows of the base are in none."""
        starts = [0]
        for rows in groups.values():
            starts.append(starts[-1] + len(rows))
        self.most_rows = max(map(len, groups.values()))
        self.batch = _Batch(
            _array(list(groups)), _array(starts), _array([row for rows in groups.values() for row in rows]), len(groups)
        )


class Addition:
    """What one layer adds in steps of one batch, with all that stays the same from step to step worked out.

    A step makes some hundred calls, and what Python looks at in each of them has left the processor's cache since the
    last: as long as reading the adapters themselves took, before it was looked at once.
    """

    __slots__ = ("_add", "_call", "_dtype", "_held", "_shape")

    def __init__(self, add: Any, dtype: torch.dtype, shape: torch.Size, call: _Call, held: tuple[Any, ...]) -> None:
        self._add, self._dtype, self._shape = add, dtype, shape
        self._call, self._held = ctypes.byref(call), held

    def __call__(self, states: torch.Tensor, output: torch.Tensor) -> bool:
        """Add in place, or do nothing and say so where the tensors are not of the kind that this was made for."""
        dtype = self._dtype
        if states.shape != self._shape or states.dtype is not dtype or output.dtype is not dtype:
            return False
        if not (states.is_contiguous() and output.is_contiguous()):
            return False
        self._add(states.data_ptr(), output.data_ptr(), self._call)
        return True


class RowKernel:
    """The compiled kernel for one number format."""

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._most_rank = library.most_rank()
        self._add = getattr(library, _ENTRIES[dtype])
        self._add.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(_Call)]
        self._add.restype = None

    def takes(self, states: torch.Tensor, output: torch.Tensor, rank: int, groups: RowGroups) -> bool:
        """Whether the kernel computes this, and no slower than torch."""
        fits = states.dtype == output.dtype == self._dtype and states.is_contiguous() and output.is_contiguous()
        return fits and rank <= self._most_rank and groups.most_rows * states.shape[1] <= _MOST_TOKENS[self._dtype]

    def addition(
        self,
        states: torch.Tensor,
        first: torch.Tensor,
        second: torch.Tensor,
        rank: int,
        groups: RowGroups,
        entered: torch.Size | None = None,
    ) -> Addition:
        """What adds B A x of each row's adapter to the layer's output, [rows x length, outputs] or a view of it.

        Args:
            states: [rows, length, inputs], of which only the shape counts.
            first: A of all slots, [slots, most rank, inputs].
            second: B of all slots, transposed and with the scaling in it, [slots, most rank, outputs].
            rank: the largest that is in use; the rest of a slot is 0.
            groups: the rows' slots.
            entered: the shape in which the layer gets the states, where it is another.
        """
        layer = _Layer(first.shape[2], second.shape[2], rank, first.shape[1])
        products = states.shape[0] * states.shape[1] * rank * (layer.inputs + layer.outputs)
        call = _Call(first.data_ptr(), second.data_ptr(), layer, groups.batch)
        call.batch.length, call.batch.threads = states.shape[1], threads_for(products, torch.get_num_threads())
        return Addition(self._add, self._dtype, entered or states.shape, call, (call, first, second, groups))


def threads_for(products: int, available: int) -> int:
    """How many of the available threads are worth so many products of two numbers."""
    return max(1, min(available, products // _PRODUCTS_A_THREAD))


def row_kernel(device: torch.device, dtype: torch.dtype) -> RowKernel | None:
    """The kernel for tensors of a kind; None where there is none, or no compiler to build it."""
    if device.type != "cpu" or dtype not in _ENTRIES:
        return None
    library = _library(torch.backends.cpu.get_cpu_capability())
    return RowKernel(library, dtype) if library is not None else None


@functools.cache
def _library(capability: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(_built(capability)))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or error
        _log.warning("adapters of many rows are computed without a kernel of their own: %s", str(said).strip())
        return None


def _built(capability: str) -> Path:
    """The library in the cache, compiled where it is not there."""
    source = resources.files("didact.models.adapter") / "row_kernel.cpp"
    command = [env.cpp_compiler(), "-O3", "-std=c++17", "-shared", "-fPIC", "-Wno-psabi", *_FLAGS.get(capability, ())]
    if platform.system() == "Linux":
        command.append("-fopenmp")  # one pool of threads with torch, which brings the same library
    decides = "\n".join([source.read_text(encoding="utf-8"), *command, platform.machine(), platform.system()])
    path = env.cache_dir() / "kernels" / f"{hashlib.sha256(decides.encode()).hexdigest()[:16]}.so"
    if not path.is_file():
        with resources.as_file(source) as code, new_file(path) as beside:
            subprocess.run(
                [*command, str(code), "-o", str(beside)],
                check=True,
                capture_output=True,
                text=True,
                timeout=_MOST_SECONDS,
            )
    return path


def _array(numbers: Sequence[int]) -> "ctypes.Array[ctypes.c_int64]":
    return (ctypes.c_int64 * len(numbers))(*numbers)

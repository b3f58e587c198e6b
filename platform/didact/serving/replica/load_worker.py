"""`ServeSpec` -> a worker with its base in memory."""

import torch
from transformers import PreTrainedTokenizerBase

from didact import env
from didact.devices import is_out_of_memory, memory_words, this_machine
from didact.errors import ModelTooLarge
from didact.logs import get_logger
from didact.models import (
    AdapterHost,
    base_fingerprint,
    base_folder,
    check_stored,
    compute_dtype,
    load_base,
    load_tokenizer,
)
from didact.registry import Registry
from didact.serving.engine.embedded import EmbeddedEngine
from didact.serving.engine.on_vllm import start_vllm
from didact.serving.engine.protocol import Engine
from didact.serving.replica.adapter_store import AdapterStore
from didact.serving.replica.assemble import base_name, tracking_uri
from didact.serving.replica.worker import Worker
from didact.spec import ServeSpec

_log = get_logger(__name__)


def build_worker(spec: ServeSpec, num_threads: int | None = None, *, on_gpu: bool = False) -> Worker:
    """Load the base on the GPU if this process has one, else on the CPU, and start an engine on it.

    Args:
        spec: the application's arguments.
        num_threads: threads for matrix products where the spec does not say.
        on_gpu: a GPU was reserved, so the CPU will not do.

    Raises:
        DeviceError: there is no GPU, or the device cannot hold or compute the base as the spec says; or vLLM is not
            installed or cannot run here.
        ModelError: the base cannot be found or loaded.
        ModelTooLarge: it takes more memory than there is.
    """
    threads = spec.num_threads or num_threads
    if threads:
        torch.set_num_threads(threads)
    device = "cuda" if on_gpu else this_machine().device.type
    check_stored(spec.model)
    fingerprint, tokenizer = base_fingerprint(spec.model), load_tokenizer(spec.model)
    build = _vllm if spec.engine == "vllm" else _embedded
    engine = build(spec, tokenizer, fingerprint, device, threads)
    _log.info("base %s is in memory on %s", base_name(spec), device)
    store = AdapterStore(Registry(tracking_uri(spec)), env.cache_dir())
    return Worker(engine, tokenizer, store, fingerprint, base_name(spec), spec.max_waiting)


def _vllm(
    spec: ServeSpec, tokenizer: PreTrainedTokenizerBase, fingerprint: str, device: str, threads: int | None
) -> Engine:
    on_gpu = device == "cuda"
    dtype = str(compute_dtype(spec.model, device)).removeprefix("torch.")
    folder = base_folder(spec.model)
    return start_vllm(spec, folder, tokenizer, fingerprint, dtype=dtype, on_gpu=on_gpu, num_threads=threads)


def _embedded(
    spec: ServeSpec, tokenizer: PreTrainedTokenizerBase, fingerprint: str, device: str, threads: int | None
) -> Engine:
    try:
        base = load_base(spec.model, device, shared=True)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        words = memory_words(error, torch.device(device))
        raise ModelTooLarge(f"base {base_name(spec)} is {words}; set model.quantization, or a smaller base") from error
    return EmbeddedEngine(
        AdapterHost(base, fingerprint),
        tokenizer,
        max_adapters=spec.max_adapters,
        max_batch_size=spec.max_batch_size,
        max_waiting=spec.max_waiting,
        cache_bytes=None if spec.cache_gib is None else int(spec.cache_gib * 2**30),
        prompt_lookup_tokens=spec.prompt_lookup_tokens,
    )

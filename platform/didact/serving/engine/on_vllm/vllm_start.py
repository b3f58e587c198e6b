"""`ServeSpec` -> a vLLM that runs and was found to keep rows apart."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from didact.errors import DeviceError
from didact.serving.engine.on_vllm.vllm_engine import VllmEngine
from didact.serving.engine.on_vllm.vllm_link import VllmLink
from didact.serving.engine.on_vllm.vllm_proof import prove_rows_apart
from didact.spec import ServeSpec

_CPU_CACHE_GIB = 4.0


def start_vllm(
    spec: ServeSpec,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    base_fingerprint: str,
    *,
    dtype: str,
    on_gpu: bool,
    num_threads: int | None = None,
) -> VllmEngine:
    """Start vLLM in its own environment and prove that it computes what the API promises. Takes a minute and more.

    Args:
        spec: the application's arguments.
        folder: the base, in Hugging Face form.
        tokenizer: makes text of tokens.
        base_fingerprint: of the base.
        dtype: what the base computes in, by torch's name.
        on_gpu: whether this replica has one.
        num_threads: for matrix products on a processor.

    Raises:
        DeviceError: vLLM is not installed, cannot run on this machine, or computes something else.
    """
    settings = engine_settings(spec, str(folder), dtype, on_gpu=on_gpu)
    variables = engine_variables(num_threads, on_gpu=on_gpu)
    link = VllmLink(spec.vllm.python, settings, variables, spec.vllm.start_timeout_seconds)
    engine = VllmEngine(
        link,
        tokenizer,
        base_fingerprint,
        max_lora_rank=spec.vllm.max_lora_rank,
        max_adapters=spec.max_adapters,
        max_batch_size=spec.max_batch_size,
        max_waiting=spec.max_waiting,
    )
    try:
        prove_rows_apart(engine, folder, settings["max_loras"])
    except BaseException:
        engine.close()
        raise
    return engine


def engine_variables(num_threads: int | None, *, on_gpu: bool) -> Mapping[str, str]:
    """For the environment of vLLM's processes, where the user has not set them."""
    threads = {} if num_threads is None else {"OMP_NUM_THREADS": str(num_threads)}
    # By itself it would bind its threads to the machine's first cores, in every replica to the same ones.
    bound = {} if on_gpu else {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", **bound, **threads}


def engine_settings(spec: ServeSpec, folder: str, dtype: str, *, on_gpu: bool) -> dict[str, Any]:
    """Fields of vLLM's `AsyncEngineArgs` for a serve file.

    Args:
        spec: the application's arguments.
        folder: the base, in Hugging Face form.
        dtype: what it computes in.
        on_gpu: whether this replica has one.

    Raises:
        DeviceError: GPUs are asked for that a processor cannot stand in for.
    """
    chosen = spec.vllm
    if chosen.tensor_parallel_size > 1 and not on_gpu:
        raise DeviceError(f"vllm.tensor_parallel_size is {chosen.tensor_parallel_size}, and this replica has no GPU")
    cache = chosen.cache_gib if chosen.cache_gib or on_gpu else _CPU_CACHE_GIB
    return {
        "model": folder,
        "dtype": dtype,
        "trust_remote_code": spec.model.trust_remote_code,
        "max_model_len": chosen.max_context_length,
        "scheduling_policy": "priority",
        "max_num_seqs": spec.max_batch_size,
        "tensor_parallel_size": chosen.tensor_parallel_size,
        "gpu_memory_utilization": chosen.gpu_memory_utilization,
        "kv_cache_memory_bytes": None if cache is None else int(cache * 2**30),
        "enable_prefix_caching": chosen.prefix_cache,
        "enforce_eager": not (chosen.compile and on_gpu),
        "enable_lora": True,
        "max_lora_rank": chosen.max_lora_rank,
        # One place more than is used: for the adapter that changes nothing, where rows of the base need it.
        "max_loras": spec.max_adapters + 1,
        # vLLM may hold versions on their way in and out beside those in use, and never drops one by itself.
        "max_cpu_loras": 2 * spec.max_adapters + 4,
        "disable_log_stats": True,
    }

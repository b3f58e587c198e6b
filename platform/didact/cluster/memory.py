"""What a worker that runs out of memory says, and what the driver adds: what to lower, and what the estimate was."""

import torch

from didact.devices import this_machine
from didact.errors import ModelTooLarge, OutOfMemory
from didact.spec import FinetuneSpec, FullSpec, PartialSpec

_ADVICE = " If reserved but unallocated memory"  # torch goes on with settings that the loop has no use for


def memory_words(error: BaseException, device: torch.device) -> str:
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


def final_word(error: OutOfMemory, cause: str, spec: FinetuneSpec, estimate: str, *, on_gpu: bool) -> OutOfMemory:
    """The error that ends a run for want of memory.

    Args:
        error: of the last attempt.
        cause: it in a line.
        spec: the recipe, with the micro-batch of the last attempt.
        estimate: of one worker's memory in that attempt, in words.
        on_gpu: where the workers computed.
    """
    loading = isinstance(error, ModelTooLarge)
    batch = f"with training.micro_batch_size {spec.training.micro_batch_size}"
    found = "the model itself does not fit" if loading else f"{batch} a worker still needs more memory than it has"
    choices = _smaller(spec, on_gpu=on_gpu, loading=loading)
    return type(error)(f"{cause}; {found}. The estimate was {estimate}. Set {', or '.join(choices)}")


def _smaller(spec: FinetuneSpec, *, on_gpu: bool, loading: bool) -> list[str]:
    """Settings that need less memory, those that cost least first."""
    training, sharding, choices = spec.training, spec.training.sharding, []
    if not loading:
        if training.micro_batch_size > 1:
            choices.append("training.micro_batch_size to 1")
        if not training.gradient_checkpointing and not spec.adapter.no_gradient_checkpointing:
            choices.append("training.gradient_checkpointing to true")
        choices.append(f"tokens.max_length below {spec.tokens.max_length}")
    whole = isinstance(spec.adapter, FullSpec | PartialSpec)
    if spec.model.quantization is None and not whole and 4 not in spec.adapter.no_quantization:
        choices.append("model.quantization to {bits: 4}")
    if not sharding.cuts_weights and "fsdp" not in spec.adapter.no_sharding:
        choices.append("training.sharding.strategy to fsdp over more workers")
    elif on_gpu and not sharding.cpu_offload:
        choices.append("training.sharding.cpu_offload to true")
    return choices or ["model.base to a smaller one"]

"""What the driver says of a worker that ran out of memory: what was estimated and what to lower."""

from didact.errors import ModelTooLarge, OutOfMemory
from didact.spec import FinetuneSpec, FullSpec, PartialSpec


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

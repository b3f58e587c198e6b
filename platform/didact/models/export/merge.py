"""Fold an adapter into its base, for engines that know nothing of adapters."""

from collections import Counter
from pathlib import Path

import torch
from transformers import AutoConfig

from didact.errors import AdapterError, ModelError
from didact.files import write_json
from didact.models.adapter.adapter_files import AdapterFacts, verify_adapter
from didact.models.base.description import load_tokenizer
from didact.models.base.load import base_fingerprint, base_folder, checkpoint_quantization
from didact.models.export.folder import Manners, write_config, write_manners
from didact.models.export.hollow import hollow_model
from didact.models.export.proof import MergeProof, golden_prompts, prove
from didact.models.export.stream import MergedWeights
from didact.models.model_folder import check_output, new_model_folder
from didact.models.weight_files import ShardWriter
from didact.spec import LimitsSpec, MergeSpec, ModelSpec

_GIB = 2**30
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def merge_adapter(
    spec: ModelSpec,
    adapter: Path,
    output: Path,
    settings: MergeSpec | None = None,
    *,
    manners: Manners | None = None,
    device: str = "cpu",
) -> MergeProof:
    """Write base + adapter as one Hugging Face folder, with the proof that it computes the same.

    Merging holds one weight file and the adapter in memory. The proof then runs base + adapter and the merged model,
    one after the other, in float32.

    Args:
        spec: the base. A quantization is that of the training, where the adapter does not say it itself.
        adapter: folder of a method that is linear in the base's weights, or of `partial`.
        output: folder to write, which must not exist.
        settings: number format, which weights, limits; default: `MergeSpec()`.
        manners: how the model wants to be asked; None keeps the base's own.
        device: where the proof computes.

    Raises:
        AdapterError: damaged, of another base, or a method that has no weights to merge.
        ModelError: the result is past the limits, or the base's weights are packed by GPTQ, AWQ and the like, or
            `output` exists.
    """
    check_output(output, adapter, Path(spec.base))
    settings = settings or MergeSpec()
    facts = verify_adapter(adapter, base_fingerprint(spec))
    reference = spec.model_copy(update={"quantization": facts.quantization or spec.quantization, "dtype": "float32"})
    _check_mergeable(reference, facts, adapter, settings)
    tokenizer = load_tokenizer(spec)
    with new_model_folder(output) as scratch:
        dtype = _write_weights(reference, facts, adapter, scratch, settings)
        write_manners(scratch, tokenizer, manners, base_folder(spec))
        prompts = golden_prompts(tokenizer, manners.prompts if manners else ())
        limits = _limits(reference, settings, dtype)
        proof = prove(reference, adapter, scratch, prompts, limits, settings, device)
        proof.check(adapter)
        write_json(scratch / "proof.json", _record(facts, reference, settings, dtype, proof))
    return proof


def _check_mergeable(reference: ModelSpec, facts: AdapterFacts, adapter: Path, settings: MergeSpec) -> None:
    if packed := checkpoint_quantization(reference):
        raise ModelError(
            f"model.base {reference.base!r} holds its weights packed by {packed}, which no adapter can be folded into; "
            "serve the adapter live, or merge it into the unpacked base it was made from"
        )
    if facts.bound and settings.weights == "original":
        raise AdapterError(
            f"adapter {adapter} was started with LoftQ and makes up for the quantization of its base, which the "
            "original weights do not have; set weights to 'trained'"
        )


def _write_weights(
    reference: ModelSpec, facts: AdapterFacts, adapter: Path, folder: Path, settings: MergeSpec
) -> torch.dtype:
    """The merged weights and their configuration; returns the number format of most of them."""
    source = base_folder(reference)
    config = AutoConfig.from_pretrained(source, trust_remote_code=reference.trust_remote_code)
    model = hollow_model(config, trust_remote_code=reference.trust_remote_code)
    weights = MergedWeights(
        model,
        adapter,
        partial=facts.method == "partial",
        quantization=reference.quantization if settings.weights == "trained" else None,
    )
    writer = ShardWriter(folder, settings.shard_gib * _GIB)
    sizes: Counter[torch.dtype] = Counter()
    for name, tensor, own in weights.of(source):
        dtype = _DTYPES.get(settings.dtype, own) if own.is_floating_point else own
        written = tensor.to(dtype)
        if not torch.isfinite(written).all():
            raise ModelError(f"merging {adapter} makes {name} infinite in {dtype}; set dtype to bfloat16 or float32")
        sizes[dtype] += written.numel()
        writer.add(name, written)
    writer.close()
    dtype = sizes.most_common(1)[0][0]
    write_config(folder, model, dtype, weights.untied, source)
    return dtype


def _limits(reference: ModelSpec, settings: MergeSpec, dtype: torch.dtype) -> LimitsSpec:
    quantization = reference.quantization
    # An 8-bit base also rounds what flows between its layers, which no written weights can repeat.
    if quantization is not None and (quantization.bits == 8 or settings.weights == "original"):
        return settings.quantized
    return settings.exact if dtype is torch.float32 else settings.rounded


def _record(
    facts: AdapterFacts, reference: ModelSpec, settings: MergeSpec, dtype: torch.dtype, proof: MergeProof
) -> dict[str, object]:
    quantization = reference.quantization
    return {
        "base": facts.base,
        "base_fingerprint": facts.base_fingerprint,
        "adapter_sha256": facts.sha256,
        "method": facts.method,
        "quantization_in_training": quantization.model_dump() if quantization else None,
        "merged_into": settings.weights if quantization else "original",
        "dtype": str(dtype).removeprefix("torch."),
        "compared_with_base_and_adapter": proof.to_plain(),
    }

"""Fold an adapter into its base, for engines that know nothing of adapters."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from didact.errors import AdapterError, ModelError
from didact.files import new_folder, write_json
from didact.models.adapter_files import WEIGHTS, verify_adapter
from didact.models.base import base_fingerprint, load_base, load_tokenizer
from didact.models.methods import fit_to_base, register_bottleneck, swapped_in
from didact.spec import ModelSpec

_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class MergeProof:
    """How far the merged weights are from base + adapter, on one probe prompt, in float32."""

    max_logit_difference: float
    top1_agreement: float
    """Share of positions where both pick the same next token."""


def merge_adapter(spec: ModelSpec, adapter: Path, output: Path, contract_file: str | None = None) -> MergeProof:
    """Write base + adapter as one Hugging Face folder in float32, after proving that both compute the same.

    Args:
        spec: the base; its quantization is ignored, merging needs full weights.
        adapter: folder of a method that is linear in the base's weights, or of `partial`.
        output: folder to write.
        contract_file: file of the adapter folder to carry along (the template contract).

    Raises:
        AdapterError: damaged, of another base, or a method that has no weights to merge.
        ModelError: merged and unmerged logits differ by more than 1e-3.
    """
    full = spec.model_copy(update={"quantization": None, "dtype": "float32"})
    facts = verify_adapter(adapter, base_fingerprint(full))
    tokenizer = load_tokenizer(full)
    probe = _probe(tokenizer)
    base = load_base(full)
    if facts.method == "partial":
        merged, before = _put_in(base, adapter, probe)
    else:
        merged, before = _fold(base, adapter, probe)
    with torch.inference_mode():
        after = merged(input_ids=probe).logits
    proof = MergeProof(
        max_logit_difference=(before - after).abs().max().item(),
        top1_agreement=(before.argmax(-1) == after.argmax(-1)).float().mean().item(),
    )
    if not proof.max_logit_difference <= _TOLERANCE:
        raise ModelError(
            f"merging {adapter} changed the logits by {proof.max_logit_difference:.2e}; expected at most {_TOLERANCE}"
        )
    with new_folder(output) as scratch:
        merged.save_pretrained(scratch)
        tokenizer.save_pretrained(scratch)
        if contract_file is not None:
            (scratch / contract_file).write_bytes((adapter / contract_file).read_bytes())
        write_json(scratch / "merge.json", {"base": facts.base, "adapter_sha256": facts.sha256, **_proof_json(proof)})
    return proof


def _fold(base: PreTrainedModel, adapter: Path, probe: torch.Tensor) -> tuple[PreTrainedModel, torch.Tensor]:
    """The merged model, and the logits of base + adapter before."""
    register_bottleneck()
    config = PeftConfig.from_pretrained(adapter)
    if config.is_prompt_learning:
        raise AdapterError(f"adapter {adapter} has no weights to merge, only positions before the text; serve it live")
    live = PeftModel.from_pretrained(base, adapter, config=config).eval()
    with torch.inference_mode():
        before = live(input_ids=probe).logits
        try:
            return live.merge_and_unload(), before
        except (ValueError, RuntimeError) as error:
            raise AdapterError(f"adapter {adapter} cannot be merged: {error}; serve it as an adapter") from error


def _put_in(base: PreTrainedModel, adapter: Path, probe: torch.Tensor) -> tuple[PreTrainedModel, torch.Tensor]:
    weights = fit_to_base(base, load_file(adapter / WEIGHTS))
    with torch.inference_mode(), swapped_in(base, weights):
        before = base(input_ids=probe).logits
    with torch.no_grad():
        for name, tensor in weights.items():
            base.get_parameter(name).copy_(tensor)
    return base, before


def _proof_json(proof: MergeProof) -> dict[str, float]:
    return {"max_logit_difference": proof.max_logit_difference, "top1_agreement": proof.top1_agreement}


def _probe(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    text = "Write one sentence about the sea. Then add 17 and 25 and explain each step of the sum."
    return torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])

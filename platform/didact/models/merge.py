"""Fold an adapter into its base, for engines that know nothing of adapters."""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from didact.errors import AdapterError, ModelError
from didact.files import new_folder, write_json
from didact.models.adapter_files import verify_adapter
from didact.models.base import base_fingerprint, load_base, load_tokenizer
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
        adapter: a verified LoRA folder.
        output: folder to write.
        contract_file: file of the adapter folder to carry along (the template contract).

    Raises:
        AdapterError: damaged, of another base, or a method that has no weights to merge.
        ModelError: merged and unmerged logits differ by more than 1e-3.
    """
    full = spec.model_copy(update={"quantization": None, "dtype": "float32"})
    facts = verify_adapter(adapter, base_fingerprint(full))
    if facts.method == "prefix":
        raise AdapterError(f"adapter {adapter} is a prefix: it has no weights to merge; serve it as an adapter")
    tokenizer = load_tokenizer(full)
    live = PeftModel.from_pretrained(load_base(full), adapter).eval()
    probe = _probe(tokenizer)
    with torch.inference_mode():
        before = live(input_ids=probe).logits
        merged = live.merge_and_unload()
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


def _proof_json(proof: MergeProof) -> dict[str, float]:
    return {"max_logit_difference": proof.max_logit_difference, "top1_agreement": proof.top1_agreement}


def _probe(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    text = "Write one sentence about the sea. Then add 17 and 25 and explain each step of the sum."
    return torch.tensor([tokenizer(text, add_special_tokens=False).input_ids])

"""Base models and what is trained on them. The only room that knows PEFT.

    ModelSpec -> load_base -> attach_adapter -> (training) -> save_adapter -> AdapterHost.load -> merge_adapter

Example:
    >>> from didact.models import attach_adapter, load_base
    >>> from didact.spec import LoraSpec, ModelSpec
    >>> model = attach_adapter(load_base(ModelSpec()), LoraSpec(r=8), seed=0, base_name="smollm2-135m-instruct")
"""

from didact.models.adapter import AdapterFacts, AdapterHost, attach_adapter, save_adapter, verify_adapter
from didact.models.base import base_fingerprint, base_folder, compute_dtype, load_base, load_tokenizer
from didact.models.export import Manners, MergeProof, merge_adapter
from didact.models.footprint import Footprint, estimate_footprint, positions_at_once
from didact.models.methods import StepHook, step_hook
from didact.models.model_folder import check_model, save_model
from didact.models.packing import supports_packing, use_packed_attention
from didact.models.repeated import compile_blocks, repeated_blocks

__all__ = [
    "AdapterFacts",
    "AdapterHost",
    "Footprint",
    "Manners",
    "MergeProof",
    "StepHook",
    "attach_adapter",
    "base_fingerprint",
    "base_folder",
    "check_model",
    "compile_blocks",
    "compute_dtype",
    "estimate_footprint",
    "load_base",
    "load_tokenizer",
    "merge_adapter",
    "positions_at_once",
    "repeated_blocks",
    "save_adapter",
    "save_model",
    "step_hook",
    "supports_packing",
    "use_packed_attention",
    "verify_adapter",
]

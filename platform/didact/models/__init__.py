"""Base models and what is trained on them. The only room that knows PEFT.

    ModelSpec -> load_base -> attach_adapter -> (training) -> save_adapter -> AdapterHost.load -> merge_adapter

Example:
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    >>> from didact.models import attach_adapter
    >>> from didact.spec import LoraSpec
    >>> model = attach_adapter(LlamaForCausalLM(config), LoraSpec(r=2), seed=0, base_name="tiny")
    >>> sum(each.numel() for each in model.parameters() if each.requires_grad)
    2176
"""

from typing import TYPE_CHECKING

from didact.faces import lazily
from didact.models.late_compiling import compile_late

if TYPE_CHECKING:
    from didact.models.adapter import (
        AdapterFacts,
        AdapterHost,
        OwnRandom,
        SharedBase,
        Slice,
        attach_adapter,
        check_start,
        save_adapter,
        start_from,
        verify_adapter,
    )
    from didact.models.base import (
        base_fingerprint,
        base_folder,
        base_of,
        check_fits,
        check_stored,
        compute_dtype,
        load_base,
        load_tokenizer,
    )
    from didact.models.dropout import evaluation_mode, turn_off_dropout
    from didact.models.export import Manners, MergeProof, merge_adapter
    from didact.models.fingerprint import weights_digest
    from didact.models.footprint import Footprint, check_method, estimate_footprint, footprint_of, positions_at_once
    from didact.models.methods import StepHook, step_hook
    from didact.models.model_folder import check_model, save_model
    from didact.models.packing import (
        packed_attention_inside,
        row_bounds,
        shares_prefixes,
        supports_packing,
        use_packed_attention,
    )
    from didact.models.repeated import compile_blocks, repeated_blocks, uncompiled

__all__ = [
    "AdapterFacts",
    "AdapterHost",
    "Footprint",
    "Manners",
    "MergeProof",
    "OwnRandom",
    "SharedBase",
    "Slice",
    "StepHook",
    "attach_adapter",
    "base_fingerprint",
    "base_folder",
    "base_of",
    "check_fits",
    "check_method",
    "check_model",
    "check_start",
    "check_stored",
    "compile_blocks",
    "compute_dtype",
    "estimate_footprint",
    "evaluation_mode",
    "footprint_of",
    "load_base",
    "load_tokenizer",
    "merge_adapter",
    "packed_attention_inside",
    "positions_at_once",
    "repeated_blocks",
    "row_bounds",
    "save_adapter",
    "save_model",
    "shares_prefixes",
    "start_from",
    "step_hook",
    "supports_packing",
    "turn_off_dropout",
    "uncompiled",
    "use_packed_attention",
    "verify_adapter",
    "weights_digest",
]

__getattr__ = lazily(__name__)
compile_late()  # before a part of this room imports PEFT

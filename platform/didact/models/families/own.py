"""Our own model classes, made known to transformers' Auto classes when a folder asks for one."""

from transformers import AutoConfig, AutoModelForCausalLM

from didact.models.families.alibi import AlibiLlamaConfig, AlibiLlamaForCausalLM
from didact.models.families.glm6b import Glm6bConfig, Glm6bForCausalLM

_OWN = {
    AlibiLlamaConfig.model_type: (AlibiLlamaConfig, AlibiLlamaForCausalLM),
    Glm6bConfig.model_type: (Glm6bConfig, Glm6bForCausalLM),
}


def register_own_models(model_type: str | None) -> None:
    """Let AutoConfig and AutoModelForCausalLM find our class of this `model_type`; any other is left alone."""
    if model_type in _OWN:
        config, model = _OWN[model_type]
        AutoConfig.register(model_type, config, exist_ok=True)
        AutoModelForCausalLM.register(config, model, exist_ok=True)

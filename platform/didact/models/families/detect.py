"""Which family a folder's config.json belongs to."""

from didact.models.families import baichuan, chatglm2, chatglm6b, internlm, moss
from didact.models.families.family import Config, Family


def family_of(config: Config) -> Family | None:
    """The family to convert with, or None when transformers knows the model itself."""
    match config.get("model_type"):
        case "baichuan":
            return baichuan.ROTARY if "max_position_embeddings" in config else baichuan.ALIBI
        case "internlm":
            return internlm.FAMILY
        case "moss":
            return moss.FAMILY
        case "chatglm":
            return chatglm6b.FAMILY if "inner_hidden_size" in config else chatglm2.FAMILY
    return None

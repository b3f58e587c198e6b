"""Which kinds of model the families are asked about. Apart from them, since they load torch."""

from typing import Any

CONVERTED = ("baichuan", "internlm", "moss", "chatglm")
"""`model_type` of folders that are converted."""
OWN = ("alibi_llama", "glm6b")
"""`model_type` of our classes, which transformers must be told of."""


def is_known(model_type: Any) -> bool:
    """Whether a folder of this `model_type` is converted, or loaded by a class of ours."""
    return model_type in CONVERTED or model_type in OWN

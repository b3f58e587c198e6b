"""Published bases whose folders carry their own modelling code, made native without running that code.

    folder -> family_of(config.json) -> converted once into the cache -> loaded by transformers like any other base

Each family is one file that says three things: its configuration in our terms, what becomes of each tensor, and its
tokenizer. Where transformers has no class that computes the same, a small one is beside it.

Example:
    >>> from didact.models.families import family_of
    >>> family_of({"model_type": "baichuan", "max_position_embeddings": 4096}).name
    'baichuan'
    >>> family_of({"model_type": "llama"}) is None  # transformers knows it
    True
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.models.families.convert import family_of, native_description, native_folder
    from didact.models.families.family import Family

__all__ = ["Family", "family_of", "native_description", "native_folder"]

__getattr__ = lazily(__name__)

"""More tokens for a base: learn pieces on a corpus, give them rows, train these.

    base + corpus -> extend_tokenizer -> add_rows -> a folder with vocabulary.json -> adapter.train_new_tokens

Example:
    >>> from didact.models import load_tokenizer
    >>> from didact.models.vocabulary import extend_tokenizer
    >>> from didact.spec import ModelSpec
    >>> texts = ["\u6c34\u679c\u6c99\u62c9"] * 50
    >>> extended, pieces = extend_tokenizer(load_tokenizer(ModelSpec()), texts, size=2)
    >>> len(pieces)
    2
"""

from didact.models.vocabulary.extend import ExtendedVocabulary, add_rows, extend_vocabulary
from didact.models.vocabulary.facts import VOCABULARY_FILE, new_token_ids
from didact.models.vocabulary.pieces import NewPiece, extend_tokenizer

__all__ = [
    "VOCABULARY_FILE",
    "ExtendedVocabulary",
    "NewPiece",
    "add_rows",
    "extend_tokenizer",
    "extend_vocabulary",
    "new_token_ids",
]

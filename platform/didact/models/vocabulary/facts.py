"""Which tokens of a base are new, as its folder says."""

import json
from pathlib import Path

from didact.errors import ModelError

VOCABULARY_FILE = "vocabulary.json"


def new_token_ids(folder: Path) -> list[int]:
    """Ids of the tokens that `extend_vocabulary` added to the base in `folder`.

    Raises:
        ModelError: the base's vocabulary was not extended.
    """
    file = folder / VOCABULARY_FILE
    if not file.is_file():
        raise ModelError(
            f"adapter.train_new_tokens trains the tokens that `didact vocabulary` adds, but {folder} has no "
            f"{VOCABULARY_FILE}; set model.base to a folder that it wrote, or adapter.train_new_tokens to false"
        )
    facts = json.loads(file.read_text(encoding="utf-8"))
    return list(range(facts["first_id"], facts["first_id"] + facts["num_tokens"]))

"""Whether a base takes the tokens and the lengths of a recipe, known from its configuration before anything runs."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from didact.errors import ModelError
from didact.logs import get_logger
from didact.models.base.description import base_description
from didact.spec import ModelSpec

_LOG = get_logger(__name__)
_TABLE_WORDS = ("pos", "wpe")
_TABLE_SPARE = 2
"""Rows that some families put before the first position."""


def check_fits(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    """Nothing, where a base has a row for each token of its tokenizer and a position for each token of a sample.

    A warning where positions are computed (rotary ones), which goes on past those that the base was trained on.

    Args:
        spec: the base.
        tokenizer: its own.
        max_length: of samples, in tokens.

    Raises:
        ModelError: a token without a row, or more tokens than the base has positions.
    """
    config = json.loads((base_description(spec) / "config.json").read_text(encoding="utf-8"))
    text = next((config[each] for each in ("text_config", "llm_config") if isinstance(config.get(each), dict)), config)
    rows = text.get("vocab_size", config.get("vocab_size"))
    if isinstance(rows, int):
        _check_rows(spec, tokenizer, rows)
    positions = text.get("max_position_embeddings") or text.get("n_positions")
    if not isinstance(positions, int) or max_length <= positions:
        return
    if _has_table(spec, positions):
        raise ModelError(
            f"tokens.max_length is {max_length}, more than the {positions} positions of {spec.base!r}; set "
            f"tokens.max_length to at most {positions}"
        )
    _LOG.warning(
        "tokens.max_length is %d, but %s was trained on %d positions; longer samples are out of what it knows",
        max_length,
        spec.base,
        positions,
    )


def check_stored(spec: ModelSpec) -> None:
    """Nothing, where the weights of a base in a local folder are whole; headers are read, which takes milliseconds.

    Raises:
        ModelError: a file that is missing or cut off, or no weights at all.
    """
    folder = Path(spec.base).expanduser()
    if spec.trust_remote_code or not (folder / "config.json").is_file() or any(folder.glob("*.bin")):
        return
    from didact.models.weight_files import check_weights

    try:
        check_weights(folder)
    except ModelError as error:
        raise ModelError(f"model.base {spec.base!r}: {error}") from error


def _check_rows(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Marks that never come into a text (Gemma 3's for images) may be without a row, as published bases have them."""
    added = {number: token for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    needed = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    template = str(tokenizer.chat_template or "")
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1], reverse=True):
        if number < rows:
            return
        if number not in added or number in needed or token in template:
            raise ModelError(
                f"the tokenizer of {spec.base!r} makes id {number} of {token!r}, but the base has {rows} rows of "
                "embeddings; use the tokenizer it was trained with, or make a base with `didact vocabulary`"
            )


def _has_table(spec: ModelSpec, positions: int) -> bool:
    """Whether positions are looked up in a table, learned or not, rather than computed as they come."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base_description(spec), trust_remote_code=spec.trust_remote_code)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=spec.trust_remote_code)
    return any(
        any(word in f"{prefix}.{name}".lower() for word in _TABLE_WORDS)
        and table.dim() > 1
        and positions <= table.shape[0] <= positions + _TABLE_SPARE
        for prefix, module in model.named_modules()
        if not hasattr(module, "make_weights")  # tables that grow (XGLM)
        for name, table in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
    )

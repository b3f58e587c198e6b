"""What stands beside the weights, so that engines load the model and ask it as it was taught."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from didact.files import write_json

_CONFIG = "config.json"
_GENERATION = "generation_config.json"
_TOKENIZER = "tokenizer_config.json"
_SENTENCEPIECE = "tokenizer.model"
_OF_THIS_MACHINE = ("backend", "is_local", "local_files_only")


@dataclass(frozen=True, slots=True)
class Manners:
    """How a model wants to be asked, in the terms of Hugging Face folders: the template contract, for engines."""

    chat_template: str
    """Jinja text."""
    stop_token_ids: tuple[int, ...]
    """Tokens that end an answer."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """Sampling defaults."""
    prompts: Sequence[Sequence[int]] = ()
    """Token ids of conversations in this form, to prove the export on."""
    files: Sequence[Path] = ()
    """Files to carry along as they are."""


def write_config(folder: Path, model: PreTrainedModel, dtype: torch.dtype, untied: bool, source: Path) -> None:
    """`config.json`, and the code of the base where it needs its own.

    Args:
        folder: where the merged weights are.
        model: a model of the base's configuration, of any weights.
        dtype: of the weights.
        untied: input and output embeddings, tied in the base, are two tensors now.
        source: the base's folder.
    """
    config = model.config
    config.architectures = [type(model).__name__]
    config.dtype = dtype
    if untied:
        config.tie_word_embeddings = False
    config.save_pretrained(folder)
    written = json.loads((folder / _CONFIG).read_text("utf-8"))
    write_json(folder / _CONFIG, written | _older_names(written))
    for file in source.glob("*.py") if getattr(config, "auto_map", None) else ():
        (folder / file.name).write_bytes(file.read_bytes())


def write_manners(folder: Path, tokenizer: PreTrainedTokenizerBase, manners: Manners | None, source: Path) -> None:
    """Tokenizer files with the chat template, and `generation_config.json` with every token that ends an answer."""
    found = source / _GENERATION
    generation: dict[str, Any] = json.loads(found.read_text("utf-8")) if found.is_file() else {}
    ends: int | list[int] = tokenizer.eos_token_id
    if manners is not None:
        tokenizer.chat_template = manners.chat_template
        generation |= manners.generation
        ends = list(manners.stop_token_ids)
        for file in manners.files:
            (folder / file.name).write_bytes(file.read_bytes())
    tokenizer.save_pretrained(folder)
    if (source / _SENTENCEPIECE).is_file():  # llama.cpp prefers it to tokenizer.json
        (folder / _SENTENCEPIECE).write_bytes((source / _SENTENCEPIECE).read_bytes())
    settings = json.loads((folder / _TOKENIZER).read_text("utf-8"))
    if settings.get("tokenizer_class") == "TokenizersBackend":  # the name that transformers 4 and 5 both know
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(folder / _TOKENIZER, {key: value for key, value in settings.items() if key not in _OF_THIS_MACHINE})
    special = {"bos_token_id": tokenizer.bos_token_id, "pad_token_id": tokenizer.pad_token_id}
    write_json(folder / _GENERATION, {**generation, **special, "eos_token_id": ends})


def _older_names(config: dict[str, Any]) -> dict[str, Any]:
    """Settings under the names of transformers 4 as well: an engine that knows only those would assume its defaults."""
    names: dict[str, Any] = {"torch_dtype": config["dtype"]}
    rotation = config.get("rope_parameters")
    if isinstance(rotation, dict) and "rope_theta" in rotation:
        names["rope_theta"] = rotation["rope_theta"]
        if rotation.get("rope_type", "default") != "default":
            names["rope_scaling"] = {key: value for key, value in rotation.items() if key != "rope_theta"}
        if "partial_rotary_factor" in rotation:
            names["partial_rotary_factor"] = rotation["partial_rotary_factor"]
    return names

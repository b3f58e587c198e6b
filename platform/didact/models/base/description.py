"""What a base is without its weights: configuration and tokenizer. Torch is not loaded for it."""

import importlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from transformers import PreTrainedTokenizerBase

from didact.env import cache_dir
from didact.errors import ModelError
from didact.files import fingerprint, sha256_file, write_json
from didact.models.base.bundled import bundled_description
from didact.models.families.known import is_known
from didact.spec import BUNDLED_BASE, ModelSpec

UNREAD = ["*.pth", "*.pt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*", "onnx/*"]
"""Files of a published folder that are not downloaded."""
_WEIGHTS = ["*.safetensors", "*.bin"]
_FORMAT = 1
_READ_BY_TOKENIZERS = (".json", ".jinja", ".model", ".txt", ".tiktoken")


def base_description(spec: ModelSpec) -> Path:
    """A folder with the configuration and tokenizer that `base_folder` has. Weights are neither downloaded for it nor
    converted, so that data can be prepared and a run planned on any machine.

    Raises:
        ModelError: as `base_folder`.
    """
    if spec.base == BUNDLED_BASE:
        return bundled_description()
    folder = published_folder(spec, [*UNREAD, *_WEIGHTS])
    return folder if spec.trust_remote_code else _native(folder)


def published_folder(spec: ModelSpec, left_out: list[str]) -> Path:
    """The folder of a base as it was published, downloaded on first use.

    Raises:
        ModelError: nothing of that name here or on the hub.
    """
    folder = Path(spec.base).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if folder.is_file():
        raise ModelError(
            f"model.base {spec.base!r} is a file; expected the folder of a Hugging Face model, with config.json and "
            "weights in safetensors"
        )
    if not folder.exists() and (spec.base.startswith(("/", ".", "~")) or spec.base.count("/") > 1 or "\\" in spec.base):
        raise ModelError(f"model.base {spec.base!r}: there is no folder {folder.absolute()}")
    if folder.exists():
        raise ModelError(f"model.base {spec.base!r} is a folder without config.json; expected a Hugging Face model")
    try:
        return Path(snapshot_download(spec.base, revision=spec.revision, ignore_patterns=left_out))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ModelError(
            f"model.base {spec.base!r} is neither {BUNDLED_BASE!r}, nor a local folder, nor a hub id that can be "
            f"downloaded: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """The base's tokenizer, with a pad token (EOS where it has none) and right padding.

    Raises:
        ModelError: the base has no tokenizer, or one without an EOS token.
    """
    folder = base_description(spec)
    try:
        tokenizer = _tokenizer(folder, spec.trust_remote_code)
    except (ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"model.base {spec.base!r} has no tokenizer that can be loaded: {reason}") from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {spec.base!r} has no EOS token; answers could not end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def _tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """What AutoTokenizer gives for a folder.

    Choosing the class, it loads the model's configuration and with it torch, which takes seconds. The choice is
    remembered in the cache, under the digest of all that it can depend on.
    """
    if trust_remote_code:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    files = sorted(each for each in folder.iterdir() if each.suffix in _READ_BY_TOKENIZERS and each.is_file())
    digests = {each.name: sha256_file(each) for each in files if ".index." not in each.name}
    versions = [importlib.metadata.version(name) for name in ("transformers", "tokenizers")]
    place = cache_dir() / "tokenizers" / f"{fingerprint([_FORMAT, versions, digests])}.json"
    if (chosen := _remembered(place)) is not None:
        return chosen.from_pretrained(folder)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    kind = type(tokenizer)
    # A class that reads the folder otherwise when it is not asked by AutoTokenizer is not remembered.
    if kind.__module__.startswith("transformers.") and _state(kind.from_pretrained(folder)) == _state(tokenizer):
        write_json(place, {"module": kind.__module__, "class": kind.__qualname__})
    return tokenizer


def _remembered(place: Path) -> Any:
    try:
        chosen = json.loads(place.read_text(encoding="utf-8"))
        return getattr(importlib.import_module(chosen["module"]), chosen["class"])
    except (OSError, ValueError, LookupError, TypeError, ImportError, AttributeError):
        return None  # not there, or not what was written: chosen again


def _state(tokenizer: Any) -> list[Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole = backend.to_str() if backend is not None else tokenizer.get_vocab()
    return [whole, tokenizer.chat_template, repr(tokenizer), repr(tokenizer.init_kwargs)]


def _native(folder: Path) -> Path:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if not is_known(config.get("model_type")):
        return folder
    from didact.models.families import native_description

    return native_description(folder)

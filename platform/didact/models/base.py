"""Find and load a base model and its tokenizer: bundled, a local folder, or a hub id."""

import hashlib
import importlib.util
import json
import struct
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from didact.errors import ModelError
from didact.logs import get_logger
from didact.models.bundled import bundled_base_folder
from didact.models.quantize import quantization_config
from didact.spec import BUNDLED_BASE, ModelSpec

_LOG = get_logger(__name__)
_SAMPLED_BLOCKS = 64
_BLOCK_BYTES = 65_536
_NOT_WEIGHTS = ["*.pth", "*.pt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*", "onnx/*"]


def base_folder(spec: ModelSpec) -> Path:
    """The local folder of a base model; hub ids are downloaded into the hub's cache first.

    Raises:
        ModelError: nothing of that name here or on the hub.
    """
    if spec.base == BUNDLED_BASE:
        return bundled_base_folder()
    folder = Path(spec.base).expanduser()
    if (folder / "config.json").is_file():
        return folder
    if folder.exists():
        raise ModelError(f"model.base {spec.base!r} is a folder without config.json; expected a Hugging Face model")
    try:
        return Path(snapshot_download(spec.base, revision=spec.revision, ignore_patterns=_NOT_WEIGHTS))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ModelError(
            f"model.base {spec.base!r} is neither {BUNDLED_BASE!r}, nor a local folder, nor a hub id that can be "
            f"downloaded: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """The base's tokenizer, with a pad token (EOS where it has none) and right padding."""
    tokenizer = AutoTokenizer.from_pretrained(base_folder(spec), trust_remote_code=spec.trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {spec.base!r} has no EOS token; answers could not end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def load_base(spec: ModelSpec, device: str | torch.device = "cpu") -> PreTrainedModel:
    """The base model in eval mode on `device`, frozen, in the spec's dtype and quantization.

    Raises:
        ModelError: not a causal language model, or not found.
    """
    if spec.trust_remote_code:
        _LOG.warning("model.trust_remote_code is on: Python code from %s will run on this machine", spec.base)
    folder = base_folder(spec)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=compute_dtype(spec, device),
            attn_implementation=_attention(spec, device),
            quantization_config=quantization_config(spec.quantization, compute_dtype(spec, device)),
            trust_remote_code=spec.trust_remote_code,
            device_map={"": str(device)} if spec.quantization else None,
        )
    except (ValueError, OSError) as error:
        raise ModelError(f"model.base {spec.base!r} cannot be loaded as a causal language model: {error}") from error
    if spec.quantization is None:
        model.to(device)
    model.requires_grad_(False)
    return model.eval()


def compute_dtype(spec: ModelSpec, device: str | torch.device = "cpu") -> torch.dtype:
    """The dtype the base computes in; `auto` is bfloat16 where the processor has instructions for it."""
    if spec.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[spec.dtype]
    return torch.bfloat16 if _has_bfloat16(torch.device(device)) else torch.float32


def base_fingerprint(spec: ModelSpec) -> str:
    """A digest that tells two base models apart, in well under a second also for large ones.

    Over the architecture in config.json and, for each weight file, its size, its safetensors header and 64 evenly
    spaced blocks: it recognises a base; it is no proof against a forger.
    """
    folder = base_folder(spec)
    digest = hashlib.sha256()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if not key.startswith("_") and key != "transformers_version"}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    for file in weights:
        digest.update(file.name.encode())
        _digest_weights(file, digest)
    return digest.hexdigest()


def _digest_weights(file: Path, digest: "hashlib._Hash") -> None:
    size = file.stat().st_size
    digest.update(str(size).encode())
    with file.open("rb") as stream:
        if file.suffix == ".safetensors":
            (header_bytes,) = struct.unpack("<Q", stream.read(8))
            digest.update(stream.read(min(header_bytes, 64 * 2**20)))
        for block in range(_SAMPLED_BLOCKS):
            stream.seek(size * block // _SAMPLED_BLOCKS)
            digest.update(stream.read(_BLOCK_BYTES))


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16"))


def _attention(spec: ModelSpec, device: str | torch.device) -> str | None:
    if spec.attention != "auto":
        return spec.attention
    if torch.device(device).type == "cuda" and importlib.util.find_spec("flash_attn"):
        return "flash_attention_2"
    return None  # transformers' own choice: SDPA where the architecture has it

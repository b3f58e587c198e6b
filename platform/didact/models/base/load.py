"""Find and load a base model: bundled, a local folder, or a hub id."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from didact.devices import check_base, this_machine, why_no_flash_attention
from didact.errors import ModelError
from didact.logs import get_logger
from didact.models.base.bundled import bundled_base_folder
from didact.models.base.description import UNREAD, base_description, published_folder
from didact.models.base.held_base import held_folder
from didact.models.base.quantize import check_quantized, keep_unpacked, quantization_config
from didact.models.families import native_folder
from didact.models.fingerprint import folder_fingerprint
from didact.spec import BUNDLED_BASE, ModelSpec

_LOG = get_logger(__name__)


def base_folder(spec: ModelSpec) -> Path:
    """The local folder of a base model that transformers' own classes load, downloaded or converted on first use.

    With `trust_remote_code` the folder as published, since its own code will load it.

    Raises:
        ModelError: nothing of that name here or on the hub, or a family that cannot be converted.
    """
    if spec.base == BUNDLED_BASE:
        return bundled_base_folder()
    folder = published_folder(spec, UNREAD)
    return folder if spec.trust_remote_code else native_folder(folder)


def load_base(spec: ModelSpec, device: str | torch.device = "cpu", *, shared: bool = False) -> PreTrainedModel:
    """The base model in eval mode on `device`, frozen, in the spec's dtype and quantization.

    Quantized weights stay in the form that gradients pass and adapters read, whoever calls the model first.

    Args:
        spec: the base and how it is held.
        device: where it is read to.
        shared: map the weights from a file that holds them as they are computed with, so that the processes of a
            machine share memory; it is written to the cache when the base is stored otherwise.

    Raises:
        DeviceError: the device cannot hold or compute it so; known before anything is read.
        ModelError: not a causal language model, or not found, or to be quantized and without layers that can be.
    """
    _check_device(spec, torch.device(device))
    if spec.trust_remote_code:
        _LOG.warning("model.trust_remote_code is on: Python code from %s will run on this machine", spec.base)
    folder, packed = base_folder(spec), checkpoint_quantization(spec)
    if packed and spec.quantization:
        raise ModelError(
            f"model.base {spec.base!r} is quantized already, by {packed}; remove model.quantization, or name the "
            "unquantized base"
        )
    dtype = compute_dtype(spec, device)
    placed: dict[str, Any] = {"device_map": {"": str(device)}} if spec.quantization or packed else {}
    options = dict(placed)
    if spec.quantization:  # given as None, it would hide the checkpoint's own
        options["quantization_config"] = quantization_config(spec.quantization, dtype)
    # A GPU has memory of its own to cast into; what a stranger's code writes it need not read back.
    if shared and (spec.quantization or torch.device(device).type == "cpu") and not (packed or spec.trust_remote_code):
        held = held_folder(folder, dtype, spec.quantization, lambda: _read(spec, folder, device, options))
        model = _read(spec, held, device, placed)
    else:
        model = _read(spec, folder, device, options)
    model.config._name_or_path = str(folder)
    if spec.quantization:
        check_quantized(model)
    if spec.quantization or packed:
        keep_unpacked(model)
    else:
        model.to(device)
    model.requires_grad_(False)
    return model.eval()


def _read(spec: ModelSpec, folder: Path, device: str | torch.device, options: Mapping[str, Any]) -> PreTrainedModel:
    # Every process reads all weights itself, whatever its rank: transformers looks at ranks for a `tp_plan`, for a
    # device named by kind alone, for a DeepSpeed set up before it, and (FSDP as accelerate's launcher sets it up) for
    # weights that are in no file. The first three are not used here, the last is refused.
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=compute_dtype(spec, device),
            attn_implementation=_attention(spec, device),
            trust_remote_code=spec.trust_remote_code,
            output_loading_info=True,
            **options,
        )
    except ImportError as error:
        raise ModelError(
            f"model.base {spec.base!r} is quantized by {checkpoint_quantization(spec)} and needs a package that is not "
            f"installed: {error}"
        ) from error
    except (ValueError, OSError, RuntimeError) as error:
        raise ModelError(f"model.base {spec.base!r} cannot be loaded as a causal language model: {error}") from error
    if lost := sorted(found["missing_keys"] & dict(model.named_parameters()).keys()):
        raise ModelError(
            f"model.base {spec.base!r} lacks {len(lost)} weights, such as {lost[0]}, which every process would draw at "
            "random for itself; name a base with all its weights"
        )
    return model


def checkpoint_quantization(spec: ModelSpec) -> str | None:
    """The method that a checkpoint's own weights are packed by, such as `gptq` or `awq`; None for plain weights."""
    config = json.loads((base_description(spec) / "config.json").read_text(encoding="utf-8"))
    packing = config.get("quantization_config")
    return str(packing.get("quant_method", "an unnamed method")) if packing else None


def compute_dtype(spec: ModelSpec, device: str | torch.device = "cpu") -> torch.dtype:
    """The dtype the base computes in; `auto` is bfloat16 where the device computes in it, else float32.

    Not float16 on older GPUs: what was trained in bfloat16 may leave its range, and small gradients vanish in it.
    """
    if spec.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[spec.dtype]
    return torch.bfloat16 if this_machine().bfloat16(torch.device(device)) else torch.float32


def base_of(model: Any) -> Any:
    """The Hugging Face model inside a PEFT model; a plain model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def base_fingerprint(spec: ModelSpec) -> str:
    """A digest that tells two base models apart, in well under a second also for large ones.

    See `folder_fingerprint`; of a converted base it is the conversion's.
    """
    return folder_fingerprint(base_folder(spec))


def _check_device(spec: ModelSpec, device: torch.device) -> None:
    machine = this_machine()
    check_base(spec, machine, on_gpu=device.type == "cuda", index=device.index or 0)
    gpu = machine.gpu(device)
    if gpu and spec.dtype == "auto" and not gpu.bfloat16:
        _LOG.warning(
            "model.dtype auto is float32, since %s does not compute in bfloat16; float16 is faster and takes half the "
            "memory, where the base keeps within its range",
            gpu,
        )


def _attention(spec: ModelSpec, device: str | torch.device) -> str | None:
    if spec.attention != "auto":
        return spec.attention
    machine, where = this_machine(), torch.device(device)
    half = compute_dtype(spec, where) != torch.float32
    if machine.flash_attention and half and not why_no_flash_attention(spec, machine, machine.gpu(where)):
        return "flash_attention_2"
    return None  # transformers' own choice: SDPA where the architecture has it

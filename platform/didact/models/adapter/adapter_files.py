"""An adapter as a folder: written once, checked before every use.

`adapter_model.safetensors` and `adapter_config.json` are PEFT's own, or for the `partial` method the trained weights of
the base under their names in the model; `adapter.json` is ours: the base it belongs to and a sha256 of every file. Only
safetensors is read; a pickle file in the folder is refused, because loading one runs code.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors.torch import save_file
from transformers import PreTrainedModel

from didact.adapter_folder import CARD, CONFIG, MANIFEST, WEIGHTS, adapter_identity, check_finite, check_folder
from didact.errors import AdapterError
from didact.files import manifest, write_json
from didact.models.base.quantize import quantization_of
from didact.models.methods import bound_to_quantization, partial_weights, plain_lora
from didact.spec import QuantizationSpec, validate

_SETS = ("target_modules", "exclude_modules", "feedforward_modules")


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What `adapter.json` says."""

    base: str
    base_fingerprint: str
    method: str
    sha256: str
    """Identity of the adapter: digest over its weights and configuration."""
    quantization: QuantizationSpec | None = None
    """How the base was held in training."""
    bound: bool = False
    """It fits the base held in this quantization only (LoftQ)."""


def save_adapter(
    model: PeftModel | PreTrainedModel, folder: Path, *, base: str, base_fingerprint: str, method: str
) -> AdapterFacts:
    """Write what was trained into an existing folder; other files already there are added to its manifest.

    Whatever the method did to the base while training, the folder applies to the base as it was loaded.
    """
    _write_weights(model, folder)
    _order_names(folder / CONFIG)
    (folder / CARD).unlink(missing_ok=True)  # PEFT's empty card; the registry writes a real one
    names = [file.name for file in folder.iterdir() if file.is_file() and file.name not in (MANIFEST, CARD)]
    entries = manifest(folder, names)
    quantization, bound = quantization_of(model), bound_to_quantization(model)
    facts = AdapterFacts(base, base_fingerprint, method, adapter_identity(entries), quantization, bound)
    record = {
        "format": 1,
        "base": base,
        "base_fingerprint": base_fingerprint,
        "method": method,
        "quantization": quantization.model_dump() if quantization else None,
        "bound_to_quantization": bound,
        "files": entries,
    }
    write_json(folder / MANIFEST, record)
    return facts


def _write_weights(model: PeftModel | PreTrainedModel, folder: Path) -> None:
    if not isinstance(model, PeftModel):
        weights = partial_weights(model)
        save_file(weights, folder / WEIGHTS)
        write_json(folder / CONFIG, {"parameters": sorted(weights)})
    elif converted := plain_lora(model):
        config, weights = converted
        config.inference_mode = True
        save_file({name: tensor.cpu().contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
        config.save_pretrained(folder)
    else:
        # PEFT would otherwise ask the hub whether the vocabulary was resized.
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)


def _order_names(config: Path) -> None:
    """PEFT writes its sets in an order that differs between processes, and with it the digest of an equal adapter."""
    values = json.loads(config.read_text(encoding="utf-8"))
    names = {name: values[name] for name in _SETS if isinstance(values.get(name), list)}
    write_json(config, {**values, **{name: sorted(each) for name, each in names.items()}})


def verify_adapter(folder: Path, expected_base: str | None = None) -> AdapterFacts:
    """Check every byte of an adapter folder before anything is loaded.

    Args:
        folder: as written by `save_adapter`.
        expected_base: fingerprint of the base it will be put on; None skips that check.

    Raises:
        AdapterError: files missing, changed, unsafe, not finite, or made for another base.
    """
    found = check_folder(folder)
    record = _read_record(folder / MANIFEST)
    if expected_base is not None and record["base_fingerprint"] != expected_base:
        raise AdapterError(
            f"adapter {folder} was trained on base {record['base']!r} (fingerprint {record['base_fingerprint'][:12]}); "
            f"found a base with fingerprint {expected_base[:12]}"
        )
    check_finite(folder)
    held = record.get("quantization")
    return AdapterFacts(
        record["base"],
        record["base_fingerprint"],
        record["method"],
        found.sha256,
        validate(QuantizationSpec, held, f"quantization in {folder / MANIFEST}") if held else None,
        record.get("bound_to_quantization", False),
    )


def _read_record(path: Path) -> dict[str, Any]:
    """`adapter.json`, which `check_folder` has found to be a manifest, with what it must say of the base."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for field in ("base", "base_fingerprint", "method"):
        if not isinstance(record.get(field), str):
            found = f"{record[field]!r}" if field in record else "nothing"
            raise AdapterError(f"{path}: {field!r} is {found}; expected text, as a run of didact writes it")
    return record


def check_held_alike(facts: AdapterFacts, folder: Path, base: PreTrainedModel) -> None:
    """Refuse an adapter that makes up for a quantization which this base does not have.

    Raises:
        AdapterError: names both quantizations.
    """
    found = quantization_of(base)
    if facts.bound and facts.quantization != found:
        raise AdapterError(
            f"adapter {folder} was started with LoftQ: it holds what quantization took from the base, and would add it "
            f"twice here. Expected the base with model.quantization {facts.quantization}; found {found or 'none'}"
        )

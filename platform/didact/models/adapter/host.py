"""One base in memory, any number of adapters of any method on it, one of them (or none) active at a time.

PEFT's tuners must not wrap one another, so the base carries one kind of wrapper at a time: any number of LoRA
adapters, or one adapter of another method. Going from one to the other takes the wrappers off and puts the others on,
from weights that stay in memory. Prompts and partly trained weights need no wrappers and stand beside them.
"""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, PeftModelForCausalLM
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors.torch import load_file
from transformers import PreTrainedModel

from didact.adapter_folder import WEIGHTS, is_copy_of_plain
from didact.errors import AdapterError
from didact.models.adapter.adapter_files import AdapterFacts, check_held_alike, verify_adapter
from didact.models.adapter.put_weights import put_weights, read_config
from didact.models.methods import align_positions, fit_to_base, swapped_in


@dataclass(frozen=True, slots=True)
class _Loaded:
    """An adapter in memory."""

    slot: str
    """Its name inside PEFT, where a caller's own might be that of an attribute or hold a dot."""
    config: PeftConfig | None
    """None for weights that replace the base's own."""
    weights: dict[str, torch.Tensor]
    prompt: PeftModel | None = None
    """The base with trained positions before it."""


class AdapterHost:
    """Holds a base model and the adapters loaded on it. Not thread-safe: one thread computes."""

    def __init__(self, base: PreTrainedModel, base_fingerprint: str) -> None:
        self.base = base
        self.base_fingerprint = base_fingerprint
        self._loaded: dict[str, _Loaded] = {}
        self._wrapped: PeftModel | None = None
        self._num_loads = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Adapters in memory."""
        return tuple(self._loaded)

    def load(self, name: str, folder: Path) -> AdapterFacts:
        """Verify an adapter folder and put it on the base under `name`; a refused one leaves nothing behind.

        Raises:
            AdapterError: see `verify_adapter`; also when the weights' shapes do not fit the base.
        """
        facts = verify_adapter(folder, self.base_fingerprint)
        check_held_alike(facts, folder, self.base)
        self.drop(name)
        try:
            self._loaded[name] = self._read(folder, facts)
            self._wrap(self._loaded[name])
        except (RuntimeError, ValueError, KeyError) as error:
            self.drop(name)
            raise does_not_fit(folder, facts, error) from error
        return facts

    def drop(self, name: str) -> None:
        """Free an adapter's memory; unknown names are ignored."""
        loaded = self._loaded.pop(name, None)
        if loaded is None or self._wrapped is None or loaded.slot not in self._wrapped.peft_config:
            return
        if len(self._wrapped.peft_config) > 1:
            self._wrapped.delete_adapter(loaded.slot)
        else:  # the last one: without wrappers the base computes at its own speed again
            self._unwrap()

    @contextlib.contextmanager
    def active(self, name: str | None) -> Iterator[torch.nn.Module]:
        """Yield the model to call with adapter `name` in force; None is the bare base.

        Raises:
            AdapterError: no adapter of that name is loaded.
        """
        if name is not None and name not in self._loaded:
            raise AdapterError(f"adapter {name!r} is not loaded; loaded are {list(self.names)}")
        loaded = self._loaded[name] if name is not None else None
        wrapped = self._wrap(loaded) if loaded is not None else None
        if loaded is not None and wrapped is not None:
            wrapped.set_adapter(loaded.slot, inference_mode=True)
            self._enable(True)
            yield wrapped
            return
        self._enable(False)
        if loaded is None:
            yield self.base
        elif loaded.prompt is not None:
            yield loaded.prompt
        else:
            self._unwrap()  # wrappers would hide the base's parameters behind other names
            with swapped_in(self.base, loaded.weights):
                yield self.base

    def _read(self, folder: Path, facts: AdapterFacts) -> _Loaded:
        weights = load_file(folder / WEIGHTS)
        slot = f"slot{self._num_loads}"
        self._num_loads += 1
        if facts.method == "partial":
            self._unwrap()
            return _Loaded(slot, None, fit_to_base(self.base, weights))
        config = read_config(folder)
        if not config.is_prompt_learning:
            return _Loaded(slot, config, weights)
        self._unwrap()  # PEFT looks for the bare base's embeddings
        prompt = PeftModelForCausalLM(self.base, config, adapter_name=slot)
        put_weights(prompt, slot, weights)
        align_positions(prompt)
        return _Loaded(slot, config, {}, prompt.eval())

    def _wrap(self, loaded: _Loaded) -> PeftModel | None:
        """Have the adapter's wrappers on the base; None for adapters that need none."""
        if loaded.config is None or loaded.prompt is not None:
            return None
        if self._wrapped is not None and loaded.slot in self._wrapped.peft_config:
            return self._wrapped
        config = copy.deepcopy(loaded.config)
        if self._wrapped is not None and _shares(config) and all(map(_shares, self._wrapped.peft_config.values())):
            self._wrapped.add_adapter(loaded.slot, config)
        else:
            self._unwrap()
            self._wrapped = PeftModel(self.base, config, adapter_name=loaded.slot)
        put_weights(self._wrapped, loaded.slot, loaded.weights)
        self._wrapped.eval().requires_grad_(False)
        return self._wrapped

    def _unwrap(self) -> None:
        if self._wrapped is not None:
            # Not `unload()`: for some methods it refuses a quantized base, as if it were asked to merge.
            BaseTuner._unload_and_optionally_merge(self._wrapped.base_model, merge=False)
            self._wrapped = None

    def _enable(self, enabled: bool) -> None:
        for module in self.base.modules() if self._wrapped is not None else ():
            if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
                module._disable_adapters = not enabled  # enable_adapters() would also switch requires_grad on


def _shares(config: PeftConfig) -> bool:
    """Whether several adapters of this kind may stand in the same wrappers."""
    extra = (getattr(config, "modules_to_save", None), getattr(config, "trainable_token_indices", None))
    return str(config.peft_type.value) == "LORA" and not any(extra)


def does_not_fit(folder: Path, facts: AdapterFacts, error: Exception) -> AdapterError:
    """What to raise where an adapter's tensors cannot be put on the base."""
    reason = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
    its = f"; its configuration names {facts.base!r}" if is_copy_of_plain(folder) else ""
    base = "the base that is served" if its else f"base {facts.base!r}"
    return AdapterError(f"adapter {folder} does not fit {base}{its}: {reason}")

"""One base in memory, any number of adapters on it, one of them (or none) active at a time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from didact.errors import AdapterError
from didact.models.adapter_files import AdapterFacts, verify_adapter


class AdapterHost:
    """Holds a base model and the adapters loaded on it. Not thread-safe: one thread computes."""

    def __init__(self, base: PreTrainedModel, base_fingerprint: str) -> None:
        self.base = base
        self.base_fingerprint = base_fingerprint
        self._lora: PeftModel | None = None
        self._prompts: dict[str, PeftModel] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Adapters in memory."""
        lora = tuple(self._lora.peft_config) if self._lora else ()
        return lora + tuple(self._prompts)

    def load(self, name: str, folder: Path) -> AdapterFacts:
        """Verify an adapter folder and put it on the base under `name`; nothing changes when it is refused.

        Raises:
            AdapterError: see `verify_adapter`; also when the weights' shapes do not fit the base.
        """
        facts = verify_adapter(folder, self.base_fingerprint)
        config = PeftConfig.from_pretrained(folder)
        config.inference_mode = True
        try:
            if config.is_prompt_learning:
                self._prompts[name] = PeftModel.from_pretrained(self.base, folder, adapter_name=name, config=config)
            else:
                if self._lora is None:  # wrapped in its own step, so that `drop` can unwrap when loading fails
                    self._lora = PeftModel(self.base, config, adapter_name=name)
                    self._lora.eval()
                self._lora.load_adapter(folder, adapter_name=name, is_trainable=False)
        except (RuntimeError, ValueError) as error:
            self.drop(name)
            reason = str(error).strip().splitlines()[0]
            raise AdapterError(f"adapter {folder} does not fit base {facts.base!r}: {reason}") from error
        return facts

    def drop(self, name: str) -> None:
        """Free an adapter's memory; unknown names are ignored."""
        self._prompts.pop(name, None)
        if self._lora is None or name not in self._lora.peft_config:
            return
        if len(self._lora.peft_config) > 1:
            self._lora.delete_adapter(name)
            return
        # The last one: take the wrappers off, so that the base computes at its own speed again.
        self._lora.base_model.unload()
        self._lora = None

    @contextlib.contextmanager
    def active(self, name: str | None) -> Iterator[torch.nn.Module]:
        """Yield the model to call with adapter `name` in force; None is the bare base.

        Raises:
            AdapterError: no adapter of that name is loaded.
        """
        if name is not None and name not in self.names:
            raise AdapterError(f"adapter {name!r} is not loaded; loaded are {list(self.names)}")
        if self._lora is not None and name in self._lora.peft_config:
            self._lora.set_adapter(name, inference_mode=True)
            self._enable_lora(True)
            yield self._lora
        else:
            self._enable_lora(False)
            yield self._prompts[name] if name is not None else self.base

    def _enable_lora(self, enabled: bool) -> None:
        if self._lora is None:
            return
        for module in self._lora.modules():
            if isinstance(module, BaseTunerLayer):
                module._disable_adapters = not enabled  # enable_adapters() would also switch requires_grad on

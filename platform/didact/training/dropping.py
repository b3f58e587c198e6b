"""Dropout of an adapter that changes on the way (`training.changes`)."""

from dataclasses import dataclass

import torch

from didact.spec import FinetuneSpec, MethodSpec, TrainingSpec

_SOME = 0.1


def with_dropout_layers(spec: FinetuneSpec) -> MethodSpec:
    """The method as it is attached: with layers for dropout also where it begins with none.

    PEFT leaves out a layer whose share is 0, and what is not there cannot be set later.
    """
    if not spec.training.changes_dropout:
        return spec.adapter
    shares = [getattr(spec.adapter, "dropout", 0.0), *(each.dropout or 0.0 for each in spec.training.changes)]
    return spec.adapter.model_copy(update={"dropout": max(shares) or _SOME})


@dataclass(frozen=True, slots=True)
class DroppingShares:
    """The adapter's dropout, set before each step: a pure function of the step, so there is nothing to save."""

    layers: tuple[torch.nn.Dropout, ...]
    spec: TrainingSpec
    begins: float
    """Share of the first step."""

    @classmethod
    def of(cls, model: torch.nn.Module, spec: TrainingSpec, adapter: MethodSpec | None) -> "DroppingShares":
        """Those of a model; no layers where nothing changes.

        Args:
            model: with the method attached, as `with_dropout_layers` says.
            spec: states the changes.
            adapter: the recipe's method.
        """
        if not spec.changes_dropout:
            return cls((), spec, 0.0)
        # PEFT keeps them in `lora_dropout.default`, `vera_dropout.default`; a base's own are called otherwise.
        layers = tuple(
            module
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Dropout) and name.split(".")[-2:-1] in (["lora_dropout"], ["vera_dropout"])
        )
        return cls(layers, spec, getattr(adapter, "dropout", 0.0))

    def set(self, step: int) -> None:
        """Let layers drop what holds at optimizer step `step` (from 0)."""
        share = self.spec.dropout_at(step)
        for layer in self.layers:
            layer.p = self.begins if share is None else share

"""Bottleneck adapters as a PEFT method of their own, so that PEFT saves, loads and switches them like any other.

A bottleneck is `scale * up(activation(down(h)))`, added to what the wrapped module returns. Sequential ones read that
result (`h`), parallel ones the module's input. The second matrix starts at zero: an untrained adapter changes nothing.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import PeftType, register_peft_method
from torch import nn
from typing_extensions import override

_NAME = "BOTTLENECK"
WRITTEN = f"{_NAME}: run `import didact.models.peft_methods` first"
"""The method's name in saved configurations. PEFT, which does not know it, names it as the key that is missing."""
_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


@dataclass
class BottleneckConfig(PeftConfig):
    """PEFT configuration of bottleneck adapters."""

    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules that get a bottleneck."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules that get none."})
    size: int = field(default=64, metadata={"help": "Units of the bottleneck."})
    activation: str = field(default="relu", metadata={"help": "Non-linearity between the two layers."})
    parallel: bool = field(default=False, metadata={"help": "Read the module's input instead of its result."})
    dropout: float = field(default=0.0, metadata={"help": "Dropout on the input of the bottleneck."})
    scale: float = field(default=1.0, metadata={"help": "Factor on the result of the bottleneck."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType[_NAME]
        if self.activation not in _ACTIVATIONS:
            raise ValueError(f"activation is {self.activation!r}; expected one of {sorted(_ACTIVATIONS)}")

    @override
    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "peft_type": WRITTEN}


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A module with bottlenecks beside or after it, one per adapter name."""

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_between", "bottleneck_scale", "bottleneck_parallel")

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig, hidden_size: int) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_between = nn.ModuleDict()
        self.bottleneck_scale: dict[str, float] = {}
        self.bottleneck_parallel: dict[str, bool] = {}
        self._active_adapter = [adapter_name]
        self.update_layer(adapter_name, config, hidden_size)

    def update_layer(self, adapter_name: str, config: BottleneckConfig, hidden_size: int) -> None:
        """Add the bottleneck of one adapter."""
        down, up = nn.Linear(hidden_size, config.size), nn.Linear(config.size, hidden_size)
        nn.init.zeros_(down.bias)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name] = down, up
        self.bottleneck_between[adapter_name] = nn.Sequential(nn.Dropout(config.dropout), _activation(config))
        self.bottleneck_scale[adapter_name] = config.scale
        self.bottleneck_parallel[adapter_name] = config.parallel
        device = next(self.base_layer.parameters()).device
        for layer in (down, up):
            layer.to(device)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """What the base module returns, with the active bottlenecks added. Shapes as the base module's."""
        result = self.base_layer(hidden, *args, **kwargs)
        for name in () if self.disable_adapters else self.active_adapters:
            if name in self.bottleneck_down:
                result = result + self._addition(name, hidden if self.bottleneck_parallel[name] else result)
        return result

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """
        Raises:
            ValueError: always; a non-linear network cannot be folded into a matrix.
        """
        raise ValueError("bottleneck adapters are not linear and cannot be merged")

    @override
    def unmerge(self) -> None:
        pass  # nothing is ever merged

    def _addition(self, name: str, read: torch.Tensor) -> torch.Tensor:
        down, up = self.bottleneck_down[name], self.bottleneck_up[name]
        dropout, activation = self.bottleneck_between[name]
        added = up(activation(down(dropout(read.to(down.weight.dtype)))))
        return (added * self.bottleneck_scale[name]).to(read.dtype)


class BottleneckModel(BaseTuner):
    """Puts bottlenecks into a model."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - PEFT's declaration

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        hidden_size = self.model.config.get_text_config().hidden_size
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config, hidden_size)
            return
        layer = BottleneckLayer(target, adapter_name, peft_config, hidden_size)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # PEFT's own also copies weights between the two, which a whole feed-forward as a module does not have.
        setattr(parent, child_name, new_module)


def register_bottleneck() -> None:
    """Make the method known to PEFT in this process; calling it again changes nothing.

    Configurations may bear the method's name alone, as older ones do, or as `WRITTEN`.
    """
    if _NAME in PeftType.__members__:
        return
    # `register_peft_method` takes only names that are members of PEFT's enumeration, which has no way to add one.
    member = str.__new__(PeftType, _NAME)
    member._name_, member._value_ = _NAME, _NAME
    setattr(PeftType, _NAME, member)
    PeftType._member_names_.append(_NAME)
    PeftType._member_map_[_NAME] = member
    PeftType._value2member_map_[_NAME] = member
    register_peft_method(name=_NAME.lower(), config_cls=BottleneckConfig, model_cls=BottleneckModel)
    PEFT_TYPE_TO_CONFIG_MAPPING[WRITTEN] = BottleneckConfig


def _activation(config: BottleneckConfig) -> nn.Module:
    return _ACTIVATIONS[config.activation]()

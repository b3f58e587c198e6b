"""Which layers get an adapter: the names that a recipe gives, and by default every linear layer that can bear one."""

import copy
import re
from collections.abc import Iterable, Iterator, Sequence

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import PeftType
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers import PreTrainedModel

from didact.errors import ModelError
from didact.models.base.quantize import stacked_weights
from didact.models.methods.blocks import is_linear
from didact.spec import MethodSpec, PeftSpec

ALL_LINEAR = "all-linear"
_OTHER_LAYERS = ("LN_TUNING", "TRAINABLE_TOKENS")
# Classes of these modules compute as linear layers do, whatever their code looks like.
_KNOWN = ("torch.", "bitsandbytes.", "transformers.pytorch_utils", "transformers.integrations.")
_READ_BY_KERNELS = ("x_proj", "dt_proj", "out_proj")
_LIKE_EXPERTS = "PEFT takes its name for that of experts"
_READ = "the kernels of its state-space layer read its weight past an adapter"


def settle_targets(config: PeftConfig, model: PreTrainedModel, section: str = "adapter") -> None:
    """Check the parts of the base that a configuration names, and let `all-linear` leave out what cannot bear it.

    Args:
        config: of a method; its `target_modules` become a list of names where a layer must be left out.
        model: the bare base.
        section: of a recipe, where the configuration's fields stand.

    Raises:
        ModelError: a name or an expression without a module in this model, or of a layer that cannot bear an adapter.
    """
    unfit = unfit_layers(model)
    for name in ("target_modules", "feedforward_modules"):
        field, targets = f"{section}.{name}", getattr(config, name, None) or ()
        if not isinstance(targets, str):
            _check_names(field, sorted(targets), model, unfit)
        elif targets != ALL_LINEAR:
            _check_expression(field, targets, model, unfit)
        else:
            _narrow(config, model, unfit)
    modules = [name for name, module in model.named_modules() if next(module.parameters(), None) is not None]
    own = {name.rpartition(".")[2] for name, module in model.named_modules() if list(module.parameters(recurse=False))}
    saved = getattr(config, "modules_to_save", None) or ()
    _check_known(f"{section}.modules_to_save", saved, model, modules, f"modules with weights: {_listed(own)}")
    weights = [name for name, _ in model.named_parameters()]
    endings = {".".join(name.split(".")[-2:]) for name in weights}
    wanted = getattr(config, "target_parameters", None) or ()
    _check_known(f"{section}.target_parameters", wanted, model, weights, f"parameters: {_listed(endings)}")


def _narrow(config: PeftConfig, model: PreTrainedModel, unfit: dict[str, str]) -> None:
    """Name the linear layers where `all-linear` would reach one that cannot bear this adapter.

    PEFT counts the experts of some families among linear layers, since they once were (`_convert_peft_config_moe`), and
    puts LoRA on the tensor that holds them; not with dropout, nor with a variant or start that needs a layer's weight.
    """
    head = model.get_output_embeddings()
    names = {name for name, layer in _linear(model) if layer is not head and name not in unfit}
    meant = copy.deepcopy(config)
    convert_peft_config_for_transformers(meant, model, None)
    if getattr(meant, "target_parameters", None) and not _fits_stacked(meant):
        names = {name for name in names if name.rpartition(".")[2] in meant.target_modules}
        config.target_modules = names
    elif unfit:
        config.target_modules = names


def _fits_stacked(config: PeftConfig) -> bool:
    plain = isinstance(config.init_lora_weights, bool) or config.init_lora_weights == "gaussian"
    return plain and not (config.lora_dropout or config.use_dora)


def unfit_layers(model: PreTrainedModel) -> dict[str, str]:
    """Linear layers that cannot bear an adapter, by their names, each with the reason.

    Two kinds are found in the module tree: layers of a class of their own that return something else than a linear
    layer does (the routers of Llama 4 and Phi-3.5-MoE), and those that a Mamba layer hands to its kernels as weights,
    so that nothing put around them is called.
    """
    unfit = {name: reason for name, layer in _linear(model) if (reason := _own_result(layer))}
    for name, module in model.named_modules():
        if all(hasattr(module, each) for each in ("A_log", "D", "conv1d")):
            unfit |= {f"{name}.{each}": _READ for each in _READ_BY_KERNELS if hasattr(module, each)}
    return unfit


def left_out(model: PreTrainedModel, spec: MethodSpec) -> tuple[str, ...]:
    """What a method on `all-linear` left out beside the output layer, one line a kind, in words.

    Args:
        model: the base that the method has been attached to.
        spec: the method.
    """
    if not _aims_at_all(spec):
        return ()
    unfit, head = unfit_layers(model), model.get_output_embeddings()
    adapted = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, BaseTunerLayer))
    kinds: dict[tuple[str, str], list[str]] = {}
    for name, layer in _linear(model):
        if layer is not head and not name.startswith(adapted):
            kinds.setdefault((name.rpartition(".")[2], unfit.get(name, _LIKE_EXPERTS)), []).append(name)
    lines = [f"{name} ({len(layers)} layers): {reason}" for (name, reason), layers in kinds.items()]
    stacked = [name for name in stacked_weights(model) if ".base_layer." not in name]
    if stacked:
        names = sorted({name.rpartition(".")[2] for name in stacked})
        lines.append(f"{', '.join(names)} ({len(stacked)} tensors): experts held in one tensor, no linear layers")
    return tuple(lines)


def _aims_at_all(spec: MethodSpec) -> bool:
    if isinstance(spec, PeftSpec):
        return takes_linear(spec.name.upper()) and spec.options.get("target_modules", ALL_LINEAR) == ALL_LINEAR
    return getattr(spec, "target_modules", None) == ALL_LINEAR


def known_methods() -> dict[str, type[PeftConfig]]:
    """The configuration of each of PEFT's methods, by its name in capitals."""
    kinds = PEFT_TYPE_TO_CONFIG_MAPPING.items()
    return {str(kind.value): config for kind, config in kinds if isinstance(kind, PeftType)}


def takes_linear(name: str) -> bool:
    """Whether PEFT's method of that name, in capitals, is put on linear layers."""
    known = known_methods()
    return name in known and name not in _OTHER_LAYERS and hasattr(known[name], "target_modules")


def _linear(model: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if is_linear(module))


def _own_result(layer: torch.nn.Module) -> str | None:
    """Why a layer with a forward pass of its own is no linear layer; asked without computing anything."""
    kind = type(layer)
    if f"{kind.__module__}.".startswith(_KNOWN) or not isinstance(layer, torch.nn.Linear):
        return None
    weights = {name: torch.empty_like(each, device="meta") for name, each in layer.named_parameters()}
    inputs = torch.empty(2, layer.in_features, dtype=layer.weight.dtype, device="meta")
    try:
        result = torch.func.functional_call(layer, weights, (inputs,))
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return f"{kind.__name__} takes other inputs than a linear layer"
    if isinstance(result, torch.Tensor) and result.shape == (2, layer.out_features):
        return None
    return f"{kind.__name__} returns something else than a linear layer"


def _check_names(field: str, targets: list[str], model: PreTrainedModel, unfit: dict[str, str]) -> None:
    """PEFT passes over a name without a module as long as another has one."""
    layers = {each.rpartition(".")[2] for each, _ in _linear(model) if each not in unfit}
    modules = [name for name, _ in model.named_modules()]
    _check_known(field, targets, model, modules, f"linear layers: {_listed(layers)}")
    _check_fit(field, (each for each in unfit if any(_ends_with(each, name) for name in targets)), unfit)


def _check_known(field: str, wanted: Iterable[str], model: PreTrainedModel, names: Sequence[str], others: str) -> None:
    unknown = [name for name in wanted if not any(_ends_with(each, name) for each in names)]
    if unknown:
        kind = "parameter" if field.endswith("parameters") else "module"
        raise ModelError(f"{field}: {type(model).__name__} has no {kind} named {', '.join(unknown)}; its {others}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _check_expression(field: str, expression: str, model: PreTrainedModel, unfit: dict[str, str]) -> None:
    """As PEFT does, hold a regular expression against whole module names."""
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise ModelError(f"{field} {expression!r} is no regular expression: {error}") from error
    found = {name: module for name, module in model.named_modules() if pattern.fullmatch(name)}
    if not found:
        examples = [name for name, _ in _linear(model) if name not in unfit]
        raise ModelError(
            f"{field} {expression!r} matches no module of {type(model).__name__}; it must match whole names, "
            f"such as {', '.join(examples[:3])}; begin it with '.*' to leave out what stands before"
        )
    for name, module in found.items():
        if not list(module.parameters(recurse=False)):
            raise ModelError(
                f"{field} {expression!r} also matches {name or 'the whole model'}, which holds other modules "
                "and no weights of its own; end it with names of layers, such as '_proj'"
            )
    _check_fit(field, (each for each in unfit if each in found), unfit)


def _check_fit(field: str, targets: Iterable[str], unfit: dict[str, str]) -> None:
    if name := next(iter(targets), None):
        raise ModelError(f"{field} names {name}, which cannot bear an adapter: {unfit[name]}; leave it out")


def _ends_with(name: str, ending: str) -> bool:
    return f".{name}".endswith(f".{ending}")

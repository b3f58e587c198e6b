"""Our specs as PEFT's configurations, aimed at the modules of one model."""

import dataclasses
import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
from peft import PeftConfig, PromptLearningConfig
from transformers import PreTrainedModel

from didact.errors import ModelError
from didact.models.methods.blocks import Block, decoder_blocks
from didact.models.methods.bottleneck import BottleneckConfig, register_bottleneck
from didact.models.methods.targets import ALL_LINEAR, known_methods, settle_targets, takes_linear
from didact.models.vocabulary.facts import new_token_ids
from didact.spec import (
    AdaLoraSpec,
    BoftSpec,
    BottleneckSpec,
    Ia3Spec,
    LohaSpec,
    LokrSpec,
    LoraSpec,
    MethodSpec,
    OftSpec,
    PeftSpec,
    PrefixSpec,
    PromptSpec,
    PTuningSpec,
    VeraSpec,
)

_CAUSAL = "CAUSAL_LM"
_DEFAULT_REDUCTION = 16
_LORA_INITS: dict[str, bool | str] = {"default": True, "loftq": True}  # LoftQ's weights are computed afterwards
_PROMPT_INITS = {"random": "RANDOM", "vocabulary": "SAMPLE_VOCAB", "text": "TEXT"}
# Methods that need more than text and labels for a step, or tie the run to inputs that a recipe cannot give.
_IMPOSSIBLE = {
    "MULTITASK_PROMPT_TUNING": "it needs a task number with every row",
    "POLY": "it needs a task number with every row",
    "XLORA": "it needs trained LoRA adapters to start from",
    "CPT": "it computes its own loss from labels",
    "SHADOW": "it runs a second copy of the model beside it",
    "ADAPTION_PROMPT": "it replaces attention classes of old model code",
}
# Of the methods without a spec of their own, those whose gradients on a quantized base were seen to be right. Others
# read the packed weights as if they were plain ones: some fail, some go on and learn nonsense.
_QUANTIZED_TOO = ("ADALORA", "BOFT", "BOTTLENECK", "FOURIERFT", "IA3", "LN_TUNING", "LORA", "OFT", "VERA")
# Options whose effect stays in the base's own weights, where every other adapter would see it.
_BASE_CHANGING = {
    "bias": ("none", "trains the base's own biases"),
    "init_lora_weights": (True, "may change the base's own weights; use adapter.method lora and its init"),
}


def peft_config(spec: MethodSpec, model: PreTrainedModel, *, num_steps: int | None) -> PeftConfig:
    """The PEFT configuration of a method on this model.

    Args:
        spec: any method that PEFT carries out (not `full` or `partial`).
        model: the bare base.
        num_steps: optimizer steps of the run, for methods with a schedule.

    Raises:
        ModelError: the method does not exist, has no such option, or has no place in this model; or this model
            has no module of a name that was given.
    """
    config = _adalora(spec, num_steps) if isinstance(spec, AdaLoraSpec) else _BUILDERS[type(spec)](spec, model)
    settle_targets(config, model, "adapter.options" if isinstance(spec, PeftSpec) else "adapter")
    return config


def _lora(spec: LoraSpec, model: PreTrainedModel) -> PeftConfig:
    return peft.LoraConfig(
        task_type=_CAUSAL,
        r=spec.r,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=_targets(spec.target_modules),
        use_rslora=spec.rslora,
        use_dora=spec.dora,
        init_lora_weights=_LORA_INITS.get(spec.init, spec.init),
        trainable_token_indices=_new_tokens(model) if spec.train_new_tokens else None,
    )


def _new_tokens(model: PreTrainedModel) -> dict[str, list[int]]:
    """Module -> rows to train: the input embeddings, and an output layer that has weights of its own."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if getattr(outputs, "bias", None) is not None:
        raise ModelError(
            "adapter.train_new_tokens: PEFT leaves out the bias of this model's output layer; use adapter.method "
            "'partial' with embeddings, or set adapter.train_new_tokens to false"
        )
    layers = [inputs] if outputs is None or outputs.weight is inputs.weight else [inputs, outputs]
    ids = new_token_ids(Path(model.config._name_or_path))
    return {name: ids for name, module in model.named_modules() if any(module is layer for layer in layers)}


def _adalora(spec: AdaLoraSpec, num_steps: int | None) -> PeftConfig:
    if num_steps is None:
        raise ModelError("adapter.method 'adalora' needs the number of steps of the run, over which it moves ranks")
    warmup, final = int(num_steps * spec.warmup_share), int(num_steps * spec.final_share)
    return peft.AdaLoraConfig(
        task_type=_CAUSAL,
        init_r=spec.init_r,
        target_r=spec.target_r,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=_targets(spec.target_modules),
        orth_reg_weight=spec.orthogonal_weight,
        tinit=warmup,
        tfinal=final,
        deltaT=spec.interval,
        total_step=num_steps,
    )


def _prefix(spec: PrefixSpec, model: PreTrainedModel) -> PeftConfig:
    return peft.PrefixTuningConfig(
        task_type=_CAUSAL,
        num_virtual_tokens=spec.num_virtual_tokens,
        prefix_projection=spec.projection,
        encoder_hidden_size=spec.projection_size if spec.projection else None,
    )


def _p_tuning(spec: PTuningSpec, model: PreTrainedModel) -> PeftConfig:
    return peft.PromptEncoderConfig(
        task_type=_CAUSAL,
        num_virtual_tokens=spec.num_virtual_tokens,
        encoder_reparameterization_type=spec.encoder.upper(),
        encoder_hidden_size=spec.encoder_size,
        encoder_num_layers=spec.encoder_layers,
        encoder_dropout=spec.encoder_dropout,
    )


def _prompt(spec: PromptSpec, model: PreTrainedModel) -> PeftConfig:
    return peft.PromptTuningConfig(
        task_type=_CAUSAL,
        num_virtual_tokens=spec.num_virtual_tokens,
        prompt_tuning_init=_PROMPT_INITS[spec.init],
        prompt_tuning_init_text=spec.text,
        tokenizer_name_or_path=model.config._name_or_path if spec.init == "text" else None,
    )


def _ia3(spec: Ia3Spec, model: PreTrainedModel) -> PeftConfig:
    if spec.target_modules == "auto" or spec.feedforward_modules == "auto":
        blocks = decoder_blocks(model)
        feed_forward = [block.feed_forward[-1] for block in blocks]
        targets = [name for block in blocks for name in block.attention_inputs] + feed_forward
    else:
        return peft.IA3Config(
            task_type=_CAUSAL,
            target_modules=_targets(spec.target_modules),
            feedforward_modules=_targets(spec.feedforward_modules),
        )
    return peft.IA3Config(task_type=_CAUSAL, target_modules=targets, feedforward_modules=feed_forward)


def _vera(spec: VeraSpec, model: PreTrainedModel) -> PeftConfig:
    return peft.VeraConfig(
        task_type=_CAUSAL, r=spec.r, vera_dropout=spec.dropout, target_modules=_targets(spec.target_modules)
    )


def _oft(spec: OftSpec, model: PreTrainedModel) -> PeftConfig:
    return peft.OFTConfig(
        task_type=_CAUSAL, r=0, oft_block_size=spec.block_size, target_modules=_targets(spec.target_modules)
    )


def _boft(spec: BoftSpec, model: PreTrainedModel) -> PeftConfig:
    return peft.BOFTConfig(
        task_type=_CAUSAL,
        boft_block_size=spec.block_size,
        boft_n_butterfly_factor=spec.butterfly_factors,
        target_modules=_targets(spec.target_modules),
    )


def _loha(spec: LohaSpec, model: PreTrainedModel) -> PeftConfig:
    targets = _targets(spec.target_modules)
    return peft.LoHaConfig(task_type=_CAUSAL, r=spec.r, alpha=spec.alpha, target_modules=targets)


def _lokr(spec: LokrSpec, model: PreTrainedModel) -> PeftConfig:
    targets = _targets(spec.target_modules)
    return peft.LoKrConfig(
        task_type=_CAUSAL, r=spec.r, alpha=spec.alpha, decompose_factor=spec.factor, target_modules=targets
    )


def _bottleneck(spec: BottleneckSpec, model: PreTrainedModel) -> PeftConfig:
    register_bottleneck()
    hidden_size = model.config.get_text_config().hidden_size
    size = spec.size or max(1, int(hidden_size / (spec.reduction_factor or _DEFAULT_REDUCTION)))
    return BottleneckConfig(
        task_type=_CAUSAL,
        target_modules=_bottleneck_places(spec, decoder_blocks(model)),
        size=size,
        activation=spec.activation,
        parallel=spec.placement == "parallel",
        dropout=spec.dropout,
        scale=spec.scale,
    )


def _bottleneck_places(spec: BottleneckSpec, blocks: tuple[Block, ...]) -> list[str]:
    if spec.placement == "parallel":
        modules = [block.feed_forward_module for block in blocks]
        if None in modules:
            raise ModelError(
                "adapter.placement 'parallel' stands beside the feed-forward as one module, which this model does not "
                "have; set adapter.placement to 'pfeiffer' or 'houlsby'"
            )
        return [name for name in modules if name is not None]
    places = [block.feed_forward[-1] for block in blocks]
    if spec.placement == "houlsby":
        places += [block.attention[-1] for block in blocks]
    return places


def _by_name(spec: PeftSpec, model: PreTrainedModel) -> PeftConfig:
    register_bottleneck()
    known = known_methods()
    usable = sorted(name.lower() for name in known if name not in _IMPOSSIBLE)
    name = spec.name.upper()
    if name in _IMPOSSIBLE:
        raise ModelError(f"adapter.name {spec.name!r} cannot be trained here: {_IMPOSSIBLE[name]}")
    if name not in known:
        raise ModelError(f"adapter.name {spec.name!r} is no PEFT method; known: {', '.join(usable)}")
    if getattr(model, "is_quantized", False) and not _for_quantized(name, known[name]):
        raise ModelError(
            f"adapter.name {spec.name!r} is not known to train rightly on a quantized base; remove model.quantization"
        )
    fields = {each.name for each in dataclasses.fields(known[name])} - {each.name for each in _common_fields()}
    _check_options(spec, fields)
    options = dict(spec.options)
    if takes_linear(name):
        options.setdefault("target_modules", ALL_LINEAR)
    try:
        return known[name](task_type=_CAUSAL, **options)
    except (TypeError, ValueError) as error:
        raise ModelError(f"adapter.options do not fit PEFT's {spec.name}: {error}") from error


def _for_quantized(name: str, config_type: type[PeftConfig]) -> bool:
    return name in _QUANTIZED_TOO or issubclass(config_type, PromptLearningConfig)


def _check_options(spec: PeftSpec, fields: set[str]) -> None:
    for option, value in spec.options.items():
        if option not in fields:
            close = difflib.get_close_matches(option, fields, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(fields))}"
            raise ModelError(f"adapter.options.{option} is no option of PEFT's {spec.name}; {hint}")
        if option in _BASE_CHANGING and value != _BASE_CHANGING[option][0]:
            raise ModelError(f"adapter.options.{option} {value!r} {_BASE_CHANGING[option][1]}; leave it out")


def _common_fields() -> tuple[dataclasses.Field[Any], ...]:
    """Fields that PEFT fills for every method and that a recipe has no say in."""
    return dataclasses.fields(PeftConfig)


def _targets(names: str | tuple[str, ...]) -> str | list[str]:
    return names if isinstance(names, str) else list(names)


_BUILDERS: dict[type[MethodSpec], Callable[[Any, PreTrainedModel], PeftConfig]] = {
    LoraSpec: _lora,
    PrefixSpec: _prefix,
    PTuningSpec: _p_tuning,
    PromptSpec: _prompt,
    Ia3Spec: _ia3,
    VeraSpec: _vera,
    OftSpec: _oft,
    BoftSpec: _boft,
    LohaSpec: _loha,
    LokrSpec: _lokr,
    BottleneckSpec: _bottleneck,
    PeftSpec: _by_name,
}

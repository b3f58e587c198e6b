"""Every finetuning method: three steps of the real loop, beside the same three on the CPU in float32."""

from collections.abc import Iterator
from functools import partial

import torch

from didact.errors import ModelError
from didact.gpu_proof.checks import Check, Outcome, Unavailable, farthest
from didact.gpu_proof.numerics import CPU
from didact.gpu_proof.subjects import RandomSteps, random_base, tiny_config
from didact.gpu_proof.training import run_steps
from didact.models import attach_adapter, use_packed_attention
from didact.spec import (
    AdaLoraSpec,
    BoftSpec,
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LohaSpec,
    LokrSpec,
    LoraSpec,
    MethodSpec,
    OftSpec,
    PartialSpec,
    PeftSpec,
    PrefixSpec,
    PromptSpec,
    PTuningSpec,
    QuantizationSpec,
    VeraSpec,
)

METHODS: dict[str, MethodSpec] = {
    "lora": LoraSpec(r=4),
    "lora, rsLoRA": LoraSpec(r=4, rslora=True),
    "lora, DoRA": LoraSpec(r=4, dora=True),
    "lora, gaussian start": LoraSpec(r=4, init="gaussian"),
    "lora, orthogonal start": LoraSpec(r=4, init="orthogonal"),
    "lora, PiSSA start": LoraSpec(r=4, init="pissa"),
    "lora, LoftQ start": LoraSpec(r=4, init="loftq"),
    "lora, LoRA+": LoraSpec(r=4, lr_ratio_b=4),
    "adalora": AdaLoraSpec(method="adalora", init_r=6, target_r=2, interval=1),
    "prefix (P-tuning v2)": PrefixSpec(method="prefix", num_virtual_tokens=4),
    "prefix, projection": PrefixSpec(method="prefix", num_virtual_tokens=4, projection=True, projection_size=16),
    "p_tuning, mlp": PTuningSpec(method="p_tuning", num_virtual_tokens=4, encoder_size=16),
    "p_tuning, lstm": PTuningSpec(method="p_tuning", num_virtual_tokens=4, encoder="lstm", encoder_size=16),
    "prompt": PromptSpec(method="prompt", num_virtual_tokens=4),
    "prompt, vocabulary": PromptSpec(method="prompt", num_virtual_tokens=4, init="vocabulary"),
    "prompt, text": PromptSpec(method="prompt", num_virtual_tokens=4, init="text", text="Answer:"),
    "ia3": Ia3Spec(method="ia3"),
    "vera": VeraSpec(method="vera", r=16),
    "oft": OftSpec(method="oft", block_size=8),
    "boft": BoftSpec(method="boft"),
    "loha": LohaSpec(method="loha", r=4),
    "lokr": LokrSpec(method="lokr", r=4),
    "bottleneck, pfeiffer": BottleneckSpec(method="bottleneck", size=8),
    "bottleneck, houlsby": BottleneckSpec(method="bottleneck", placement="houlsby", reduction_factor=8),
    "bottleneck, parallel": BottleneckSpec(method="bottleneck", placement="parallel", size=8, scale=4),
    "peft: hra": PeftSpec(method="peft", name="hra", options={"r": 4}),
    "peft: fourierft": PeftSpec(method="peft", name="fourierft", options={"n_frequency": 100}),
    "peft: miss": PeftSpec(method="peft", name="miss", options={"r": 4}),
    "peft: ln_tuning": PeftSpec(method="peft", name="ln_tuning", options={"target_modules": ["norm"]}),
    "partial, last layers": PartialSpec(method="partial", last_n_layers=1),
    "partial, embeddings": PartialSpec(method="partial", embeddings=True),
    "full": FullSpec(method="full"),
}
"""Every method once, small enough for two-layer models. docs/capabilities.md is measured over this table too."""

_NUM_STEPS = 3
_NEEDS_TOKENIZER = ("text",)


def checks() -> Iterator[Check]:
    """All of this module."""
    for dtype, allowed in ((torch.float32, 2e-4), (torch.bfloat16, 2e-2)):
        name = str(dtype).removeprefix("torch.")
        for title, spec in METHODS.items():
            yield Check(
                "methods",
                f"{title}, {name}, three steps beside the CPU's",
                partial(_three_steps, spec=spec, dtype=dtype, allowed=allowed),
            )


def _three_steps(device: torch.device, spec: MethodSpec, dtype: torch.dtype, allowed: float) -> Outcome:
    losses, plain = _losses(device, spec, dtype), _losses(CPU, spec, torch.float32)
    return Outcome(farthest(losses, plain), allowed, f"{losses[0]:.3f} to {losses[-1]:.3f}")


def _losses(device: torch.device, spec: MethodSpec, dtype: torch.dtype) -> list[float]:
    if getattr(spec, "init", None) in _NEEDS_TOKENIZER:
        raise Unavailable("its start is a text, which a random model has no tokenizer for")
    packing = not spec.prepends_positions
    quantization = QuantizationSpec(bits=4) if getattr(spec, "init", None) == "loftq" else None
    held = torch.float32 if spec.trains_base else dtype
    config = tiny_config()
    base = random_base(config, device, held, quantization, drawn_on=CPU)
    if packing:
        use_packed_attention(base, 96)
    try:
        model = attach_adapter(
            base,
            spec,
            seed=0,
            base_name="random",
            num_steps=_NUM_STEPS,
            unquantized=lambda: random_base(config, CPU, held, drawn_on=CPU),
        ).to(device)
    except ModelError as error:
        raise Unavailable(str(error)) from error
    steps = RandomSteps(((40, 17, 60, 5),), packing=packing)
    return [report.metrics["train/loss"] for report in run_steps(model, steps, _NUM_STEPS, dtype, spec, rate=1e-3)]

"""What PEFT leaves open about methods: where they go, how they start, what they do at each step, how they are saved.

    AdapterSpec + base -> peft_config -> get_peft_model -> step_hook in the loop -> plain weights of any base

Example:
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    >>> from didact.models.methods import peft_config
    >>> from didact.spec import Ia3Spec
    >>> chosen = peft_config(Ia3Spec(method="ia3"), LlamaForCausalLM(config), num_steps=100)
    >>> sorted({name.rpartition(".")[2] for name in chosen.target_modules})
    ['down_proj', 'k_proj', 'v_proj']
"""

from didact.models.methods.bottleneck import BottleneckConfig, register_bottleneck
from didact.models.methods.configs import peft_config
from didact.models.methods.initial import bound_to_quantization, loftq_start, plain_lora, remember_start
from didact.models.methods.partial import fit_to_base, partial_weights, swapped_in, train_partially
from didact.models.methods.prompts import align_positions, lstm_without_autocast, num_trained_positions
from didact.models.methods.step_hook import StepHook, step_hook
from didact.models.methods.targets import left_out

__all__ = [
    "BottleneckConfig",
    "StepHook",
    "align_positions",
    "bound_to_quantization",
    "fit_to_base",
    "left_out",
    "loftq_start",
    "lstm_without_autocast",
    "num_trained_positions",
    "partial_weights",
    "peft_config",
    "plain_lora",
    "register_bottleneck",
    "remember_start",
    "step_hook",
    "swapped_in",
    "train_partially",
]

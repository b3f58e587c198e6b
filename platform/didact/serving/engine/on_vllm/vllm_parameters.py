"""Our words for sampling in vLLM's."""

from dataclasses import fields
from typing import Any

from didact.errors import SpecError
from didact.serving.engine.protocol import GenerationRequest, Sampling

_GREEDY_BELOW = 1e-5
_SAME = ("top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
_OTHERS = ("temperature", "seed", "logit_bias")
_SEEDS = 2**63
_RANGES = {"temperature": (0, 2), "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2)}


def vllm_parameters(request: GenerationRequest, room: int) -> dict[str, Any]:
    """Fields of vLLM's `SamplingParams`, apart from `logit_bias`, whose keys JSON cannot hold.

    Stop texts are not among them: text is made here, by the same code for every engine.

    Args:
        request: what is asked.
        room: most tokens of the answer.

    Raises:
        SpecError: something is asked that vLLM does not have.
    """
    sampling = request.sampling
    for each in fields(sampling):
        if each.name not in (*_SAME, *_OTHERS) and getattr(sampling, each.name) != each.default:
            raise SpecError(f"{each.name}: found {getattr(sampling, each.name)!r}; the engine vllm does not have it")
    for name, (lowest, highest) in _RANGES.items():
        if not lowest <= (found := getattr(sampling, name)) <= highest:
            raise SpecError(f"{name}: found {found}; the engine vllm takes a number from {lowest} to {highest}")
    if request.grammar is not None and request.min_tokens:
        raise SpecError(
            f"min_tokens: found {request.min_tokens} beside {request.grammar.field}; the engine vllm takes one of them"
        )
    return {
        **{name: getattr(sampling, name) for name in _SAME},
        "temperature": sampling.temperature if sampling.temperature >= _GREEDY_BELOW else 0.0,
        # -1 would mean none to vLLM, and others below 0 are not taken by all of its samplers.
        "seed": None if sampling.seed is None else sampling.seed % _SEEDS,
        "max_tokens": room,
        "min_tokens": min(request.min_tokens, room),
        "stop_token_ids": list(request.stop_token_ids),
        "ignore_eos": True,  # the request names every token that ends it
        "logprobs": request.logprobs,
    }


def bias_of(sampling: Sampling) -> list[tuple[int, float]]:
    """Token ids and what is added to their logits."""
    return list(sampling.logit_bias)

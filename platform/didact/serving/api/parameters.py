"""A body's parameters: those that are honoured, those that may stand there without effect, and what else is refused.

    body -> read_body(body, ChatRequest) -> ChatRequest | ApiError -> prompts_of -> what the backend is asked

Every parameter that would change the answer and is not served is refused by name, so that no client believes it obeyed.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from didact.serving.api.api_errors import ApiError, as_json, invalid_body, unsupported
from didact.serving.api.chat_types import turns_of
from didact.serving.api.openai_types import ChatRequest, CompletionRequest
from didact.serving.replica.backend import Prompt
from didact.spec.explain.schema import Expected, expected_in, is_model, items_of

_Body = TypeVar("_Body", bound=BaseModel)

ANSWERED_PATHS: Mapping[str, type[ChatRequest] | type[CompletionRequest]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
}
"""Where bodies are answered with text, and what a body is there."""

_WITHOUT_EFFECT = frozenset(
    [
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "prediction",
        "include_obfuscation",
        "cache_control",
        "id",
    ]
)
"""Say nothing about the answer: who asks, how it is billed, kept or sped up."""

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("logprobs", "ignore_eos", "use_beam_search", "echo", "continue_final_message"), (False,)),
    **dict.fromkeys(("include_stop_str_in_output", "continuous_usage_stats", "return_token_ids"), (False,)),
    **dict.fromkeys(("add_generation_prompt", "skip_special_tokens", "spaces_between_special_tokens"), (True,)),
    **dict.fromkeys(("top_logprobs", "min_p", "min_tokens", "no_repeat_ngram_size"), (0,)),
    **dict.fromkeys(("repetition_penalty", "length_penalty", "typical_p", "best_of", "num_beams"), (1,)),
    **dict.fromkeys(("tool_choice", "function_call"), ("none", "auto")),
    "parallel_tool_calls": (True, False),  # where no function is on offer
    "modalities": (["text"],),
    "verbosity": ("medium",),
    **dict.fromkeys(("tools", "functions", "tool_calls", "documents", "annotations", "bad_words"), ()),
    **dict.fromkeys(("logit_bias", "chat_template_kwargs"), ({},)),
    **dict.fromkeys(("chat_template", "reasoning_effort", "reasoning"), ()),
    **dict.fromkeys(("guided_whitespace_pattern", "guided_decoding_backend", "structural_tag"), ()),
    **dict.fromkeys(("suffix", "audio", "refusal", "web_search_options", "enable_thinking"), ()),
    "thinking": ({"type": "disabled"},),
    **dict.fromkeys(("truncate_prompt_tokens", "allowed_token_ids", "prompt_logprobs", "add_special_tokens"), ()),
    **dict.fromkeys(("reasoning_content", "tool_call_id", "name"), ()),
}
"""Parameters that are not served here, with the values, beside null, [] and "", that ask for nothing."""

_BESIDE_BEAMS: dict[str, Any] = {
    **dict.fromkeys(("n", "temperature", "top_p", "repetition_penalty"), 1),
    **dict.fromkeys(("top_k", "min_p", "seed", "presence_penalty", "frequency_penalty", "no_repeat_ngram_size"), 0),
    **dict.fromkeys(("min_tokens", "logit_bias", "stop", "tools", "response_format", "structured_outputs"), None),
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar"), None),
}
"""What has no meaning beside beams, with the value, beside 0 and nothing, that asks for none of it."""

_MEANT = {
    **dict.fromkeys(("adapter_id", "adapter", "adapter_name", "lora", "lora_path", "lora_name", "engine"), "model"),
    **dict.fromkeys(("max_new_tokens", "max_length", "max_output_tokens", "num_predict", "n_predict"), "max_tokens"),
    **dict.fromkeys(("stop_sequences", "stop_strings", "stop_words"), "stop"),
    **dict.fromkeys(("num_return_sequences", "num_completions"), "n"),
    **dict.fromkeys(("random_seed", "rng_seed"), "seed"),
    **dict.fromkeys(("do_sample", "temp"), "temperature"),
    "eos_token_id": "stop_token_ids",
    "streaming": "stream",
    "messages": "prompt",
    "prompt": "messages",
    "inputs": "prompt",
    "input": "messages",
}
"""How other servers' words, and those of the other endpoint, are written here."""


def read_body(body: bytes, kind: type[_Body]) -> _Body:
    """A request's body as `kind`; parameters that ask for nothing are left out.

    Raises:
        ApiError: 400 for what is no JSON object, and for the first parameter that is wrong, unknown or not served here.
    """
    try:
        values = from_json(body)
    except ValueError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(values, dict):
        raise ApiError(400, f"The body: found {as_json(values)}; expected a JSON object.", code="invalid_value")
    if values.get("best_of") == (values.get("n") or 1):
        values.pop("best_of")
    for name, value in values.items():
        if name not in kind.model_fields and (refusal := unserved((name,), value, kind.model_fields)) is not None:
            raise refusal
    refusals: list[ApiError] = []
    values = _served(values, [Expected(kind)], (), refusals)
    try:
        read = kind.model_validate(values)
    except ValidationError as error:
        raise invalid_body(kind, values, error) from None
    if refusals:
        raise refusals[0]
    return read


def read_asking(path: str, body: bytes) -> ChatRequest | CompletionRequest:
    """A body that is sent to one of `ANSWERED_PATHS`; see `read_body`."""
    return read_body(body, ChatRequest) if ANSWERED_PATHS[path] is ChatRequest else read_body(body, CompletionRequest)


def prompts_of(body: ChatRequest | CompletionRequest) -> list[Prompt]:
    """What a body asks, each of which gets `num_choices` answers.

    Raises:
        ApiError: 400 for fields that do not go together.
    """
    _check_beams(body)
    if isinstance(body, CompletionRequest):
        return list(body.prompts)
    if body.top_logprobs and not body.logprobs:
        message = f"top_logprobs: found {body.top_logprobs}; expected logprobs: true beside it."
        raise ApiError(400, message, code="invalid_value", param="top_logprobs")
    if body.must_call is not None and (not body.offered or (body.must_call and body.must_call not in body.offered)):
        offered = ", ".join(body.offered) or "none"
        message = f"tool_choice: found {body.must_call or 'required'}; the functions in tools are: {offered}."
        raise ApiError(400, message, code="invalid_value", param="tool_choice")
    return [turns_of(body.messages, body.tools if body.offered else None)]


def _check_beams(body: ChatRequest | CompletionRequest) -> None:
    """A search follows the likeliest answers to their end: it samples none, and tells one, without its tokens' odds."""
    if body.beams == 1:
        if body.length_penalty not in (None, 1):
            raise _beside("length_penalty", body.length_penalty, "expected num_beams of at least 2 beside it")
        return
    asked = {name: getattr(body, name, None) for name in _BESIDE_BEAMS}
    asked = {name: value for name, value in asked.items() if value and value != _BESIDE_BEAMS[name]}
    if body.num_logprobs is not None:
        asked["logprobs"] = body.num_logprobs
    for name, value in asked.items():
        raise _beside(name, value, f"it has no meaning beside num_beams, which is {body.beams}; leave one of them out")


def _beside(name: str, value: Any, what: str) -> ApiError:
    found = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    shown = "a list" if isinstance(found, list) else as_json(found)
    return ApiError(400, f"{name}: found {shown}; {what}.", code="invalid_value", param=name)


def _served(value: Any, alternatives: list[Expected], path: tuple[str, ...], refusals: list[ApiError]) -> Any:
    """A value without the names that are no fields where they stand; those that ask for something are refused."""
    if isinstance(value, list):
        items = [item for each in alternatives for item in items_of(each)]
        if not any(is_model(item) for item in items):
            return value
        return [_served(item, items, (*path, str(number)), refusals) for number, item in enumerate(value)]
    fields = next((each.type.model_fields for each in alternatives if is_model(each)), None)
    if not isinstance(value, dict) or fields is None:
        return value
    served = {}
    for name, inner in value.items():
        if name in fields:
            inside = isinstance(inner, dict | list)
            served[name] = _served(inner, expected_in(fields[name]), (*path, name), refusals) if inside else inner
        elif (refusal := unserved((*path, name), inner, fields)) is not None:
            refusals.append(refusal)
    return served


def unserved(path: tuple[str, ...], value: Any, fields: Iterable[str]) -> ApiError | None:
    """The refusal of a name that is no field at its place; None where it asks for nothing."""
    name, param, fields = path[-1], ".".join(path), list(fields)
    if name in _WITHOUT_EFFECT or value is None or value in ([], ""):
        known = name in _WITHOUT_EFFECT or name in _NEUTRAL or name in _MEANT
        return None if known else _unknown(param, name, fields)
    if (meant := _MEANT.get(name)) in fields:
        return unsupported(param, f"{param}: found {as_json(value)}; this is written {meant} here.")
    if name not in _NEUTRAL:
        return _unknown(param, name, fields)
    if any(value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in _NEUTRAL[name]):
        return None
    allowed = " or ".join(map(as_json, _NEUTRAL[name]))
    leave = f"leave it out, or send {allowed}" if allowed else "leave it out"
    return unsupported(param, f"{param}: found {as_json(value)}; {name} is not supported here: {leave}.")


def _unknown(param: str, name: str, fields: list[str]) -> ApiError:
    near = difflib.get_close_matches(name, [*fields, *_NEUTRAL, *_WITHOUT_EFFECT], n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(fields)}."
    return ApiError(400, f"{param}: unknown parameter; {hint}", code="unknown_parameter", param=param)

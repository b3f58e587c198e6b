"""From an ask to the bodies of requests, as OpenAI's API has them."""

import json
from dataclasses import dataclass
from typing import Any

from didact.datasets.conversation import Message
from didact.evaluation.asks import Generation, Likelihood, Prompt, TokenIds
from didact.evaluation.endpoint.limits import Tokens, num_tokens
from didact.spec import EndpointSpec

_TOKENS_A_TURN = 8
"""What a chat template puts around a turn."""


class NotAsked(Exception):
    """This ask cannot be put to an endpoint; the message says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """One POST."""

    route: str
    """Below the endpoint's address."""
    body: dict[str, Any]
    most: Tokens
    """What it may use, estimated from the text's length."""


def requests_for(ask: Generation, spec: EndpointSpec) -> list[Request]:
    """One request for each answer that is asked for: `n` is not known everywhere, and a seed is an answer's own.

    Raises:
        NotAsked: the ask needs what the API does not have.
    """
    body: dict[str, Any] = {
        "model": spec.model,
        spec.length_field: ask.max_new_tokens,
        "temperature": ask.temperature,
    }
    if ask.stop:
        body["stop"] = list(ask.stop)
    if ask.temperature > 0:
        body["top_p"] = ask.top_p
    if isinstance(ask.prompt, str | TokenIds):
        route, body["prompt"] = "/completions", _plain(ask.prompt, ask.opening)
    elif ask.opening:
        raise NotAsked("an answer that begins with a given text cannot be asked for over chat completions")
    else:
        route, body["messages"] = "/chat/completions", [_turn(message) for message in ask.prompt]
    most = Tokens(_num_tokens(ask.prompt) + _num_tokens(ask.opening), ask.max_new_tokens)
    seeds = range(ask.seed, ask.seed + ask.num_samples) if ask.temperature > 0 else [None] * ask.num_samples
    bodies = [body if seed is None else {**body, "seed": seed} for seed in seeds]
    return [Request(route, _with_options(each, spec), most) for each in bodies]


def request_for_likelihood(prompt: Prompt, continuation: str | TokenIds, spec: EndpointSpec) -> Request:
    """The prompt with its continuation, to be read back with log probabilities (`echo`).

    Raises:
        NotAsked: the prompt is messages, or one part is a text and the other is token ids.
    """
    if isinstance(prompt, str) and isinstance(continuation, str):
        whole: str | list[int] = prompt + continuation
    elif isinstance(prompt, TokenIds) and isinstance(continuation, TokenIds):
        whole = [*prompt.ids, *continuation.ids]
    elif isinstance(prompt, str | TokenIds):
        raise NotAsked("a prompt and a continuation must both be texts, or both token ids")
    else:
        raise NotAsked(
            "chat completions give no likelihoods of a given answer; only texts and token ids can be asked for"
        )
    body = {"model": spec.model, "prompt": whole, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    most = Tokens(_num_tokens(prompt) + _num_tokens(continuation), 1)
    return Request("/completions", _with_options(body, spec), most)


def parts_of(ask: Likelihood, spec: EndpointSpec) -> list[Request]:
    """One request for each continuation.

    Raises:
        NotAsked: see `request_for_likelihood`.
    """
    return [request_for_likelihood(ask.prompt, each, spec) for each in ask.continuations]


def _with_options(body: dict[str, Any], spec: EndpointSpec) -> dict[str, Any]:
    return {name: value for name, value in {**body, **spec.options}.items() if value is not None}


def _plain(prompt: str | TokenIds, opening: str) -> str | list[int]:
    if isinstance(prompt, str):
        return prompt + opening
    if opening:
        raise NotAsked("a prompt of token ids cannot be followed by a text")
    return list(prompt.ids)


def _turn(message: Message) -> dict[str, Any]:
    if message.role == "document":
        raise NotAsked("a turn of the role document cannot be sent to an endpoint")
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tools is None:
        return turn
    if message.tools.offered:
        raise NotAsked("a prompt that offers tools cannot be sent to an endpoint")
    if message.tools.calls:
        turn["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tools.calls
        ]
    if message.role == "tool":
        turn["tool_call_id"] = message.tools.call_id or ""
    return turn


def _num_tokens(prompt: Prompt) -> int:
    if isinstance(prompt, TokenIds):
        return len(prompt.ids)
    if isinstance(prompt, str):
        return num_tokens(prompt)
    return sum(num_tokens(message.written) + _TOKENS_A_TURN for message in prompt)


def as_bytes(body: dict[str, Any]) -> bytes:
    """JSON in UTF-8; half a surrogate pair, which no encoding has, is written as an escape."""
    try:
        return json.dumps(body, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(body).encode("ascii")

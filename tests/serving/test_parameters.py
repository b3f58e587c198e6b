"""What is said about a body's parameters: the field, what was found, what was expected, the nearest right name."""

import json

import pytest

from didact.serving.api.api_errors import ApiError
from didact.serving.api.chat_types import turns_of
from didact.serving.api.openai_types import ChatRequest, CompletionRequest
from didact.serving.api.parameters import read_body

TALK = {"model": "tiny", "messages": [{"role": "user", "content": "x"}]}
TEXT = {"model": "tiny", "prompt": "x"}
STOPS = "expected text of 1 to 64 characters, or a list of at most 8 such texts."
PARTS = 'expected text, or a list of parts {"type": "text", "text": ...}.'
PROMPTS = "expected text, a list of token ids, or a list of at most 16 of either, none empty."
LISTED = "expected a list of messages, at least one, each with role and content."


def refusal(kind: type, body: dict) -> tuple[str, str | None, str]:
    with pytest.raises(ApiError) as caught:
        read_body(json.dumps(body).encode(), kind)
    assert caught.value.status == 400
    return caught.value.code, caught.value.param, caught.value.message


def said(changes: dict) -> str:
    """The message, which begins with the parameter."""
    completion = "prompt" in changes and "messages" not in changes
    code, param, message = refusal(
        *((CompletionRequest, changes) if completion else (ChatRequest, {**TALK, **changes}))
    )
    assert code == "invalid_value"
    assert message.startswith(f"{param}: ")
    return message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 3}, "temperature: found 3; expected a number from 0 to 2."),
        ({"temperature": "hot"}, 'temperature: found "hot"; expected a number from 0 to 2.'),
        ({"temperature": float("nan")}, "temperature: found NaN; expected a number from 0 to 2."),
        ({"top_p": 0}, "top_p: found 0; expected a number above 0 and to 1."),
        ({"n": 9}, "n: found 9; expected a whole number from 1 to 8."),
        ({"n": True}, "n: found true; expected a whole number from 1 to 8."),
        ({"max_tokens": 1.5}, "max_tokens: found 1.5; expected a whole number of at least 1."),
        ({"seed": 2**64}, "seed: found 18446744073709551616; expected a whole number of 64 bits."),
        ({"stream": "yes"}, 'stream: found "yes"; expected true or false.'),
        ({"stop": ["a"] * 9}, f"stop: found {json.dumps(['a'] * 9)}; {STOPS}"),
        ({"stop": ["a", ""]}, f'stop: found ["a", ""]; {STOPS}'),
        ({"stop": "s" * 65}, f'stop: found "{"s" * 65}"; {STOPS}'),
        ({"stop": 5}, f"stop: found 5; {STOPS}"),
        ({"stop_token_ids": [-1]}, "stop_token_ids: found [-1]; expected a list of at most 64 token ids."),
        ({"model": ""}, 'model: found ""; expected a model\'s name, at most 512 characters.'),
        ({"messages": []}, f"messages: found []; {LISTED}"),
        ({"messages": {"role": "user"}}, f'messages: found {{"role": "user"}}; {LISTED}'),
        (
            {"messages": [{"role": "wizard", "content": "x"}]},
            "messages.0.role: found \"wizard\"; expected 'system', 'developer', 'user', 'assistant' or 'tool'.",
        ),
        (
            {"messages": [*TALK["messages"], {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.1.content.0.type: found \"image_url\"; expected 'text'.",
        ),
        ({"model": "tiny", "prompt": []}, f"prompt: found []; {PROMPTS}"),
        ({"model": "tiny", "prompt": [["x"]]}, f'prompt: found [["x"]]; {PROMPTS}'),
        ({"model": "tiny", "prompt": [1, -1]}, f"prompt: found [1, -1]; {PROMPTS}"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_wrong_values_are_told_with_what_was_found_and_what_is_expected(changes: dict, message: str) -> None:
    assert said(changes) == message


def test_long_values_are_cut() -> None:
    assert len(said({"messages": "x" * 100_000})) < 200


def test_what_is_missing_is_named() -> None:
    assert refusal(ChatRequest, {"model": "tiny"}) == (
        "missing_required_parameter",
        "messages",
        f"messages: missing; {LISTED}",
    )
    code, param, _ = refusal(ChatRequest, {**TALK, "tools": [{"type": "function"}]})
    assert (code, param) == ("missing_required_parameter", "tools.0.function")


@pytest.mark.parametrize("turn", [{"role": "user"}, {"role": "user", "content": None}, {"role": "assistant"}])
def test_a_turn_without_text_is_named(turn: dict) -> None:
    read = read_body(json.dumps({**TALK, "messages": [*TALK["messages"], turn]}).encode(), ChatRequest)
    with pytest.raises(ApiError) as caught:
        turns_of(read.messages)
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", "messages.1.content")
    assert caught.value.message == f"messages.1.content: missing; {PARTS}"


UNSERVED = [
    {"continue_final_message": True},
    {"add_generation_prompt": False},
    {"chat_template": "x"},
    {"chat_template_kwargs": {"enable_thinking": False}},
    {"best_of": 3},
    {"guided_whitespace_pattern": "x"},
    {"include_stop_str_in_output": True},
    {"reasoning_effort": "low"},
    {"modalities": ["text", "audio"]},
    {"use_beam_search": True},
    {"typical_p": 0.9},
]


@pytest.mark.parametrize("changes", UNSERVED, ids=lambda each: str(each)[:40])
def test_what_would_change_the_answer_and_is_not_served_is_refused_by_name(changes: dict) -> None:
    (name, value), *_ = changes.items()
    code, param, message = refusal(ChatRequest, {**TALK, **changes})
    assert (code, param) == ("unsupported_parameter", name)
    assert message.startswith(f"{name}: found {json.dumps(value)}; {name} is not supported here: leave it out")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (ChatRequest, {"adapter_id": "demo"}, 'adapter_id: found "demo"; this is written model here.'),
        (ChatRequest, {"max_new_tokens": 5}, "max_new_tokens: found 5; this is written max_tokens here."),
        (ChatRequest, {"stop_sequences": ["x"]}, 'stop_sequences: found ["x"]; this is written stop here.'),
        (ChatRequest, {"prompt": "x"}, 'prompt: found "x"; this is written messages here.'),
        (CompletionRequest, {"messages": "x"}, 'messages: found "x"; this is written prompt here.'),
    ],
)
def test_words_of_other_servers_are_answered_with_ours(kind: type, changes: dict, message: str) -> None:
    body = TALK if kind is ChatRequest else TEXT
    assert refusal(kind, {**body, **changes})[2] == message


@pytest.mark.parametrize(
    ("changes", "param", "near"),
    [
        ({"temprature": 0.1}, "temprature", "temperature"),
        ({"max_token": 5}, "max_token", "max_tokens"),
        ({"topp": 0.5}, "topp", "top_p"),
        ({"Seed": 1}, "Seed", "seed"),
        ({"stream_options": {"include_usages": True}}, "stream_options.include_usages", "include_usage"),
        ({"messages": [{"role": "user", "content": "x", "contents": "y"}]}, "messages.0.contents", "content"),
        ({"repetition_penalties": 2}, "repetition_penalties", "repetition_penalty"),
        ({"temprature": None}, "temprature", "temperature"),
    ],
)
def test_misspelt_names_are_answered_with_the_nearest(changes: dict, param: str, near: str) -> None:
    code, found, message = refusal(ChatRequest, {**TALK, **changes})
    assert (code, found) == ("unknown_parameter", param)
    assert message == f"{param}: unknown parameter; did you mean {near}?"


def test_a_misspelt_required_name_is_told_before_what_it_leaves_out() -> None:
    assert refusal(ChatRequest, {"model": "tiny", "mesages": []})[2].endswith("did you mean messages?")
    assert "expected one of model, max_tokens" in refusal(ChatRequest, {**TALK, "made_up": 1})[2]


def test_what_asks_for_nothing_is_taken() -> None:
    nothing = {
        "user": "me",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "logprobs": False,
        "top_logprobs": None,
        "tools": [],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "logit_bias": {},
        "min_p": 0,
        "n": 3,
        "best_of": 3,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
        "messages": [{"role": "assistant", "content": "x", "refusal": None, "tool_calls": [], "annotations": []}],
    }
    read = read_body(json.dumps({**TALK, **nothing}).encode(), ChatRequest)
    assert (read.num_choices, read.include_usage, read.messages[0].content) == (3, True, "x")

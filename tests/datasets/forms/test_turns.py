import json
from typing import Any

import pytest

from didact.datasets.conversation import Conversation
from didact.datasets.forms.drafts import RowSettings
from didact.datasets.forms.table_of_forms import Noted, recognise, to_conversation
from didact.datasets.rows.options import RowOptions
from didact.datasets.rows.raw_row import BadRow, RawRow

HI = [("user", "Hi"), ("assistant", "Hello")]
OPENAI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def convert(record: dict[str, Any], noted: Noted | None = None, **options: Any) -> Conversation:
    form = recognise(record)
    assert form is not None
    settings = RowSettings(RowOptions.model_validate(options), any_form=True)
    return to_conversation(form, RawRow("file", 1, 0, record), 0, settings, noted)


def said(record: dict[str, Any], **options: Any) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in convert(record, **options).messages]


def refused(record: dict[str, Any], **options: Any) -> tuple[str, str]:
    with pytest.raises(BadRow) as caught:
        convert(record, **options)
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([{"role": "human", "content": "Hi"}, {"role": "gpt", "content": "Hello"}], HI),
        ([{"from": "User", "value": "Hi"}, {"from": "ASSISTANT", "value": "Hello"}], HI),
        ([{"from": "human", "value": "Hi"}, {"from": "bot", "value": "Hello"}], HI),
        ([{"role": "user", "content": "Hi"}, {"role": " Model ", "content": "Hello"}], HI),
        ([{"speaker": "prompter", "text": "Hi"}, {"speaker": "assistant", "text": "Hello"}], HI),
        ([{"role": "user", "text": "Hi"}, {"role": "bot", "text": "Hello"}], HI),
        ([{"user": "human", "text": "Hi"}, {"user": "bot", "text": "Hello"}], HI),
        ([{"user": "Hi", "assistant": "Hello"}], HI),
        ([{"input": "Hi", "output": "Hello"}], HI),
        ([{"system": "Be brief.", "input": "Hi", "output": "Hello"}], [("system", "Be brief."), *HI]),
        ([{"role": "developer", "content": "Be brief."}, *OPENAI], [("system", "Be brief."), *HI]),
        ([{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}, OPENAI[1]], HI),
        ([{"role": "user", "content": ["Hi"]}, OPENAI[1]], HI),
    ],
)
def test_turns_are_read_as_people_write_them(turns: list[Any], expected: list[tuple[str, str]]) -> None:
    for name in ("messages", "conversations", "conversation"):
        assert said({name: turns}) == expected
        assert said({name: json.dumps(turns)}) == expected


@pytest.mark.parametrize(
    ("turns", "reason", "named"),
    [
        ([{"role": "narrator", "content": "Hi"}], "unknown_role", "narrator"),
        ([{"who": "user", "what": "Hi"}], "missing_field", "'who', 'what'"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "a.png"}]}], "unusable_field", "image_url"),
        ('[{"role"', "broken_json", "messages"),
        ([{**OPENAI[0]}, {**OPENAI[1], "weight": 0.5}], "wrong_type", "0.5"),
        ([{**OPENAI[0]}, {**OPENAI[1], "train_detail": [{"begin": 1}]}], "unusable_field", "train_detail"),
        ([{**OPENAI[0]}, {**OPENAI[1], "reasoning_content": "Hm."}], "unusable_field", "reasoning_content"),
        ([{**OPENAI[0], "images": ["a.png"]}, OPENAI[1]], "unusable_field", "images"),
    ],
)
def test_a_turn_that_cannot_be_read_says_what_was_found(turns: Any, reason: str, named: str) -> None:
    found, detail = refused({"messages": turns})
    assert found == reason and named in detail


@pytest.mark.parametrize(
    "mark",
    [
        {"weight": 0},
        {"train": False},
        {"loss": False},
        {"weight": 0.0, "train": True},
        {"training": False},
        {"loss_weight": 0},
    ],
)
def test_a_marked_answer_is_read_and_not_learned(mark: dict[str, Any]) -> None:
    turns = [OPENAI[0], {**OPENAI[1], **mark}, OPENAI[0], {**OPENAI[1], "weight": 1, "loss": True}]
    assert [message.learned for message in convert({"messages": turns}).messages] == [True, False, True, True]
    assert refused({"messages": turns[:2]})[0] == "unwanted"


def turns_of(letters: str) -> list[dict[str, str]]:
    """Turns `a0`, `u1`, ...: s is system, u user, a assistant."""
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": roles[letter], "content": f"{letter}{place}"} for place, letter in enumerate(letters)]


@pytest.mark.parametrize(
    ("letters", "policy", "expected"),
    [
        ("aua", "assistant_first: leave_out", "u1 a2"),
        ("saua", "assistant_first: leave_out", "s0 u2 a3"),
        ("aaua", "assistant_first: leave_out", "u2 a3"),
        ("uua", "same_side: join", "u0+u1 a2"),
        ("uaaua", "same_side: join", "u0 a1+a2 u3 a4"),
        ("ssua", "same_side: join", "s0+s1 u2 a3"),
        ("uasua", "system_later: to_user", "u0 a1 s2+u3 a4"),
        ("usa", "system_later: to_user", "u0+s1 a2"),
        ("suaua", None, "s0 u1 a2 u3 a4"),
        ("uau", "user_last: leave_out", "u0 a1"),
        ("uauu", "user_last: leave_out", "u0 a1"),
        ("uas", "user_last: leave_out", "u0 a1"),
    ],
)
def test_turns_are_put_in_order_by_named_policies(letters: str, policy: str | None, expected: str) -> None:
    noted = Noted()
    messages = convert({"messages": turns_of(letters)}, noted).messages
    assert " ".join(message.content.replace("\n\n", "+") for message in messages) == expected
    assert policy is None or noted.changed[policy] == 1
    assert bool(noted.changed) == (policy is not None)
    if policy is not None:
        name = policy.partition(":")[0]
        reason, detail = refused({"messages": turns_of(letters)}, turns={name: "refuse"})
        assert reason == "wrong_turns" and f"options.turns.{name}: refuse" in detail


def test_two_answers_of_which_one_is_learned_are_not_joined() -> None:
    turns = [OPENAI[0], {**OPENAI[1], "weight": 0}, OPENAI[1]]
    assert refused({"messages": turns})[0] == "wrong_turns"


CALL = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}


@pytest.mark.parametrize(
    ("turns", "roles", "policy"),
    [
        ([OPENAI[0], {"role": "assistant", "content": "I look.", "tool_calls": [CALL]}], "user assistant", None),
        ([OPENAI[0], OPENAI[1], {"role": "assistant", "tool_calls": [CALL]}], "user assistant", "same_side"),
        ([OPENAI[0], {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "4"}],
         "user assistant", "user_last"),
        ([{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "4"}, OPENAI[0],
          {"role": "assistant", "tool_calls": [CALL]}], "user assistant", "assistant_first"),
    ],
)  # fmt: skip
def test_calls_and_results_are_put_in_order_too(turns: list[Any], roles: str, policy: str | None) -> None:
    noted = Noted()
    messages = convert({"messages": turns, "tools": [TOOL]}, noted).messages
    assert " ".join(message.role for message in messages) == roles
    assert [name.partition(":")[0] for name in noted.changed] == [policy] * (policy is not None)
    assert messages[-1].tools is not None and [call.name for call in messages[-1].tools.calls] == ["weather"]
    assert messages[0].tools is not None and "weather" in str(messages[0].tools.offered)
    system = convert({"messages": turns, "tools": [TOOL], "system": "Be brief."}).messages[0]
    assert system.role == "system" and system.tools is not None and "weather" in str(system.tools.offered)
    assert not noted.unused


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"prompt": [OPENAI[0]], "completion": [OPENAI[1]]}, HI),
        ({"prompt": [{"role": "system", "content": "Be brief."}, OPENAI[0]], "completion": OPENAI[1]},
         [("system", "Be brief."), *HI]),
        ({"prompt": [OPENAI[0]], "completion": "Hello"}, HI),
        ({"prompt": [OPENAI[0]], "chosen": [OPENAI[1]], "rejected": [{"role": "assistant", "content": "No."}]}, HI),
        ({"prompt": "Hi", "chosen": OPENAI, "rejected": OPENAI}, HI),
        ({"prompt": [{"role": "system", "content": "Be brief."}, OPENAI[0]], "chosen": OPENAI, "rejected": OPENAI},
         [("system", "Be brief."), *HI]),
        ({"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello"},
          "rejected": {"from": "gpt", "value": "No."}}, HI),
        ({"messages": [OPENAI[0]], "chosen": "Hello", "rejected": "No."}, HI),
        ({"instruction": "Translate.", "input": "Hi", "chosen": "Hallo", "rejected": "?"},
         [("user", "Translate.\n\nHi"), ("assistant", "Hallo")]),
        ({"question": "Hi", "system": "Be brief.", "chosen": "Hello", "rejected": "?"}, [("system", "Be brief."), *HI]),
        ({"instruction": "c", "history": [["a", "b"]], "chosen": "d", "rejected": "?"},
         [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]),
    ],
)  # fmt: skip
def test_prompts_and_answers_may_be_turns(record: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert said(record) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"messages": None, "conversations": None, "instruction": "Hi", "input": None, "output": "Hello"}, HI),
        ({"messages": OPENAI, "instruction": None, "output": None}, HI),
        ({"prompt": None, "completion": None, "question": "Hi", "response": "Hello"}, HI),
        ({"instruction": "Hi", "output": None, "response": "Hello"}, HI),
        ({"messages": "", "instruction": "Hi", "output": "Hello"}, HI),
        ({"chosen": None, "rejected": None, "conversations": [{"user": "Hi", "assistant": "Hello"}]}, HI),
    ],
)
def test_columns_that_are_null_after_a_concatenation_hide_no_form(
    record: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert said(record) == expected


@pytest.mark.parametrize(
    "record",
    [
        {"Instruction": "Hi", "Input": "", "Output": "Hello"},
        {"PROMPT": "Hi", "Completion ": "Hello"},
        {"System Prompt": "", "Question": "Hi", "Answer": "Hello"},
    ],
)
def test_capitals_and_blanks_in_the_names_of_fields_do_not_count(record: dict[str, Any]) -> None:
    assert said(record) == HI

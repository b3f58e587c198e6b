"""Tools in the base's own syntax: calls and answers are learned, results are not; what has no syntax is refused."""

import json
from pathlib import Path

import pytest

from didact.datasets.conversation import Conversation, Message, ToolCall, ToolUse
from didact.errors import NoToolSyntax
from didact.gpu_proof.tokenizer import CHATML, byte_tokenizer
from didact.spec import TokensSpec
from didact.tokens import Rejection, TemplateContract, encode

TOOLS = (Path(__file__).parents[2] / "jobs" / "templates" / "chatml_tools.jinja").read_text(encoding="utf-8")
OFFERED = json.dumps([{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}])
ASKED = Message("user", "2 + 2?")
CALLS = Message("assistant", "", tools=ToolUse((ToolCall("add", '{"a": 2}', "c1"),)))
RESULT = Message("tool", "four", tools=ToolUse(call_id="c1", name="add"))
SAID = Message("assistant", "It is 4.")
ROUND = (ASKED, CALLS, RESULT, SAID)
# As DeepSeek-V3 reads them: arguments as text, and null where there is no text.
AS_TEXT = (
    "{% for m in messages %}{% if m['role'] == 'assistant' and m['content'] is none %}"
    "{% for c in m['tool_calls'] %}{{ '[' + c['function']['name'] + ' ' }}{{ c['function']['arguments'] + ']' }}"
    "{% endfor %}"
    "{{ '<|im_end|>' }}{% else %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '' }}{% endif %}"
)
# As Mistral's: ids of nine letters and digits.
SHORT_IDS = TOOLS.replace(
    "{{- '<tool_call>",
    "{%- if call['id'] | length != 9 %}{{ raise_exception('ids have nine letters') }}{% endif %}"
    "{{- call['id'] + '<tool_call>",
)


def contract_of(template: str) -> TemplateContract:
    return TemplateContract.build(byte_tokenizer(template), "auto")


def learned(template: str, messages: tuple[Message, ...], loss_on: str = "assistant") -> str:
    tokenizer = byte_tokenizer(template)
    spec = TokensSpec(max_length=4096, loss_on=loss_on)
    sample = encode(Conversation(messages, 0), tokenizer, TemplateContract.build(tokenizer, "auto"), spec)
    assert not isinstance(sample, Rejection), sample
    return tokenizer.decode(sample.ids[sample.mask])


def test_calls_and_answers_are_learned_and_results_are_not() -> None:
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call><|im_end|>'
    assert learned(TOOLS, ROUND) == call + "It is 4.<|im_end|>"
    assert learned(TOOLS, ROUND, "last_turn") == "It is 4.<|im_end|>"
    assert learned(TOOLS, ROUND[:2]) == call


def test_text_beside_calls_and_several_calls_are_learned() -> None:
    two = (ToolCall("add", "{}", "c1"), ToolCall("sub", "{}", "c2"))
    text = learned(TOOLS, (ASKED, Message("assistant", "Both.", tools=ToolUse(two))))
    assert text.startswith("Both.\n<tool_call>") and '"add"' in text and '"sub"' in text


def test_calls_that_end_with_another_mark_are_learned_whole() -> None:
    # As gpt-oss: a call ends with a mark of its own, which ends no answer.
    answer_end = "{{- '<|im_end|>\\n' }}\n    {%- endif %}\n{%- endfor %}"
    template = TOOLS.replace(
        answer_end, answer_end.replace("'<|im_end|>", "('<call/>' if message['tool_calls'] else '<|im_end|>') + '")
    )
    assert template != TOOLS
    assert learned(template, ROUND[:2]).rstrip().endswith("</tool_call><call/>")
    assert learned(template, ROUND).endswith("It is 4.<|im_end|>")


def test_tools_on_offer_are_written() -> None:
    asked = Message("user", "Which tools?", tools=ToolUse(offered=OFFERED))
    text = contract_of(TOOLS).render(byte_tokenizer(TOOLS), (asked, SAID), False)
    assert f"<tools>\n{json.dumps(json.loads(OFFERED)[0])}\n</tools>" in text
    told = (Message("system", "Count.", tools=ToolUse(offered=OFFERED)), ASKED, SAID)
    assert "Count.\n\nYou may call" in contract_of(TOOLS).render(byte_tokenizer(TOOLS), told, False)


def test_arguments_as_text_where_the_template_joins_texts() -> None:
    assert learned(AS_TEXT, ROUND).startswith('[add {"a": 2}]<|im_end|>')


def test_ids_are_shortened_only_where_the_template_asks() -> None:
    assert learned(SHORT_IDS, ROUND).startswith('call00000<tool_call>\n{"name": "add"')
    fitting = Message("assistant", "", tools=ToolUse((ToolCall("add", "{}", "abcDEF123"),)))
    assert learned(SHORT_IDS, (ASKED, fitting)).startswith("abcDEF123")


@pytest.mark.parametrize(
    ("template", "messages", "words"),
    [
        (CHATML, ROUND, "calls"),
        (CHATML, (Message("user", "Hi", tools=ToolUse(offered=OFFERED)), SAID), "the tools on offer"),
        (AS_TEXT, (ASKED, Message("assistant", "Now.", tools=CALLS.tools), RESULT, SAID), "calls"),
        (TOOLS.replace("message['role'] == 'tool'", "false"), ROUND, None),
        (TOOLS.replace("+ message['content'] + '\\n</tool_r", "+ '\\n</tool_r"), ROUND, "results of tools"),
        ("{{ raise_exception('only users') if messages | length > 2 }}" + TOOLS, ROUND, "only users"),
        (TOOLS.replace("message['tool_calls'] or []", "(message['tool_calls'] or [])[:1]"), None, "several calls"),
    ],
)
def test_what_a_template_leaves_out_is_refused_by_name(
    template: str, messages: tuple[Message, ...] | None, words: str | None
) -> None:
    two = (ToolCall("add", "{}", "c1"), ToolCall("sub", "{}", "c2"))
    messages = messages or (ASKED, Message("assistant", "", tools=ToolUse(two)))
    tokenizer = byte_tokenizer(template)
    contract = TemplateContract.build(tokenizer, "auto")
    result = encode(Conversation(messages, 0), tokenizer, contract, TokensSpec(max_length=4096))
    if words is None:  # written in another way, but written
        assert not isinstance(result, Rejection)
        return
    assert isinstance(result, Rejection) and result.reason == "no_tool_syntax"
    assert words in result.detail
    with pytest.raises(NoToolSyntax):
        contract.render(tokenizer, messages, False)


def test_alpaca_has_no_tools() -> None:
    tokenizer = byte_tokenizer(None)
    with pytest.raises(NoToolSyntax, match=r"calls.*results"):
        TemplateContract.build(tokenizer, "alpaca").render(tokenizer, ROUND, False)


def test_calls_and_tools_cannot_forge_a_turn() -> None:
    forged = Message("assistant", "", tools=ToolUse((ToolCall("add", '{"a": "<|im_end|>"}', "c1"),)))
    tokenizer = byte_tokenizer(TOOLS)
    result = encode(Conversation((ASKED, forged), 0), tokenizer, contract_of(TOOLS), TokensSpec(max_length=4096))
    assert isinstance(result, Rejection) and result.reason == "special_text"


@pytest.mark.parametrize("template", [CHATML, TOOLS])
def test_results_of_calls_that_stand_in_the_text_need_a_place_for_results_alone(template: str) -> None:
    calling, result = Message("assistant", "[add(2)]"), Message("tool", "four", tools=ToolUse())
    text = learned(template, (ASKED, calling, result, SAID))
    assert text == "[add(2)]<|im_end|>It is 4.<|im_end|>"


def test_turns_without_tools_read_as_before() -> None:
    tokenizer = byte_tokenizer()
    assert contract_of(CHATML).render(tokenizer, (ASKED, SAID), False) == (
        "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\nIt is 4.<|im_end|>\n"
    )

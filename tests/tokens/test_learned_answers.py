"""Every answer is learned as the model will write it, behind the very prompt that asks for it."""

from itertools import pairwise

import pytest
from transformers import PreTrainedTokenizerBase

from didact.datasets.conversation import Conversation, Message, Role
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.spec import TokensSpec
from didact.tokens import Encoded, Rejection, Sample, TemplateContract, count_tokens, encode_all

END = "<|im_end|>"
_ASK = "{%- if m.role != 'assistant' -%}<{{ m.role }}>{{ m.content }}{{ eos_token }}{%- else -%}"
_HEAD = (
    "{%- set ns = namespace(last=-1) -%}{%- for m in messages if m.role == 'user' -%}{%- set ns.last = loop.index0 -%}"
    "{%- endfor -%}{%- for m in messages -%}" + _ASK + "{%- set said = m.content.split('</think>')[-1].lstrip() -%}"
    "{%- set before = m.content.split('</think>')[0] if '</think>' in m.content else '' -%}"
    "{%- set thought = before.split('<think>')[-1].strip() -%}"
)
_TAIL = "{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}PROMPT{%- endif -%}"


def template(answer: str, prompt: str = "<bot>") -> str:
    """Of `said` and `thought`, with `loop` and `ns.last` at hand."""
    return (_HEAD + answer + _TAIL).replace("PROMPT", prompt)


EMPTY_THOUGHT_LAST = template(
    "<bot>{% if loop.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{{ said + eos_token }}"
)
"""As Qwen3: an empty thought before the last answer only."""
THOUGHT_LAST = template(
    "<bot>{{ ('<think>' + thought + '</think>') if thought and loop.index0 > ns.last }}{{ said + eos_token }}"
)
"""As LFM2.5: thoughts are left out of history."""
MARKED_THOUGHT = template(
    "<bot>{{ '<think>' + (thought if loop.index0 > ns.last else '') + '</think>' }}{{ said + eos_token }}"
)
"""As GLM-4.5: an empty thought stands for those of history."""
DROPS = "<bot>{{ said + eos_token }}"
OPENED = template(DROPS, "<bot>{{ '<think>\n' }}")
"""As R1: the prompt opens a thought, and no answer has one."""
OPENED_BARE = template("<bot>{{ '</think>' + said + eos_token }}", "<bot><think>")
"""As DeepSeek-V3.1 asked to think."""
CLOSED_BARE = template("<bot>{{ '</think>' + said + eos_token }}", "<bot></think>")
"""As DeepSeek-V3.1."""
OPENED_WRITTEN = template(
    "<bot><think>{% if loop.index0 > ns.last and thought %}{{ '\n' + thought + '\n' }}{% endif %}</think>"
    "{{ said + eos_token }}",
    "<bot>{{ '<think>\n' }}",
)
"""As Nemotron 3: the prompt breaks a line that an empty thought has not."""
CLOSED = template(
    "<bot>{% if loop.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{{ said + eos_token }}",
    "<bot>{{ '<think>\n\n</think>\n\n' }}",
)
"""As small Qwen3.5: the prompt has an empty thought."""
CLOSED_ONLY_IN_THE_PROMPT = template(DROPS, "<bot>{{ '<think>\n\n</think>\n' }}")
"""As hybrid models asked not to think."""
HEADER_ALWAYS = (
    template(DROPS, "").replace("{%- if add_generation_prompt -%}{%- endif -%}", "") + "<bot><think></think>"
)
"""As Command R7B for tools: the header of a next answer stands at the end of every text."""
OTHER_MARK_LAST = (
    "{%- for m in messages -%}" + _ASK + "<bot>{{ m.content }}{{ eos_token if loop.last else '<|im_start|>' }}" + _TAIL
).replace("PROMPT", "<bot>")
"""As GPT-OSS: the mark that ends the last answer is another than within history."""


OPENED_TWICE = (
    "{%- for m in messages -%}" + _ASK + "<bot>{{ '<think>\n' if loop.last }}{{ m.content + eos_token }}" + _TAIL
).replace("PROMPT", "<bot>{{ '<think>\n' }}")
"""As Nemotron Nano 2: the last answer follows an open thought, whatever it begins with."""
EMPTY_BEFORE_THE_OWN = (
    "{%- for m in messages -%}" + _ASK + "<bot></think>{{ m.content + eos_token }}" + _TAIL
).replace("PROMPT", "<bot><think>")
"""As templates that want thoughts apart: one within the answer follows an empty one."""
SYSTEM_LAST = (
    "{%- for m in messages -%}{%- if m.role == 'user' -%}[INST]{{ messages[0].content ~ '\n\n' if loop.last "
    "and messages[0].role == 'system' }}{{ m.content }}[/INST]{%- elif m.role == 'assistant' -%}"
    "{{ m.content + eos_token }}{%- endif -%}{%- endfor -%}"
)
"""As Mistral Nemo: the system message stands in the last user turn, and is gone once that is answered."""


def talk(*texts: str) -> Conversation:
    roles: tuple[Role, Role] = ("user", "assistant")
    return Conversation(tuple(Message(roles[index % 2], text) for index, text in enumerate(texts)), 0)


PLAIN = talk("1?", "One.", "2?", "Two.", "3?", "Three.")
THINKING = talk("1?", "<think>\nLook.\n</think>\n\nOne.", "2?", "<think>\nAdd.\n</think>\n\nTwo.")


def encoded(chat_template: str, conversation: Conversation, **settings: object) -> Encoded:
    tokenizer = byte_tokenizer(chat_template)
    contract = TemplateContract.build(tokenizer, "model")
    (found,) = encode_all([conversation], tokenizer, contract, TokensSpec(**{"max_length": 2000, **settings}))
    return found


def learned(found: Encoded) -> list[list[str]]:
    """Of each sample the texts that are learned."""
    assert found.samples, found.result
    tokenizer = byte_tokenizer()
    texts = []
    for sample in found.samples:
        edges = [0, *(index for index in range(1, len(sample.ids)) if sample.mask[index] != sample.mask[index - 1])]
        runs = pairwise([*edges, len(sample.ids)])
        texts.append([tokenizer.decode(sample.ids[start:stop]) for start, stop in runs if sample.mask[start]])
    return texts


EACH_IN_ITS_FORM = {
    "empty thought last": (EMPTY_THOUGHT_LAST, "<think>\n\n</think>\n\n{}", "<think>\n{}\n</think>\n\n{}"),
    "thought last": (THOUGHT_LAST, "{}", "<think>{}</think>{}"),
    "marked thought": (MARKED_THOUGHT, "<think></think>{}", "<think>{}</think>{}"),
    "opened": (OPENED, "\n</think>\n\n{}", "{}\n</think>\n\n{}"),
    "opened, bare": (OPENED_BARE, "</think>{}", "\n{}\n</think>{}"),
    "opened twice": (OPENED_TWICE, "\n</think>\n\n{}", "{}\n</think>\n\n{}"),
    "an empty one before": (EMPTY_BEFORE_THE_OWN, "</think>{}", "\n{}\n</think>{}"),
    "opened, written": (OPENED_WRITTEN, "</think>{}", "{}\n</think>{}"),
}


@pytest.mark.parametrize("form", EACH_IN_ITS_FORM)
def test_answers_with_and_without_thoughts(form: str) -> None:
    chat_template, plain, thinking = EACH_IN_ITS_FORM[form]
    found = encoded(chat_template, PLAIN)
    texts = [plain.format(answer) + END for answer in ("One.", "Two.", "Three.")]
    assert [text for sample in learned(found) for text in sample] == texts and not found.left_out
    found = encoded(chat_template, THINKING)
    texts = [thinking.format(*each) + END for each in (("Look.", "One."), ("Add.", "Two."))]
    assert [text for sample in learned(found) for text in sample] == texts
    assert not found.left_out


@pytest.mark.parametrize(
    "chat_template", [*(each for each, _, _ in EACH_IN_ITS_FORM.values()), CLOSED, OTHER_MARK_LAST]
)
def test_each_sample_begins_with_the_prompt_that_serving_sends(chat_template: str) -> None:
    tokenizer = byte_tokenizer(chat_template)
    contract = TemplateContract.build(tokenizer, "model")
    (found,) = encode_all([PLAIN], tokenizer, contract, TokensSpec(max_length=2000))
    prompts = [contract.prompt_ids(tokenizer, PLAIN.messages[:index]) for index in (1, 3, 5)]
    starts = {
        (number, int(index)) for number, sample in enumerate(found.samples) for index in begins(sample.mask.tolist())
    }
    assert len(starts) == 3
    for (number, start), prompt in zip(sorted(starts), prompts, strict=True):
        assert found.samples[number].ids[:start].tolist() == prompt


def begins(mask: list[bool]) -> list[int]:
    return [index for index in range(1, len(mask)) if mask[index] and not mask[index - 1]]


def test_answers_share_a_text_where_history_shows_them_as_they_were_written() -> None:
    assert [len(each) for each in learned(encoded(THOUGHT_LAST, PLAIN))] == [3]
    assert [len(each) for each in learned(encoded(EMPTY_THOUGHT_LAST, PLAIN))] == [1, 1, 1]
    mixed = talk("1?", "<think>\nLook.\n</think>\n\nOne.", "2?", "Two.", "3?", "Three.")
    assert learned(encoded(THOUGHT_LAST, mixed)) == [[f"<think>Look.</think>One.{END}"], [f"Two.{END}", f"Three.{END}"]]


def test_an_end_mark_of_the_last_answer_alone_is_learned_for_each() -> None:
    assert learned(encoded(OTHER_MARK_LAST, PLAIN)) == [[f"One.{END}"], [f"Two.{END}"], [f"Three.{END}"]]


def test_the_last_turn_alone_is_one_sample() -> None:
    found = encoded(EMPTY_THOUGHT_LAST, PLAIN, loss_on="last_turn")
    assert learned(found) == [[f"<think>\n\n</think>\n\nThree.{END}"]]


@pytest.mark.parametrize("chat_template", [CLOSED, CLOSED_ONLY_IN_THE_PROMPT, CLOSED_BARE, HEADER_ALWAYS])
def test_a_prompt_that_closes_the_thought_teaches_answers_without_thoughts_only(chat_template: str) -> None:
    assert [text for each in learned(encoded(chat_template, PLAIN)) for text in each] == [
        f"One.{END}",
        f"Two.{END}",
        f"Three.{END}",
    ]
    refused = encoded(chat_template, THINKING).result
    assert isinstance(refused, Rejection) and refused.reason == "template_refused" and "'Add.'" in refused.detail
    found = encoded(chat_template, talk(*(message.content for message in (*THINKING.messages, *PLAIN.messages[:2]))))
    assert [text for each in learned(found) for text in each] == [f"One.{END}"]
    assert len(found.left_out) == 2 and "'Look.'" in found.left_out[0] and "'Add.'" in found.left_out[1]


@pytest.mark.parametrize("marks", ["<thought> </thought>", "<seed:think> </seed:think>", "[THINK] [/THINK]"])
def test_other_marks_of_thoughts(marks: str) -> None:
    opening, closing = marks.split()
    chat_template = OPENED.replace("<think>", opening).replace("</think>", closing)
    assert learned(encoded(chat_template, talk("1?", "One.")))[0] == [f"\n{closing}\n\nOne.{END}"]
    thinking = talk("1?", f"{opening}\nLook.\n{closing}\n\nOne.")
    assert learned(encoded(chat_template, thinking))[0] == [f"Look.\n{closing}\n\nOne.{END}"]


def test_a_thought_without_its_opening_mark() -> None:
    found = encoded(OPENED, talk("1?", "Look.\n</think>\n\nOne."))
    assert learned(found) == [[f"Look.\n</think>\n\nOne.{END}"]]


def test_what_stands_before_the_answer_only_until_it_is_given() -> None:
    turns = (Message("system", "Be brief."), *PLAIN.messages[:4])
    tokenizer = byte_tokenizer(SYSTEM_LAST)
    contract = TemplateContract.build(tokenizer, "model")
    (found,) = encode_all([Conversation(turns, 0)], tokenizer, contract, TokensSpec(max_length=2000))
    texts = [tokenizer.decode(sample.ids) for sample in found.samples]
    assert texts == [
        f"[INST]Be brief.\n\n1?[/INST]One.{END}",
        f"[INST]1?[/INST]One.{END}[INST]Be brief.\n\n2?[/INST]Two.{END}",
    ]
    assert learned(found) == [[f"One.{END}"], [f"Two.{END}"]]


@pytest.mark.parametrize(
    ("answer", "missing"),
    [("<think>\nLook.\n</think>\n\nOne.", "Look."), ("Write </think> behind it.", "Write </think> behind it.")],
)
def test_a_template_that_leaves_part_of_the_answer_out(answer: str, missing: str) -> None:
    refused = encoded(template(DROPS), talk("1?", answer)).result
    assert isinstance(refused, Rejection) and refused.reason == "template_refused"
    assert "leaves" in refused.detail and missing.split()[0] in refused.detail


def test_another_beginning_than_the_prompt_is_refused() -> None:
    refused = encoded(template(DROPS, "<bot><tool>"), PLAIN).result
    assert isinstance(refused, Rejection) and refused.reason == "template_refused"
    assert "must be the beginning" in refused.detail and "alpaca" in refused.detail


def test_answers_beyond_the_length_are_counted() -> None:
    whole = encoded(EMPTY_THOUGHT_LAST, PLAIN)
    length = len(whole.samples[1].ids)
    found = encoded(EMPTY_THOUGHT_LAST, PLAIN, max_length=length)
    assert learned(found) == [*learned(whole)[:2], ["<thin"]]
    assert (found.left_out, found.truncated) == ((), 1)
    found = encoded(EMPTY_THOUGHT_LAST, PLAIN, max_length=length, truncation="drop")
    assert learned(found) == learned(whole)[:2] and found.truncated == 0
    assert len(found.left_out) == 1 and "tokens.max_length" in found.left_out[0]


def test_answers_of_one_text_beyond_the_length_are_counted() -> None:
    whole = encoded(THOUGHT_LAST, PLAIN)
    second = begins(whole.samples[0].mask.tolist())[1]
    found = encoded(THOUGHT_LAST, PLAIN, max_length=second + 2)
    assert learned(found) == [[f"One.{END}", "Tw"]]
    assert (len(found.left_out), found.truncated) == (1, 1)


def test_all_samples_are_counted() -> None:
    tokenizer: PreTrainedTokenizerBase = byte_tokenizer(EMPTY_THOUGHT_LAST)
    (count,) = count_tokens([PLAIN], tokenizer)
    samples: tuple[Sample, ...] = encoded(EMPTY_THOUGHT_LAST, PLAIN).samples
    assert count is not None and len(samples) == 3
    assert count.tokens == sum(len(sample.ids) for sample in samples)
    assert count.learned == sum(int(sample.mask.sum()) for sample in samples)

# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
import typing
from typing import Any

import pytest

from didact.datasets.conversation import Conversation
from didact.datasets.forms.drafts import RowSettings
from didact.datasets.forms.table_of_forms import COLUMN_FORMS, FORMS, Form, recognise, to_conversation
from didact.datasets.rows.options import RowOptions
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.spec.data import FORMATS

MOSS_TURN = {
    "Human": "<|Human|>: Who won?<eoh>\n",
    "Inner Thoughts": "<|Inner Thoughts|>: I should search.<eot>\n",
    "Commands": '<|Commands|>: Search("who won")<eoc>\n',
    "Tool Responses": "<|Results|>:\nSearch => Ann<eor>\n",
    "MOSS": "<|MOSS|>: Ann won.<eom>\n",
}
QUIET = {"Inner Thoughts": "<|Inner Thoughts|>: None<eot>\n", "Commands": "<|Commands|>: None<eoc>\n"}
HELLO = ["Hi", "Hello", "Bye", "Bye bye"]
QUESTION = {"question": "Which is red?", "answer": "B"}
RED = "Which is red?\nA. sky\nB. blood"

# Form, record, what is said by turns from the first user turn.
CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("alpaca", {"instruction": "Add.", "context": "1, 2", "response": "3", "category": "x"}, ["Add.\n\n1, 2", "3"]),
    ("alpaca", {"instruction": "a", "input": "", "response": "old", "output": "new"}, ["a", "new"]),
    ("alpaca", {"instruction": "c", "output": "d", "history": [["a", "b"]]}, ["a", "b", "c", "d"]),
    ("alpaca", {"instruction": "Human:你好\nAssistant:你好！\nHuman:再见\nAssistant:", "input": "", "output": "再见！"},
     ["你好", "你好！", "再见", "再见！"]),
    ("seed_task", {"instruction": "Add.", "instances": [{"input": "1, 2", "output": "3"}]}, ["Add.\n\n1, 2", "3"]),
    ("prompt_completion", {"prompt": "a", "completion": "b"}, ["a", "b"]),
    ("prompt_completion", {"prompt": "a", "response": "b", "source": "x"}, ["a", "b"]),
    ("prompt_completion", {"inputs": "a", "targets": "b"}, ["a", "b"]),
    ("prompt_completion", {"kind": "NLI", "input": "a", "target": "b"}, ["a", "b"]),
    ("prompt_completion", {"input": "a", "output": "b", "history": [["c", "d"]]}, ["c", "d", "a", "b"]),
    ("prompt_completion", {"user": "a", "assistant": "b", "system": "c"}, ["a", "b"]),
    ("alpaca", {"instruction": "a", "input": "", "output": "b", "user": "c", "assistant": "d"}, ["a", "b"]),
    ("question_answer", {"question": "a", "answer": "b", "input": "c", "output": "d"}, ["a", "b"]),
    ("preference", {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\nHuman: is a word.", "rejected": "x"},
     ["Hi", "Hello.\nHuman: is a word."]),
    ("preference", {"prompt": "a", "chosen": "b", "rejected": "c"}, ["a", "b"]),
    ("preference", {"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                    "rejected": []}, ["a", "b"]),
    ("comparison", {"question": {"full_text": "q"}, "answer_0": "a", "answer_1": "b", "score_0": -1, "score_1": 1.0},
     ["q", "b"]),
    ("comparison", {"question": "q", "response_j": "good", "response_k": "bad"}, ["q", "good"]),
    ("answer_lists", {"question": "q", "human_answers": ["a"], "chatgpt_answers": ["b"]}, ["q", "b"]),
    ("answer_lists", {"question": "q", "human_answers": ["a"], "chatgpt_answers": [""]}, ["q", "a"]),
    ("sharegpt", {"conversations": [{"from": "user", "value": "a"}, {"from": "chatgpt", "value": "b"}]}, ["a", "b"]),
    ("sharegpt", {"conversation": [{"human": "a", "assistant": "b"}, {"human": "c", "assistant": "d"}]}, list("abcd")),
    ("sharegpt", {"conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
     ["a", "b"]),
    ("sharegpt", {"instruction": "Be kind.", "conversations": [{"question": "a", "answer": "b"}]}, ["a", "b"]),
    ("turn_list", {"id": "0", "data": HELLO}, HELLO),
    ("turn_list", {"data": [HELLO[:2], HELLO[2:]]}, HELLO),
    ("dialogue", {"context": HELLO[::2], "response": HELLO[1::2], "rots": []}, HELLO),
    ("dialogue", {"context": "a", "response": "b"}, ["a", "b"]),
    ("transcript", {"text": "<human>: Hi\n<bot>: Hello\n<human>: Bye\n<bot>: Bye bye"}, HELLO),
    ("transcript", {"text": "User: Hi\n\nJoi: Hello\n\nUser: Bye\n\nJoi: Bye bye"}, HELLO),
    ("transcript", {"topic": "t", "input": "The conversation between human and AI assistant.\n[|Human|] Hi\n[|AI|] "
                    "Hello\n[|Human|] Bye\n[|AI|] Bye bye\n[|Human|] "}, HELLO),
    ("transcript", {"plain_text": "<|Human|>: Hi<eoh>\n<|MOSS|>: Hello<eom>\n<|Human|>: Bye<eoh>\n"
                    "<|MOSS|>: Bye bye<eom>"}, HELLO),
    ("moss", {"meta_instruction": "You are M.", "num_turns": 1, "plain_text": "[Human]: Hi<eoh> [MOSS]: Hello<eoa>"},
     ["Hi", "Hello"]),
    ("moss", {"meta_instruction": "You are M.", "chat": {"turn_1": MOSS_TURN, "turn_2": {**MOSS_TURN, **QUIET}}},
     ["Who won?", 'Thought: I should search.\n\nCommand: Search("who won")', "Result: Search => Ann", "Ann won.",
      "Who won?", "Ann won."]),
    ("role_play", {"role_1": "Teacher", "message_1": {"content": "Instruction: a"}, "message_2": {"content": "b"},
                   "message_3": {"content": "c"}, "num_messages": 3}, ["Instruction: a", "b"]),
    ("role_play", {"message_1": "a", "message_2": "b"}, ["a", "b"]),
    ("cot", {"question": "Q: 1+1?\nA:", "rationale": "It is 2.", "pred_ans": "3", "gold_ans": "2"},
     ["1+1?", "It is 2.\nThe answer is 2."]),
    ("question_answer", {"question": "q", "answer": "a"}, ["q", "a"]),
    ("question_answer", {"question": "q", "answer": "Half of 6 is <<6/2=3>>3.\n#### 3"},
     ["q", "Half of 6 is 3.\nThe answer is 3."]),
    ("exam", {**QUESTION, "A": "sky", "B": "blood"}, [RED, "B. blood"]),
    ("exam", {**QUESTION, "choices": ["(A) sky", "(B) blood"], "answer": 1}, [RED, "B. blood"]),
    ("exam", {**QUESTION, "options": {"A": "sky", "B": "blood"}, "answer": "(b)"}, [RED, "B. blood"]),
    ("exam", {**QUESTION, "choices": {"text": ["sky", "blood"], "label": ["A", "B"]}, "answer": "blood"},
     [RED, "B. blood"]),
    ("exam", {**QUESTION, "A": "sky", "B": "blood", "explanation": "Skies are blue."},
     [RED, "Skies are blue.\nThe answer is B. blood."]),
    ("exam", {"year": "2022", "question": "选什么？", "answer": ["A", "C"], "analysis": "甲和丙对。"},
     ["选什么？", "甲和丙对。\n答案是AC。"]),
    ("textbook", {"textbox_q_instruction": "回答", "textbox_q_context": "", "textbox_question": "1+1=?",
                  "textbox_answer": "2", "textbox_answer_analysis": ""}, ["回答\n\n1+1=?", "2"]),
    ("extractive_qa", {"context": "Ann won.", "question": "Who won?", "answers": {"text": ["Ann"]}},
     ["Answer the question with words from the passage.\n\nPassage:\nAnn won.\n\nQuestion: Who won?", "Ann"]),
    ("consultation", {"department": "d", "title": "头痛", "ask": "怎么办？", "answer": "休息。"},
     ["头痛\n\n怎么办？", "休息。"]),
    ("consultation", {"title": "头痛", "ask": "头痛怎么办？", "answer": "休息。"}, ["头痛怎么办？", "休息。"]),
]  # fmt: skip


def convert(form: str, record: Any, **options: Any) -> Conversation:
    settings = RowSettings(RowOptions(**options))
    return to_conversation(typing.cast(Form, form), RawRow("file", 1, 0, record), 7, settings)


@pytest.mark.parametrize(("form", "record", "said"), CASES)
def test_a_record_is_recognised_by_its_fields_and_read(form: str, record: dict[str, Any], said: list[str]) -> None:
    assert recognise(record) == form
    conversation = convert(form, record)
    turns = [message for message in conversation.messages if message.role != "system"]
    assert [message.content for message in turns] == said
    assert conversation.row == 7


def test_what_is_said_before_the_first_turn_is_the_system_message() -> None:
    for record in (
        {"instruction": "Be kind.", "conversations": [{"question": "a", "answer": "b"}]},
        {"meta_instruction": "Be kind.\n", "plain_text": "[Human]: a<eoh> [MOSS]: b<eoa>"},
        {"text": "Be kind.\n<human>: a\n<bot>: b"},
    ):
        form = recognise(record)
        assert form is not None
        first, *_ = convert(form, record).messages
        assert (first.role, first.content) == ("system", "Be kind.")


def test_a_rationale_and_an_answer_are_kept_as_fields() -> None:
    conversation = convert("question_answer", {"question": "q", "answer": "Half is <<6/2=3>>3.\n#### 3"})
    assert (conversation.rationale, conversation.answer) == ("Half is 3.", "3")
    conversation = convert("exam", {**QUESTION, "A": "sky", "B": "blood"})
    assert (conversation.rationale, conversation.answer) == (None, "B. blood")


@pytest.mark.parametrize(("language", "answer"), [("en", "neutral"), ("zh", "中立")])
@pytest.mark.parametrize("label", [1, "neutral", " Neutral"])
def test_inference_is_asked_in_the_language_of_its_premise(language: str, answer: str, label: object) -> None:
    premise = "A man sleeps." if language == "en" else "一个男人在睡觉。"
    record = {"premise": premise, "hypothesis": "x", "label": label}
    conversation = convert("nli", record)
    assert premise in conversation.messages[0].content
    assert (conversation.messages[1].content, conversation.rationale) == (answer, None)
    explained = convert("nli", {**record, "explanation": "It may be."})
    assert (explained.answer, explained.rationale) == (answer, "It may be.")
    assert "neutral" in convert("nli", record, language="en").messages[0].content
    assert "中立" in convert("nli", record, language="zh").messages[0].content


def test_tasks_on_chinese_papers_are_asked_in_words() -> None:
    conversation = convert("csl", "to keywords\t摘要\t甲_乙".encode())
    assert conversation.messages[0].content.endswith("\n\n摘要")
    assert conversation.messages[1].content == "甲、乙"


@pytest.mark.parametrize(
    ("form", "record", "reason"),
    [
        ("alpaca", {"instruction": "a", "output": "b", "history": [["a"]]}, "wrong_type"),
        ("seed_task", {"instruction": "a", "instances": []}, "wrong_type"),
        ("prompt_completion", {"prompt": "a"}, "missing_field"),
        ("preference", {"chosen": "no marks", "rejected": "x"}, "wrong_turns"),
        ("preference", {"chosen": ["a", "b"], "rejected": []}, "wrong_type"),
        ("preference", {"chosen": "\n\nHuman: a\n\nAssistant: ", "rejected": "x"}, "empty_output"),
        ("comparison", {"question": "q", "answer_0": "a", "answer_1": "b", "score_0": 0, "score_1": 0.0},
         "no_preference"),
        ("comparison", {"question": "q", "answer_0": "a", "answer_1": "b", "score_0": "1", "score_1": 0}, "wrong_type"),
        ("answer_lists", {"question": "q", "human_answers": [], "chatgpt_answers": None}, "empty_output"),
        ("sharegpt", {"conversations": ["a"]}, "wrong_type"),
        ("sharegpt", {"conversations": [{"from": "narrator", "value": "a"}]}, "unknown_role"),
        ("turn_list", {"data": ["a", 1]}, "wrong_type"),
        ("turn_list", {"data": ["a"]}, "wrong_turns"),
        ("dialogue", {"context": ["a"], "response": []}, "wrong_turns"),
        ("moss", {"meta_instruction": "", "chat": {"turn_2": MOSS_TURN}}, "missing_field"),
        ("moss", {"meta_instruction": "", "chat": {"turn_1": {"Human": 3}}}, "wrong_type"),
        ("role_play", {"message_1": {"content": "a"}, "message_2": {}}, "missing_field"),
        ("cot", {"question": "q", "rationale": " ", "answer": "a"}, "empty_output"),
        ("cot", {"question": "q", "rationale": "r", "answer": None}, "wrong_type"),
        ("cot", {"question": " ", "rationale": "r", "answer": "a"}, "empty_prompt"),
        ("question_answer", {"question": "q", "answer": "\n#### 3"}, "empty_output"),
        ("exam", {**QUESTION, "choices": ["a"], "answer": 3}, "unknown_label"),
        ("exam", {**QUESTION, "choices": ["a", "b"], "answer": "Z"}, "unknown_label"),
        ("exam", {**QUESTION, "choices": ["a"] * 9}, "wrong_type"),
        ("exam", {**QUESTION, "question": "", "A": "a", "B": "b"}, "empty_prompt"),
        ("extractive_qa", {"context": "c", "question": "q", "answers": {"text": []}}, "empty_output"),
        ("extractive_qa", {"context": "c", "question": "", "answers": {"text": ["a"]}}, "empty_prompt"),
        ("nli", {"premise": "p", "hypothesis": "h", "label": -1}, "unknown_label"),
        ("nli", {"premise": "p", "hypothesis": "h", "label": True}, "unknown_label"),
        ("nli", {"premise": "p", "hypothesis": "h", "label": "neutral", "explanation": ""}, "empty_output"),
        ("nli", {"premise": "", "hypothesis": "h", "label": 0}, "empty_prompt"),
        ("csl", b"to poem\ta\tb", "unknown_label"),
        ("csl", b"to title\ta", "wrong_columns"),
        ("consultation", {"title": None, "ask": "", "answer": "a"}, "empty_prompt"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_used_is_refused_with_its_reason(form: str, record: Any, reason: str) -> None:
    with pytest.raises(BadRow) as caught:
        convert(form, record)
    assert caught.value.reason == reason


def test_no_record_of_odd_values_crashes_a_form() -> None:
    odd: list[Any] = [None, 3, 2.5, True, "", "text", [], [None], ["a"], [["a"]], [{}], {}, {"text": 1}, {"a": []}]
    names = {name for _, record, _ in CASES for name in record} | {
        *(
            "table",
            "values",
            "sql",
            "table_array",
            "qa",
            "pre_text",
            "post_text",
            "paragraphs",
            "questions",
            "solution",
        ),
        *("utterance", "targetValue", "hypothesis", "label", "premise", "answers", "id", "messages", "score_0"),
    }
    for form in {form.name for form in FORMS}:
        for value in odd:
            try:
                conversation = convert(form, dict.fromkeys(names, value))
            except BadRow:
                continue
            assert conversation.messages


def test_the_spec_knows_exactly_the_forms_that_are_read() -> None:
    assert set(FORMATS) == {"auto", *typing.get_args(Form)}
    assert {form.name for form in FORMS} | set(COLUMN_FORMS) == set(typing.get_args(Form))

# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
from typing import Any

import pytest

from didact.datasets.conversation import Conversation
from didact.datasets.forms.drafts import RowSettings
from didact.datasets.forms.table_headings import headed_table
from didact.datasets.forms.table_of_forms import recognise, to_conversation
from didact.datasets.rows.fields import listed
from didact.datasets.rows.options import RowOptions
from didact.datasets.rows.raw_row import BadRow, RawRow


def convert(record: dict[str, Any], **options: Any) -> Conversation:
    form = recognise(record)
    assert form is not None
    return to_conversation(form, RawRow("file", 1, 0, record), 0, RowSettings(RowOptions(**options)))


def last(record: dict[str, Any], **options: Any) -> str:
    return convert(record, **options).messages[-1].content


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["5", "6"], "5, 6"),
        (["73,260", "57,768"], "73,260; 57,768"),
        (["Loss", ""], "Loss"),
        (["73,260"], "73,260"),
        ([" a ", "\n", "b\n"], "a, b"),
        (["Paris, France", "Rome"], "Paris, France; Rome"),
    ],
)
def test_several_answers_keep_their_items_apart(values: list[str], expected: str) -> None:
    assert listed(values) == expected
    table = {"header": ["x"], "rows": [["1"]]}
    assert last({"question": "q?", "table": table, "answers": values}) == expected
    report = {"table": {"table": [["", "2019"], ["Sales", "5"]]}, "paragraphs": []}
    assert last({**report, "questions": [{"question": "q?", "answer": values, "scale": ""}]}) == expected


@pytest.mark.parametrize("values", [[], [""], [" ", "\n"]])
def test_answers_of_which_none_is_left_are_refused(values: list[str]) -> None:
    with pytest.raises(BadRow) as caught:
        last({"question": "q?", "table": {"header": ["x"], "rows": [["1"]]}, "answers": values})
    assert caught.value.reason == "empty_output"
    with pytest.raises(BadRow):
        last({"context": "c", "question": "q", "answers": {"text": values}})


def test_a_passage_gives_its_first_answer_that_is_not_blank() -> None:
    assert last({"context": "Ann won.", "question": "Who?", "answers": {"text": ["", " Ann "]}}) == "Ann"


@pytest.mark.parametrize(
    ("answer", "rationale", "expected"),
    [
        ("2\n", "One and one.", "One and one.\nThe answer is 2."),
        ("It is two.", "One and one.\n", "One and one.\nThe answer is It is two."),
        ("Is it?", "r", "r\nThe answer is Is it?"),
        ("一\n", "今天是星期一。\n", "今天是星期一。\n答案是一。"),
        ("是。", "因为。", "因为。\n答案是是。"),
    ],
)
def test_an_answer_is_stripped_before_the_full_stop_of_a_template(answer: str, rationale: str, expected: str) -> None:
    question = "今天星期几？" if "答" in expected else "How many?"
    for record in (
        {"question": question, "answer": answer, "analysis": rationale},
        {"question": question, "answer": answer, "rationale": rationale},
        {"textbox_question": question, "textbox_answer": answer, "textbox_answer_analysis": rationale},
    ):
        assert last(record) == expected
    assert last({"question": question, "answer": answer, "analysis": ""}) == answer.strip()


REPORT = {
    "table": {"table": [["", "2019", "2018"], ["Loss", "73,260", "57,768"]]},
    "paragraphs": [{"text": "The shop sells pens."}],
    "questions": [
        {"question": "What does it sell?", "answer": ["pens"], "derivation": "", "scale": "", "answer_from": "text"},
        {"question": "Losses?", "answer": ["73,260", "57,768"], "derivation": "", "scale": "thousand"},
        {"question": "By how much did it grow?", "answer": 15492, "derivation": "73,260-57,768", "scale": "thousand"},
        {"question": "In percent?", "answer": ["26.8", "27%"], "derivation": None, "scale": "percent"},
    ],
}


def test_a_report_is_asked_of_table_and_text_and_derivations_are_rationales() -> None:
    answers = [message.content for message in convert(REPORT).messages[1::2]]
    assert answers == [
        "pens",
        "73,260; 57,768 thousand",
        "73,260-57,768\nThe answer is 15492 thousand.",
        "26.8%, 27%",
    ]
    assert convert(REPORT).messages[0].content.startswith("Answer the question from the table and the text.")
    assert convert(REPORT, reasoning="only").messages[5].content == "15492 thousand"
    third = {**REPORT, "questions": REPORT["questions"][2:3], "paragraphs": []}  # type: ignore[index]
    assert (convert(third).rationale, convert(third).answer) == ("73,260-57,768", "15492 thousand")
    assert convert(third).messages[0].content.startswith("Answer the question from the table.")


@pytest.mark.parametrize(
    ("rows", "header", "num_rows"),
    [
        ([["", "Years ended June 30,", ""], ["", "2019", "2018"], ["Loss", "1", "2"]],
         ("", "Years ended June 30, / 2019", "Years ended June 30, / 2018"), 1),
        ([["", "2019", "2018"], ["", "£ million", "£ million"], ["Loss", "1", "2"]],
         ("", "2019 / £ million", "2018 / £ million"), 1),
        ([["", "Group", "Firm"], ["(in millions)", "FY2019", "2018A"], ["Loss", "1", "2"]],
         ("(in millions)", "Group / FY2019", "Firm / 2018A"), 1),
        ([["", "", ""], ["", "December 31, 2019", "2018 (1)"], ["Loss", "1", "2"]],
         ("", "December 31, 2019", "2018 (1)"), 1),
        ([["", "2019", "2018"], ["", "1,234", "5,678"], ["Loss", "1", "2"]], ("", "2019", "2018"), 2),
        ([["Event", "First", "Last"], ["Year of opening", "1995", "2003"]], ("Event", "First", "Last"), 1),
        ([["", "a"], ["", "2019"]], ("", "a"), 1),
    ],
)  # fmt: skip
def test_years_and_units_below_the_first_row_are_headings(
    rows: list[list[str]], header: tuple[str, ...], num_rows: int
) -> None:
    table = headed_table(rows)
    assert (table.header, len(table.rows)) == (header, num_rows)


def moss(**turn: str) -> dict[str, Any]:
    return {"meta_instruction": "", "chat": {"turn_1": {"Human": "<|Human|>: Who?<eoh>", **turn}}}


def test_thought_command_and_result_of_moss_stand_apart() -> None:
    spoken = {"MOSS": "<|MOSS|>: Ann.<eom>"}
    thought = {"Inner Thoughts": "<|Inner Thoughts|>: Easy.<eot>"}
    command = {"Commands": "<|Commands|>: Search(1)<eoc>", "Tool Responses": "<|Results|>: Ann<eor>"}
    assert last(moss(**spoken)) == "Ann."
    assert last(moss(**spoken, **thought)) == "Thought: Easy.\n\nAnn."
    assert last(moss(**spoken, **thought), reasoning="only") == "Ann."
    told = [message.content for message in convert(moss(**spoken, **thought, **command)).messages]
    assert told == ["Who?", "Thought: Easy.\n\nCommand: Search(1)", "Result: Ann", "Ann."]
    told = [message.content for message in convert(moss(**spoken, **thought, **command), reasoning="only").messages]
    assert told == ["Who?", "Command: Search(1)", "Result: Ann", "Ann."]
    with pytest.raises(BadRow):
        convert(moss(**{"MOSS": "<|MOSS|>: <eom>"}, **thought))

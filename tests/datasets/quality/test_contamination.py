"""Questions of an evaluation in training rows are found: in any wrapping, in any script, and nothing else is."""

# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
import random
from pathlib import Path

import pytest

from didact.datasets import Conversation, Message, load_dataset
from didact.datasets.quality import ContaminationIndex, EvalText, Match, against_texts
from didact.datasets.quality.texts import words
from didact.errors import DataError
from didact.spec import ContaminationSpec, EvaluationSetSpec, SourceSpec
from tests.conftest import shared_data

LONG = "A train leaves the old station at nine and travels forty miles to the coast before it stops for water"
SHORT = "Would a Monoamine Oxidase candy bar cheer up a depressed friend?"
TINY = "Can pears sink?"
CHINESE = "如果一个长方形的周长是二十四厘米，长是宽的两倍，那么这个长方形的面积是多少平方厘米？"


def asked(user: str, answer: str = "I see.", row: int = 0) -> Conversation:
    return Conversation((Message("user", user), Message("assistant", answer)), row)


def found(question: str, *conversations: Conversation) -> list[bool]:
    return [bool(matches) for matches in ContaminationIndex([EvalText("exam", "1", question)]).search(conversations)]


@pytest.mark.parametrize("question", [LONG, SHORT, TINY, CHINESE])
def test_a_question_is_found_in_other_writing_and_inside_a_prompt(question: str) -> None:
    shouted = question.upper().replace(" ", "\n ")
    assert (
        found(question, asked(question), asked(shouted), asked(f"Answer this:\n{question}\nThink first.")) == [True] * 3
    )


def test_thirteen_words_in_a_row_give_a_long_question_away_and_twelve_do_not() -> None:
    some = LONG.split()
    assert found(LONG, asked("so " + " ".join(some[3:16])), asked("so " + " ".join(some[3:15]))) == [True, False]
    assert found(LONG, asked("Tell me more.", " ".join(some[3:16]))) == [True]


def test_twenty_six_characters_give_a_long_chinese_question_away() -> None:
    some = "".join(words(CHINESE))
    assert found(CHINESE, asked(some[5:31]), asked(some[5:30])) == [True, False]


def test_a_short_question_must_be_there_as_a_whole_and_counts_in_answers_too() -> None:
    assert found(SHORT, asked("Would a candy bar cheer up a depressed friend?"), asked("Ask me.", SHORT)) == [
        False,
        True,
    ]


def test_a_tiny_question_must_be_whole_sentences_of_a_user() -> None:
    assert found(TINY, asked("Q: can pears sink? A:"), asked("Where can pears sink?"), asked("Ask me.", TINY)) == [
        *(True, False, False)
    ]
    assert found("4 + 3 - 2 =", asked("Calculate: 4 + 3 - 2 ="), asked("Calculate: 4 + 3 - 2 + 1 =")) == [True, False]
    assert found("4 + 3", asked("4 - 3"), asked("4 + 3?")) == [False, True]


def test_words_do_not_run_from_one_message_into_the_next() -> None:
    first, second = SHORT.split(" cheer ")
    assert found(SHORT, asked(first, f"cheer {second}"), asked(f"{first}\ncheer {second}")) == [False, True]


def test_instructions_that_all_questions_share_are_no_question() -> None:
    task = "State the final answer to the following arithmetic problem and write nothing else than the number itself:"
    texts = [EvalText("sums", str(n), f"{task} {n} + {n * 7} =") for n in range(5)]
    rows = [asked(f"{task} 3 + 22 ="), asked(f"{task} 3 + 21 =")]
    assert [[match.item for match in matches] for matches in ContaminationIndex(texts).search(rows)] == [[], ["3"]]


def test_match_names_set_item_and_words_once_for_each_set() -> None:
    texts = [EvalText("a", "7", SHORT), EvalText("b", "x", "Where is Oslo?"), EvalText("b", "y", "Where is Rome?")]
    index = ContaminationIndex(texts)
    assert index.num_questions == {"a": 1, "b": 2}
    (matches,) = index.search([asked(f"Where is Rome? Where is Oslo? {SHORT}")])
    assert matches == (Match("a", "7", " ".join(words(SHORT))), Match("b", "y", "where is rome"))


def test_search_agrees_with_looking_at_every_place() -> None:
    random_ = random.Random(5)
    vocabulary = [f"w{number}" for number in range(12)]
    questions = [random_.choices(vocabulary, k=random_.choice([8, 9, 11, 16])) for _ in range(60)]
    rows = [random_.choices(vocabulary, k=400) for _ in range(200)]
    rows = [row[:200] + random_.choice(questions)[: random_.choice([7, 8, 13])] + row[200:] for row in rows]
    index = ContaminationIndex(EvalText("s", str(n), " ".join(question)) for n, question in enumerate(questions))
    got = [bool(matches) for matches in index.search(asked(" ".join(row)) for row in rows)]
    parts = {
        tuple(question[start : start + 13]) for question in questions for start in range(max(1, len(question) - 12))
    }
    expected = [
        any(tuple(row[start : start + len(part)]) == part for part in parts for start in range(len(row)))
        for row in rows
    ]
    assert got == expected
    assert 30 < sum(got) < 170


def test_evaluation_sets_are_read_from_files_of_any_form(tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text('{\n "name": "t",\n "examples": [{"input": "One?"}, {"input": "Two?"}]\n}\n')
    (tmp_path / "test.jsonl").write_text('{"question": "Three?", "answer": "#### 3"}\n')
    against = (
        EvaluationSetSpec(name="big", path=str(tmp_path / "task.json"), question="examples.input"),
        EvaluationSetSpec(name="test", path=str(tmp_path / "test.jsonl")),
    )
    texts = list(against_texts(ContaminationSpec(against=against)))
    assert [(text.set_name, text.text) for text in texts] == [("big", "One?"), ("big", "Two?"), ("test", "Three?")]
    assert texts[1].item == f"{tmp_path / 'task.json'}:1[1]"
    empty = EvaluationSetSpec(name="big", path=str(tmp_path / "task.json"), question="examples.text")
    with pytest.raises(DataError, match=r"'big'.* no questions in the field 'examples.text'"):
        list(against_texts(ContaminationSpec(against=(empty,))))


def test_generated_and_carded_sets_are_read_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    sums = EvaluationSetSpec(name="sums", path="reasoning-gym:chain_sum", max_rows=3, options={"seed": 9})
    texts = list(against_texts(ContaminationSpec(against=(sums,))))
    assert len({text.text for text in texts}) == 3
    assert not caplog.text
    asked_for = EvaluationSetSpec(name="sums", path="reasoning-gym:chain_sum", question="question")
    with pytest.raises(DataError, match="remove `question`"):
        list(against_texts(ContaminationSpec(against=(asked_for,))))


def test_hub_sets_are_read_by_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "someone" / "exam"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text('{"turns": ["One?", "And two?"]}\n{"turns": ["Three?"]}\n')
    exam = EvaluationSetSpec(name="exam", path="hf:someone/exam", question="turns")
    texts = list(against_texts(ContaminationSpec(against=(exam,))))
    assert [text.text for text in texts] == ["One?", "And two?", "Three?"]


def test_setting_without_effect_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "exam.jsonl").write_text('{"text": "One?"}\n')
    exam = EvaluationSetSpec(name="exam", path=str(tmp_path / "exam.jsonl"), question="text", max_rows=3)
    assert [text.text for text in against_texts(ContaminationSpec(against=(exam,)))] == ["One?"]
    assert "evaluation set exam: max_rows only has an effect" in caplog.text


def test_all_2061_questions_of_strategyqas_training_file_are_found_in_the_task_and_none_among_the_held_out() -> None:
    """The training file at hand is cut after 2,000 rows. Its other questions are those of the task that are neither in
    the cut nor held out: 61, which makes the 2,061 rows of the whole file."""
    real = shared_data()
    folder = real / "eval" / "strategyqa"
    task = EvaluationSetSpec(name="task", path=str(folder / "task.json"), question="examples.input")
    held_out = EvaluationSetSpec(name="held_out", path=str(folder / "heldout_not_in_flan_cot_train.jsonl"))
    texts = list(against_texts(ContaminationSpec(against=(task, held_out))))
    index = ContaminationIndex(texts)
    assert index.num_questions == {"task": 2289, "held_out": 229}

    def sets_of(rows: list[Conversation]) -> list[tuple[str, ...]]:
        return [tuple(match.set_name for match in matches) for matches in index.search(rows)]

    folder = real / "raw" / "chain_of_thought"
    cut = rows_of(folder / "strategyqa_train.tsv")
    questions = {
        set_name: {text.text for text in texts if text.set_name == set_name} for set_name in index.num_questions
    }
    known = {conversation.messages[0].content for conversation in cut}
    rest = [asked(question) for question in sorted(questions["task"] - questions["held_out"] - known)]
    assert (len(cut), len(rest)) == (2000, 61)
    assert sets_of(cut + rest) == [("task",)] * 2061
    templated = rows_of(folder / "formatted_by_alpaca_cot" / "strategyqa_train.json")
    assert sets_of(templated) == [("task",)] * 300
    for other in ("aqua_train.tsv", "creak_train.tsv", "ecqa_train.tsv", "qasc_train.tsv"):
        assert not any(sets_of(rows_of(folder / other)))


def rows_of(file: Path) -> list[Conversation]:
    source = SourceSpec(name="real", path=str(file))
    return list(load_dataset(source, seed=0, max_bad_rows_share=0.01, quarantine_dir=None).train)

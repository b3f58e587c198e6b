"""IFEval: what its programs say of answers that do or do not follow."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="the extra didact[lm-eval] is not installed")

import nltk

from didact.errors import DataError
from didact.evaluation.asks import Answer, Generation, Text
from didact.evaluation.questions import Question, Score
from didact.evaluation.tasks import build_task
from didact.evaluation.tasks.ifeval import IfEval
from didact.spec import IfEvalTask

COMMA = "punctuation:no_comma"
WORD = "keywords:existence"
SENTENCES = "length_constraints:number_sentences"
ROWS: list[dict[str, Any]] = [
    {"key": 7, "prompt": "No commas.", "instruction_id_list": [COMMA], "kwargs": [{}]},
    {
        "key": 9,
        "prompt": "Say owl without a comma.",
        "instruction_id_list": [COMMA, WORD],
        "kwargs": [{"num_words": None}, {"keywords": ["owl"]}],
    },
]


@pytest.fixture(autouse=True)
def _sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NLTK's data for sentences, untrained: every full stop ends one."""
    folder = tmp_path / "nltk" / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    for name in ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"):
        (folder / name).write_text("", encoding="utf-8")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])
    return folder.parent


def built(folder: Path, rows: list[Any], **fields: Any) -> IfEval:
    file = folder / "ifeval.jsonl"
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    task = build_task(IfEvalTask(task="ifeval", path=str(file), **fields))
    assert isinstance(task, IfEval)
    return task


def score(task: IfEval, question: Question, text: str) -> Score:
    return task.score(question, (Answer(texts=(Text(text, 1, "stop"),)),))


def test_questions_are_asked_as_they_are(tmp_path: Path) -> None:
    task = built(tmp_path, ROWS)
    assert (task.name, task.metric) == ("ifeval", "accuracy")
    assert [(each.id, each.group, each.expected) for each in task.questions] == [
        ("7", "punctuation", COMMA),
        ("9", "several", f"{COMMA}; {WORD}"),
    ]
    assert task.asks(task.questions[1], ()) == (Generation(task.questions[1].messages, 1280),)


@pytest.mark.parametrize(
    ("text", "strict", "loose", "note"),
    [
        ("An owl.", 1, 1, ""),
        ("An owl, maybe.", 0, 0, f"not followed: {COMMA}"),
        ("Sure, here it is:\nAn owl.", 0, 1, f"not followed: {COMMA}"),
        ("A duck.", 0, 0, f"not followed: {WORD}"),
        (" ", 0, 0, f"not followed: {COMMA}, {WORD}"),
    ],
)
def test_strict_and_loose(tmp_path: Path, text: str, strict: float, loose: float, note: str) -> None:
    task = built(tmp_path, ROWS)
    found = score(task, task.questions[1], text)
    assert (found.values["accuracy"], found.values["loose_accuracy"], found.note) == (strict, loose, note)


def test_instructions_have_figures_of_their_own(tmp_path: Path) -> None:
    task = built(tmp_path, ROWS)
    first, second = task.questions
    scores = [
        (first, score(task, first, "Yes, no")),
        (second, score(task, second, "An owl.")),
        (first, Score(problem="-")),
    ]
    assert task.overall(scores) == pytest.approx(
        {
            "instruction_accuracy": 2 / 3,
            "loose_instruction_accuracy": 2 / 3,
            "punctuation/instruction_accuracy": 1 / 2,
            "punctuation/loose_instruction_accuracy": 1 / 2,
            "keywords/instruction_accuracy": 1,
            "keywords/loose_instruction_accuracy": 1,
        }
    )


def test_sentences_are_counted(tmp_path: Path) -> None:
    settings = {"num_sentences": 2, "relation": "at least"}
    task = built(tmp_path, [{"prompt": "Two.", "instruction_id_list": [SENTENCES], "kwargs": [settings]}])
    values = [score(task, task.questions[0], text).values["accuracy"] for text in ("One. Two.", "One only.")]
    assert values == [1.0, 0.0]


def test_without_sentences_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk, "download", lambda *_, **__: False)
    settings = {"num_sentences": 2, "relation": "at least"}
    with pytest.raises(DataError, match=r"run `python -m nltk.downloader punkt_tab`"):
        built(tmp_path, [{"prompt": "Two.", "instruction_id_list": [SENTENCES], "kwargs": [settings]}])


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([], "holds no rows; expected JSON lines with prompt, instruction_id_list, kwargs"),
        ([*ROWS, "{"], "line 3: "),
        ([ROWS[0], {"prompt": "x"}], "line 2: found .*; expected an object with prompt"),
        ([{**ROWS[0], "kwargs": []}], "line 1: 1 instructions and 0 kwargs"),
        ([{**ROWS[0], "instruction_id_list": ["no:such"]}], "IFEval has no instruction 'no:such'; expected one of"),
    ],
)
def test_damaged_rows_are_named(tmp_path: Path, rows: list[Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        built(tmp_path, rows)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl is not a file"):
        build_task(IfEvalTask(task="ifeval", path=str(tmp_path / "gone.jsonl")))


def test_without_the_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("didact.evaluation.harness.extra.find_spec", lambda _: None)
    with pytest.raises(DataError, match=r'task ifeval: lm_eval is not installed; pip install "didact\[lm-eval\]"'):
        build_task(IfEvalTask(task="ifeval", path="x.jsonl"))

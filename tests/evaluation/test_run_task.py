import asyncio
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from didact.datasets.conversation import Message
from didact.errors import DidactError
from didact.evaluation import (
    Answer,
    Ask,
    Asked,
    Generation,
    Given,
    Identity,
    KeptAnswers,
    Likelihood,
    Likely,
    Model,
    Question,
    QuestionFacts,
    Score,
    Scored,
    Text,
    compare_task,
    kept_answers,
    run_task,
)
from didact.evaluation.answer_store import ask_digest
from didact.evaluation.results import TaskResult, task_metrics
from didact.evaluation.tasks.text_task import TextTask
from didact.spec import QuestionTask
from tests.fakes.scripted import ScriptedModel, measure, said


@dataclass
class TwoTurns:
    """Asks a question, asks about the answer, then has a judge look at both."""

    questions: Sequence[Question]
    judged: bool = False
    name: str = "turns"
    version: str = "1"
    metric: str = "accuracy"
    corrections: tuple[str, ...] = ()

    def asks(self, question: Question, answers: tuple[Answer, ...]) -> tuple[Ask, ...]:
        if not answers:
            return (Generation(question.messages, 4), Generation(question.messages, 4, attempt=1))
        if len(answers) == 2:
            turns = (*question.messages, Message("assistant", answers[0].text), Message("user", "Sure?"))
            return (Generation(turns, 4),)
        if self.judged and len(answers) == 3:
            return (Generation((Message("user", answers[2].text),), 4, to="judge"),)
        return ()

    def score(self, question: Question, answers: tuple[Answer, ...]) -> Score:
        return Score({"accuracy": float(answers[-1].text == question.expected)}, extracted=answers[-1].text)

    def overall(self, scores: Sequence[tuple[Question, Score]]) -> Mapping[str, float]:
        return {"asked": float(len(scores))}


def questions(count: int = 3) -> list[Question]:
    return [Question(f"q{n}", (Message("user", f"Is {n} even?"),), "yes") for n in range(count)]


def parity(ask: Ask) -> str:
    assert isinstance(ask.prompt, tuple)
    first = ask.prompt[0].content
    even = int(first.split()[1]) % 2 == 0
    return ("yes" if even else "no") if len(ask.prompt) == 3 else "thinking"


def test_a_task_is_asked_round_by_round_until_it_asks_nothing() -> None:
    result = measure(TwoTurns(questions()), parity)
    assert result.metrics == {"eval/turns/accuracy": pytest.approx(2 / 3), "eval/turns/asked": 3.0}
    assert result.counts["eval/turns/accuracy"] == result.num_items == 3
    assert [[answer.text for answer in each.answers] for each in result.scored] == [
        ["thinking", "thinking", "yes"],
        ["thinking", "thinking", "no"],
        ["thinking", "thinking", "yes"],
    ]
    assert [each.score.extracted for each in result.scored] == ["yes", "no", "yes"]


def test_no_more_is_asked_at_once_than_the_model_takes() -> None:
    model = ScriptedModel(parity, at_once=2)
    asyncio.run(run_task(TwoTurns(questions(9)), {"model": Asked(model, None)}))
    assert len(model.asked) == 27 and model.most_at_once == 2


def test_the_judge_is_asked_what_is_meant_for_it_and_is_named() -> None:
    result = measure(TwoTurns(questions(), judged=True), parity, judge=lambda ask: ask.prompt[0].content)
    assert result.metrics["eval/turns/accuracy"] == pytest.approx(2 / 3)
    assert result.judge == {"name": "judge", "base": "judge"}


def test_a_judge_that_fails_costs_the_scores_and_is_asked_no_more() -> None:
    def broken(ask: Ask) -> str:
        raise DidactError("the judge cannot be reached")

    result = measure(TwoTurns(questions(5), judged=True), parity, judge=broken)
    assert result.num_problems == 5
    assert "eval/turns/accuracy" not in result.metrics
    assert {each.score.problem for each in result.scored} == {"judge: the judge cannot be reached"}


def test_a_model_that_fails_ends_the_task() -> None:
    def broken(ask: Ask) -> str:
        raise DidactError("nothing answers")

    with pytest.raises(DidactError, match="nothing answers"):
        measure(TwoTurns(questions()), broken)


def test_a_question_without_an_answer_is_counted_and_is_not_scored() -> None:
    def some(ask: Ask) -> Answer | str:
        return Answer(problem="too long") if "1" in ask.prompt[0].content else parity(ask)

    result = measure(TwoTurns(questions()), some)
    assert result.metrics["eval/turns/accuracy"] == 1.0
    assert result.counts["eval/turns/accuracy"] == 2
    assert [each.score.problem for each in result.scored] == [None, "too long", None]


def test_answers_that_were_given_are_not_asked_again(tmp_path: Path) -> None:
    task, model = TwoTurns(questions()), ScriptedModel(parity)

    async def measured(of: ScriptedModel) -> float:
        asked = Asked(of, tmp_path)
        result = await run_task(task, {"model": asked})
        asked.close()
        return result.metrics["eval/turns/accuracy"]

    assert asyncio.run(measured(model)) == pytest.approx(2 / 3)
    again = ScriptedModel(lambda ask: "never asked")
    assert asyncio.run(measured(again)) == pytest.approx(2 / 3)
    assert again.asked == []
    other = ScriptedModel(parity, name="another model")
    assert asyncio.run(measured(other)) == pytest.approx(2 / 3)
    assert len(other.asked) == 9


def test_a_killed_evaluation_asks_only_what_is_left(tmp_path: Path) -> None:
    task = TwoTurns(questions())
    before = ScriptedModel(parity)
    asyncio.run(run_task(task, {"model": Asked(before, tmp_path)}))
    (file,) = (tmp_path / "answers").glob("*/*.jsonl")
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:4]) + lines[4][:20], encoding="utf-8")  # cut off in the middle of a line
    after = ScriptedModel(parity)
    result = asyncio.run(run_task(task, {"model": Asked(after, tmp_path)}))
    assert len(after.asked) == 5
    assert result.metrics["eval/turns/accuracy"] == pytest.approx(2 / 3)


def aged(folder: Path, days: float) -> None:
    """Make kept answers so many days older."""
    for file in (folder / "answers").glob("*/*.jsonl"):
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        older = [{**row, "at": row["at"] - days * 86400} for row in rows]
        file.write_text("".join(json.dumps(row) + "\n" for row in older), encoding="utf-8")


@pytest.mark.parametrize(("keep_days", "num_asked"), [(30, 0), (11, 0), (9, 9), (0, 9), (None, 0)])
def test_answers_of_what_may_change_age(tmp_path: Path, keep_days: float | None, num_asked: int) -> None:
    task = TwoTurns(questions())

    def measured() -> tuple[ScriptedModel, TaskResult]:
        model = ScriptedModel(parity)
        asked = Asked(model, tmp_path, keep_days=keep_days)
        result = asyncio.run(run_task(task, {"model": asked}))
        asked.close()
        return model, result

    assert measured()[1].corrections == ()
    aged(tmp_path, 10)
    model, result = measured()
    assert len(model.asked) == num_asked
    day = (datetime.now(UTC) - timedelta(days=10)).date().isoformat()
    told = f"9 answers were given before, the oldest on {day} (UTC); keep_days: 0 of the endpoint asks again"
    assert [line.partition(": ")[2] for line in result.corrections] == ([told] if keep_days and not num_asked else [])
    if num_asked:  # what came now is kept, and the newest answer counts
        model, result = measured()
        assert len(model.asked) == (9 if keep_days == 0 else 0)


def test_each_task_tells_of_the_kept_answers_that_it_used(tmp_path: Path) -> None:
    def measured(*tasks: TwoTurns) -> list[TaskResult]:
        asked = Asked(ScriptedModel(parity), tmp_path, keep_days=30)
        found = [asyncio.run(run_task(task, {"model": asked})) for task in tasks]
        asked.close()
        return found

    first, second = TwoTurns(questions()[:1]), TwoTurns(questions()[1:])
    measured(first)
    told, silent = measured(first, second)
    assert " answers were given before" in told.corrections[0] and silent.corrections == ()


def test_kept_answers_without_a_time_are_as_old_as_their_file(tmp_path: Path) -> None:
    ask = Generation((Message("user", "?"),), 3)
    kept = kept_answers(tmp_path, Identity("m"))
    kept.put(ask, said("four"))
    kept.close()
    (file,) = (tmp_path / "answers").glob("*/*.jsonl")
    row = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({"ask": row["ask"], "answer": row["answer"]}) + "\n", encoding="utf-8")
    os.utime(file, (1000, 1000))
    assert kept_answers(tmp_path, Identity("m")).given_at(ask) == 1000
    assert kept_answers(tmp_path, Identity("m"), not_before=1001).get(ask) is None


def test_classes_that_differ_by_a_mark_keep_figures_of_their_own() -> None:
    scores = [
        (Question(str(number), (Message("user", "?"),), group=group), Score({"accuracy": value}))
        for number, (group, value) in enumerate([("a/b", 1), ("a-b", 0), ("a/b", 1), ("a-b-2", 0.5), ("c/d", 0.25)])
    ]
    metrics, counts = task_metrics("t", "accuracy", scores, {})
    found = {name.split("/")[2]: value for name, value in metrics.items() if name.count("/") == 3}
    assert found == {"a-b-3": 1.0, "a-b": 0.0, "a-b-2": 0.5, "c-d": 0.25}
    assert (counts["eval/t/a-b-3/accuracy"], metrics["eval/t/macro_accuracy"]) == (2, pytest.approx(0.4375))


def test_questions_without_a_class_are_one_beside_others() -> None:
    def metrics(*groups: str) -> dict[str, float]:
        scores = [
            (Question(str(number), (Message("user", "?"),), group=group), Score({"accuracy": float(not number)}))
            for number, group in enumerate(groups)
        ]
        return task_metrics("t", "accuracy", scores, {})[0]

    assert metrics("", "") == {"eval/t/accuracy": 0.5}
    found = metrics("", "a", "")
    assert (found["eval/t/unclassed/accuracy"], found["eval/t/a/accuracy"]) == (0.5, 0.0)
    assert found["eval/t/macro_accuracy"] == 0.25
    facts = [
        QuestionFacts("t", str(n), "?", "", {m: Given((), {"accuracy": v}) for m, v in zip("ab", pair, strict=True)}, g)
        for n, (g, pair) in enumerate([("", (1, 1)), ("a", (0, 1)), ("", (0, 0))])
    ]
    compared = compare_task("t", "accuracy", facts, "a", "b")
    assert compared is not None and compared.macro is not None
    assert compared.macro.value == pytest.approx(0.5), "the same classes as those of the figures"


def test_answers_with_problems_are_not_kept(tmp_path: Path) -> None:
    ask = Generation((Message("user", "?"),), 3)
    kept = kept_answers(tmp_path, Identity("m", {"base": "1"}))
    kept.put(ask, Answer(problem="busy"))
    assert kept.get(ask) is None
    likely = Answer(likelihoods=(Likely(-1.5, 2, True),), seconds=0.25)
    scored = Likelihood("2 + 2 =", (" 4", " 5"))
    kept.put(ask, said("four"))
    kept.put(scored, likely)
    kept.close()
    again = kept_answers(tmp_path, Identity("renamed", {"base": "1"}))
    assert (again.get(ask), again.get(scored), len(again)) == (said("four"), likely, 2)
    assert kept_answers(tmp_path, Identity("m", {"base": "2"})).get(ask) is None


def test_whatever_is_asked_differently_is_another_ask() -> None:
    ask = Generation((Message("user", "?"),), 3)
    others = [
        Generation((Message("user", "?"),), 4),
        Generation((Message("system", "?"),), 3),
        Generation((Message("user", "? "),), 3),
        Generation("?", 3),
        Generation(ask.prompt, 3, seed=1),
        Generation(ask.prompt, 3, temperature=0.5),
        Generation(ask.prompt, 3, opening="Yes"),
        Generation(ask.prompt, 3, attempt=1),
        Likelihood(ask.prompt, ("3",)),
    ]
    assert len({ask_digest(each) for each in [ask, *others]}) == 10


def test_lines_that_are_no_answers_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('[]\n{"ask": "a"}\n{"ask": "a", "answer": {"texts": 3}}\n\n', encoding="utf-8")
    assert len(KeptAnswers(tmp_path)) == 0


def test_damaged_answers_are_asked_again_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    asks = [Generation((Message("user", f"{number}?"),), 3) for number in range(4)]
    kept = kept_answers(tmp_path, Identity("m"))
    for number, ask in enumerate(asks):
        kept.put(ask, said(f"about {number}"))
    kept.close()
    (file,) = (tmp_path / "answers").glob("*/*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    lines[0] = lines[0].replace(b"about 0", b"about 9")  # still JSON
    lines[1] = lines[1].replace(b'"texts"', b'"\xff\x00"')
    lines.insert(1, b"[" * 100_000 + b"\n")
    file.write_bytes(b"".join(lines)[:-30])  # and cut off by a kill
    (file.parent / "folder.jsonl").mkdir()
    with caplog.at_level(logging.INFO, "didact"):
        again = kept_answers(tmp_path, Identity("m"))
    assert [again.get(ask) for ask in asks] == [None, None, said("about 2"), None]
    assert "3 of its lines hold no whole answer, the first is line 1" in caplog.text
    assert "line 5: the writer was cut off there" in caplog.text and "folder.jsonl cannot be read" in caplog.text


def test_a_scorer_that_breaks_costs_its_own_question() -> None:
    def broken(question: Question, text: str) -> Score:
        return Score({"accuracy": float(text[1])})

    questions = [Question(name, (Message("user", name),)) for name in ("a", "b")]
    task = TextTask.of("t", QuestionTask(), questions, broken, "1")
    model = ScriptedModel(lambda ask: "11" if ask.prompt[-1].content == "a" else "?")
    result = asyncio.run(run_task(task, {"model": Asked(model, None)}))
    assert (result.num_problems, result.metrics["eval/t/accuracy"]) == (1, 1.0)
    assert "its scorer broke (IndexError: string index out of range)" in str(result.scored[1].score.problem)


def test_the_watcher_is_told_of_each_question() -> None:
    told: list[tuple[str, str, float]] = []

    def watch(_: object, of: Model, scored: Scored) -> None:
        told.append((of.identity.name, scored.question.id, scored.score.values["accuracy"]))

    asyncio.run(run_task(TwoTurns(questions()), {"model": Asked(ScriptedModel(parity), None)}, watch))
    assert sorted(told) == [("scripted", "q0", 1.0), ("scripted", "q1", 0.0), ("scripted", "q2", 1.0)]


def test_an_answer_survives_json() -> None:
    answer = Answer((Text("a", 1, "length"),), (Likely(-2.0, 1, False),), None, 7, 0.5)
    assert Answer.from_json(answer.to_json()) == answer

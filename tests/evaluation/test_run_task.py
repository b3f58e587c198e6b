import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from didact.datasets.conversation import Message
from didact.errors import DidactError
from didact.evaluation import (
    Answer,
    Ask,
    Asked,
    Generation,
    Identity,
    KeptAnswers,
    Likelihood,
    Likely,
    Model,
    Question,
    Score,
    Scored,
    Text,
    kept_answers,
    run_task,
)
from didact.evaluation.answer_store import ask_digest
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
    assert result.judge == {"base": "judge"}


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

    async def measured(of: ScriptedModel) -> tuple[int, float]:
        asked = Asked(of, tmp_path)
        result = await run_task(task, {"model": asked})
        asked.close()
        return asked.num_kept, result.metrics["eval/turns/accuracy"]

    assert asyncio.run(measured(model)) == (0, pytest.approx(2 / 3))
    again = ScriptedModel(lambda ask: "never asked")
    assert asyncio.run(measured(again)) == (9, pytest.approx(2 / 3))
    assert again.asked == []
    other = ScriptedModel(parity, name="another model")
    assert asyncio.run(measured(other))[0] == 0


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


def test_the_watcher_is_told_of_each_question() -> None:
    told: list[tuple[str, str, float]] = []

    def watch(_: object, of: Model, scored: Scored) -> None:
        told.append((of.identity.name, scored.question.id, scored.score.values["accuracy"]))

    asyncio.run(run_task(TwoTurns(questions()), {"model": Asked(ScriptedModel(parity), None)}, watch))
    assert sorted(told) == [("scripted", "q0", 1.0), ("scripted", "q1", 0.0), ("scripted", "q2", 1.0)]


def test_an_answer_survives_json() -> None:
    answer = Answer((Text("a", 1, "length"),), (Likely(-2.0, 1, False),), None, 7, 0.5)
    assert Answer.from_json(answer.to_json()) == answer

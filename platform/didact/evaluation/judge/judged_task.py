"""Tasks whose answers a judge scores: the model's rounds of a task first, then the judge's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from didact.evaluation.asks import Answer, Ask
from didact.evaluation.judge.bias import rank_correlation
from didact.evaluation.judge.exhibit import Exhibit
from didact.evaluation.judge.judge import Judge, Verdict
from didact.evaluation.judge.verdict import FROM_0_TO_1, Scale
from didact.evaluation.questions import Question, Score, Task
from didact.evaluation.reasoning import without_thoughts
from didact.evaluation.statistics import agreement
from didact.files import fingerprint
from didact.spec import JudgingSpec

_SHOWN = 600
_NOTE = 3000

Rounds = Callable[[Question, tuple[Answer, ...]], tuple[Ask, ...]]
"""What the models are asked next, given their answers so far, as in `Task.asks`."""
Exhibits = Callable[[Question, tuple[Answer, ...]], tuple[Exhibit, ...]]
"""What the judge is shown of the models' answers to a question: one exhibit for each judgement, such as a turn's."""


@dataclass(frozen=True)
class Judged:
    """A `Task` whose answers are judged."""

    name: str
    questions: tuple[Question, ...]
    rounds: Rounds
    exhibits: Exhibits
    judge: Judge
    told: Mapping[str, Any]
    """What else decides the figures, such as the task's settings: plain data."""
    corrections: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """`score`, or `win_rate` of comparisons: wins and half the ties."""
        return "score" if self.judge.scale else "win_rate"

    @property
    def version(self) -> str:
        """Hex digest over questions, prompts and the judge's words; who judges is no part of it."""
        asked = [
            [each.id, [[turn.role, turn.written] for turn in each.messages], each.expected, each.group, each.data]
            for each in self.questions
        ]
        return fingerprint({"questions": asked, "told": dict(self.told), "judge": self.judge.version})

    def asks(self, question: Question, answers: tuple[Answer, ...]) -> tuple[Ask, ...]:
        """The model's rounds, then the judge's. Nothing is judged where an answer is missing."""
        pending, given = self._rounds(question, answers)
        if pending or any(answer.problem for answer in given):
            return pending
        return self.judge.asks(self._shown(question, given), answers[len(given) :])

    def score(self, question: Question, answers: tuple[Answer, ...]) -> Score:
        """The mean of the judge's verdicts, with what tells how far they can be trusted."""
        pending, given = self._rounds(question, answers)
        problem = next((answer.problem for answer in given if answer.problem), None)
        if problem or pending:
            return Score(problem=problem or "it was not asked to the end")
        exhibits, said = self._shown(question, given), answers[len(given) :]
        if len(said) < len(self.judge.asks(exhibits, ())):
            return Score(problem="the judge was not asked")
        verdicts = self.judge.verdicts(exhibits, said)
        rival = exhibits[-1].rival
        words = [f"compared with: {rival[-1].strip()[:_SHOWN]}"] if rival is not None else []
        note = "\n\n".join([*words, *(verdict.words.strip() for verdict in verdicts)])
        lost = [verdict.why for verdict in verdicts if verdict.value is None]
        if lost:
            unjudged = all(verdict.value is None for verdict in verdicts)
            return Score(problem=f"the judge: {lost[0]}", note=note[:_NOTE], unjudged=unjudged)
        put_together = _scored if self.judge.scale else _compared
        values = put_together(exhibits, verdicts, self.judge)
        return Score(values, extracted=f"{values[self.metric]:g}", note=note[:_NOTE])

    def overall(self, scores: Sequence[tuple[Question, Score]]) -> Mapping[str, float]:
        """Correlation of scores with the length of answers, and kappa between the first two passes."""
        found: dict[str, float | None] = {}
        values = [score.values for _, score in scores if self.metric in score.values]
        if self.judge.scale:
            lengths = [each["answer_length"] for each in values]
            found["length_correlation"] = rank_correlation([each["score"] for each in values], lengths)
        passes = [(each["verdict_1"], each["verdict_2"]) for each in values if "verdict_2" in each]
        if passes:
            first, second = zip(*passes, strict=True)
            found["judge_kappa"] = agreement(first, second, weights="quadratic").kappa
        return {name: value for name, value in found.items() if value is not None}

    def _shown(self, question: Question, given: tuple[Answer, ...]) -> tuple[Exhibit, ...]:
        """What the judge sees: answers without the thoughts before them, as a user would; all thought is no answer."""
        return self.exhibits(question, tuple(map(said_aloud, given)))

    def _rounds(self, question: Question, answers: tuple[Answer, ...]) -> tuple[tuple[Ask, ...], tuple[Answer, ...]]:
        """What the models are still to be asked, and their answers so far; the rest of the answers is the judge's."""
        taken = 0
        while pending := self.rounds(question, answers[:taken]):
            if taken + len(pending) > len(answers):
                return pending, answers[:taken]
            taken += len(pending)
            if any(answer.problem for answer in answers[:taken]):
                break
        return (), answers[:taken]


def judged(task: Task, settings: JudgingSpec, scale: Scale = FROM_0_TO_1) -> Judged:
    """A task of texts scored by a judge in place of its own scorer; `Question.expected` is the reference.

    Args:
        task: asks for one answer to each question.
        settings: how it is judged.
        scale: of the scores.

    Raises:
        DataError: criteria that cannot be read.
    """

    def exhibits(question: Question, answers: tuple[Answer, ...]) -> tuple[Exhibit, ...]:
        reference = (question.expected,) if question.expected else ()
        return (Exhibit(question.messages, (answers[0].text,), reference=reference, group=question.group),)

    told = {"task": task.version}
    judge = Judge.build(settings, scale)
    return Judged(task.name, tuple(task.questions), task.asks, exhibits, judge, told, task.corrections)


def said_aloud(answer: Answer) -> Answer:
    """An answer without the thoughts that its model sets apart."""
    texts = tuple(replace(each, text=without_thoughts(each.text) or "") for each in answer.texts)
    return replace(answer, texts=texts)


def _scored(exhibits: Sequence[Exhibit], verdicts: Sequence[Verdict], judge: Judge) -> dict[str, float]:
    scale = judge.scale or FROM_0_TO_1
    worth: list[list[float]] = []  # of each exhibit, pass by pass
    for place, exhibit in enumerate(exhibits):
        given = [verdict.value for verdict in verdicts if verdict.exhibit == place and verdict.value is not None]
        worth.append([scale.low] * judge.settings.passes if exhibit.empty[0] else given)
    values = {
        "score": _mean([_mean(each) for each in worth]),
        "unread": _mean([float(exhibit.empty[0]) for exhibit in exhibits]),
        "answer_length": float(sum(len(exhibit.answers[-1]) for exhibit in exhibits)),
    }
    if len(exhibits) > 1:
        values |= {f"turn_{place}": _mean(each) for place, each in enumerate(worth, start=1)}
    return values | _passes(worth, judge)


def _compared(exhibits: Sequence[Exhibit], verdicts: Sequence[Verdict], judge: Judge) -> dict[str, float]:
    outcomes: list[list[float]] = []  # 1, 0.5 or 0 of each exhibit, pass by pass
    flipped: list[float] = []
    for place, exhibit in enumerate(exhibits):
        if exhibit.settled is not None:
            outcomes.append([exhibit.settled] * judge.settings.passes)
            continue
        outcomes.append([])
        for number in range(judge.settings.passes):
            both = [each.value for each in verdicts if each.exhibit == place and each.number == number]
            decided = both[0] if len(set(both)) == 1 and both[0] is not None else 0.0
            outcomes[-1].append((decided + 1) / 2)
            flipped += [float(len(set(both)) > 1)] if len(both) > 1 else []
    every = [outcome for each in outcomes for outcome in each]
    values = {
        "win_rate": _mean(every),
        "won": _mean([float(each == 1) for each in every]),
        "tied": _mean([float(each == 0.5) for each in every]),
        "lost": _mean([float(each == 0) for each in every]),
        "unread": _mean([float(exhibit.empty[0]) for exhibit in exhibits]),
        "answer_length": float(sum(len(exhibit.answers[-1]) for exhibit in exhibits)),
    }
    if flipped:
        values["flipped"] = _mean(flipped)
    if first := [float(each.shown_first) for each in verdicts if each.shown_first is not None]:
        values["first_won"] = _mean(first)
    if longer := _longer_won(exhibits, outcomes):
        values["longer_won"] = _mean(longer)
    return values | _passes(outcomes, judge)


def _longer_won(exhibits: Sequence[Exhibit], outcomes: Sequence[Sequence[float]]) -> list[float]:
    """1 or 0 for each comparison that was decided between answers of different length."""
    won: list[float] = []
    for exhibit, each in zip(exhibits, outcomes, strict=True):
        gap = len(exhibit.answers[-1]) - len((exhibit.rival or ("",))[-1])
        won += [float((outcome == 1) == (gap > 0)) for outcome in each if gap and outcome != 0.5]
    return won


def _passes(worth: Sequence[Sequence[float]], judge: Judge) -> dict[str, float]:
    """What each pass says, and the share of judgements in which all say the same."""
    if judge.settings.passes == 1:
        return {}
    values = {
        f"verdict_{number + 1}": _mean([each[number] for each in worth]) for number in range(judge.settings.passes)
    }
    return {**values, "agreement": _mean([float(len(set(each)) == 1) for each in worth])}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

"""Questions that a model's own training data holds: how many of a task, and its figures on the others."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from didact.evaluation.report.facts import ModelFacts, QuestionFacts, TaskFacts
from didact.evaluation.report.figures import Figure, measure
from didact.evaluation.statistics import wilson_interval


@dataclass(frozen=True, slots=True)
class Contamination:
    """One task beside the training data of one model."""

    task: str
    model: str
    """Whose data was searched."""
    num_questions: int
    num_seen: int
    """Questions that the data holds."""
    low: float
    """Ends of the 95% interval of their share (Wilson)."""
    high: float
    whole: Figure
    """The task's own metric, of all models, on all questions."""
    clean: Figure | None
    """The same on the questions that the data does not hold; None where it holds all."""

    @property
    def share(self) -> float:
        """Of the questions that the data holds."""
        return self.num_seen / self.num_questions

    def __str__(self) -> str:
        said = f"{self.task}: training data of {self.model} holds {self.num_seen:,} of {self.num_questions:,} questions"
        said += f" ({self.share:.1%})"
        if self.clean is None:
            return f"{said}; none is left to judge by"
        name, left = self.whole.metric.rpartition("/")[2], self.num_questions - self.num_seen
        others = ", ".join(f"{each} {self.clean.written(each)}" for each in self.clean.points)
        return f"{said}; {name} on the other {left:,}: {others}; on all: {self.model} {self.whole.written(self.model)}"


def contamination_of(
    models: Mapping[str, ModelFacts], tasks: Sequence[TaskFacts], questions: Sequence[QuestionFacts]
) -> Iterator[Contamination]:
    """Every task with questions beside every model whose training data was searched, also where none is held."""
    for model, facts in models.items():
        if facts.searched is None or facts.searched.problem is not None:
            continue
        for task in tasks:
            mine = [each for each in questions if each.task == task.name]
            if not mine:
                continue
            clean = unseen(mine, model)
            name = f"eval/{task.name}/{task.metric}"
            num_seen = len(mine) - len(clean)
            yield Contamination(
                task.name,
                model,
                len(mine),
                num_seen,
                *wilson_interval(num_seen, len(mine)),
                whole=measure(name, task.metric, mine, list(models)),
                clean=measure(name, task.metric, clean, list(models)) if clean else None,
            )


def unseen(questions: Sequence[QuestionFacts], model: str) -> list[QuestionFacts]:
    """The questions that a model's own training data does not hold, as far as it was searched."""
    return [each for each in questions if model not in each.given or not each.given[model].seen]


def told(models: Mapping[str, ModelFacts], found: Sequence[Contamination]) -> Iterator[str]:
    """One line a task of which questions are held, and one a model that says what was searched."""
    yield from (str(each) for each in found if each.num_seen)
    yield from how_searched(models, found)


def how_searched(models: Mapping[str, ModelFacts], found: Sequence[Contamination]) -> Iterator[str]:
    """One line a model whose training data was searched, or could not be."""
    for model, facts in models.items():
        searched = facts.searched
        if searched is None:
            continue
        if searched.problem is not None:
            yield f"whether the training data of {model} holds questions is not known: {searched.problem}"
        elif any(each.model == model for each in found):
            held = "questions" if any(each.num_seen for each in found if each.model == model) else "no question"
            yield f"training data of {model} holds {held} ({searched.rows:,} rows searched for {searched.rules})"


def with_searched(
    questions: Sequence[QuestionFacts], model: str, where: Mapping[tuple[str, str], str]
) -> tuple[QuestionFacts, ...]:
    """Questions with what a search of a model's training data found.

    Args:
        questions: of a report.
        model: whose data was searched.
        where: task and id of a question -> where the data holds it.
    """
    return tuple(
        replace(each, given={**each.given, model: replace(each.given[model], seen=where[(each.task, each.id)])})
        if (each.task, each.id) in where and model in each.given
        else each
        for each in questions
    )

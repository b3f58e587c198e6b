"""The results of the same tasks on several models, put together as one report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from didact.datasets.places.digests import digest_file
from didact.errors import DataError, SpecError
from didact.evaluation.report.facts import Given, ModelFacts, QuestionFacts, TaskFacts
from didact.evaluation.report.report import EvalReport
from didact.evaluation.results import Scored, TaskResult
from didact.spec import Spec, task_files


def combine(models: Mapping[str, ModelFacts], results: Mapping[str, Sequence[TaskResult]]) -> EvalReport:
    """Put the results of the same tasks on several models side by side.

    Args:
        models: `base` first.
        results: model -> one result a task, for all models in the same order.

    Raises:
        DataError: the models did not run the same tasks on the same questions.
        SpecError: two tasks give the same metric, so one would hide the other.
    """
    first = results[next(iter(models))]
    for model in models:
        _check_alike(first, results[model], model)
    merged = {model: _merged(results[model]) for model in models}
    tasks = tuple(
        TaskFacts(
            name=result.task,
            version=result.version,
            metric=result.metric,
            num_questions=result.num_items,
            seconds=result.seconds,
            corrections=result.corrections,
            problems={model: results[model][index].num_problems for model in models},
            judge=dict(result.judge),
        )
        for index, result in enumerate(first)
    )
    questions = tuple(
        _facts(result.task, {model: results[model][index].scored[number] for model in models})
        for index, result in enumerate(first)
        for number in range(len(result.scored))
    )
    counts = {name: count for _, counted in reversed(merged.values()) for name, count in counted.items()}
    names = dict.fromkeys(name for values, _ in merged.values() for name in values)
    return EvalReport(
        models=dict(models),
        metrics_of={model: values for model, (values, _) in merged.items()},
        counts={name: counts[name] for name in names},
        tasks=tasks,
        questions=questions,
    )


def with_files(report: EvalReport, tasks: Sequence[Spec]) -> EvalReport:
    """A report with the digests of the files that its questions come from.

    Args:
        report: of these tasks, in their order.
        tasks: of the recipe, with absolute paths.
    """
    found = [{str(file): digest_file(file).sha256 for file in task_files(each)} for each in tasks]
    told = [replace(task, files=files) for task, files in zip(report.tasks, found, strict=False)]
    return replace(report, tasks=(*told, *report.tasks[len(told) :]))


def _merged(results: Sequence[TaskResult]) -> tuple[dict[str, float], dict[str, int]]:
    metrics: dict[str, float] = {}
    counts: dict[str, int] = {}
    for result in results:
        twice = sorted(metrics.keys() & result.metrics.keys())
        if twice:
            raise SpecError(f"evaluation.tasks: two tasks give {twice[0]}; keep one of them")
        metrics.update(result.metrics)
        counts.update(result.counts)
    return metrics, counts


def _check_alike(first: Sequence[TaskResult], other: Sequence[TaskResult], model: str) -> None:
    def measured(results: Sequence[TaskResult]) -> list[tuple[str, str, int]]:
        return [(result.task, result.version, result.num_items) for result in results]

    if measured(first) != measured(other):
        raise DataError(
            f"{model} was not measured alike: the first model has {measured(first)}, {model} {measured(other)} "
            "(task, version, questions); run the same tasks on all"
        )


def _facts(task: str, scored: Mapping[str, Scored]) -> QuestionFacts:
    question = next(iter(scored.values())).question
    return QuestionFacts(
        task=task,
        id=question.id,
        question=question.text,
        expected=question.expected,
        given={model: _given(each) for model, each in scored.items()},
        group=question.group,
        passage=question.passage,
    )


def _given(scored: Scored) -> Given:
    texts = [text for answer in scored.answers for text in answer.texts]
    score = scored.score
    return Given(
        texts=tuple(each.text for each in texts),
        values=dict(score.values),
        extracted=score.extracted,
        problem=score.problem,
        note=score.note,
        num_tokens=sum(each.num_tokens for each in texts),
    )

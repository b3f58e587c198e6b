"""Models side by side: figures, intervals and the answers behind them, kept as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from typing_extensions import override

from didact import files
from didact.display import Shown
from didact.errors import DataError, SpecError
from didact.evaluation.comparisons import Comparison, compare_all
from didact.evaluation.facts import Given, ModelFacts, QuestionFacts, TaskFacts
from didact.evaluation.layout import Figure, as_markdown, as_table, figures_of, remarks
from didact.evaluation.results import Scored, TaskResult

BASE, ADAPTER = "base", "adapter"
"""What most reports compare. Others are `champion`, and further adapters by their names."""


@dataclass(frozen=True, slots=True)
class EvalReport(Shown):
    """What an evaluation found."""

    models: dict[str, ModelFacts]
    """`base`, mostly `adapter`, and others."""
    metrics_of: dict[str, dict[str, float]]
    """Model -> metric -> value."""
    counts: dict[str, int]
    """Metric -> questions (or held-out samples) behind it, in the first model."""
    tasks: tuple[TaskFacts, ...] = ()
    questions: tuple[QuestionFacts, ...] = ()

    def metrics(self, which: str) -> dict[str, float]:
        """One model's metrics, as trackers take them.

        Raises:
            DataError: it was not measured.
        """
        if which not in self.metrics_of:
            raise DataError(f"this report is of {', '.join(self.metrics_of)}; it has no metrics of {which!r}")
        return dict(self.metrics_of[which])

    @property
    def base(self) -> dict[str, float]:
        """Metrics of the base."""
        return self.metrics_of[BASE]

    @property
    def adapter(self) -> dict[str, float] | None:
        """Metrics of the adapter; None when only the base was evaluated."""
        return self.metrics_of.get(ADAPTER)

    @property
    def is_complete(self) -> bool:
        """Whether every question got an answer and a score from every model."""
        return not any(count for task in self.tasks for count in task.problems.values())

    @override
    def __rich__(self) -> Table:
        return self.table()

    def table(self) -> Table:
        """For the terminal: figures of each model, 95% intervals beside accuracies, below it what is in no figure."""
        return as_table(self._title, self._figures, self._remarks)

    def markdown(self) -> str:
        """The same table for a page or a model card, with a few answers that changed."""
        return as_markdown(self._title, self._figures, self.questions, self._remarks)

    def comparisons(self, before: str = BASE, after: str = ADAPTER) -> tuple[Comparison, ...]:
        """Two models question by question: of each task the gain with its paired interval, corrected over all tasks.

        Args:
            before: the model that the other is compared with.
            after: the other; nothing comes of a model that was not measured.
        """
        return compare_all(self.tasks, self.questions, before, after)

    @property
    def _remarks(self) -> list[str]:
        compared = [str(each) for model in self.models for each in self._against(model)]
        return [*compared, *remarks(self.tasks, self.questions)]

    def _against(self, model: str) -> tuple[Comparison, ...]:
        wanted = model == BASE or (model != ADAPTER and ADAPTER in self.models)
        return self.comparisons(model) if wanted else ()

    @property
    def _title(self) -> str:
        base, adapter = self.models[BASE].name, self.models.get(ADAPTER)
        return f"{adapter.name} on {base}" if adapter is not None else base

    @property
    def _figures(self) -> list[Figure]:
        return figures_of(self.metrics_of, self.counts)

    def to_json(self) -> str:
        """All fields as a JSON object; a metric that is NaN or infinite becomes null."""
        values = asdict(self)
        values["metrics_of"] = {model: _finite(each) for model, each in self.metrics_of.items()}
        for question in values["questions"]:
            for given in question["given"].values():
                given["values"] = _finite(given["values"])
        values["comparisons"] = [  # told to readers; computed anew from the questions when the report is read
            _null_where_infinite(asdict(each)) for model in self.models for each in self._against(model)
        ]
        return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "EvalReport":
        """The report written by `to_json`, now or by an earlier version; null metrics become NaN.

        Raises:
            DataError: not a JSON object with exactly these fields.
        """
        try:
            values = json.loads(text)
            values = _of_today(values) if "base_id" in values else values
            return cls(
                models={model: ModelFacts(**facts) for model, facts in values["models"].items()},
                metrics_of={model: _with_nan(figures) for model, figures in values["metrics_of"].items()},
                counts=dict(values["counts"]),
                tasks=tuple(
                    TaskFacts(**{**each, "corrections": tuple(each["corrections"])}) for each in values["tasks"]
                ),
                questions=tuple(map(_question, values["questions"])),
            )
        except (AttributeError, json.JSONDecodeError, KeyError, TypeError) as error:
            names = ", ".join(entry.name for entry in fields(cls))
            raise DataError(f"not an evaluation report ({error}); expected a JSON object with {names}") from error

    def save(self, path: Path) -> Path:
        """Write the report as JSON to `path`; returns it."""
        files.write_text(path, self.to_json())
        return path

    @classmethod
    def load(cls, path: Path) -> "EvalReport":
        """Read a report written by `save`.

        Raises:
            DataError: the file is missing or not a report.
        """
        if not path.is_file():
            raise DataError(f"{path} is missing; expected an evaluation report")
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


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


def _question(values: Mapping[str, Any]) -> QuestionFacts:
    given = {
        model: Given(**{**each, "texts": tuple(each["texts"]), "values": _with_nan(each["values"])})
        for model, each in values["given"].items()
    }
    return QuestionFacts(**{**values, "given": given})


def _of_today(values: Mapping[str, Any]) -> dict[str, Any]:
    """A report of two models with its answers, as earlier versions wrote it."""
    sides: list[tuple[Literal["base", "adapter"], str]] = [("base", values["base_id"])]
    if values["adapter"] is not None:
        sides.append(("adapter", values["adapter_id"] or "adapter"))
    numbers: dict[str, int] = {}
    questions = []
    for example in values["examples"]:
        number = numbers[example["task"]] = numbers.get(example["task"], -1) + 1
        given = {
            side: {"texts": [example[f"{side}_answer"]], "values": {"accuracy": float(example[f"{side}_correct"])}}
            for side, _ in sides
        }
        asked = {"task": example["task"], "id": str(number), "question": example["question"]}
        questions.append({**asked, "expected": example["expected"], "given": given})
    return {
        "models": {side: {"name": name} for side, name in sides},
        "metrics_of": {side: values[side] for side, _ in sides},
        "counts": values["counts"],
        "tasks": [],
        "questions": questions,
    }


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _null_where_infinite(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _null_where_infinite(value)
        if isinstance(value, dict)
        else None
        if isinstance(value, float) and not math.isfinite(value)
        else value
        for name, value in values.items()
    }


def _with_nan(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in values.items()}

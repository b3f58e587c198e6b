"""Models side by side: figures, intervals and the answers behind them, kept as JSON."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from typing_extensions import override

from didact import files
from didact.display import Shown
from didact.errors import DataError
from didact.evaluation.report.comparisons import Comparison, compare_all
from didact.evaluation.report.contamination import Contamination, contamination_of, told, with_searched
from didact.evaluation.report.facts import ADAPTER, BASE, Given, ModelFacts, QuestionFacts, Searched, TaskFacts
from didact.evaluation.report.figures import Figure, Point, figures_of
from didact.evaluation.report.layout import as_markdown, as_table, remarks


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
        """Whether every question got an answer and a score from every model, and all of them are here."""
        here = Counter(each.task for each in self.questions)
        # Losses have no version, and no questions.
        whole = all(here[task.name] >= task.num_questions for task in self.tasks if task.version)
        return whole and not any(count for task in self.tasks for count in task.problems.values())

    @override
    def __rich__(self) -> Table:
        return self.table()

    def table(self) -> Table:
        """For the terminal: figures of each model, 95% intervals beside accuracies, below it what is in no figure."""
        return as_table(self._title, self.figures, self.remarks)

    def markdown(self) -> str:
        """The same table for a page or a model card, with a few answers that changed."""
        return as_markdown(self._title, self.figures, self.questions, self.remarks)

    def comparisons(self, before: str = BASE, after: str = ADAPTER) -> tuple[Comparison, ...]:
        """Two models question by question: of each task the gain with its paired interval, corrected over all tasks.

        Args:
            before: the model that the other is compared with.
            after: the other; nothing comes of a model that was not measured.
        """
        return compare_all(self.tasks, self.questions, before, after)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Every metric of every model with its interval, as every face of the report shows it."""
        found = figures_of(self.metrics_of, self.counts, self.questions)
        known = {each.metric for each in found}
        asked = (f"eval/{task.name}/{task.metric}" for task in self.tasks if task.version)
        # A row without figures, where no question of a task has a score.
        missing = [Figure(each, {model: Point(None) for model in self.models}) for each in asked if each not in known]
        return (*found, *missing)

    @property
    def contamination(self) -> tuple[Contamination, ...]:
        """Each task beside the training data of each model whose data was searched."""
        return tuple(contamination_of(self.models, self.tasks, self.questions))

    def searched(self, model: str, how: Searched, where: Mapping[tuple[str, str], str]) -> "EvalReport":
        """This report with what a search of a model's training data found.

        Args:
            model: of the report.
            how: what was searched, and when a row holds a question.
            where: task and id of a question -> where the data holds it.
        """
        models = {**self.models, model: replace(self.models[model], searched=how)}
        return replace(self, models=models, questions=with_searched(self.questions, model, where))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What stands in no figure, a line each: comparisons, contamination, questions without a score, corrections."""
        compared = [str(each) for model in self.models for each in self._against(model)]
        held = told(self.models, self.contamination)
        return (*compared, *held, *remarks(self.tasks, self.questions, self.metrics_of))

    def _against(self, model: str) -> tuple[Comparison, ...]:
        wanted = model == BASE or (model != ADAPTER and ADAPTER in self.models)
        return self.comparisons(model) if wanted else ()

    @property
    def _title(self) -> str:
        base, adapter = self.models[BASE].name, self.models.get(ADAPTER)
        return f"{adapter.name} on {base}" if adapter is not None else base

    def to_json(self) -> str:
        """All fields as a JSON object with a digest over them; a number that is NaN or infinite becomes null."""
        values = _plain(self)
        # Told to readers; computed anew from the questions when the report is read.
        values["comparisons"] = [
            {"outcome": each.outcome, **_plain(each)} for model in self.models for each in self._against(model)
        ]
        values["contamination"] = [{"share": each.share, **_plain(each)} for each in self.contamination]
        values["sha256"] = _digest(values)
        return _laid_out(values)

    @classmethod
    def from_json(cls, text: str, *, is_sealed: bool = True) -> "EvalReport":
        """The report written by `to_json`, now or by an earlier version; null metrics become NaN.

        Args:
            text: what was written.
            is_sealed: whether it must be as it was written; not where folders were hidden in it since.

        Raises:
            DataError: not a JSON object with exactly these fields, or not as it was written.
        """
        try:
            values = json.loads(text)
            # Those of the first form have none.
            changed = is_sealed and "base_id" not in values and values.get("sha256") != _digest(values)
            values = _of_today(values) if "base_id" in values else values
            report = cls(
                models={model: _model(facts) for model, facts in values["models"].items()},
                metrics_of={model: _with_nan(figures) for model, figures in values["metrics_of"].items()},
                counts=dict(values["counts"]),
                tasks=tuple(
                    TaskFacts(**{**each, "corrections": tuple(each["corrections"])}) for each in values["tasks"]
                ),
                questions=tuple(map(_question, values["questions"])),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            names = ", ".join(entry.name for entry in fields(cls))
            raise DataError(f"not an evaluation report ({error}); expected a JSON object with {names}") from error
        if changed:
            raise DataError(
                "it was changed after it was written (sha256), so its figures may not be those of its answers; "
                "evaluate again, which asks nothing twice"
            )
        return report

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
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not an evaluation report ({error})") from error
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def _model(values: Mapping[str, Any]) -> ModelFacts:
    searched = values.get("searched")
    return ModelFacts(**{**values, "searched": None if searched is None else Searched(**searched)})


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


def _digest(values: Mapping[str, Any]) -> str:
    """Over all that a report says, however it is laid out: programs write 1.0 as 1."""
    return files.fingerprint(_with_floats({name: each for name, each in values.items() if name != "sha256"}))


def _with_floats(value: Any) -> Any:
    """Plain data as JSON is read where every number is a float."""
    if isinstance(value, dict):
        return {name: _with_floats(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_floats(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _laid_out(values: Mapping[str, Any]) -> str:
    """JSON with a line for each field and for each entry of a list."""
    parts = []
    for name, value in values.items():
        if isinstance(value, list) and value:
            told = "[" + ",".join(f"\n    {_line(each)}" for each in value) + "\n  ]"
        else:
            told = _line(value)
        parts.append(f"\n  {json.dumps(name)}: {told}")
    return "{" + ",".join(parts) + "\n}\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """Dataclasses and what they hold as plain data, with null in place of numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return {name: _plain(each) for name, each in value.items()}


def _with_nan(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in values.items()}

"""Studies whose effects are known: reports are drawn, nothing is trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from didact.evaluation.report import EvalReport, Given, ModelFacts, QuestionFacts, TaskFacts
from didact.files import write_json
from didact.spec import StudySpec, validate
from didact.studies import StudyResult, read_study

Chance = Callable[[dict[str, str]], float]
"""Levels of a cell -> chance that it answers a question of mean difficulty."""


def study_spec(factors: dict[str, Any], **changes: Any) -> StudySpec:
    """A study of these factors without tasks that need anything."""
    values = {"name": "made", "recipe": "recipe.yaml", "factors": factors, "evaluation": {}, **changes}
    spec: StudySpec = validate(StudySpec, values, "made study")
    return spec


def made_study(folder: Path, spec: StudySpec, chance: Chance, num_questions: int = 400) -> StudyResult:
    """Draw answers for every cell: questions differ in difficulty, and all cells are asked the same ones."""
    rng = np.random.default_rng(7)
    ease = rng.normal(0.0, 0.15, num_questions)
    cells = []
    for place, levels in enumerate(spec.combinations()):
        for seed in spec.seeds:
            name = f"made-{place}-s{seed}"
            cells.append({"name": name, "levels": levels, "seed": seed})
            right = rng.random(num_questions) < np.clip(chance(levels) + ease, 0, 1)
            save_cell(folder / "cells" / name, [float(each) for each in right], loss=2.0 - chance(levels))
    write_json(folder / "study.json", {"spec": spec.model_dump(mode="json"), "cells": cells, "errors": {}})
    return read_study(folder)


def save_cell(path: Path, right: list[float], loss: float, problem: str | None = None) -> None:
    """A run folder with a report and a training curve."""
    path.mkdir(parents=True)
    questions = tuple(
        QuestionFacts(
            "sums",
            str(number),
            f"question {number}",
            "1",
            {"base": Given(("0",), {"accuracy": 0.0}), "adapter": Given(("1",), {"accuracy": value})},
            group="abc"[number % 3],
        )
        for number, value in enumerate(right)
    )
    groups = {
        f"eval/sums/{group}/accuracy": float(np.mean([value for n, value in enumerate(right) if "abc"[n % 3] == group]))
        for group in "abc"
    }
    figures = {"eval/sums/accuracy": float(np.mean(right)), "eval/loss": loss, **groups}
    problems = {"adapter": int(problem is not None)}
    report = EvalReport(
        {"base": ModelFacts("tiny"), "adapter": ModelFacts("mine")},
        {"base": dict.fromkeys(figures, 0.0), "adapter": figures},
        {name: len(right) for name in figures},
        (TaskFacts("sums", "1", "accuracy", len(right), 1.0, (), problems, {}),),
        questions,
    )
    report.save(path / "report.json")
    lines = [
        json.dumps({"step": step, "time_ms": 1000 * step, "attempt": 1, "metrics": {"train/loss": loss + 1 / step}})
        for step in range(1, 21)
    ]
    (path / "steps.jsonl").write_text("\n".join(lines) + "\n")

"""The judge's row of the fault table: whatever an endpoint does in place of judging, nothing becomes a score."""

import asyncio
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from didact.errors import EndpointRefused
from didact.evaluation import Asked, EvalReport, ModelFacts, TaskResult, build_task, combine, judge_gate, run_task
from didact.evaluation.endpoint import Endpoint
from didact.spec import BelleEvalTask, EndpointSpec
from tests.fakes.endpoint import (
    HTML,
    FakeEndpoint,
    QuickClock,
    Said,
    body,
    completion,
    error,
    serve_endpoint,
)
from tests.fakes.scripted import ScriptedModel

GOOD = completion("It is right.\nScore: 0.5")
QUESTIONS = 6
# What the endpoint says to every question, and what each question's problem then says.
FAULTS: dict[str, tuple[Said, str]] = {
    "wrong key": (error(401, "Incorrect API key"), "status 401: it wants a key"),
    "too many requests": (error(429, "slow down", Retry_After="7"), "status 429: slow down"),
    "server errors": (error(500, "oops"), "status 500: oops"),
    "a page in 200": (Said(HTML), "status 200 with '<html>"),
    "cut JSON": (Said(GOOD.content[:-20]), "expected JSON"),
    "hangs": (Said(GOOD.content, hangs_after=0), "no whole answer within 0.2 s"),
    "drips": (Said(GOOD.content, hangs_after=30), "no whole answer within 0.2 s (30 bytes had come)"),
    "no choices": (body({"choices": []}), "choices is empty"),
    "refuses in words": (completion("I cannot judge this."), "its last line is 'I cannot judge this.'"),
    "refuses by field": (completion(None, refusal="No."), "it refused: 'No.'"),
    "out of range": (completion("Score: 11"), "its score 11 is outside 0 to 1"),
    "rubbish": (completion("\x00%PDF-1.7 Score: 1 \ufffd"), "its last line is"),
    "cut reply": (completion("Score: 1", "length"), "its reply was cut before the verdict"),
    "nothing": (completion(""), "an empty answer"),
}


def belle(tmp_path: Path) -> Any:
    rows = [{"question": f"What is {n}+1?", "std_answer": str(n + 1), "class": "math"} for n in range(QUESTIONS)]
    (tmp_path / "eval_set.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return build_task(BelleEvalTask(task="belle_eval", path=str(tmp_path / "eval_set.json")))


def evaluate(task: Any, url: str, **fields: Any) -> tuple[EvalReport, TaskResult, QuickClock]:
    """A report of base and adapter, both judged by the endpoint."""
    spec = EndpointSpec.model_validate(
        {"url": url, "model": "wise", "retries": 1, "gives_up_after": 2, "timeout_seconds": 0.2, **fields}
    )
    clock = QuickClock()

    async def run() -> dict[str, list[TaskResult]]:
        endpoint = Endpoint(spec, clock)
        judge = Asked(endpoint, None, may_fail=True)
        try:
            return {
                name: [await run_task(task, {"model": Asked(ScriptedModel(lambda _: "2", name), None), "judge": judge})]
                for name in ("base", "adapter")
            }
        finally:
            await endpoint.close()

    results = asyncio.run(run())
    report = combine({name: ModelFacts(name) for name in results}, results)
    return report, results["adapter"][0], clock


def test_m10_the_same_endpoint_judges_when_nothing_is_wrong(tmp_path: Path) -> None:
    with serve_endpoint(lambda _: GOOD) as fake:
        report, result, _ = evaluate(belle(tmp_path), fake.url, timeout_seconds=5)
    assert report.is_complete and result.metrics["eval/belle_eval/score"] == 0.5
    assert judge_gate(report, {"eval/belle_eval/score": 0.0}).passed


@pytest.mark.fault("M10")
@pytest.mark.parametrize("kind", FAULTS)
def test_m10_a_judge_that_gives_no_verdict_gives_no_score_and_no_promotion(kind: str, tmp_path: Path) -> None:
    said, problem = FAULTS[kind]
    with serve_endpoint(lambda _: said) as fake:
        report, result, _ = evaluate(belle(tmp_path), fake.url)
    assert result.num_problems == QUESTIONS and result.metrics == {}
    assert any(problem in (each.score.problem or "") for each in result.scored)
    assert all(each.score.problem and each.score.values == {} for each in result.scored)
    refuse(report)


@pytest.mark.fault("M10")
def test_m10_a_judge_that_is_not_there_is_asked_no_more_than_it_takes_to_know(tmp_path: Path) -> None:
    with serve_endpoint(lambda _: GOOD) as fake:
        url = fake.url
    report, result, clock = evaluate(belle(tmp_path), url)
    assert result.num_problems == QUESTIONS
    assert "requests in a row failed in 2 tries each" in str(result.scored[-1].score.problem)
    assert sum(clock.slept) < 60
    refuse(report)


@pytest.mark.fault("M10")
def test_m10_the_deadline_ends_an_evaluation_that_the_judge_holds_up(tmp_path: Path) -> None:
    with serve_endpoint(lambda _: error(429, "slow down", Retry_After="50")) as fake:
        report, result, clock = evaluate(
            belle(tmp_path), fake.url, deadline_seconds=120, retries=100, gives_up_after=100
        )
    assert "its deadline of 120 s" in str(result.scored[-1].score.problem)
    assert clock.now() <= 1000 + 120
    refuse(report)


@pytest.mark.fault("M10")
def test_m10_verdicts_that_were_given_before_the_judge_fell_silent_count_as_what_they_are(tmp_path: Path) -> None:
    def first_two(fake: list[FakeEndpoint]) -> Callable[[dict[str, Any]], Said]:
        return lambda _: GOOD if len(fake[0].asked) <= 2 else error(503, "gone")

    holder: list[FakeEndpoint] = []
    with serve_endpoint(first_two(holder)) as fake:
        holder.append(fake)
        report, _, _ = evaluate(belle(tmp_path), fake.url, timeout_seconds=5, at_once=1)
    (task,) = report.tasks
    assert task.problems == {"base": QUESTIONS - 2, "adapter": QUESTIONS}
    assert report.counts["eval/belle_eval/score"] == 2
    refuse(report)


@pytest.mark.fault("M10")
def test_m10_a_judge_without_its_key_is_refused_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GONE_API_KEY", raising=False)
    with pytest.raises(EndpointRefused, match="the environment has no GONE_API_KEY"):
        Endpoint(EndpointSpec(url="http://localhost:1/v1", model="wise", key_env="GONE_API_KEY"))


def shown(report: EvalReport) -> str:
    """The table on a terminal, in one line."""
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report.table())
    text = console.export_text()
    assert max(map(len, text.splitlines())) > 50
    return " ".join(text.split())


def refuse(report: EvalReport) -> None:
    """The report says that it is incomplete, and whatever a gate asks for, it does not pass."""
    assert not report.is_complete
    assert "questions have no score of base; the first is question " in shown(report)
    assert not EvalReport.from_json(report.to_json()).is_complete
    for least in ({}, {"eval/belle_eval/score": -1.0}):
        gate = judge_gate(report, least)
        assert not gate.passed
        assert "belle_eval: " in "\n".join(gate.lines) and "without a score" in "\n".join(gate.lines)

"""How long answers take: the same questions to each model in turn, one at a time, and a limit in the gate."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from didact.evaluation import Answer, Ask, EvalReport, Generation, Identity, ModelFacts, Text, judge_policy
from didact.evaluation.questions import Task
from didact.evaluation.speed import MAX_NEW_TOKENS, NUM_QUESTIONS, SECONDS, TOKENS_PER_SECOND, measure_speed
from didact.spec import GateSpec, ReasoningGymTask


class Counting:
    """Answers at once, and writes down who was asked what."""

    at_once = 4

    def __init__(self, name: str, asked: list[tuple[str, str]], problem: str | None = None) -> None:
        self.identity = Identity(name)
        self._asked, self._problem = asked, problem

    async def answer(self, ask: Ask) -> Answer:
        assert isinstance(ask, Generation) and ask.max_new_tokens == MAX_NEW_TOKENS
        assert isinstance(ask.prompt, tuple)
        self._asked.append((self.identity.name, ask.prompt[-1].content))
        return Answer(problem=self._problem) if self._problem else Answer((Text("four", 4, "stop"),))


def sums(count: int) -> Task:
    from didact.evaluation import build_task

    task = build_task(ReasoningGymTask(task="reasoning_gym", name="chain_sum", num_items=count))
    assert task is not None
    return task


def test_models_take_turns_on_questions_spread_over_all() -> None:
    asked: list[tuple[str, str]] = []
    models = {name: Counting(name, asked) for name in ("base", "adapter")}
    task = sums(40)
    found = asyncio.run(measure_speed(models, [None, task]))
    assert [name for name, _ in asked] == ["base", "adapter"] * (NUM_QUESTIONS + 1), "the first question warms up"
    assert [text for name, text in asked if name == "base"][1:] == [each.text for each in task.questions[::3]][:12]
    for result in found.values():
        assert result.counts == {SECONDS: 12, TOKENS_PER_SECOND: 12} and result.metrics[SECONDS] > 0


def test_nothing_is_measured_where_a_model_does_not_answer_or_nothing_is_asked() -> None:
    models = {"base": Counting("base", []), "adapter": Counting("adapter", [], "too long")}
    assert asyncio.run(measure_speed(models, [sums(2)])) == {}
    assert asyncio.run(measure_speed(models, [None])) == {}


def timed(seconds: Mapping[str, float]) -> EvalReport:
    names = {"champion": "sums:1"}
    models = {name: ModelFacts(names.get(name, name)) for name in seconds}
    return EvalReport(models, {name: {SECONDS: each} for name, each in seconds.items()}, {SECONDS: 12})


@pytest.mark.parametrize(
    ("seconds", "champion", "outcome"),
    [
        ({"base": 1.0, "adapter": 1.2}, None, "passed"),
        ({"base": 1.0, "adapter": 1.6}, None, "failed"),
        ({"base": 1.0, "adapter": 1.6, "champion": 1.5}, "sums:1", "passed"),
        ({"base": 1.0, "adapter": 1.2, "champion": 0.5}, "sums:1", "failed"),
        ({"base": 1.0, "adapter": 1.2, "champion": 1.0}, "sums:2", "not measured"),
        ({"base": 1.0, "adapter": 1.2}, "sums:1", "not measured"),
    ],
)
def test_an_answer_may_take_so_many_times_the_champions(
    seconds: dict[str, float], champion: str | None, outcome: str
) -> None:
    (check,) = judge_policy(timed(seconds), GateSpec(slower=1.5), champion).checks
    assert (check.check, check.outcome) == ("slower", outcome)
    none = replace(timed(seconds), metrics_of={name: {} for name in seconds})
    assert judge_policy(none, GateSpec(slower=1.5), champion).checks[0].outcome == "not measured"

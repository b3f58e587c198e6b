"""A model behind an address is evaluated without Ray; who is asked beside others, and what that says of a judge."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from didact.capacity import Cluster, WorkerResources
from didact.cluster import evaluate_adapter
from didact.cluster.asking.loop import in_a_loop
from didact.cluster.asking.others import Others, check_others, with_preference
from didact.cluster.asking.subjects import Subject
from didact.errors import EndpointError, EndpointRefused, PlacementError, SpecError
from didact.evaluation import Asked, TaskResult
from didact.evaluation.asks import Identity
from didact.evaluation.judge import self_preference
from didact.spec import EvaluateSpec, EvaluationSpec, ModelSpec
from tests.fakes.endpoint import Said, completion, error, serve_endpoint
from tests.fakes.scripted import ScriptedModel

ROWS = [
    {"question": f"What is {n}+1?", "answer": f"#### {n + 1}", "std_answer": str(n + 1), "class": "math"}
    for n in range(4)
]


def answers(asked: dict[str, Any]) -> Said:
    """The model says 2, the judge 0.25, whatever the question."""
    return completion("So.\nScore: 0.25" if asked["messages"][0]["role"] == "system" else "It is 2.")


def spec_of(tmp_path: Path, url: str, **fields: Any) -> EvaluateSpec:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    endpoint = {"url": url, "model": "wise", "retries": 0, "gives_up_after": 1}
    evaluation = {
        "judge": {"endpoint": {**endpoint, "model": "judge"}},
        "tasks": [{"task": "gsm8k", "path": str(path)}, {"task": "belle_eval", "path": str(path)}],
    }
    return EvaluateSpec.model_validate({"endpoint": endpoint, "evaluation": {**evaluation, **fields}})


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))


def test_an_endpoint_is_evaluated_and_asked_nothing_twice(tmp_path: Path) -> None:
    with serve_endpoint(answers) as fake:
        report = evaluate_adapter(spec_of(tmp_path, fake.url))
        assert report.base["eval/gsm8k/accuracy"] == 0.25
        assert report.base["eval/belle_eval/score"] == 0.25
        assert report.is_complete and report.models["base"].name.startswith("wise at 127.0.0.1:")
        assert report.tasks[0].judge == {} and report.tasks[1].judge["model"] == "judge"
        assert [each.given["base"].texts for each in report.questions[:1]] == [("It is 2.",)]
        assert report.questions[-1].given["base"].note == "So.\nScore: 0.25"
        num_asked = len(fake.asked)
        again = evaluate_adapter(spec_of(tmp_path, fake.url))
    assert len(fake.asked) == num_asked == 12  # other lengths of answers make other asks of the two tasks
    assert again.metrics_of == report.metrics_of


def test_an_endpoint_that_is_down_ends_it_and_a_judge_that_is_leaves_it_incomplete(tmp_path: Path) -> None:
    with serve_endpoint(lambda _: error(500, "oops")) as fake, pytest.raises(EndpointError, match="it is down"):
        evaluate_adapter(spec_of(tmp_path, fake.url))
    judged = lambda asked: error(500, "oops") if asked["model"] == "judge" else answers(asked)  # noqa: E731
    with serve_endpoint(judged) as fake:
        report = evaluate_adapter(spec_of(tmp_path, fake.url))
    assert not report.is_complete
    assert report.tasks[1].problems == {"base": 4} and "eval/belle_eval/score" not in report.base


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tasks": [{"task": "held_out"}]}, "held_out needs the model's own tokens, which no endpoint gives"),
        ({"judge": {"base": "smollm2-135m-instruct"}}, "evaluation.judge is a model of this machine"),
    ],
)
def test_what_needs_a_model_of_this_machine_is_refused(fields: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=words):
        evaluate_adapter(spec_of(tmp_path, "http://127.0.0.1:1/v1", **fields))


def test_an_endpoint_stands_alone() -> None:
    with pytest.raises(ValueError, match="found endpoint and adapter; expected one of them"):
        EvaluateSpec.model_validate(
            {"endpoint": {"url": "http://h/v1", "model": "m"}, "adapter": "x", "evaluation": {}}
        )


def test_keys_of_judges_are_missed_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GONE_API_KEY", raising=False)
    endpoint = {"url": "http://h/v1", "model": "m", "key_env": "GONE_API_KEY"}
    with pytest.raises(EndpointRefused, match="GONE_API_KEY"):
        check_others(EvaluationSpec.model_validate({"judge": {"endpoint": endpoint}}))
    check_others(None)


def test_a_base_that_is_evaluated_as_well_is_held_once() -> None:
    base = Subject("tiny", ModelSpec(base="smollm2-135m-instruct", dtype="float32"))
    evaluation = EvaluationSpec.model_validate(
        {"judge": {"base": "smollm2-135m-instruct"}, "rival": {"base": "another/base"}}
    )
    others = Others.of(evaluation, base)
    assert [(each.model, each.adapter) for each in others.guests(base.model).values()] == [(base.model, None)]
    assert others.subjects["rival"].model.base == "another/base"
    assert Others.of(EvaluationSpec(), base).guests(base.model) == {}


@pytest.mark.parametrize(
    ("others", "cpus", "found"),
    [
        ({}, 4, 2),
        ({"judge": {"base": "own/base"}}, 2, 1),  # stands on the base that is evaluated
        ({"judge": {"base": "big/judge"}}, 6, 2),
        (
            {"judge": {"base": "big/judge"}},
            2,
            "evaluation.judge (big/judge) needs a worker of its own beside one for own/base, and the cluster has no "
            "room for 2 workers with 2 CPU each, only for 1. Name an endpoint",
        ),
        (
            {"judge": {"base": "big/judge"}, "rival": {"base": "a/rival"}},
            4,
            "evaluation.judge (big/judge) and evaluation.rival (a/rival) need a worker each beside one for own/base, "
            "and the cluster has no room for 3 workers with 2 CPU each, only for 2.",
        ),
    ],
)
def test_a_judge_of_another_base_takes_a_place(others: dict[str, Any], cpus: int, found: int | str) -> None:
    base = Subject("own", ModelSpec(base="own/base"))
    asked = Others.of(EvaluationSpec.model_validate(others), base)
    cluster, worker = Cluster(({"CPU": float(cpus)},), ()), WorkerResources(2, use_gpu=False, accelerator_type=None)
    if isinstance(found, int):
        assert asked.num_places(base.model, worker, cluster) == found
        return
    with pytest.raises(PlacementError) as raised:
        asked.num_places(base.model, worker, cluster)
    assert found in str(raised.value)


@pytest.mark.parametrize(
    ("model", "rival", "expected"), [("a", "b", 0.25), ("b", "a", -0.25), ("a", "a", None), ("b", "b", None)]
)
def test_a_judge_may_prefer_its_own_base(model: str, rival: str, expected: float | None) -> None:
    judge = Identity("judge", {"base": "a"})
    mine, theirs = Identity("m", {"base": model}), Identity("r", {"base": rival})
    assert self_preference(judge, mine, theirs, 0.75) == expected
    assert self_preference(Identity("far", {"endpoint": "x"}), mine, theirs, 0.75) is None
    asked: Any = {
        role: Asked(ScriptedModel(lambda _: "", name), None)
        for role, name in (("judge", "a"), ("model", model), ("rival", rival))
    }
    figures, counts = {"eval/pair/win_rate": 0.75}, {"eval/pair/win_rate": 8}
    alone = TaskResult("pair", figures, counts, 8, 1.0, metric="win_rate", judge={"name": "a"})
    assert with_preference(alone, asked) == alone, "it was compared with the answers of a file"
    found = with_preference(replace(alone, judge={"name": "a", "rival name": rival}), asked)
    assert found.metrics.get("eval/pair/self_preference") == expected
    assert found.counts.get("eval/pair/self_preference") == (None if expected is None else 8)


def test_what_is_asked_beside_a_model_that_raises_is_ended_and_awaited() -> None:
    ended: list[str] = []

    async def asked_forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # as a connection that is closed
            ended.append("closed")
            raise

    async def evaluation() -> None:
        beside = asyncio.create_task(asked_forever())
        await asyncio.sleep(0)
        raise EndpointError(f"{beside.get_name()} is left")

    with pytest.raises(EndpointError):
        in_a_loop(evaluation())
    assert ended == ["closed"]

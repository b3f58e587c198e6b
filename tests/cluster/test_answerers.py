import asyncio
import operator
import os
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from didact.capacity import WorkerResources
from didact.cluster.asking.answerers import Answerers
from didact.cluster.asking.subjects import Subject
from didact.cluster.evaluate import evaluate_on_ray
from didact.datasets.conversation import Message
from didact.errors import ModelError
from didact.evaluation import Answer, EvalReport, Generation, Likelihood
from didact.logs import kept_in
from didact.models import base_fingerprint
from didact.spec import EvaluationSpec, ModelSpec, ReasoningGymTask
from tests.fakes.adapters import save_tiny_adapter
from tests.fakes.models import save_tiny_base

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

COMPUTED = {"base", "weights", "numbers", "quantization", "attention", "device", "engine"}
RESOURCES = WorkerResources(1, use_gpu=False, accelerator_type=None)
PROMPTS = [(Message("user", f"What is {n} + {n}?"),) for n in range(12)]


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    folder = tmp_path_factory.mktemp("models")
    model = ModelSpec(base=str(save_tiny_base(folder / "base")), dtype="float32")
    save_tiny_adapter(folder / "lora", 1, base_fingerprint=base_fingerprint(model), base=model.base)
    return {"base": Subject("tiny", model), "adapter": Subject("mine", model, folder / "lora", strict=True)}


class Ends:
    """Ends the worker that it reaches."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


class Warns:
    """Makes the worker that it reaches warn; there it is a message like any other."""

    def __init__(self, *, is_message: bool = True) -> None:
        self._is_message = is_message

    def __reduce__(self) -> tuple[Any, ...]:
        if self._is_message:
            return operator.itemgetter(0), ((Message("user", "1"), Warns(is_message=False)),)
        return warnings.warn, ("said in a worker",)


def on_workers(
    subjects: dict[str, Subject], number: int, work: Callable[[Answerers], Awaitable[list[Answer]]]
) -> list[Answer]:
    async def run() -> list[Answer]:
        # One ask a worker together, so that as many workers start as are asked for.
        async with Answerers(subjects, RESOURCES, batch_size=1, num_asks=number) as answerers:
            return await work(answerers)

    return asyncio.run(run())


def texts(answers: list[Answer]) -> list[str]:
    assert all(answer.problem is None for answer in answers)
    return [answer.text for answer in answers]


def test_answers_are_the_same_on_one_worker_and_on_two_and_when_one_is_killed(subjects: dict[str, Subject]) -> None:
    async def all_asked(answerers: Answerers) -> list[Answer]:
        asks = [(key, Generation(prompt, 8)) for prompt in PROMPTS for key in subjects]
        return await asyncio.gather(*(answerers.model(key).answer(ask) for key, ask in asks))

    async def with_a_loss(answerers: Answerers) -> list[Answer]:
        asked = asyncio.create_task(all_asked(answerers))
        await answerers.model("base").answer(Generation(PROMPTS[0], 1))
        ray.kill(answerers.workers[0])
        return await asked

    alone = texts(on_workers(subjects, 1, all_asked))
    assert texts(on_workers(subjects, 2, all_asked)) == alone
    assert texts(on_workers(subjects, 2, with_a_loss)) == alone
    assert alone[::2] != alone[1::2]  # base and adapter answer differently


def test_a_question_that_ends_workers_costs_itself_and_what_they_say_is_kept(
    subjects: dict[str, Subject], tmp_path: Path
) -> None:
    async def with_a_bad_one(answerers: Answerers) -> list[Answer]:
        model = answerers.model("base")
        bad = model.answer(Generation((Ends(),), 4))  # type: ignore[arg-type]
        return await asyncio.gather(bad, *(model.answer(Likelihood(prompt, ("A", "B"))) for prompt in PROMPTS[:2]))

    bad, *good = on_workers(subjects, 1, with_a_bad_one)
    assert bad.problem == "2 workers ended while they had this question, which may be the cause"

    async def with_a_warning(answerers: Answerers) -> list[Answer]:
        return [await answerers.model("base").answer(Generation((Warns(),), 2))]  # type: ignore[arg-type]

    with kept_in(tmp_path / "log.txt"):
        late = on_workers(subjects, 1, with_a_warning)
    assert late[0].problem is None
    said = next(line for line in (tmp_path / "log.txt").read_text().splitlines() if "said in a worker" in line)
    assert str(os.getpid()) not in said.split()[:3]
    # Those that were under way in both workers are taken for the cause as well; nothing is lost without a word.
    assert all(answer.problem == bad.problem or len(answer.likelihoods) == 2 for answer in good)


def test_a_base_that_cannot_be_loaded_ends_the_evaluation_in_its_own_words(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    gone = {"base": Subject("gone", ModelSpec(base=str(tmp_path)))}
    with pytest.raises(ModelError):
        on_workers(gone, 1, lambda answerers: asyncio.gather())


def test_an_evaluation_measures_all_models_alike_and_is_told_as_it_goes(subjects: dict[str, Subject]) -> None:
    told: list[tuple[str, str]] = []
    sums = ReasoningGymTask(task="reasoning_gym", name="chain_sum", num_items=6, max_new_tokens=4)
    beside = {**subjects, "again": Subject("again", subjects["adapter"].model, subjects["adapter"].adapter)}

    def evaluated() -> EvalReport:
        told.clear()
        return evaluate_on_ray(
            beside,
            EvaluationSpec(tasks=(sums,)),
            RESOURCES,
            watch=lambda task, model, scored: told.append((model.identity.name, scored.question.id)),
        )

    report = evaluated()
    assert len(told) == 18 and {name for name, _ in told} == {"tiny", "mine", "again"}
    assert list(report.models) == ["base", "adapter", "again"]
    assert report.is_complete and report.counts["eval/chain_sum/accuracy"] == 6
    assert all(asked.given["adapter"] == asked.given["again"] for asked in report.questions)
    assert {*COMPUTED, "template", "adapter"} == set(report.models["adapter"].digests)
    assert evaluated().questions == report.questions

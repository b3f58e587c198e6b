"""This program's own server as the judge of an evaluation, over HTTP."""

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from typing_extensions import override

from didact.datasets.conversation import Message
from didact.evaluation.asks import Answer, Ask, Generation, Likelihood
from didact.evaluation.endpoint import Endpoint
from didact.evaluation.judge import Judged, judged
from didact.evaluation.questions import Question, Score
from didact.evaluation.tasks.text_task import TextTask
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost
from didact.serving import EmbeddedEngine
from didact.serving.api.application import build_gateway
from didact.serving.api.gateway import GatewaySettings
from didact.serving.engine.protocol import Delta
from didact.serving.replica.adapter_store import AdapterStore
from didact.serving.replica.backend import Backend, Event, Started
from didact.serving.replica.catalog import Catalog
from didact.serving.replica.worker import Ask as BackendAsk
from didact.serving.replica.worker import Worker
from didact.spec import EndpointSpec, JudgingSpec, QuestionTask
from tests.fakes.adapters import TINY_BASE
from tests.fakes.asking import asked, said
from tests.fakes.backends import FallibleBackend
from tests.fakes.models import tiny_model
from tests.fakes.registry import ShelfRegistry

QUESTION = Question("1", (Message("user", "What is 1+1?"),), expected="2")
KEY = "sk-canary-4711"


class Verdicts(FallibleBackend):
    """Writes one reply after the other, whoever asks."""

    def __init__(self, *replies: str) -> None:
        super().__init__({})
        self.replies = list(replies)

    @override
    async def ask(self, ask: BackendAsk) -> AsyncGenerator[Event, None]:
        self.asked.append(ask)
        yield Started(5)
        reply = self.replies.pop(0)
        yield Delta(reply, tuple(range(len(reply))), "stop")


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """An application on a free port; its address, up to the version."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()  # connections wait in the socket until it takes them
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def gateway(backend: Backend, **settings: object) -> FastAPI:
    catalog = Catalog("tiny", ShelfRegistry(), backend.prepare, poll_seconds=60)
    return build_gateway(backend, catalog, GatewaySettings(max_new_tokens=8, **settings))


def never(question: Question, text: str) -> Score:
    raise AssertionError("the judge scores")


def judging(**settings: object) -> Judged:
    inner = TextTask.of("sums", QuestionTask(), [QUESTION], never, "none")
    return judged(inner, JudgingSpec.model_validate(settings))


def asked_of(endpoint: Endpoint, task: Judged) -> Score:
    def reply(ask: Ask) -> Answer:
        if ask.to == "model":
            return said("It is 2.")

        async def run() -> Answer:
            try:
                return await endpoint.answer(ask)
            finally:
                await endpoint.close()

        return asyncio.run(run())

    return asked(task, QUESTION, reply)[0]


def test_it_judges_with_a_key_and_one_repair(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_API_KEY", KEY)
    backend = Verdicts("Well done!", "Score: 0.75")
    with served(gateway(backend, api_keys=(KEY,))) as url:
        endpoint = Endpoint(EndpointSpec(url=url, model="tiny", key_env="TINY_API_KEY"))
        score = asked_of(endpoint, judging())
    assert (score.values["score"], score.problem) == (0.75, None)
    first, repaired = (ask.prompt for ask in backend.asked)
    assert isinstance(first, tuple) and isinstance(repaired, tuple)
    assert [message.role for message in repaired] == ["system", "user", "assistant", "user"]  # type: ignore[union-attr]
    assert endpoint.usage.requests == 2
    assert endpoint.usage.answer_tokens == len("Well done!Score: 0.75")


@pytest.mark.parametrize(("context", "problem"), [(4096, "the judge: "), (1024, "status 400: ")])
def test_a_model_that_cannot_judge_gives_no_score(context: int, problem: str, tmp_path: Path) -> None:
    model = tiny_model()
    model.config.max_position_embeddings = context
    tokenizer = byte_tokenizer()
    engine = EmbeddedEngine(AdapterHost(model, TINY_BASE), tokenizer)
    worker = Worker(engine, tokenizer, AdapterStore(ShelfRegistry(), tmp_path), TINY_BASE)
    try:
        with served(gateway(worker)) as url:
            endpoint = Endpoint(EndpointSpec(url=url, model="tiny"))
            score = asked_of(endpoint, judging(max_new_tokens=8))
            found = asyncio.run(endpoint.answer(Likelihood("ab", ("c",))))
            text = asyncio.run(endpoint.answer(Generation("ab", 4)))
    finally:
        worker.close()
    assert score.values == {} and score.problem is not None and problem in score.problem
    # It gives likelihoods, and continues texts as they are.
    assert found.problem is None and found.likelihoods[0].num_tokens == 1 and found.likelihoods[0].log_likelihood < 0
    assert text.texts[0].num_tokens == 4 and text.num_prompt_tokens == 2

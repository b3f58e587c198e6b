"""The terminal chat, with a model in this process."""

from collections.abc import Iterator

import pytest

from didact.datasets.conversation import Message
from didact.serving.api.application import build_gateway
from didact.serving.api.gateway import GatewaySettings
from didact.serving.chat import HttpTalk, LocalTalk, Talk, chat_loop
from didact.serving.replica.catalog import Catalog
from didact.serving.replica.worker import Worker
from tests.fakes.registry import ShelfRegistry
from tests.serving.test_judge_by_own_server import served


@pytest.fixture()
def talk(worker: Worker, registry: ShelfRegistry) -> LocalTalk:
    return LocalTalk(worker, Catalog("tiny", registry, worker.prepare), temperature=0, max_new_tokens=5)


def converse(talk: Talk, *lines: str) -> str:
    typed: Iterator[str] = iter(lines)
    written: list[str] = []

    def read(_: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    chat_loop(talk, read=read, write=written.append)
    return "".join(written)


def test_conversation_with_models_and_reset(talk: LocalTalk) -> None:
    assert talk.models() == ["tiny", "demo"]
    first = "".join(talk.answer("tiny", [Message("user", "hi")]))
    other = "".join(talk.answer("demo", [Message("user", "hi")]))
    assert first != other
    shown = converse(talk, "hi", "", "/model demo", "/reset", "hi", "/models", "/what", "/quit", "never")
    assert shown.count(first + "\n") == 1
    assert shown.count(other + "\n") == 1
    assert "Now chatting with demo." in shown
    assert "tiny\ndemo\n" in shown
    assert shown.count("/quit ends") == 2


def test_the_conversation_is_remembered(talk: LocalTalk) -> None:
    asked: list[list[Message]] = []

    class Listening:
        models = talk.models
        num_tokens = 0

        def answer(self, model: str, messages: list[Message]) -> Iterator[str]:
            asked.append(messages)
            yield from talk.answer(model, messages)

    converse(Listening(), "hi", "more", "/reset", "again")
    assert [len(messages) for messages in asked] == [1, 3, 1]
    assert [message.role for message in asked[1]] == ["user", "assistant", "user"]


def test_a_failed_turn_is_told_and_forgotten(talk: LocalTalk) -> None:
    shown = converse(talk, "/model nobody", "hi", "/model tiny", "x" * 2000, "hi")
    assert "[" in shown
    assert "nobody" in shown
    assert "maximum context length" in shown
    assert shown.count("".join(talk.answer("tiny", [Message("user", "hi")])) + "\n(") == 1


def test_the_speed_of_an_answer_is_told(talk: LocalTalk) -> None:
    ticks = iter([10.0, 12.0])
    typed = iter(["hi", "/quit"])
    written: list[str] = []
    chat_loop(talk, "tiny", read=lambda _: next(typed), write=written.append, clock=lambda: next(ticks))
    assert written[-1] == "(5 tokens, 2.5 tokens/s)\n"


def test_a_server_tells_how_many_tokens_an_answer_has(worker: Worker, registry: ShelfRegistry) -> None:
    catalog = Catalog("tiny", registry, worker.prepare)
    with served(build_gateway(worker, catalog, GatewaySettings(max_new_tokens=8))) as url:
        talk = HttpTalk(url, temperature=0, max_new_tokens=5)
        text = "".join(talk.answer("tiny", [Message("user", "hi")]))
        assert talk.num_tokens == 5
        assert text

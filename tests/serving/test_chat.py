"""The terminal chat, with a model in this process."""

from collections.abc import Iterator

import pytest

from didact.datasets.conversation import Message
from didact.serving.chat import LocalTalk, Talk, chat_loop
from didact.serving.replica.catalog import Catalog
from didact.serving.replica.worker import Worker
from tests.fakes.registry import ShelfRegistry


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
    assert shown.endswith("".join(talk.answer("tiny", [Message("user", "hi")])) + "\n\n")

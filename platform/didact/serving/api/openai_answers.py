"""OpenAI's answers, whole and streamed; how chat and completions differ in them."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from typing_extensions import override

from didact.serving.api.answers import Endpoint, Written, sse, words_of
from didact.serving.api.api_errors import ApiError
from didact.serving.api.openai_types import Answer, ChatRequest, Choice, GenerationBody, Usage
from didact.serving.api.speech.calls import CallArguments, CallBegun
from didact.serving.api.speech.reader import AnswerReader, Part, Text, Thought
from didact.serving.engine.protocol import Delta
from didact.serving.replica.backend import Started
from didact.serving.replica.token_words import TokenWord, Word, offsets_of, texts_of


class OpenAiEndpoint(Endpoint):
    """Writes the answers to one request.

    Args:
        body: what was asked.
        chat: whether on the chat's endpoint.
        request_id: of this request alone.
        fingerprint: the version that answers.
    """

    def __init__(self, body: GenerationBody, chat: bool, request_id: str, fingerprint: str) -> None:
        self.chat = chat
        self.prompt_field = "messages" if chat else "prompt"
        self._body = body
        self._words = _Words(chat, bool(body.return_tokens_as_token_ids))
        self._offsets: dict[int, int] = {}
        self._readers: dict[int, AnswerReader] = {}
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{request_id}",
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": fingerprint,
        }

    @override
    def whole(self, answers: Sequence[Written], usage: Usage) -> dict[str, Any]:
        choices = []
        for index, each in enumerate(answers):
            started = each.started or Started(0)
            content: dict[str, Any] = {"text": started.prompt_text + each.text}
            reason: str | None = each.reason
            if self.chat:
                reader = self._reader(started)
                parts = reader.read_whole(each.text)
                content = {"message": _message(parts, called=reader.has_called)}
                reason = _reason(reader, each.reason)
            logprobs = self._echoed(index, started, each.words)
            ids = self._ids(each.token_ids, started, with_prompt=True)
            ending: dict[str, Any] = {"finish_reason": reason, "stop_reason": each.stop_text}
            choices.append(Choice(index=index, logprobs=logprobs, **ending, **content, **ids))
        first = answers[0].started
        return self._answer("chat.completion", choices, usage, self._prompt_ids(first))

    @override
    def opening(self, started: Mapping[int, Started]) -> Iterator[str]:
        for index, each in sorted(started.items()):
            ids = self._ids([], each, with_prompt=True)
            if self.chat:
                self._readers[index] = self._reader(each)
                choice = Choice(index=index, delta={"role": "assistant", "content": ""})
                yield self._chunk(choice, prompt_ids=self._prompt_ids(each))
            elif each.prompt_text or ids:
                logprobs = self._echoed(index, each, ())
                yield self._chunk(Choice(index=index, text=each.prompt_text, logprobs=logprobs, **ids))

    @override
    def piece(self, index: int, delta: Delta) -> Iterator[str]:
        reason: str | None = delta.finish_reason
        contents: list[dict[str, Any]] = [{"text": delta.text}] if delta.text else []
        if self.chat:
            reader = self._readers[index]
            parts = reader.push(delta.text) if delta.text else []
            parts += reader.finish() if reason else []
            contents = [{"delta": _delta(part)} for part in parts]
            reason = _reason(reader, delta.finish_reason)
        told: dict[str, Any] = {"logprobs": self._logprobs(index, words_of(delta))}
        told |= self._ids(list(delta.token_ids), None, with_prompt=False)
        nothing: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        if not contents and (told["logprobs"] or len(told) > 1):
            contents = [{"delta": {"content": ""}} if self.chat else nothing]
        for content in contents:
            yield self._chunk(Choice(index=index, **content, **told))
            told = {}
        if reason:
            ending: dict[str, Any] = {"finish_reason": reason, "stop_reason": delta.stop_text}
            yield self._chunk(Choice(index=index, **ending, **nothing))

    @override
    def failure(self, error: ApiError) -> str:
        return sse(error.body)

    @override
    def closing(self, usage: Usage) -> Iterator[str]:
        if self._body.include_usage:
            yield self._chunk(usage=usage)
        yield "data: [DONE]\n\n"

    def _reader(self, started: Started) -> AnswerReader:
        offered = self._body.offered if isinstance(self._body, ChatRequest) else ()
        return AnswerReader(started.speech, offered, one_call=self._body.calls_once)

    def _chunk(self, *choices: Choice, usage: Usage | None = None, prompt_ids: list[int] | None = None) -> str:
        return sse(self._answer("chat.completion.chunk", choices, usage, prompt_ids))

    def _answer(
        self, kind: str, choices: Sequence[Choice], usage: Usage | None, prompt_ids: list[int] | None
    ) -> dict[str, Any]:
        kind = kind if self.chat else "text_completion"
        values = {**self._head, "object": kind, "choices": list(choices), "usage": usage}
        return Answer.model_validate({**values, "prompt_token_ids": prompt_ids}).dump()

    def _prompt_ids(self, started: Started | None) -> list[int] | None:
        """Where a chat tells them."""
        told = self.chat and self._body.return_token_ids and started is not None
        return list(started.prompt_ids) if told and started else None

    def _ids(self, ids: list[int], started: Started | None, *, with_prompt: bool) -> dict[str, list[int]]:
        if not self._body.return_token_ids:
            return {}
        prompt = {"prompt_token_ids": list(started.prompt_ids)} if started and with_prompt and not self.chat else {}
        return {"token_ids": ids, **prompt}

    def _echoed(self, index: int, started: Started, words: Sequence[TokenWord]) -> dict[str, Any] | None:
        """The probabilities of what a completion begins with: the prompt, where it is told, then `words`."""
        if not started.prompt_words and not (started.prompt_text and self._body.num_logprobs is not None):
            return self._logprobs(index, words)
        # In bytes: a token may hold a part of a character. What the text lacks of them is a blank at its beginning.
        behind = b"".join(word.chosen.content for word in started.prompt_words)
        text = started.prompt_text.encode(errors="replace")
        first = text.removesuffix(behind if text.endswith(behind) else behind.removeprefix(b" "))
        begins = TokenWord(Word(started.prompt_ids[0], first, 0.0), ())
        told = self._words.legacy([begins, *started.prompt_words, *words], 0)
        self._offsets[index] = len(started.prompt_text) + len(texts_of(words))
        for name in ("token_logprobs", "top_logprobs"):
            told[name][0] = None  # nothing comes before it
        return told

    def _logprobs(self, index: int, words: Sequence[TokenWord]) -> dict[str, Any] | None:
        if self._body.num_logprobs is None or (self._body.stream and not words):
            return None
        if self.chat:
            return self._words.modern(words)
        offset = self._offsets.get(index, 0)
        self._offsets[index] = offset + len(texts_of(words))
        return self._words.legacy(words, offset)


def _reason(reader: AnswerReader, reason: str | None) -> str | None:
    return "tool_calls" if reader.has_called and reason == "stop" else reason


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


def _delta(part: Part) -> dict[str, Any]:
    """A part as a piece of a stream."""
    if isinstance(part, Text):
        return {"content": part.text}
    if isinstance(part, Thought):
        return {"reasoning_content": part.text}
    if isinstance(part, CallArguments):
        return {"tool_calls": [{"index": part.index, "function": {"arguments": part.text}}]}
    function = {"name": part.name, "arguments": ""}
    return {"tool_calls": [{"index": part.index, "id": _call_id(), "type": "function", "function": function}]}


def _message(parts: Sequence[Part], *, called: bool) -> dict[str, Any]:
    """All parts as one message."""
    thoughts = "".join(part.text for part in parts if isinstance(part, Thought))
    said = "".join(part.text for part in parts if isinstance(part, Text))
    message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
    if thoughts:
        message["reasoning_content"] = thoughts
    if called:
        calls = []
        for begun in (part for part in parts if isinstance(part, CallBegun)):
            pieces = (part.text for part in parts if isinstance(part, CallArguments) and part.index == begun.index)
            function = {"name": begun.name, "arguments": "".join(pieces)}
            calls.append({"id": _call_id(), "type": "function", "function": function})
        message |= {"content": said or None, "tool_calls": calls}
    return message


class _Words:
    """Probabilities as chats and as completions have them."""

    def __init__(self, chat: bool, as_ids: bool) -> None:
        self._chat, self._as_ids = chat, as_ids

    def name(self, word: Word) -> str:
        return f"token_id:{word.token_id}" if self._as_ids else word.text

    def modern(self, words: Sequence[TokenWord]) -> dict[str, Any]:
        content = [{**self._one(word.chosen), "top_logprobs": list(map(self._one, word.top))} for word in words]
        return {"content": content, "refusal": None}

    def _one(self, word: Word) -> dict[str, Any]:
        return {"token": self.name(word), "logprob": word.logprob, "bytes": list(word.content)}

    def legacy(self, words: Sequence[TokenWord], offset: int) -> dict[str, Any]:
        """`offset`: characters before the first token."""
        return {
            "tokens": [self.name(word.chosen) for word in words],
            "token_logprobs": [word.chosen.logprob for word in words],
            "top_logprobs": [{self.name(each): each.logprob for each in (*word.top, word.chosen)} for word in words],
            "text_offset": [offset + each for each in offsets_of(words)],
        }

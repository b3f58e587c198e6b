"""One request of a soak and what became of it: plain, streamed, left in the middle, or hostile."""

import itertools
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import httpx

PROMPTS: tuple[tuple[str, int], ...] = (
    ("hello", 8),
    ("What is 27 + 58 - 13?", 24),
    ("a", 1),
    ("Name the months of the year, one a line, and say how many days each has.", 60),
    ("Die Straße ist naß, и дождь идёт. " * 4, 16),
    ("x" * 300, 40),
)
"""What is asked, and how many tokens the answer has at most."""
SECONDS = 120
"""For any answer."""
NUMBERS = itertools.count()
Kind = Literal["answered", "refused", "broken", "cut", "unreached", "left"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request."""

    kind: Kind
    """`refused`: an error in words; `broken`: neither that nor an answer; `cut`: a stream without an end."""
    said: str
    """The text; the code of an error."""
    status: int = 0
    version: str = ""
    """What answered, by the server's word: `NAME:VERSION#CONTENT`."""
    tokens: int = 0
    asked: str = ""
    """What was asked, in a word."""
    model: str = ""
    prompt: int | None = None
    """Number of the prompt of a greedy request whose answer is known."""
    begun: float = 0.0
    ended: float = 0.0


def ask_known(client: httpx.Client, model: str, prompt: int, choose: random.Random, *, leave: bool = False) -> Outcome:
    """A greedy question with an answer that is known.

    Args:
        client: of the server.
        model: any name of it.
        prompt: number of the question.
        choose: whether it is streamed, whether its like may be refused for another's sake.
        leave: hang up in the middle.
    """
    text, tokens = PROMPTS[prompt]
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": tokens,
    }
    if choose.random() < 0.9:  # in what decides the answer it is like no other, and no other's end is held against it
        body["stop"] = [f"never said {next(NUMBERS)}"]
    body["stream"] = leave or choose.random() < 0.5
    if body["stream"]:
        body["stream_options"] = {"include_usage": True}
    found = send(client, "/v1/chat/completions", body, leave_after=choose.randrange(3) if leave else None)
    return replace(found, asked="left" if leave else "known", model=model, prompt=prompt)


def ask_hostile(client: httpx.Client, model: str, choose: random.Random) -> Outcome:
    """A request that should be refused in words, or answered, whatever it does to the engine."""
    name, path, body = choose.choice(HOSTILE)(model, choose)
    return replace(send(client, path, body), asked=f"hostile: {name}", model=model)


def send(client: httpx.Client, path: str, body: Any, leave_after: int | None = None) -> Outcome:
    """Send and read to the end, or leave after so many pieces of a stream."""
    begun = time.monotonic()
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    try:
        with client.stream("POST", path, content=content, headers=headers) as answer:
            found = _read(answer, leave_after)
            found = replace(found, status=answer.status_code)
    except httpx.HTTPError as error:
        found = Outcome("unreached", f"{type(error).__name__}: {error}"[:200])
    return replace(found, begun=begun, ended=time.monotonic())


def _read(answer: httpx.Response, leave_after: int | None) -> Outcome:
    version = answer.headers.get("x-didact-model-version", "")
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        return _read_whole(answer, version)
    text, pieces, tokens = "", 0, 0
    for line in answer.iter_lines():
        if leave_after is not None and pieces > leave_after:
            return Outcome("left", text, version=version)
        if line == "data: [DONE]":
            return Outcome("answered", text, version=version, tokens=tokens)
        if line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                return Outcome("refused", str(event["error"].get("code")), version=version)
            text += "".join((each.get("delta") or {}).get("content") or "" for each in event["choices"])
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
            pieces += 1
    return Outcome("cut", text, version=version)


def _read_whole(answer: httpx.Response, version: str) -> Outcome:
    answer.read()
    try:
        told = answer.json()
        if answer.status_code != 200:
            return Outcome("refused", str(told["error"]["code"]), version=version)
        choice = told["choices"][0]
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        return Outcome("answered", text or "", version=version, tokens=told["usage"]["completion_tokens"])
    except (ValueError, KeyError, TypeError):
        return Outcome("broken", f"{answer.status_code} {answer.text[:200]}", version=version)


Hostile = Callable[[str, random.Random], tuple[str, str, Any]]


def _chat(name: str, **changes: Any) -> Hostile:
    def made(model: str, choose: random.Random) -> tuple[str, str, Any]:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 12}
        return name, "/v1/chat/completions", {**body, "stream": choose.random() < 0.3, **changes}

    return made


def _completion(name: str, **changes: Any) -> Hostile:
    def made(model: str, choose: random.Random) -> tuple[str, str, Any]:
        body = {"model": model, "prompt": "hello", "max_tokens": 12, **changes}
        return name, "/v1/completions", body

    return made


def _raw(name: str, content: bytes) -> Hostile:
    return lambda model, choose: (name, "/v1/chat/completions", content)


_SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {"a": {}}}}}
HOSTILE: tuple[Hostile, ...] = (
    _chat("eight hot choices", n=8, temperature=2.0, top_p=0.99, stream=False),
    _chat("no temperature at all", temperature=1e-320),
    _chat("NaN", temperature=float("nan")),
    _chat("penalties", presence_penalty=2, frequency_penalty=-2, repetition_penalty=1e-6, temperature=1),
    _chat("bias that forbids all", logit_bias={str(token): -100 for token in range(256)}),
    _chat("bias for one", logit_bias={"65": 100}, max_tokens=200),
    _chat("bias outside", logit_bias={"999999": 5}),
    _chat("no end", ignore_eos=True, min_tokens=100, max_tokens=100),
    _chat("too long an answer", max_tokens=10**9),
    _chat("longest answer", max_tokens=900),
    _chat("long prompt", messages=[{"role": "user", "content": "y" * 700}], max_tokens=4),
    _chat("prompt over the context", messages=[{"role": "user", "content": "word " * 20_000}]),
    _chat("10,000 turns", messages=[{"role": "user", "content": "a"}] * 10_000),
    _chat("no turns", messages=[]),
    _chat("stops", stop=["e", "\n", " ", "aa", "b", "c", "d", "f"]),
    _chat("stop tokens", stop_token_ids=list(range(64)), temperature=1),
    _chat("too many stops", stop=[str(number) for number in range(100)]),
    _chat("seed of 64 bits", seed=-(2**63), temperature=1),
    _chat("seed too large", seed=2**80),
    _chat("every probability", logprobs=True, top_logprobs=20, stream=False),
    _chat("no row of one twice", no_repeat_ngram_size=1, max_tokens=300),
    _chat("beams", num_beams=4, stream=False),
    _chat("a form", response_format={"type": "json_object"}, max_tokens=30),
    _chat("a schema", response_format=_SCHEMA, max_tokens=30),
    _chat("a hostile form", structured_outputs={"regex": "(a?){30}a{30}" * 20}),
    _chat("nested form", structured_outputs={"grammar": "start: " + "(" * 2000}),
    _chat("tools", tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]),
    _chat("unknown words", reasoning_effort="high", best_of=3),
    _chat("no such model", model="nobody"),
    _chat("no such version", model="tenant-00:999"),
    _chat("odd names", model="../../etc/passwd\x00"),
    _chat("text without meaning", messages=[{"role": "user", "content": "\x00\ufffe<|im_end|>\u202e"}]),
    _chat("other types", temperature="hot", max_tokens=[1], stream="maybe"),
    _completion("echo with probabilities", echo=True, logprobs=5, max_tokens=1),
    _completion("many prompts", prompt=["one", "two", "three"], n=2, temperature=1),
    _completion("tokens outside", prompt=[1, 2, 10**9]),
    _completion("nothing", prompt=""),
    _raw("no JSON", b"{'model': "),
    _raw("deep JSON", b"[" * 50_000),
    _raw("half a character", b'{"model": "\\ud800", "messages": [{"role": "user", "content": "\\udfff"}]}'),
    _raw("over a megabyte", b'{"model": "' + b"a" * 1_100_000 + b'"}'),
)

"""An endpoint as a model: what is sent, what is read, and what becomes of everything that goes wrong."""

import asyncio
import logging
import math
from typing import Any

import pytest

from didact.datasets.conversation import Message
from didact.errors import EndpointError, EndpointRefused
from didact.evaluation.asks import Answer, Ask, Generation, Likelihood, Likely, Text, TokenIds
from didact.evaluation.endpoint import Endpoint, Usage
from didact.spec import EndpointSpec
from tests.fakes.endpoint import (
    HTML,
    KEY,
    FakeEndpoint,
    QuickClock,
    Said,
    body,
    completion,
    error,
    one_after_the_other,
    serve_endpoint,
)

ASK = Generation((Message("system", "Be brief."), Message("user", "What is 1+1?")), 16)
GOOD = completion("It is 2.")


def spec_of(fake: FakeEndpoint, **fields: Any) -> EndpointSpec:
    return EndpointSpec.model_validate({"url": fake.url, "model": "wise", "timeout_seconds": 5, **fields})


def ask_all(endpoint: Endpoint, asks: list[Ask]) -> list[Answer]:
    async def run() -> list[Answer]:
        try:
            return await asyncio.gather(*(endpoint.answer(ask) for ask in asks))
        finally:
            await endpoint.close()

    return asyncio.run(run())


def ask_one(endpoint: Endpoint, ask: Ask = ASK) -> Answer:
    (answer,) = ask_all(endpoint, [ask])
    return answer


def test_a_good_answer_and_what_was_sent() -> None:
    with serve_endpoint(lambda _: completion("It is 2.", "length")) as fake:
        endpoint = Endpoint(spec_of(fake))
        answer = ask_one(endpoint)
    assert answer.texts == (Text("It is 2.", 8, "length"),)
    assert (answer.problem, answer.num_prompt_tokens) == (None, 7)
    assert fake.paths == ["/v1/chat/completions"]
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 1+1?"}]
    assert fake.asked == [{"model": "wise", "max_tokens": 16, "temperature": 0.0, "messages": turns}]
    assert endpoint.usage == Usage(1, 0, 7, 8)


def test_samples_have_seeds_of_their_own_and_options_change_fields() -> None:
    ask = Generation("Once", 4, opening=" upon", num_samples=2, temperature=0.5, top_p=0.9, seed=3, stop=("\n",))
    choice = {"choices": [{"text": " a time", "finish_reason": "stop"}]}
    with serve_endpoint(lambda _: body(choice)) as fake:
        options = {"top_k": 5, "top_p": None}
        answer = ask_one(Endpoint(spec_of(fake, options=options, length_field="max_completion_tokens")), ask)
    assert [text.text for text in answer.texts] == [" a time"] * 2
    assert fake.paths == ["/v1/completions"] * 2
    sent = {"model": "wise", "max_completion_tokens": 4, "temperature": 0.5, "stop": ["\n"], "prompt": "Once upon"}
    assert sorted(fake.asked, key=lambda each: each["seed"]) == [{**sent, "top_k": 5, "seed": seed} for seed in (3, 4)]


def test_likelihoods_of_token_ids_and_of_texts() -> None:
    logprobs = {
        "tokens": ["a", "b", " c", "d", "!"],
        "token_logprobs": [None, -0.5, -1.0, -0.25, -9.0],
        "top_logprobs": [None, {"b": -0.5}, {" c": -1.0}, {"x": -0.1, "d": -0.25}, {"!": -9.0}],
        "text_offset": [0, 1, 2, 4, 5],
    }
    with serve_endpoint(lambda _: body({"choices": [{"text": "", "logprobs": logprobs}]})) as fake:
        endpoint = Endpoint(spec_of(fake))
        ids = ask_one(endpoint, Likelihood(TokenIds((1, 2)), (TokenIds((3,)), TokenIds((3, 4)))))
        text = ask_one(endpoint, Likelihood("ab", (" cd",)))
        across = ask_one(endpoint, Likelihood("ab ", ("cd",)))
    assert ids.likelihoods == (Likely(-1.0, 1, True), Likely(-1.25, 2, False))
    assert text.likelihoods == (Likely(-1.25, 2, False),)
    assert across.problem is not None and "across the end of the prompt" in across.problem
    sent = {"model": "wise", "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    assert all({**asked, "prompt": None} == {**sent, "prompt": None} for asked in fake.asked)
    assert {str(asked["prompt"]) for asked in fake.asked} == {"[1, 2, 3]", "[1, 2, 3, 4]", "ab cd"}


@pytest.mark.parametrize(
    ("ask", "said", "problem"),
    [
        (Likelihood((Message("user", "a"),), ("b",)), GOOD, "chat completions give no likelihoods"),
        (Likelihood("a", ("b",)), body({"choices": [{"text": "b"}]}), "no log probabilities of the prompt"),
        (Likelihood("a", ("b",)), error(400, "echo is not supported here"), "status 400: echo is not supported here"),
        (Generation(ASK.prompt, 4, opening="So"), GOOD, "begins with a given text"),
        (Generation((Message("document", "a"),), 4), GOOD, "role document"),
    ],
)
def test_what_an_endpoint_cannot_do_is_refused_by_name(ask: Ask, said: Said, problem: str) -> None:
    with serve_endpoint(lambda _: said) as fake:
        answer = ask_one(Endpoint(spec_of(fake)), ask)
    assert answer.problem is not None and problem in answer.problem
    assert answer.problem.startswith("wise at 127.0.0.1:")
    assert not answer.texts and not answer.likelihoods


# What passes when the request is sent again, and what the problem says when it never does.
PASSING = {
    "429": (error(429, "slow down"), "status 429: slow down"),
    "500": (error(500, "oops"), "status 500: oops"),
    "html": (Said(HTML), "status 200 with '<html><body><h1>502 Bad Gateway"),
    "cut json": (Said(GOOD.content[:-20]), "expected JSON"),
    "a list": (body([1]), "expected a JSON object"),
    "an error in 200": (body({"error": {"message": "overloaded"}}), "status 200 with an error: overloaded"),
    "no choices": (body({"choices": "x"}), "choices is 'x'"),
    "nothing": (Said(b""), "an empty body"),
    "text of another type": (body({"choices": [{"message": {"content": [1]}}]}), "expected a string"),
    "hang": (Said(GOOD.content, hangs_after=0), "no whole answer within 0.3 s (0 bytes had come)"),
    "drip": (Said(GOOD.content, hangs_after=9), "no whole answer within 0.3 s (9 bytes had come)"),
    "broken off": (Said(GOOD.content, breaks_after=30), "the connection broke"),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_may_pass_is_tried_again(kind: str) -> None:
    said, _ = PASSING[kind]
    with serve_endpoint(one_after_the_other(said, GOOD)) as fake:
        seconds = 0.3 if kind in ("hang", "drip") else 5
        endpoint = Endpoint(spec_of(fake, timeout_seconds=seconds), QuickClock())
        answer = ask_one(endpoint)
    assert (answer.text, answer.problem) == ("It is 2.", None)
    # On a machine that is slow a good answer may be late as well.
    assert endpoint.usage.retries >= 1 and endpoint.usage.requests == endpoint.usage.retries + 1


@pytest.mark.parametrize("kind", PASSING)
def test_what_does_not_pass_is_a_problem_and_never_an_empty_answer(kind: str) -> None:
    said, problem = PASSING[kind]
    with serve_endpoint(lambda _: said) as fake:
        endpoint = Endpoint(spec_of(fake, timeout_seconds=0.3, retries=1), QuickClock())
        answer = ask_one(endpoint)
    assert answer.problem is not None and problem in answer.problem
    assert answer.problem.endswith("; 2 tries")
    assert answer.texts == ()


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (body({"choices": []}), "no answer at all (choices is empty)"),
        (completion(None), "an empty answer (finish_reason stop)"),
        (completion("", "length", reasoning_content="Hmm"), "all its tokens went into thinking"),
        (completion(None, refusal="I cannot help with that."), "it refused: 'I cannot help with that.'"),
        (completion("Half", "content_filter"), "its filter of contents"),
        (error(400, "maximum context length is 4096 tokens"), "status 400: maximum context length is 4096 tokens"),
    ],
)
def test_what_another_try_would_not_change_is_asked_once(said: Said, problem: str) -> None:
    with serve_endpoint(lambda _: said) as fake:
        endpoint = Endpoint(spec_of(fake))
        answer = ask_one(endpoint)
        assert answer.problem is not None and problem in answer.problem
        assert answer.texts == ()
        fake.answer = lambda _: GOOD
        assert ask_one(endpoint).text == "It is 2."
    assert len(fake.asked) == 2


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (error(404, "no such model"), "status 404: no such model; expected the address up to the version"),
        (Said(b"", 308, {"Location": "http://elsewhere.example/"}), "status 308"),
        (error(402, "pay"), "status 402: pay"),
        (error(429, "You exceeded your quota", "insufficient_quota"), "status 429: You exceeded your quota"),
    ],
)
def test_what_every_request_would_meet_ends_it(said: Said, words: str) -> None:
    with serve_endpoint(lambda _: said) as fake:
        endpoint = Endpoint(spec_of(fake))
        with pytest.raises(EndpointError, match=rf"wise at 127.0.0.1:\d+ answers no more. {words}"):
            ask_one(endpoint)
        with pytest.raises(EndpointError, match=words):
            ask_one(endpoint)
    assert len(fake.asked) == 1


def test_an_endpoint_that_is_not_there_is_down_after_so_many_requests() -> None:
    with serve_endpoint(lambda _: GOOD) as fake:
        spec = spec_of(fake, retries=2, gives_up_after=2)
    clock = QuickClock()
    endpoint = Endpoint(spec, clock)
    assert (ask_one(endpoint).problem or "").endswith("; 3 tries")
    assert [0.5 <= first <= 1 and 1 <= second <= 2 for first, second in [clock.slept]] == [True]
    with pytest.raises(EndpointError, match=r"it is down: 2 requests in a row failed in 3 tries each; .*ConnectError"):
        ask_one(endpoint)
    assert endpoint.usage.prompt_tokens == 0


@pytest.mark.parametrize("header", [{"Retry_After": "17"}, {"retry_after_ms": "17000"}])
def test_everybody_waits_as_long_as_the_endpoint_asks(header: dict[str, str]) -> None:
    with serve_endpoint(one_after_the_other(error(429, "slow down", **header), GOOD)) as fake:
        clock = QuickClock()
        answer = ask_one(Endpoint(spec_of(fake), clock))
    assert answer.text == "It is 2."
    assert clock.slept == [17]
    assert answer.seconds == 17


def test_the_deadline_ends_waiting_and_asking() -> None:
    with serve_endpoint(lambda _: error(429, "slow down", Retry_After="3600")) as fake:
        endpoint = Endpoint(spec_of(fake, deadline_seconds=60), QuickClock())
        with pytest.raises(EndpointError, match=r"its deadline of 60 s would pass while waiting after: status 429"):
            ask_one(endpoint)
        clock = QuickClock()
        endpoint = Endpoint(spec_of(fake, deadline_seconds=60), clock)
        fake.answer = lambda _: GOOD
        assert ask_one(endpoint).text == "It is 2."
        clock.time += 60
        with pytest.raises(EndpointError, match=r"its deadline of 60 s has passed"):
            ask_one(endpoint)


def test_requests_and_tokens_keep_to_the_minute() -> None:
    asks: list[Ask] = [Generation((Message("user", str(number)),), 16) for number in range(5)]
    with serve_endpoint(lambda _: GOOD) as fake:
        clock = QuickClock()
        ask_all(Endpoint(spec_of(fake, requests_per_minute=2), clock), asks)
        assert (clock.time, len(fake.asked)) == (1120.0, 5)
        # Each is taken for 25 tokens (9 of a short turn, 16 of the answer), and was 15 in truth once it is there.
        clock = QuickClock()
        endpoint = Endpoint(spec_of(fake, tokens_per_minute=40), clock)
        for ask in asks[:3]:
            ask_one(endpoint, ask)
        assert clock.time == 1060.0


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ({"max_tokens": 40}, "the budget of 40 tokens for wise is used up: 7 of prompts and 8 of answers so far"),
        (
            {"max_cost": 0.0001, "prices": {"prompt": 1, "answer": 4}},
            "the budget of 0.0001 for wise is used up: 3.9e-05 so far, the next request may cost 8.7e-05",
        ),
    ],
)
def test_a_budget_is_never_exceeded(budget: dict[str, Any], words: str) -> None:
    with serve_endpoint(lambda _: GOOD) as fake:
        endpoint = Endpoint(spec_of(fake, **budget))
        assert ask_one(endpoint).text == "It is 2."
        with pytest.raises(EndpointError, match=words):
            ask_one(endpoint, Generation(ASK.prompt, 16, attempt=1))
    assert len(fake.asked) == 1
    assert endpoint.usage.cost == (None if "max_tokens" in budget else pytest.approx(3.9e-5))


def test_a_key_is_sent_and_found_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("WISE_API_KEY", KEY)
    with serve_endpoint(lambda _: error(400, f"you sent {KEY}"), key=KEY) as fake:
        endpoint = Endpoint(spec_of(fake, key_env="WISE_API_KEY"))
        answer = ask_one(endpoint)
        assert answer.problem is not None and "you sent [key]" in answer.problem
        fake.key = "another"
        with pytest.raises(EndpointRefused, match="401: it does not accept the key in WISE_API_KEY") as refused:
            ask_one(endpoint)
    known = [str(refused.value), answer.problem, caplog.text, str(vars(endpoint)), endpoint.spec.model_dump_json()]
    assert [text for text in known if KEY in text] == []


@pytest.mark.parametrize("value", ["", "  ", "two words", "schlüssel", "a\nb"])
def test_a_key_that_is_none_is_refused_before_anything_is_asked(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WISE_API_KEY", value)
    spec = EndpointSpec(url="http://localhost:1/v1", model="wise", key_env="WISE_API_KEY")
    with pytest.raises(EndpointRefused, match=r"key_env: .*WISE_API_KEY") as refused:
        Endpoint(spec)
    assert not value.strip() or value not in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "localhost:8000"}, "expected an address such as"),
        ({"url": "http://me:secret@host/v1"}, "without name, password or query"),
        ({"url": "http://host/v1/chat/completions"}, "without /chat/completions"),
        ({"key_env": "AWS_SECRET_ACCESS_KEY"}, "pattern"),
        ({"options": {"messages": []}}, "messages cannot be set here"),
        ({"max_cost": 1}, "max_cost needs prices"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EndpointSpec.model_validate({"url": "http://host/v1", "model": "wise", **fields})


def test_half_a_surrogate_pair_is_sent_as_an_escape() -> None:
    with serve_endpoint(lambda _: GOOD) as fake:
        assert ask_one(Endpoint(spec_of(fake)), Generation((Message("user", "a\ud83d"),), 4)).text == "It is 2."
    assert fake.asked[0]["messages"][0]["content"] == "a\ud83d"


def test_half_a_surrogate_pair_that_comes_back_is_no_character() -> None:
    with serve_endpoint(lambda _: completion("Paris \ud800, \U0001f600")) as fake:
        assert ask_one(Endpoint(spec_of(fake))).text == "Paris \ufffd, \U0001f600"
    with serve_endpoint(lambda _: error(400, "no \udfff here")) as fake:
        assert "no \ufffd here" in str(ask_one(Endpoint(spec_of(fake))).problem)


def test_an_answer_far_beyond_the_length_that_was_asked_for_is_none() -> None:
    with serve_endpoint(lambda _: completion("x" * 100_000)) as fake:
        answer = ask_one(Endpoint(spec_of(fake)))
        assert answer.problem is not None and "an answer of 100,000 characters to a question for" in answer.problem
    assert len(fake.asked) == 1


def test_log_probabilities_that_are_no_numbers_are_none() -> None:
    given = {"token_logprobs": [None, math.nan], "text_offset": [0, 1]}
    with serve_endpoint(lambda _: body({"choices": [{"text": "", "logprobs": given}]})) as fake:
        assert "it gave log probabilities" in str(ask_one(Endpoint(spec_of(fake)), Likelihood("a", ("b",))).problem)


@pytest.mark.parametrize("value", [True, 5.0, math.inf, "-1.0"])
def test_log_probabilities_that_cannot_be_are_none(value: Any) -> None:
    given = {"token_logprobs": [None, value], "text_offset": [0, 1], "top_logprobs": [None, {"b": "x"}]}
    with serve_endpoint(lambda _: body({"choices": [{"text": "", "logprobs": given}]})) as fake:
        assert "it gave log probabilities" in str(ask_one(Endpoint(spec_of(fake)), Likelihood("a", ("b",))).problem)


def test_usage_that_cannot_be_is_estimated() -> None:
    huge = {"usage": {"prompt_tokens": 10**400, "completion_tokens": 1}}
    with serve_endpoint(lambda _: body({"choices": [{"message": {"content": "5"}}], **huge})) as fake:
        answered = Endpoint(spec_of(fake, prices={"prompt": 1.0, "answer": 1.0}))
        assert ask_one(answered).text == "5"
        assert answered.usage.prompt_tokens < 10**6


def test_many_at_once_never_exceed_the_limit() -> None:
    asks: list[Ask] = [Generation((Message("user", str(number)),), 4) for number in range(12)]

    def echo(asked: dict[str, Any]) -> Said:
        return completion(asked["messages"][0]["content"])

    with serve_endpoint(echo) as fake:
        answers = ask_all(Endpoint(spec_of(fake, at_once=3)), asks)
    assert [answer.text for answer in answers] == [str(number) for number in range(12)]


def test_usage_that_is_not_said_is_estimated() -> None:
    plain = {"choices": [{"message": {"content": "sixteen letters!"}, "finish_reason": "stop"}]}
    with serve_endpoint(lambda _: body(plain)) as fake:
        endpoint = Endpoint(spec_of(fake))
        assert ask_one(endpoint).texts[0].num_tokens == 6
    assert endpoint.usage == Usage(1, 0, 23, 16)

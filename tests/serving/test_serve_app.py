"""The deployed application on Ray Serve, with the official client, real adapters and a real registry."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from socket import socket

import anthropic
import httpx
import openai
import psutil
import pytest

from didact.connect.forking import starting
from didact.datasets.conversation import Message
from didact.devices import sees_gpu
from didact.models import base_fingerprint
from didact.registry import Registry
from didact.serving.chat import ChatError, HttpTalk
from didact.serving.deploy import Deployed, deploy
from didact.spec import ModelSpec
from tests.conftest import ROOT
from tests.fakes.adapters import save_tiny_adapter
from tests.fakes.lm_eval_tasks import TASKS, folder_of_tasks, lm_evals_results
from tests.fakes.models import save_tiny_base

pytestmark = pytest.mark.ray
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def deployed(base: Path, tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Iterator[Deployed]:
    """Two versions of `demo` on a tiny base, served from serve/local.yaml."""
    folder = tmp_path_factory.mktemp("serve")
    fingerprint = base_fingerprint(ModelSpec(base=str(base)))
    for seed in (1, 2):
        save_tiny_adapter(folder / str(seed), seed, base_fingerprint=fingerprint)
        alias = "champion" if seed == 1 else None
        registry.register("demo", folder / str(seed), run_id=None, tags={"gate": "none"}, card="", alias=alias)
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = [
        f"model.base={base}",
        f"tracking_uri={registry.uri}",
        "registry_poll_seconds=0.2",
        f"batches.folder={folder / 'batches'}",
        "model.dtype=float32",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIDACT_CACHE", str(folder / "cache"))
        patch.setenv("DIDACT_RUNS", str(folder / "runs"))
        patch.delenv("RAY_ADDRESS", raising=False)
        with deploy(ROOT / "serve" / "local.yaml", settings, port, log_to_driver=False) as running:
            yield running


@pytest.fixture()
def client(deployed: Deployed) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{deployed.url}/v1", api_key="none", max_retries=0, timeout=60)


def ask(client: openai.OpenAI, model: str, **options: object) -> str:
    options = {"temperature": 0, "max_tokens": 8, **options}
    return client.chat.completions.create(model=model, messages=HELLO, **options).choices[0].message.content


def test_figures_of_replicas_and_gateways(deployed: Deployed) -> None:
    for _ in range(2):
        httpx.post(f"{deployed.url}/v1/completions", json={"model": "demo", "prompt": "abc", "max_tokens": 2})
    text = httpx.get(f"{deployed.url}/metrics").text
    assert 'vllm:generation_tokens_total{engine="0",model_name="demo",version="1"}' in text
    assert 'http_requests_total{handler="/v1/completions",method="POST",status="2xx"}' in text


def test_official_client_chats_streams_and_lists(client: openai.OpenAI, deployed: Deployed) -> None:
    assert [card.id for card in client.models.list()] == ["tiny", "demo"]
    texts = {name: ask(client, name) for name in ("tiny", "demo", "demo:1", "demo@champion", "demo:2")}
    assert texts["demo"] == texts["demo:1"] == texts["demo@champion"]
    assert len({texts["tiny"], texts["demo:1"], texts["demo:2"]}) == 3
    options = {"temperature": 0, "max_tokens": 8, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model="demo", messages=HELLO, stream=True, **options))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == texts["demo"]
    assert chunks[-1].usage.completion_tokens >= 1
    completion = client.completions.create(model="demo:2", prompt="abc", max_tokens=4, temperature=0)
    assert completion.usage.prompt_tokens == 3
    assert completion.system_fingerprint.startswith("demo:2#")
    assert httpx.get(f"{deployed.url}/ready").json()["status"] == "ready"
    talk = HttpTalk(deployed.url, temperature=0, max_new_tokens=8)
    assert "".join(talk.answer("demo", [Message("user", "hello")])) == texts["demo"]
    with pytest.raises(ChatError, match="does not exist"):
        list(talk.answer("nobody", [Message("user", "hello")]))


@pytest.mark.parametrize("tokens", ["remote", "huggingface"])
def test_lm_eval_finds_over_http_what_it_finds_on_the_base(
    tokens: str, deployed: Deployed, base: Path, tmp_path: Path
) -> None:
    """Its `local-completions`, with token ids of the server's tokenizer or of its own, beside its own backend."""
    pytest.importorskip("lm_eval", reason="the extra didact[lm-eval] is not installed")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    from lm_eval.tasks import TaskManager

    settings = {
        "tasks": list(TASKS),
        "task_manager": TaskManager(include_path=str(folder_of_tasks(tmp_path)), include_defaults=False),
        "bootstrap_iters": 0,
    }
    over_http = LocalCompletionsAPI(
        base_url=f"{deployed.url}/v1/completions",
        model="tiny",
        tokenizer=str(base) if tokens == "huggingface" else None,
        tokenizer_backend=tokens,
        max_length=256,
        num_concurrent=4,
    )
    own = HFLM(pretrained=str(base), tokenizer=str(base), batch_size=2, max_length=256, device="cpu", dtype="float32")
    found, expected = (lm_evals_results(model=each, **settings) for each in (over_http, own))
    for task in TASKS:
        figures = {name: value for name, value in expected[task].items() if isinstance(value, float)}
        assert figures and {name: found[task][name] for name in figures} == pytest.approx(figures, rel=1e-4)


def test_official_client_has_a_batch_answered(client: openai.OpenAI) -> None:
    bodies = {
        name: {"model": name, "messages": HELLO, "max_tokens": 8, "temperature": 0} for name in ("tiny", "demo:2")
    }
    lines = [{"custom_id": n, "method": "POST", "url": "/v1/chat/completions", "body": b} for n, b in bodies.items()]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    begun = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    deadline = time.monotonic() + 60
    while (batch := client.batches.retrieve(begun.id)).status != "completed":
        assert time.monotonic() < deadline and batch.status != "failed"
    answers = {
        each["custom_id"]: each for each in map(json.loads, client.files.content(batch.output_file_id).iter_lines())
    }
    for name in bodies:
        choice = answers[name]["response"]["body"]["choices"][0]
        assert choice["message"]["content"] == ask(client, name)


def test_anthropics_client_asks_the_same_models(client: openai.OpenAI, deployed: Deployed) -> None:
    asking = anthropic.Anthropic(base_url=deployed.url, api_key="none", max_retries=0, timeout=60)
    body = {"model": "demo", "messages": HELLO, "max_tokens": 8, "extra_body": {"temperature": 0}}
    message = asking.messages.create(**body)
    assert message.content[0].text == ask(client, "demo")
    with asking.messages.stream(**body) as stream:
        assert "".join(stream.text_stream) == message.content[0].text
        assert stream.get_final_message().usage == message.usage
    assert asking.messages.count_tokens(model="demo", messages=HELLO).input_tokens == message.usage.input_tokens
    with pytest.raises(anthropic.NotFoundError, match="nobody"):
        asking.messages.create(**{**body, "model": "nobody"})


def test_official_client_gets_its_own_errors(client: openai.OpenAI, deployed: Deployed) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client, "nobody")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.completions.create(model="tiny", prompt="x" * 2000)
    assert too_long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as bad:
        ask(client, "tiny", temperature=9)
    assert bad.value.param == "temperature"
    broken = httpx.post(f"{deployed.url}/v1/chat/completions", content=b"{")
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_json")
    assert httpx.get(f"{deployed.url}/v1/nothing").json()["error"]["code"] == "not_found"


def test_a_client_that_leaves_frees_its_place(client: openai.OpenAI, deployed: Deployed) -> None:
    options = {"model": "tiny", "prompt": "count", "max_tokens": 900, "temperature": 0}
    whole = client.completions.create(**options).usage.completion_tokens
    before = httpx.get(f"{deployed.url}/ready").json()["generated_tokens"]
    stream = client.completions.create(**options, stream=True)
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 20
    while (stats := httpx.get(f"{deployed.url}/ready").json())["num_running"]:
        assert time.monotonic() < deadline
    assert stats["generated_tokens"] - before < whole
    assert whole > 500


def test_a_moved_alias_is_followed_without_a_failed_request(
    client: openai.OpenAI, registry: Registry, deployed: Deployed
) -> None:
    expected = {f"demo:{version}": ask(client, f"demo:{version}") for version in (1, 2)}
    answers: list[tuple[str, str]] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                answer = client.chat.completions.create(model="demo", messages=HELLO, temperature=0, max_tokens=8)
            except openai.OpenAIError as error:
                failures.append(error)
            else:
                answers.append((answer.system_fingerprint.partition("#")[0], answer.choices[0].message.content))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 180
    try:
        for version in (2, 1, 2):
            registry.promote("demo", version)
            count = len(answers)
            while not any(each[0] == f"demo:{version}" for each in answers[count:]):
                assert time.monotonic() < deadline
                time.sleep(0.1)  # a waiting loop without it keeps a core from the replicas
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert {each[0] for each in answers} == {"demo:1", "demo:2"}
    assert all(text == expected[version] for version, text in answers)


def test_a_request_whose_replica_was_killed_is_told_and_not_sent_again(
    client: openai.OpenAI, deployed: Deployed
) -> None:
    text = ask(client, "demo", max_tokens=200)
    told: list[openai.APIStatusError] = []

    def lost() -> None:
        with pytest.raises(openai.InternalServerError) as caught:
            ask(client.with_options(max_retries=2), "demo", max_tokens=200)
        told.append(caught.value)

    thread = threading.Thread(target=lost)
    thread.start()
    while not httpx.get(f"{deployed.url}/ready").json()["num_running"] and thread.is_alive():
        pass
    assert thread.is_alive()
    killed = _replicas()
    for process in killed:
        process.kill()
    thread.join()
    assert killed
    assert [each.code for each in told] == ["engine_died"]
    with pytest.raises(openai.BadRequestError) as again:
        ask(client, "demo", max_tokens=200)
    assert again.value.code == "engine_died_before"
    other = ask(client.with_options(max_retries=9), "demo", max_tokens=201)  # once there is a replica again
    assert other.startswith(text)


def _replicas() -> list[psutil.Process]:
    """The model replicas of the Ray that this test started."""
    title = "ray::ServeReplica:didact:ModelReplica"
    return [each for each in psutil.Process().children(recursive=True) if " ".join(each.cmdline()).startswith(title)]


@pytest.mark.skipif(sees_gpu(), reason="beside a GPU nothing is forked")
def test_replicas_alone_are_forked(deployed: Deployed) -> None:
    forked = [each for server in starting._SERVERS for each in psutil.Process(server.process.pid).children()]
    assert forked == _replicas() and len(forked) == 1


def test_json_of_a_stream_is_well_formed(deployed: Deployed) -> None:
    body = {"model": "tiny", "messages": HELLO, "stream": True, "max_tokens": 5}
    with httpx.stream("POST", f"{deployed.url}/v1/chat/completions", json=body, timeout=60) as answer:
        assert answer.headers["x-didact-model-version"].startswith("tiny#")
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert events[-1] == "[DONE]"
    assert all(json.loads(event)["object"] == "chat.completion.chunk" for event in events[:-1])

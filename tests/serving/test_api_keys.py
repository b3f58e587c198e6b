import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from didact.cli.verbs import app
from didact.errors import SpecError
from didact.serving.api.admission import Quotas
from didact.serving.api.keys import Key, KeyFile, Keyring, digest
from didact.serving.replica.worker import Worker

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 4}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def test_a_key_is_kept_as_its_digest_alone(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "deep" / "keys.json")
    secret = file.add("ann", models=["demo*"], requests_per_minute=5, tokens_per_minute=1000, days=2)
    text = file.path.read_text(encoding="utf-8")
    assert secret not in text and digest(secret) in text
    assert file.path.stat().st_mode & 0o777 == 0o600
    (key,) = file.read()
    assert (key.name, key.models, key.requests_per_minute, key.tokens_per_minute) == ("ann", ("demo*",), 5, 1000)
    assert secret.startswith(key.hint) and len(key.hint) < 10 < 40 < len(secret)
    assert key.expires == pytest.approx(time.time() + 2 * 86400, abs=60)
    assert len({file.add(f"other{n}") for n in range(5)} | {secret}) == 6


def test_keys_made_at_once_are_all_kept(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    makers = [threading.Thread(target=file.add, args=(f"client{n}",)) for n in range(8)]
    for each in makers:
        each.start()
    for each in makers:
        each.join()
    assert {key.name for key in file.read()} == {f"client{n}" for n in range(8)}


def test_a_ring_follows_its_file_and_never_falls_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("didact.serving.api.keys._LOOK_SECONDS", 0.0)
    file = KeyFile(tmp_path / "keys.json")
    ring = Keyring(file.path)
    assert not ring.is_open and ring.find("dk-anything") is None
    assert Keyring().is_open and not Keyring(plain=["sesame"]).is_open
    secret, other = file.add("ann"), file.add("bob")
    assert not ring.is_open
    assert [getattr(ring.find(each), "name", None) for each in (secret, other, "", "dk-\ud800")] == [
        "ann",
        "bob",
        None,
        None,
    ]
    file.revoke("ann")
    assert ring.find(secret) is None and ring.find(other) is not None
    assert file.add("ann") != secret  # the name is free again
    file.path.write_text("{damaged", encoding="utf-8")
    assert ring.find(other) is not None and not ring.is_open
    file.path.unlink()
    assert ring.find(other) is not None and not ring.is_open


def test_expired_keys_let_nobody_in(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    secret = file.add("ann", days=-1)
    ring = Keyring(file.path)
    assert ring.find(secret) is None and not ring.is_open


def test_plain_keys_of_the_environment_count_beside_those_of_the_file(tmp_path: Path) -> None:
    secret = KeyFile(tmp_path / "keys.json").add("ann")
    ring = Keyring(tmp_path / "keys.json", ["sesame"])
    assert [ring.find(each) is not None for each in (secret, "sesame", "open")] == [True, True, False]


@pytest.mark.parametrize("text", ["", "[]", '{"keys": [{"name": "a"}]}', '{"kys": []}'])
def test_a_file_of_something_else_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"keys\.json is no file of keys"):
        Keyring(path)
    with pytest.raises(SpecError, match=r"keys\.json is no file of keys"):
        KeyFile(path).add("ann")
    assert path.read_text(encoding="utf-8") == text


def test_mistakes_are_named(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.add("ann")
    with pytest.raises(SpecError, match="there is a key named 'ann'; revoke it first"):
        file.add("ann")
    with pytest.raises(SpecError, match="no key named 'bob'; there are: ann"):
        file.revoke("bob")
    with pytest.raises(SpecError, match="name: found 'a b'; expected letters"):
        file.add("a b")
    with pytest.raises(SpecError, match="requests_per_minute: found 0; expected a number of at least 1"):
        file.add("bob", requests_per_minute=0)


def test_requests_come_back_steadily() -> None:
    clock = Clock()
    quotas, key = Quotas(clock), Key(name="ann", sha256="a" * 64, requests_per_minute=3)
    assert [quotas.admit(key) for _ in range(3)] == [None] * 3
    assert quotas.admit(key) == ("3 requests a minute", 20)
    clock.now += 20
    assert quotas.admit(key) is None
    assert quotas.admit(key) == ("3 requests a minute", 20)
    clock.now += 3600  # no more than a minute's worth is saved
    assert [quotas.admit(key) for _ in range(4)] == [None, None, None, ("3 requests a minute", 20)]


def test_tokens_that_were_used_are_waited_for() -> None:
    clock = Clock()
    quotas, key = Quotas(clock), Key(name="ann", sha256="a" * 64, tokens_per_minute=60)
    assert quotas.admit(key) is None
    quotas.charge(key, 90)
    assert quotas.admit(key) == ("60 tokens a minute", 31)
    clock.now += 31
    assert quotas.admit(key) is None
    other = Key(name="bob", sha256="b" * 64, tokens_per_minute=60)
    assert quotas.admit(other) is None
    free = Key(name="carl", sha256="c" * 64)
    quotas.charge(free, 10**9)
    assert quotas.admit(free) is None


@pytest.mark.fault("X6")
def test_a_key_asks_its_models_only(worker: Worker, serve_worker: Callable[..., TestClient], tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    only, everything = file.add("only", models=["demo", "demo@*"]), file.add("everything")
    with serve_worker(worker, keys_file=file.path) as client:
        assert client.post("/v1/chat/completions", json=HELLO).status_code == 401
        for model, status in {"tiny": 404, "demo": 200, "demo@champion": 200, "demo:2": 404}.items():
            answer = client.post("/v1/chat/completions", json={**HELLO, "model": model}, headers=bearer(only))
            assert answer.status_code == status, model
            body = {"model": model, "prompt": "a"}
            assert client.post("/tokenize", json=body, headers=bearer(only)).status_code == status
            assert client.get(f"/v1/models/{model}", headers=bearer(only)).status_code == status
        listed = {key: client.get("/v1/models", headers=bearer(key)).json()["data"] for key in (only, everything)}
        assert {card["id"] for card in listed[only]} == {"demo"}
        assert {card["id"] for card in listed[everything]} == {"tiny", "demo"}


@pytest.mark.parametrize("stream", [False, True])
def test_limits_are_told_with_the_time_to_come_again(
    worker: Worker, serve_worker: Callable[..., TestClient], tmp_path: Path, stream: bool
) -> None:
    file = KeyFile(tmp_path / "keys.json")
    seldom, little = file.add("seldom", requests_per_minute=2), file.add("little", tokens_per_minute=10)
    with serve_worker(worker, keys_file=file.path) as client:

        def ask(secret: str) -> tuple[int, str | None]:
            answer = client.post("/v1/chat/completions", json={**HELLO, "stream": stream}, headers=bearer(secret))
            return answer.status_code, answer.headers.get("retry-after")

        assert [ask(seldom)[0] for _ in range(2)] == [200, 200]
        status, seconds = ask(seldom)
        assert status == 429 and 1 <= int(seconds or 0) <= 30
        assert ask(little)[0] == 200  # 24 tokens of prompt and the answer's
        status, seconds = ask(little)
        assert status == 429 and int(seconds or 0) > 60
        unknown = client.post("/v1/chat/completions", json={**HELLO, "model": "nobody"}, headers=bearer(seldom))
        assert unknown.status_code == 404  # what is not answered needs no place


def test_keys_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = CliRunner()
    monkeypatch.delenv("DIDACT_KEYS", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    assert isinstance(runner.invoke(app, ["keys", "list"]).exception, SpecError)
    monkeypatch.setenv("DIDACT_KEYS", str(tmp_path / "keys.json"))
    assert "there are no keys" in runner.invoke(app, ["keys", "list"]).output
    made = runner.invoke(app, ["keys", "add", "ann", "--model", "demo*", "--requests-per-minute", "60"])
    assert made.exit_code == 0
    secret = made.stdout.strip()
    assert Keyring(tmp_path / "keys.json").find(secret) is not None
    listed = runner.invoke(app, ["keys", "list"]).output
    assert "ann" in listed and "demo*" in listed and "60" in listed and secret not in listed
    assert runner.invoke(app, ["keys", "revoke", "ann"]).exit_code == 0
    assert "revoked" in runner.invoke(app, ["keys", "list"]).output
    assert json.loads((tmp_path / "keys.json").read_text(encoding="utf-8"))["keys"][0]["revoked"] is True
    assert oct(os.stat(tmp_path / "keys.json").st_mode & 0o777) == "0o600"

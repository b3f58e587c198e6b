"""Secrets of the driver's environment reach its workers and no file."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import ray

from didact import env
from didact.connect import ray_cluster, receive
from didact.files import write_text
from didact.spec import to_json
from tests.conftest import ROOT
from tests.fakes.canaries import CANARIES, files_with_canaries
from tests.fakes.models import save_tiny_base
from tests.fakes.recipes import tiny_recipe

pytestmark = pytest.mark.ray


@pytest.fixture()
def folder() -> Iterator[Path]:
    """Where all of a command's files go; its path must be short for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="d-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_workers_have_them_and_rays_files_do_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    with ray_cluster(num_cpus=1):
        pass  # the folder is made
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    (folder / "control.txt").write_text(CANARIES["HF_TOKEN"])

    @ray.remote
    def seen(names: list[str]) -> dict[str, str | None]:
        before = os.environ.get("HF_TOKEN")
        os.environ["HF_TOKEN"] = "another"
        receive()
        return {"before": before, **{name: os.environ.get(name) for name in names}}

    handed = env.private_for_workers()
    assert len(handed) >= 10
    with ray_cluster(num_cpus=1):
        got = ray.get(seen.remote(list(handed)))
    assert {name: got[name] for name in handed} == handed
    assert list((folder / "ray").glob("session_*/logs/*")), "what Ray wrote was looked at"
    assert files_with_canaries(folder) == {str(folder / "control.txt"): ["HF_TOKEN"]}


def variables(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        **CANARIES,
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder),
        "DIDACT_RUNS": str(folder / "runs"),
        "DIDACT_CACHE": str(folder / "cache"),
        "PYTHONPATH": str(ROOT / "platform"),
    }


def write_files(folder: Path) -> None:
    (folder / "home").mkdir()
    changes = {"tracking": {"mlflow": True}, "register_as": {"name": "sums"}, "training__steps": 4}
    write_text(folder / "recipe.json", to_json(tiny_recipe(folder, name="run", **changes)))
    sweep = {
        "name": "sweep",
        "recipe": "recipe.json",
        "space": {"training.learning_rate": {"loguniform": [1e-4, 1e-2]}},
        "metric": "eval/loss",
        "num_trials": 2,
    }
    write_text(folder / "sweep.json", json.dumps(sweep))


@pytest.mark.nightly
@pytest.mark.parametrize("words", [["train", "recipe.json"], ["tune", "sweep.json"]], ids=["run", "sweep"])
def test_no_file_of_a_run_or_a_sweep_holds_one(folder: Path, words: list[str]) -> None:
    write_files(folder)
    command = [sys.executable, "-m", "didact.cli", *words]
    done = subprocess.run(command, cwd=folder, env=variables(folder), capture_output=True, text=True, check=False)
    write_text(folder / "printed.txt", done.stdout + done.stderr)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert list((folder / "ray").glob("session_*/logs/*"))
    assert files_with_canaries(folder) == {}


@pytest.mark.nightly
def test_no_file_of_a_server_holds_one_and_its_keys_count(folder: Path) -> None:
    base = save_tiny_base(folder / "tiny")
    (folder / "home").mkdir()
    config, port = str(ROOT / "serve" / "local.yaml"), 18437
    command = [sys.executable, "-m", "didact.cli", "serve", config, f"model.base={base}", "--port", str(port)]
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    with (folder / "printed.txt").open("w") as printed:
        server = subprocess.Popen(command, cwd=folder, env=variables(folder), stdout=printed, stderr=printed)
        try:
            url, until = f"http://127.0.0.1:{port}", time.monotonic() + 200
            while not answers(f"{url}/ready"):
                assert server.poll() is None and time.monotonic() < until, (folder / "printed.txt").read_text()
            keys = {"Authorization": f"Bearer {CANARIES['DIDACT_API_KEYS']}"}
            ask = f"{url}/v1/chat/completions"
            assert httpx.post(ask, json=body, timeout=60).status_code == 401
            assert httpx.post(ask, json=body, headers=keys, timeout=60).status_code == 200
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)
    assert files_with_canaries(folder) == {}
    assert not [
        each for each in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(each.info["cmdline"] or ())
    ]


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False

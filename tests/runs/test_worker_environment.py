"""What Ray workers are told of the driver's environment."""

import json
import os
import subprocess
import sys

import pytest

from didact import env
from didact.connect import receive, runtime_env

SHOWN = {"NCCL_SOCKET_IFNAME": "ens5", "GLOO_SOCKET_IFNAME": "ens5", "HF_HUB_OFFLINE": "1", "HF_HOME": "/mnt/hub"}
PRIVATE = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_ENDPOINT_URL": "http://storage:9000",
    "AZURE_STORAGE_ACCOUNT_KEY": "azure",
    "DIDACT_API_KEYS": "one,two",
    "GOOGLE_APPLICATION_CREDENTIALS": "/home/me/account.json",
    "FSSPEC_S3_SECRET": "other",
    "HF_TOKEN": "token",
    "HF_ENDPOINT": "https://me:password@hub",
    "MLFLOW_TRACKING_PASSWORD": "password",
    "MLFLOW_TRACKING_TOKEN": "tracker",
    "MLFLOW_TRACKING_URI": "postgresql://me:password@host/runs",
    "STORAGE_EMULATOR_HOST": "http://storage:4443",
}


def test_workers_reach_what_the_driver_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name in {**env.for_workers(), **env.private_for_workers()}:
            monkeypatch.delenv(name)
    folders = env.for_workers()
    for name, value in {**SHOWN, **PRIVATE, "AWS_PROFILE": "", "OTHER_SECRET": "no"}.items():
        monkeypatch.setenv(name, value)
    assert folders.keys() == {"DIDACT_CACHE", "DIDACT_RUNS"}
    assert env.for_workers() == {**folders, **SHOWN}
    assert env.private_for_workers() == PRIVATE


def test_what_ray_writes_into_its_logs_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PRIVATE.items():
        monkeypatch.setenv(name, value)
    shown = json.dumps(runtime_env("the-key")).replace("runs", "")
    assert [value for value in PRIVATE.values() if f'"{value}"' in shown] == []
    assert '"DIDACT_HANDED_OVER": "the-key"' in shown
    receive()
    assert os.environ["HF_TOKEN"] == "token", "outside a worker nothing is taken"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Ray brings its allocator for Linux only")
def test_what_trains_is_started_with_an_allocator_unless_the_user_chose_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    shown = [sys.executable, "-c", "print(open('/proc/self/maps').read())"]
    maps = subprocess.run(shown, env={**os.environ, **env.for_training()}, capture_output=True, text=True, check=True)
    assert "libjemalloc.so" in maps.stdout and not maps.stderr
    monkeypatch.setenv("LD_PRELOAD", "/opt/chosen.so")
    assert "LD_PRELOAD" not in env.for_training()


def test_a_process_whose_sum_timed_out_ends_unless_the_user_chose_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", raising=False)
    assert env.for_training()["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "3"
    monkeypatch.setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    assert "TORCH_NCCL_ASYNC_ERROR_HANDLING" not in env.for_training()
    assert env.for_workers()["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "1"

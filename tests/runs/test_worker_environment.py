"""What Ray workers are told of the driver's environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from didact import env


def test_workers_reach_what_the_driver_reaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = env.for_workers()
    given = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": "http://storage:9000",
        "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "account.json"),
        "FSSPEC_S3_ANON": "true",
        "HF_TOKEN": "token",
        "NCCL_SOCKET_IFNAME": "ens5",
        "STORAGE_EMULATOR_HOST": "http://storage:4443",
    }
    for name, value in {**given, "AWS_PROFILE": "", "OTHER_SECRET": "no"}.items():
        monkeypatch.setenv(name, value)
    assert env.for_workers() == {**before, **given}
    assert {"DIDACT_CACHE", "DIDACT_RUNS"} <= before.keys()


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

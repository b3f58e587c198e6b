"""What Ray workers are told of the driver's environment."""

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
        "STORAGE_EMULATOR_HOST": "http://storage:4443",
    }
    for name, value in {**given, "AWS_PROFILE": "", "OTHER_SECRET": "no"}.items():
        monkeypatch.setenv(name, value)
    assert env.for_workers() == {**before, **given}
    assert {"DIDACT_CACHE", "DIDACT_RUNS"} <= before.keys()

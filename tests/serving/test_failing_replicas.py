"""A replica that cannot be built: the start ends, in bounded tries, with what each of them ran into."""

from contextlib import closing
from pathlib import Path
from socket import socket

import pytest
import ray
from ray import serve

from didact.errors import PlacementError
from didact.serving.deploy import deploy
from tests.conftest import ROOT
from tests.fakes.models import save_tiny_base

pytestmark = [pytest.mark.ray, pytest.mark.nightly]


@pytest.mark.fault("S15")
def test_a_replica_that_can_never_be_built_ends_the_start_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny_base(tmp_path / "tiny")
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DIDACT_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with closing(socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = [f"model.base={base}", f"tracking_uri=sqlite:///{tmp_path}/mlflow.db", "model.dtype=float32"]
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        with pytest.raises(PlacementError, match=r"did not start: .*model\.safetensors") as refused:
            deploy(ROOT / "serve" / "local.yaml", settings, port)
        assert "Traceback" not in str(refused.value)
        assert not serve.status().applications
    finally:
        serve.shutdown()  # or its client of this Ray, which asking for its state made, would be asked in the next one
        ray.shutdown()

"""What `didact serve --dry-run` says, and that nothing is started for it."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from didact.errors import ModelError, ModelTooLarge, PlacementError, ServerError, SpecError
from didact.models import base_fingerprint
from didact.registry import Registry
from didact.serving.start_plan import StartPlan, plan_start
from didact.spec import ModelSpec
from tests.conftest import ROOT
from tests.fakes.adapters import save_tiny_adapter
from tests.fakes.models import save_tiny_base, tiny_model

LOCAL = ROOT / "serve" / "local.yaml"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A tiny base; `demo` fits it, `foreign` does not, `tuned` was trained by another method."""
    folder = tmp_path_factory.mktemp("serve")
    base = save_tiny_base(folder / "tiny")
    registry = Registry(f"sqlite:///{folder}/mlflow.db")
    ours = base_fingerprint(ModelSpec(base=str(base)))
    for seed, (name, tags) in enumerate(
        {
            "demo": {"method": "lora", "method_options": '{"r": 4}', "base_sha256": ours},
            "foreign": {"method": "lora", "base": "org/other", "base_sha256": "c" * 64},
            "tuned": {"method": "prefix", "base_sha256": ours},
        }.items()
    ):
        save_tiny_adapter(folder / name, seed, base_fingerprint=ours)
        registry.register(name, folder / name, run_id=None, tags={"gate": "none", **tags}, card="", alias="champion")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIDACT_CACHE", str(folder / "cache"))
        patch.setenv("DIDACT_RUNS", str(folder / "runs"))
        for name in ("RAY_ADDRESS", "DIDACT_API_KEYS", "DIDACT_KEYS"):
            patch.delenv(name, raising=False)
        yield [f"model.base={base}", f"tracking_uri={registry.uri}", "model.dtype=float32"]


@pytest.fixture()
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def plan(settings: list[str], port: int, *more: str) -> StartPlan:
    return plan_start(LOCAL, [*settings, *more], port)


def test_it_says_what_would_be_started_and_starts_nothing(settings: list[str], port: int) -> None:
    found = plan(settings, port)
    assert not ray.is_initialized()
    shown = " ".join(str(found).split())
    assert f"http://127.0.0.1:{port}/v1" in shown
    assert "ModelReplica 1 to 2, each 1 CPU" in shown
    assert "tiny in float32" in shown and "none: the API is open" in shown
    assert "3 names, 2 of them can be served" in shown
    assert found.cluster.nodes[0]["CPU"] == os.cpu_count()


def test_memory_is_counted_from_the_base(settings: list[str], port: int) -> None:
    found = plan(settings, port, "max_adapters=3", "max_batch_size=4")
    model = tiny_model()
    config = model.config
    assert found.footprint.weights_gib * 2**30 == 4 * sum(each.numel() for each in model.parameters())
    size = config.hidden_size // config.num_attention_heads
    assert found.footprint.bytes_per_token == 2 * config.num_hidden_layers * config.num_key_value_heads * size * 4
    assert found.adapter.r == 4  # the highest that is registered and can be served
    linear = [each for name, each in model.named_modules() if "proj" in name]
    added = sum(4 * (each.in_features + each.out_features) for each in linear)
    assert found.slots_gib * 2**30 == pytest.approx(3 * 4 * added)
    assert found.full_gib * 2**30 == 4 * config.max_position_embeddings * found.footprint.bytes_per_token
    assert found.tokens_that_fit > 1000


def test_adapters_that_could_not_be_served_say_why(settings: list[str], port: int) -> None:
    problems = {each.version.name: each.problem for each in plan(settings, port).adapters}
    assert problems == {"demo": None, "foreign": "it was trained on another base, org/other", "tuned": None}


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        (["max_adapters=2000000000"], ModelTooLarge, "fewer max_adapters"),
        (["model.base=/nowhere/at/all"], ModelError, "no folder /nowhere/at/all"),
    ],
)
def test_what_cannot_start_is_refused(
    settings: list[str], port: int, changes: list[str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        plan(settings, port, *changes)


def test_a_file_of_keys_that_is_not_there_or_none_is_refused(
    settings: list[str], port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_KEYS", str(tmp_path / "typo.json"))
    with pytest.raises(SpecError, match=r"DIDACT_KEYS names .*typo\.json, which is not there; `didact keys add NAME`"):
        plan(settings, port)
    (tmp_path / "typo.json").write_text("{bad")
    with pytest.raises(SpecError, match="is no file of keys"):
        plan(settings, port)


def test_a_taken_port_and_a_cluster_without_room_are_refused_as_at_the_real_start(
    settings: list[str], port: int, tmp_path: Path
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen(1)
        with pytest.raises(ServerError, match="taken by another program"):
            plan(settings, port)
    crowded = tmp_path / "serve.yaml"
    text = LOCAL.read_text()
    crowded.write_text(text[: text.rindex("num_cpus: 1")] + "num_cpus: 4096\n")
    with pytest.raises(PlacementError, match="no room for 1 ModelReplica"):
        plan_start(crowded, settings, port)


def test_a_registry_that_is_down_leaves_the_base(settings: list[str], port: int) -> None:
    found = plan(settings, port, "tracking_uri=http://127.0.0.1:9")
    assert found.adapters == () and "the base alone would answer" in found.registry

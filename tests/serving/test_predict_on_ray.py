"""Files answered on Ray workers, through the command's own way in."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from didact.models import base_fingerprint
from didact.registry import Registry
from didact.serving.local import predict_locally
from didact.serving.predict import PredictReport
from didact.spec import ModelSpec
from tests.fakes.adapters import save_tiny_adapter
from tests.fakes.models import save_tiny_base

pytestmark = [pytest.mark.ray, pytest.mark.nightly]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelSpec]:
    """A tiny base, with `demo` in two versions, on a Ray of two CPUs."""
    folder = tmp_path_factory.mktemp("models")
    model = ModelSpec(base=str(save_tiny_base(folder / "tiny")), dtype="float32")
    registry = Registry(f"sqlite:///{folder}/mlflow.db")
    for seed in (1, 2):
        save_tiny_adapter(folder / str(seed), seed, base_fingerprint=base_fingerprint(model), base=model.base)
        registry.register("demo", folder / str(seed), run_id=None, tags={"gate": "none"}, card="", alias=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIDACT_CACHE", str(folder / "cache"))
        patch.setenv("DIDACT_RUNS", str(folder / "runs"))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield model
        ray.shutdown()


@pytest.fixture(autouse=True)
def own_registry(base: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each test: the suite takes the variable away."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path(base.base).parent}/mlflow.db")


def batch(folder: Path, number: int) -> Path:
    lines = []
    for row in range(number):
        model = ("tiny", "demo:1", "demo:2")[row % 3]
        body = {"model": model, "prompt": f"{row}+{row}", "max_tokens": 6, "temperature": 0}
        lines.append({"custom_id": f"r{row}", "method": "POST", "url": "/v1/completions", "body": body})
    (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, "no object"]))
    return folder / "in.jsonl"


def texts(output: Path) -> list[tuple[str | None, str | None]]:
    records = [json.loads(line) for line in output.read_text().splitlines()]
    return [
        (each["custom_id"], each["response"] and each["response"]["body"]["choices"][0]["text"]) for each in records
    ]


def test_workers_answer_as_one_process_does_and_go_on_after_a_kill(base: ModelSpec, tmp_path: Path) -> None:
    source, here, spread = batch(tmp_path, 40), tmp_path / "here.jsonl", tmp_path / "spread.jsonl"
    report = predict_locally(base, None, source, here)
    assert report == PredictReport(num_answered=40, num_failed=1, num_kept=0), here.read_text()[:2000]
    assert predict_locally(base, None, source, spread, workers=2).num_answered == 40
    assert texts(spread) == texts(here)
    assert len({text for _, text in texts(here)[:3]}) == 3
    content = spread.read_bytes()
    spread.write_bytes(content[: len(content) // 2])
    kept = content[: len(content) // 2].count(b"\n")
    report = predict_locally(base, None, source, spread, workers=1)
    assert report == PredictReport(num_answered=40 - kept, num_failed=1, num_kept=kept)
    assert texts(spread) == texts(here)


def test_rows_with_prompts_are_answered_on_workers_too(base: ModelSpec, tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"{n}?"}) + "\n" for n in range(3)))
    for output, workers in ((tmp_path / "a", None), (tmp_path / "b", 1)):
        predict_locally(base, "demo:1", source, output, max_new_tokens=6, workers=workers)
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()

"""`engine: vllm` in a serve file: its settings, and what is said before anything starts."""

from dataclasses import replace
from pathlib import Path

import pytest

from didact.errors import DeviceError, SpecError
from didact.serving.deploy import deploy, read_plan
from didact.serving.replica.assemble import build_catalog
from didact.serving.replica.catalog import Catalog
from didact.spec import ServeSpec, validate
from tests.conftest import ROOT
from tests.fakes.backends import FallibleBackend
from tests.fakes.registry import ShelfRegistry

LOCAL, A100 = ROOT / "serve" / "local.yaml", ROOT / "serve" / "a100.yaml"


def test_the_file_for_gpus_takes_vllm_and_the_local_one_does_not() -> None:
    assert (read_plan(A100).spec.engine, read_plan(LOCAL).spec.engine) == ("vllm", "embedded")


def test_a_python_of_ones_own_is_found_by_replicas_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = read_plan(LOCAL, ["engine=vllm", "vllm.python=vllm-env/bin/python"])
    assert plan.spec.vllm.python == str(tmp_path / "vllm-env" / "bin" / "python")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("engine=vlm", "vllm"),
        ("vllm.max_rank=8", "max_lora_rank"),
        ("vllm.max_lora_rank=9", "found 9"),
        ("vllm.gpu_memory_utilization=1.5", "gpu_memory_utilization"),
        ("model.quantization={bits: 4}", "AWQ, GPTQ, FP8"),
    ],
)
def test_wrong_settings_are_named(override: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        read_plan(LOCAL, ["engine=vllm", override])


def test_that_vllm_is_not_installed_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DIDACT_VLLM_PYTHON", "RAY_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(DeviceError, match=r"vLLM is not installed for didact's own Python .*pip install vllm"):
        deploy(LOCAL, ["engine=vllm"])


def test_a_base_over_several_gpus_needs_as_many() -> None:
    with pytest.raises(SpecError, match="expected as many num_gpus"):
        deploy(LOCAL, ["engine=vllm", "vllm.tensor_parallel_size=2"])


def test_names_that_vllm_cannot_serve_say_so_in_the_list(
    adapters: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    shelf = ShelfRegistry()
    shelf.add("plain", adapters[0])
    shelf.add("prefixed", adapters[1])
    told = {"prefixed": "no prefix here"}
    catalog = Catalog("tiny", shelf, lambda version: None, unfit=lambda version: told.get(version.name))
    try:
        catalog.start()
        problems = {each.version.name: catalog.problem(each.version.name, each.version) for each in catalog.offers()}
    finally:
        catalog.close()
    assert problems == {"plain": None, "prefixed": "no prefix here"}
    assert "prefixed:1 is registered and will not be served: no prefix here" in caplog.text


@pytest.mark.parametrize(("engine", "said"), [("vllm", "the method ia3"), ("embedded", "None")])
def test_the_catalog_of_a_server_knows_what_its_engine_refuses(engine: str, said: str, adapters: list[Path]) -> None:
    spec = validate(ServeSpec, {"engine": engine, "tracking_uri": "http://127.0.0.1:1"}, "args")
    shelf = ShelfRegistry()
    version = replace(shelf.add("demo", adapters[0]), tags={"method": "ia3"})
    assert said in str(build_catalog(spec, FallibleBackend({})).problem("demo", version))

"""What vLLM cannot serve is refused by name, before vLLM sees it, with the way out."""

import json
from pathlib import Path

import pytest

from didact.errors import AdapterError
from didact.models import base_fingerprint
from didact.serving.engine.on_vllm.served import check_served, why_not_served
from didact.spec import (
    BottleneckSpec,
    Ia3Spec,
    LoraSpec,
    MethodSpec,
    ModelSpec,
    PartialSpec,
    PrefixSpec,
)
from tests.fakes.engine_contract import save_contract_adapter, save_contract_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return save_contract_base(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (LoraSpec(r=4), None),
        (LoraSpec(r=4, rslora=True, target_modules=["q_proj", "down_proj"]), None),
        (LoraSpec(r=4, init="pissa"), None),
        (LoraSpec(r=16), "rank 16 with vllm.max_lora_rank 8"),
        (LoraSpec(r=4, dora=True), r"DoRA \(use_dora\)"),
        (PrefixSpec(method="prefix", num_virtual_tokens=4), "the method prefix"),
        (Ia3Spec(method="ia3"), "the method ia3"),
        (BottleneckSpec(method="bottleneck"), "the method bottleneck"),
        (PartialSpec(method="partial", last_n_layers=1), "the method partial"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else None,
)
def test_methods(base: ModelSpec, tmp_path: Path, spec: MethodSpec, said: str | None) -> None:
    folder = save_contract_adapter(base, tmp_path / "adapter", 1, spec).folder
    if said is None:
        return check_served(folder, base_fingerprint(base), max_rank=8)
    with pytest.raises(AdapterError, match=f"{said}.*Merge it into a base of its own"):
        check_served(folder, base_fingerprint(base), max_rank=8)
    return None


def test_an_adapter_of_another_base_is_refused_first(base: ModelSpec, tmp_path: Path) -> None:
    folder = save_contract_adapter(base, tmp_path / "adapter", 1).folder
    with pytest.raises(AdapterError, match="was trained on base"):
        check_served(folder, "f" * 64, max_rank=8)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({}, None),
        ({"method": "lora", "method_options": json.dumps({"r": 8})}, None),
        ({"method": "lora", "method_options": json.dumps({"r": 9})}, "rank 9"),
        ({"method": "lora", "method_options": json.dumps({"r": 8, "dora": True})}, "DoRA"),
        ({"method": "ia3"}, "the method ia3"),
        ({"method": "lora", "method_options": "damaged"}, None),
    ],
)
def test_tags_of_a_version_tell_it_without_a_download(tags: dict[str, str], said: str | None) -> None:
    found = why_not_served(tags, max_rank=8)
    assert found is None if said is None else found is not None and said in found

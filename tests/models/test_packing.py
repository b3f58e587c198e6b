"""Which families may share a row, found out by computing."""

import logging
from pathlib import Path

import pytest
import torch

from didact.errors import ModelError
from didact.models import attach_adapter, load_base, supports_packing
from didact.preparation import prepare_data
from didact.spec import LoraSpec
from didact.training import resolve_packing
from tests.fakes.models import FAMILIES, UNPACKABLE, save_tiny_base, tiny_model
from tests.fakes.recipes import tiny_recipe


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packing_is_measured(family: str, dtype: torch.dtype) -> None:
    assert supports_packing(tiny_model(family).to(dtype)) is (family not in UNPACKABLE)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_measured_answer_holds_for_long_samples(family: str) -> None:
    model = tiny_model(family)
    generator = torch.Generator().manual_seed(1)
    lengths = (11, 40, 5, 23)
    samples = [torch.randint(0, 256, (length,), generator=generator) for length in lengths]
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    with torch.inference_mode():
        alone = torch.cat([model(input_ids=sample[None], use_cache=False).logits[0] for sample in samples])
        inputs = {"position_ids": positions} if family != "bloom" else {}
        packed = model(input_ids=torch.cat(samples)[None], use_cache=False, **inputs).logits[0]
    assert torch.allclose(alone, packed, atol=1e-4) is (family not in UNPACKABLE)


def test_the_mode_of_an_adapted_model_comes_back() -> None:
    model = attach_adapter(tiny_model(), LoraSpec(r=2, dropout=0.5), seed=0, base_name="tiny").train()
    assert supports_packing(model)
    assert model.training


def test_auto_pads_a_family_that_cannot_pack_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_tiny_base(tmp_path / "alibi", "bloom")
    changes = {"model__base": str(tmp_path / "alibi")}
    spec = tiny_recipe(tmp_path, **changes)
    model = load_base(spec.model)
    with caplog.at_level(logging.INFO, logger="didact"):
        assert resolve_packing(spec, model) is False
    assert "rows are padded, not packed: BloomForCausalLM" in caplog.text
    with pytest.raises(ModelError, match=r"set tokens\.packing to auto or false"):
        resolve_packing(tiny_recipe(tmp_path, tokens__packing=True, **changes), model)
    loader = prepare_data(spec).loader(spec, packing=False)
    assert loader.step(0).micro_batches[0].attention_mask is not None
    assert resolve_packing(spec, tiny_model()) is True
    assert resolve_packing(tiny_recipe(tmp_path, tokens__packing=False), tiny_model()) is False

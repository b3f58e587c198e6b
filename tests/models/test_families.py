"""Published bases with their own code: converted, they compute what that code computed, and are used like any."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from didact.errors import ModelError
from didact.models import (
    AdapterHost,
    attach_adapter,
    base_fingerprint,
    base_folder,
    load_base,
    save_adapter,
    supports_packing,
)
from didact.models.families import family_of
from didact.models.families.alibi import alibi_slopes
from didact.spec import LoraSpec, ModelSpec, QuantizationSpec
from tests.fakes.models import FAMILIES, save_tiny_base, tiny_model
from tests.fakes.originals import CONFIGS, INPUTS, VOCAB, golden_logits, original_tensors, save_original

TOLERANCE = 1e-5
ORIGINALS = sorted(CONFIGS)
SHORT = [name for name in ORIGINALS if name != "internlm-dynamic" and not name.startswith("baichuan2")]
"""Families within their trained length; past it dynamic rotation depends on the longest sample of the batch. Baichuan 2
differs from its predecessor in the output layer only, and is large for its vocabulary."""
OWN = ("baichuan-13b", "chatglm-6b")
"""Families without a native class."""


def original(folder: Path, family: str, form: str = "safetensors") -> ModelSpec:
    return ModelSpec(base=str(save_original(folder / family, family, form)), dtype="float32")


def logits(model: nn.Module, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(use_cache=False, **inputs).logits


def padded(side: str) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = torch.zeros(len(INPUTS), 14, dtype=torch.long), torch.zeros(len(INPUTS), 14, dtype=torch.long)
    for row, values in enumerate(INPUTS):
        span = slice(0, len(values)) if side == "right" else slice(14 - len(values), 14)
        ids[row, span], mask[row, span] = torch.tensor(values), 1
    return ids, mask


@pytest.mark.parametrize("family", ORIGINALS)
def test_logits_equal_those_of_the_original_code(tmp_path: Path, family: str) -> None:
    model = load_base(original(tmp_path, family))
    for ids, expected in zip(INPUTS, golden_logits(family), strict=True):
        found = logits(model, input_ids=torch.tensor([ids]))[0, :, :VOCAB]
        assert (found - expected).abs().max() <= TOLERANCE
        assert expected.std() > 0.5  # not a model that says nothing


@pytest.mark.parametrize("family", SHORT)
def test_padded_and_packed_rows_compute_the_same(tmp_path: Path, family: str) -> None:
    model, expected = load_base(original(tmp_path, family)), torch.cat(golden_logits(family))
    for side in ("right", "left"):
        ids, mask = padded(side)
        found = logits(model, input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0))
        assert (found[mask.bool()] - expected).abs().max() <= TOLERANCE
    positions = torch.cat([torch.arange(len(ids)) for ids in INPUTS])[None]
    packed = logits(model, input_ids=torch.tensor([[*INPUTS[0], *INPUTS[1]]]), position_ids=positions)[0]
    assert (packed - expected).abs().max() <= TOLERANCE
    assert supports_packing(model)


@pytest.mark.parametrize("family", SHORT)
@pytest.mark.parametrize("side", [pytest.param("none", marks=pytest.mark.nightly), "left"])
def test_cached_generation_equals_recomputing(tmp_path: Path, family: str, side: str) -> None:
    model = load_base(original(tmp_path, family))
    ids, mask = padded("left") if side == "left" else (torch.tensor(INPUTS[:1]), torch.ones(1, len(INPUTS[0])).long())
    settings = {"do_sample": False, "max_new_tokens": 9, "eos_token_id": None, "pad_token_id": 0}
    with torch.inference_mode():
        cached = model.generate(ids, attention_mask=mask, use_cache=True, **settings)
        recomputed = model.generate(ids, attention_mask=mask, use_cache=False, **settings)
    assert torch.equal(cached, recomputed)


@pytest.mark.parametrize("form", ["bin", "sharded"])
@pytest.mark.parametrize("family", ["chatglm2", "moss"])
def test_every_form_of_weight_files_is_read(tmp_path: Path, family: str, form: str) -> None:
    found = logits(load_base(original(tmp_path, family, form)), input_ids=torch.tensor([INPUTS[0]]))[0]
    assert (found - golden_logits(family)[0]).abs().max() <= TOLERANCE


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    spec = original(tmp_path, "moss", "bin")
    torch.save({"transformer.wte.weight": Path("/")}, Path(spec.base) / "pytorch_model.bin")
    with pytest.raises(ModelError, match="loading it would run code"):
        load_base(spec)


def test_a_base_is_converted_once_and_again_when_it_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = original(tmp_path, "baichuan-7b")
    before = base_folder(spec)
    file = Path(spec.base) / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "lm_head.weight": tensors["lm_head.weight"] + 1}, file)
    with caplog.at_level(logging.INFO, logger="didact"):
        first, second = base_folder(spec), base_folder(spec)
    assert first == second != before
    assert caplog.text.count("converting") == 1
    assert base_fingerprint(spec) == base_fingerprint(ModelSpec(base=str(first)))
    assert base_fingerprint(spec) != base_fingerprint(ModelSpec(base=str(before)))


def test_missing_and_unknown_tensors_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    spec = original(tmp_path, "chatglm2")
    file = Path(spec.base) / "model.safetensors"
    tensors = load_file(file)
    norm = tensors.pop("transformer.encoder.final_layernorm.weight")
    save_file(tensors, file)
    with pytest.raises(ModelError, match=r"lacks 1 tensors of a chatglm2 model, such as model\.norm\.weight"):
        load_base(spec)
    save_file({**tensors, "transformer.encoder.final_layernorm.weight": norm[:-1]}, file)
    with pytest.raises(ModelError, match=r"has no tensor model\.norm\.weight of shape \[63\]; expected \[64\]"):
        load_base(spec)
    save_file({**tensors, "transformer.prefix_encoder.weight": norm}, file)
    with pytest.raises(ModelError, match="expected no such tensor"):
        load_base(spec)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("chatglm2", {"rope_ratio": 16}, "rope_ratio 16; expected 1"),
        ("chatglm2", {"quantization_bit": 4}, "quantization_bit 4; expected 0"),
        ("chatglm-6b", {"pre_seq_len": 128}, "pre_seq_len 128; expected None"),
        ("moss", {"wbits": 4}, "wbits 4; expected 32"),
        ("internlm", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "type 'linear'; expected 'dynamic'"),
    ],
)
def test_settings_that_are_not_proven_are_refused(
    tmp_path: Path, family: str, changes: dict[str, object], message: str
) -> None:
    spec = original(tmp_path, family)
    (Path(spec.base) / "config.json").write_text(json.dumps({**CONFIGS[family], **changes}))
    with pytest.raises(ModelError, match=message):
        load_base(spec)


def test_trusted_code_gets_the_folder_as_published(tmp_path: Path) -> None:
    spec = original(tmp_path, "moss").model_copy(update={"trust_remote_code": True})
    assert base_folder(spec) == Path(spec.base)


def test_other_models_are_left_alone() -> None:
    assert [family_of({"model_type": name}) for name in ("llama", "glm", "glm4", None)] == [None] * 4
    assert family_of({**CONFIGS["chatglm-6b"]}).name == "chatglm-6b"  # type: ignore[union-attr]


def test_the_second_baichuan_has_its_output_rows_scaled() -> None:
    weight = original_tensors("baichuan-7b")["lm_head.weight"]
    family = family_of(CONFIGS["baichuan-7b"])
    assert family is not None
    assert torch.equal(family.tensors({"vocab_size": 64}, "lm_head.weight", weight)["lm_head.weight"], weight)
    scaled = family.tensors({"vocab_size": 125_696}, "lm_head.weight", weight)["lm_head.weight"]
    assert torch.allclose(scaled, functional.normalize(weight)) and not torch.allclose(scaled, weight)


def test_slopes_of_forty_heads_follow_the_paper() -> None:
    slopes = alibi_slopes(40)
    assert slopes[:3] == pytest.approx([2**-0.25, 2**-0.5, 2**-0.75])
    assert slopes[32:] == pytest.approx([2 ** (-0.125 * (2 * index + 1)) for index in range(8)])


@pytest.mark.parametrize("family", ORIGINALS)
def test_an_adapter_reaches_every_linear_layer_and_comes_back(tmp_path: Path, family: str) -> None:
    spec = original(tmp_path, family)
    model = attach_adapter(load_base(spec), LoraSpec(r=2), seed=0, base_name=family)
    assert adapted_layers(model) == linear_layers(load_base(spec))
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    expected = logits(model, input_ids=torch.tensor([INPUTS[0]]))
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_adapter(model, folder, base=family, base_fingerprint=base_fingerprint(spec), method="lora")
    host = AdapterHost(load_base(spec), base_fingerprint(spec))
    host.load("it", folder)
    with host.active("it") as live:
        assert torch.allclose(logits(live, input_ids=torch.tensor([INPUTS[0]])), expected, atol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_module_tree_says_where_adapters_go(family: str) -> None:
    model = attach_adapter(tiny_model(family), LoraSpec(r=2), seed=0, base_name=family)
    assert adapted_layers(model) == linear_layers(tiny_model(family))


def linear_layers(model: nn.Module) -> set[str]:
    output = model.get_output_embeddings()
    kinds = ("Linear", "Conv1D", "FalconLinear")
    return {name for name, each in model.named_modules() if type(each).__name__ in kinds and each is not output}


def adapted_layers(model: nn.Module) -> set[str]:
    prefix = "base_model.model."
    names = {name for name, each in model.named_modules() if hasattr(each, "lora_A")}
    return {name.removeprefix(prefix) for name in names}


@pytest.mark.parametrize("family", OWN)
def test_recomputing_activations_changes_no_gradient(tmp_path: Path, family: str) -> None:
    gradients = []
    for recompute in (False, True):
        base = load_base(original(tmp_path / str(recompute), family))
        model = attach_adapter(base, LoraSpec(r=2), seed=0, base_name=family, gradient_checkpointing=recompute).train()
        ids = torch.tensor([INPUTS[0]])
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        gradients.append([p.grad for n, p in model.named_parameters() if "lora_B" in n])
    assert all(torch.allclose(one, two, atol=1e-6) for one, two in zip(*gradients, strict=True))
    assert all(each.abs().sum() > 0 for each in gradients[0])


@pytest.mark.parametrize("family", OWN)
def test_only_wanted_positions_are_projected(tmp_path: Path, family: str) -> None:
    model, ids = load_base(original(tmp_path, family)), torch.tensor([INPUTS[0]])
    every = logits(model, input_ids=ids)
    chosen = torch.tensor([2, 7, 11])
    assert torch.allclose(logits(model, input_ids=ids, logits_to_keep=chosen), every[:, chosen], atol=1e-6)
    assert torch.allclose(logits(model, input_ids=ids, logits_to_keep=1), every[:, -1:], atol=1e-6)


@pytest.mark.parametrize("family", OWN)
def test_classes_of_our_own_quantize(tmp_path: Path, family: str) -> None:
    spec = original(tmp_path, family).model_copy(update={"quantization": QuantizationSpec(bits=4)})
    model = load_base(spec)
    kinds = {type(module).__name__ for module in model.modules()}
    assert "Linear4bit" in kinds
    plain = golden_logits(family)[0]
    found = logits(model, input_ids=torch.tensor([INPUTS[0]]))[0]
    assert torch.corrcoef(torch.stack([plain.flatten(), found.flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize("family", OWN)
def test_classes_of_our_own_are_saved_and_loaded_again(tmp_path: Path, family: str) -> None:
    load_base(original(tmp_path, family)).save_pretrained(tmp_path / "saved")
    again = load_base(ModelSpec(base=str(tmp_path / "saved"), dtype="float32"))
    found = logits(again, input_ids=torch.tensor([INPUTS[0]]))[0]
    assert (found - golden_logits(family)[0]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("bits", [4, 8])
def test_a_family_whose_layers_cannot_be_quantized_is_refused(tmp_path: Path, bits: int) -> None:
    spec = ModelSpec(base=str(save_tiny_base(tmp_path, "falcon")), quantization=QuantizationSpec(bits=bits))
    with pytest.raises(ModelError, match=r"the falcon family has its own \(FalconLinear"):
        load_base(spec)

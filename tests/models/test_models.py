"""Base models, adapters on them, and adapter folders."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from didact.errors import AdapterError, ModelError
from didact.files import manifest, write_json
from didact.models import (
    AdapterHost,
    attach_adapter,
    base_fingerprint,
    estimate_footprint,
    load_base,
    load_tokenizer,
    save_adapter,
    verify_adapter,
)
from didact.spec import FullSpec, Ia3Spec, LoraSpec, MethodSpec, ModelSpec, PrefixSpec, QuantizationSpec
from tests.fakes.adapters import save_tiny_adapter
from tests.fakes.models import FAMILIES, save_tiny_base
from tests.fakes.recipes import tiny_recipe

IDS = torch.arange(20).unsqueeze(0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return ModelSpec(base=str(save_tiny_base(tmp_path_factory.mktemp("base"))), dtype="float32")


def make_adapter(base: ModelSpec, folder: Path, seed: int = 1, spec: LoraSpec | PrefixSpec | None = None) -> Path:
    spec = spec or LoraSpec(r=4)
    model = attach_adapter(load_base(base), spec, seed=seed, base_name="tiny")
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir()
    save_adapter(model, folder, base="tiny", base_fingerprint=base_fingerprint(base), method=spec.method)
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def test_a_missing_base_says_where_it_was_looked_for() -> None:
    with pytest.raises(ModelError, match="neither 'smollm2-135m-instruct', nor a local folder, nor a hub id"):
        load_base(ModelSpec(base="nobody/nothing-here"))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"without config\.json"):
        load_tokenizer(ModelSpec(base=str(tmp_path)))


def test_a_base_that_lacks_weights_is_refused(base: ModelSpec, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base.base, tmp_path / "base"))
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for quantization in (None, QuantizationSpec(bits=4)):
        with pytest.raises(ModelError, match=r"lacks 1 weights, such as model\.norm\.weight"):
            load_base(ModelSpec(base=str(folder), quantization=quantization), shared=True)


def test_fingerprint_follows_the_weights_not_the_place(base: ModelSpec, tmp_path: Path) -> None:
    same = ModelSpec(base=str(save_tiny_base(tmp_path / "same")))
    other = ModelSpec(base=str(save_tiny_base(tmp_path / "other", seed=5)))
    assert base_fingerprint(base) == base_fingerprint(same) != base_fingerprint(other)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_lora_finds_its_targets_in_every_family(tmp_path: Path, family: str) -> None:
    spec = ModelSpec(base=str(save_tiny_base(tmp_path, family)), dtype="float32")
    model = attach_adapter(load_base(spec), LoraSpec(r=2), seed=0, base_name=family)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    output_layer = [name for name in trained if "lm_head" in name or "embed_out" in name]
    assert output_layer == []


def test_a_seed_decides_the_adapter_and_leaves_the_global_generator_alone(base: ModelSpec) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = attach_adapter(load_base(base), LoraSpec(r=4), seed=seed, base_name="tiny")
        return next(p for n, p in model.named_parameters() if "lora_A" in n).detach()

    torch.manual_seed(3)
    expected_next = torch.rand(1)
    torch.manual_seed(3)
    first = weights(1)
    assert torch.equal(torch.rand(1), expected_next)
    assert torch.equal(first, weights(1)) and not torch.equal(first, weights(2))


def test_full_finetuning_trains_everything(base: ModelSpec) -> None:
    model = attach_adapter(load_base(base), FullSpec(method="full"), seed=0, base_name="tiny")
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_unknown_target_modules_are_refused(base: ModelSpec) -> None:
    with pytest.raises(ModelError, match=r"no module named nowhere, proj; its linear layers: .*q_proj"):
        spec = LoraSpec(target_modules=("q_proj", "nowhere", "proj", "self_attn.v_proj"))
        attach_adapter(load_base(base), spec, seed=0, base_name="tiny")


def targeted(base: ModelSpec, spec: MethodSpec) -> set[str]:
    model = attach_adapter(load_base(base), spec, seed=0, base_name="tiny")
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {name.removeprefix("base_model.model.").partition(".lora_")[0].partition(".ia3_")[0] for name in trained}


def test_target_modules_may_be_a_regular_expression_over_whole_names(base: ModelSpec) -> None:
    first = {"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"}
    assert targeted(base, LoraSpec(r=2, target_modules=r".*\.0\.self_attn\.[qv]_proj")) == first
    ia3 = {"method": "ia3", "target_modules": r".*layers\.1\..*(k|down)_proj", "feedforward_modules": ".*down_proj"}
    assert targeted(base, Ia3Spec(**ia3)) == {"model.layers.1.self_attn.k_proj", "model.layers.1.mlp.down_proj"}


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (
            "(q|v)_proj",
            r"matches no module .* such as model\.layers\.0\.self_attn\.q_proj, .*begin it with",
        ),
        (".*layers.0.*", r"also matches model\.layers\.0, which holds other modules"),
    ],
)
def test_an_expression_that_cannot_be_meant_is_refused(base: ModelSpec, expression: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        targeted(base, LoraSpec(r=2, target_modules=expression))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_quantized_base_trains_an_adapter(tmp_path: Path, bits: int) -> None:
    folder = save_tiny_base(tmp_path)
    spec = ModelSpec(base=str(folder), dtype="float32", quantization=QuantizationSpec(bits=bits))
    base = load_base(spec)
    logits(base)  # bitsandbytes would re-pack 4-bit weights here, into a form that lets no gradient through
    model = attach_adapter(base, LoraSpec(r=4), seed=0, base_name="tiny")
    assert any(type(module).__name__ in ("Linear4bit", "Linear8bitLt") for module in model.modules())
    model(input_ids=IDS, labels=IDS).loss.backward()
    gradients = [p.grad for n, p in model.named_parameters() if "lora_B" in n]
    assert gradients and all(g is not None and g.abs().sum() > 0 for g in gradients)


def test_an_adapter_by_expression_comes_back_from_its_folder(base: ModelSpec, tmp_path: Path) -> None:
    by_expression = LoraSpec(r=4, target_modules=r".*\.self_attn\.(q|v)_proj")
    by_name = LoraSpec(r=4, target_modules=("q_proj", "v_proj"))
    seen = []
    for name, spec in (("expression", by_expression), ("names", by_name)):
        host = AdapterHost(load_base(base), base_fingerprint(base))
        host.load(name, make_adapter(base, tmp_path / name, spec=spec))
        with host.active(name) as model:
            seen.append(logits(model))
    assert torch.equal(*seen)


def test_host_switches_between_base_lora_and_prefix(base: ModelSpec, tmp_path: Path) -> None:
    one = make_adapter(base, tmp_path / "one", seed=1)
    two = make_adapter(base, tmp_path / "two", seed=2)
    prefix = make_adapter(base, tmp_path / "prefix", seed=3, spec=PrefixSpec(method="prefix", num_virtual_tokens=4))
    plain = logits(load_base(base))
    alone = {}
    for name, folder in (("one", one), ("two", two), ("prefix", prefix)):
        host = AdapterHost(load_base(base), base_fingerprint(base))
        host.load(name, folder)
        with host.active(name) as model:
            alone[name] = logits(model)
        assert not torch.allclose(alone[name], plain, atol=1e-3)
    host = AdapterHost(load_base(base), base_fingerprint(base))
    for name, folder in (("one", one), ("prefix", prefix), ("two", two)):
        host.load(name, folder)
    for name in ("two", None, "prefix", "one", None, "two"):
        with host.active(name) as model:
            assert torch.allclose(logits(model), plain if name is None else alone[name], atol=1e-5), name
    for name in ("one", "two", "prefix"):
        host.drop(name)
    assert host.names == ()
    with host.active(None) as model:
        assert torch.equal(logits(model), plain)
    with pytest.raises(AdapterError, match="not loaded"), host.active("one"):
        pass


def test_an_adapter_of_another_base_is_refused(base: ModelSpec, tmp_path: Path) -> None:
    folder = make_adapter(base, tmp_path / "adapter")
    with pytest.raises(AdapterError, match="was trained on base 'tiny'"):
        verify_adapter(folder, expected_base="0" * 64)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_damaged_adapter_is_refused(base: ModelSpec, tmp_path: Path, name: str, damage: str) -> None:
    file = make_adapter(base, tmp_path / "adapter") / name
    if damage == "missing":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[-20] ^= 1
        file.write_bytes(content)
    with pytest.raises(AdapterError, match=f"damaged: {name}"):
        verify_adapter(file.parent)


@pytest.mark.fault("C8")
@pytest.mark.parametrize("field", ["base", "base_fingerprint", "method"])
@pytest.mark.parametrize("value", [None, 7, ["tiny"]], ids=["missing", "number", "list"])
def test_a_record_that_does_not_tell_the_base_is_refused(
    base: ModelSpec, tmp_path: Path, field: str, value: object
) -> None:
    folder = make_adapter(base, tmp_path / "adapter")
    record = json.loads((folder / "adapter.json").read_text())
    del record[field]
    write_json(folder / "adapter.json", record if value is None else record | {field: value})
    found = "nothing" if value is None else repr(value)
    with pytest.raises(AdapterError, match=re.escape(f"adapter.json: {field!r} is {found}; expected text")):
        verify_adapter(folder)


def test_pickled_weights_are_refused(base: ModelSpec, tmp_path: Path) -> None:
    folder = make_adapter(base, tmp_path / "adapter")
    torch.save({}, folder / "adapter_model.bin")
    with pytest.raises(AdapterError, match=r"adapter_model\.bin"):
        verify_adapter(folder)


def rewrite_weights(folder: Path, change: object) -> None:
    """Change the weights and repair the manifest, as somebody with bad intent or a bad training run would."""
    weights = {name: change(tensor) for name, tensor in load_file(folder / "adapter_model.safetensors").items()}  # type: ignore[operator]
    save_file(weights, folder / "adapter_model.safetensors")
    record = json.loads((folder / "adapter.json").read_text())
    record["files"] = manifest(folder, record["files"])
    write_json(folder / "adapter.json", record)


def test_an_adapter_with_nan_is_refused(base: ModelSpec, tmp_path: Path) -> None:
    folder = make_adapter(base, tmp_path / "adapter")
    rewrite_weights(folder, lambda tensor: tensor * float("nan"))
    with pytest.raises(AdapterError, match="NaN or infinite"):
        verify_adapter(folder)


def test_an_adapter_of_other_shapes_is_refused_and_the_host_goes_on(base: ModelSpec, tmp_path: Path) -> None:
    good, bad = make_adapter(base, tmp_path / "good"), make_adapter(base, tmp_path / "bad")
    rewrite_weights(bad, lambda tensor: torch.cat([tensor, tensor], dim=1))
    host = AdapterHost(load_base(base), base_fingerprint(base))
    with host.active(None) as model:
        plain = logits(model)
    with pytest.raises(AdapterError, match="does not fit base"):
        host.load("bad", bad)
    with host.active(None) as model:  # also when the very first adapter is the bad one
        assert torch.equal(logits(model), plain) and not any("lora" in name for name, _ in model.named_parameters())
    host.load("good", good)
    with host.active("good") as model:
        before = logits(model)
    with pytest.raises(AdapterError, match="does not fit base"):
        host.load("bad", bad)
    assert host.names == ("good",)
    with host.active("good") as model:
        assert torch.equal(logits(model), before)


def test_footprint_counts_what_is_there(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path)
    model = attach_adapter(load_base(spec.model), spec.adapter, seed=0, base_name="tiny")
    footprint = estimate_footprint(spec, tokens_per_micro_batch=64, supervised_share=0.5)
    assert footprint.num_parameters == sum(p.numel() for p in model.parameters())
    assert footprint.num_trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert footprint.weights_gib == pytest.approx(sum(p.numel() for p in model.parameters()) * 4 / 2**30)


@pytest.mark.parametrize(
    "spec",
    [LoraSpec(r=2, target_modules=("q_proj", "v_proj", "k_proj", "o_proj", "up_proj", "gate_proj", "down_proj"))],
)
def test_an_equal_adapter_is_written_in_the_same_order_by_every_process(tmp_path: Path, spec: LoraSpec) -> None:
    # PEFT holds names in sets, whose order is another one in each process.
    save_tiny_adapter(tmp_path / "adapter", 1, spec=spec)
    names = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))["target_modules"]
    assert names == sorted(spec.target_modules)

"""Which layers get an adapter by default in families whose layers are not all alike, and which never may."""

import logging
import re
import warnings
from pathlib import Path

import pytest
import torch

from didact import env
from didact.errors import ModelError
from didact.models import AdapterHost, attach_adapter, base_fingerprint, load_base, save_adapter
from didact.models.footprint import Load, check_method, demand_of
from didact.models.methods import left_out
from didact.spec import (
    AdaLoraSpec,
    LokrSpec,
    LoraSpec,
    MethodSpec,
    ModelSpec,
    OftSpec,
    PeftSpec,
    PromptSpec,
    QuantizationSpec,
    VeraSpec,
)
from tests.fakes.models import UNUSUAL, save_tiny_base, tiny_model

LEFT_OUT = {
    "llama4_text": {"router"},
    "phimoe": {"router"},
    "mamba": {"x_proj", "dt_proj", "out_proj"},
    "mamba2": {"out_proj"},
    "falcon_h1": {"out_proj"},
    "jamba": {"x_proj", "dt_proj", "out_proj"},
}
METHODS = [
    LoraSpec(r=2),
    LoraSpec(r=2, dora=True),
    AdaLoraSpec(method="adalora"),
    VeraSpec(method="vera", r=4),
    OftSpec(method="oft", block_size=8),
    LokrSpec(method="lokr", r=2),
    PeftSpec(method="peft", name="hra", options={"r": 2}),
]
IDS = torch.arange(7, 19)[None]


@pytest.mark.parametrize("family", sorted(UNUSUAL))
def test_every_adapter_of_the_default_targets_learns(family: str) -> None:
    model = attach_adapter(tiny_model(family), LoraSpec(r=2), seed=0, base_name="tiny").train()
    model(input_ids=IDS, use_cache=False).logits.float().square().mean().backward()
    adapters = {name: each for name, each in model.named_parameters() if each.requires_grad}
    silent = {name for name, each in adapters.items() if each.grad is None}
    # What chooses tokens chooses, so no gradient passes: as in the published model, it is not trained.
    assert {name for name in silent if ".indexer." not in name} == set()
    assert adapters
    assert not {name.split(".lora_")[0].rpartition(".")[2] for name in adapters} & LEFT_OUT.get(family, set())


@pytest.mark.parametrize("spec", METHODS, ids=lambda spec: spec.model_dump()["method"])
@pytest.mark.parametrize("family", ["llama4_text", "falcon_h1"])
def test_every_method_leaves_the_same_layers_out(family: str, spec: MethodSpec) -> None:
    model = attach_adapter(tiny_model(family), spec, seed=0, base_name="tiny", num_steps=20).train()
    model(input_ids=IDS, use_cache=False).logits.float().square().mean().backward()
    layers = {name for name, _ in model.named_modules() if name.endswith((".router", ".out_proj"))}
    assert layers
    assert not any(name.startswith(f"{layer}.") for name, _ in model.named_modules() for layer in layers)


def test_what_is_left_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="didact"):
        attach_adapter(tiny_model("llama4_text"), LoraSpec(r=2), seed=0, base_name="tiny")
    assert "all-linear leaves out router (2 layers): Llama4Router returns something else" in caplog.text
    assert "down_proj, gate_up_proj (4 tensors)" in caplog.text
    assert words_of("mamba", LoraSpec(r=2)) == ["x_proj", "dt_proj", "out_proj"]
    assert words_of("mamba", LoraSpec(r=2, target_modules=("in_proj",))) == []
    assert words_of("llama", PromptSpec(method="prompt")) == []
    assert words_of("falcon", LoraSpec(r=2)) == []  # a class of its own that computes as a linear layer
    experts = "down_proj, gate_up_proj"
    assert words_of("deepseek_v3", LoraSpec(r=2, dropout=0.1)) == ["gate_proj", "up_proj", "down_proj", experts]
    demand = demand_of(tiny_model("phimoe").config, ModelSpec(dtype="float32"), LoraSpec(r=2), Load(32))
    assert [words.split(" (")[0] for words in demand.left_out] == ["router", experts]


def test_pefts_own_patterns_for_experts_are_no_news() -> None:
    env.quiet_libraries()
    with warnings.catch_warnings(record=True) as told:
        attach_adapter(tiny_model("qwen3_moe"), LoraSpec(r=2), seed=0, base_name="tiny")
        warnings.warn("The following rank_pattern keys did not match any targeted module", stacklevel=1)
    assert len([each for each in told if "_pattern" in str(each.message)]) == 1


def words_of(family: str, spec: MethodSpec) -> list[str]:
    model = attach_adapter(tiny_model(family), spec, seed=0, base_name="tiny")
    return [words.split(" (")[0] for words in left_out(model.get_base_model(), spec)]


@pytest.mark.parametrize(
    ("changes", "reached"),
    [
        ({}, True),
        ({"rslora": True}, True),
        ({"init": "gaussian"}, True),
        ({"dropout": 0.1}, False),
        ({"dora": True}, False),
        ({"init": "pissa"}, False),
        ({"init": "orthogonal"}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_experts_get_lora_where_peft_can_put_it_on_them(family: str, changes: dict[str, object], reached: bool) -> None:
    spec = LoraSpec(r=2, **changes)
    model = attach_adapter(tiny_model(family), spec, seed=0, base_name="tiny").train()
    model(input_ids=IDS, use_cache=False).logits.float().square().mean().backward()
    trained = {name for name, each in model.named_parameters() if each.grad is not None}
    assert any(".experts." in name for name in trained) is reached
    assert any(".self_attn.o_proj." in name for name in trained)
    assert any("experts held" in words for words in left_out(model.get_base_model(), spec)) is not reached


@pytest.mark.parametrize(
    ("family", "targets", "found"),
    [
        ("llama4_text", ("q_proj", "router"), "model.layers.0.feed_forward.router"),
        ("phimoe", r".*\.router", "model.layers.0.mlp.router"),
        ("mamba", ("out_proj",), "backbone.layers.0.mixer.out_proj"),
        ("falcon_h1", r".*\.mamba\..*_proj", "model.layers.0.mamba.out_proj"),
        ("jamba", ("layers.2.mamba.dt_proj",), "model.layers.2.mamba.dt_proj"),
    ],
)
def test_a_named_layer_that_cannot_bear_an_adapter_is_refused(
    family: str, targets: str | tuple[str, ...], found: str
) -> None:
    with pytest.raises(ModelError, match=re.escape(f"adapter.target_modules names {found}, which cannot bear")):
        attach_adapter(tiny_model(family), LoraSpec(r=2, target_modules=targets), seed=0, base_name="tiny")


PARTS_THAT_ARE_NOT_THERE = [
    (LoraSpec(target_modules=("q_proj", "query")), "adapter.target_modules: LlamaForCausalLM has no module named que"),
    (LoraSpec(target_modules=r".*\.attn\.q"), r"adapter.target_modules '.*\\.attn\\.q' matches no module"),
    (
        PeftSpec(method="peft", name="lora", options={"modules_to_save": ["lm_head", "score"]}),
        "adapter.options.modules_to_save: LlamaForCausalLM has no module named score; its modules with weights: "
        "down_proj, embed_tokens, gate_proj",
    ),
    (
        PeftSpec(method="peft", name="lora", options={"modules_to_save": ["rotary_emb"]}),
        "adapter.options.modules_to_save: LlamaForCausalLM has no module named rotary_emb",
    ),
    (
        PeftSpec(method="peft", name="lora", options={"target_parameters": ["q_proj.weight", "experts.gate_up_proj"]}),
        "adapter.options.target_parameters: LlamaForCausalLM has no parameter named experts.gate_up_proj; its "
        "parameters: down_proj.weight",
    ),
    (
        PeftSpec(method="peft", name="hra", options={"target_modules": ["query"]}),
        "adapter.options.target_modules: LlamaForCausalLM has no module named query; its linear layers: down_proj",
    ),
    (PeftSpec(method="peft", name="lora", options={"rank": 4}), "adapter.options.rank is no option of PEFT's lora"),
]


@pytest.mark.parametrize(("spec", "words"), PARTS_THAT_ARE_NOT_THERE)
def test_parts_that_a_base_does_not_have_are_refused(tmp_path: Path, spec: MethodSpec, words: str) -> None:
    with pytest.raises(ModelError, match=re.escape(words)):
        attach_adapter(tiny_model("llama"), spec, seed=0, base_name="tiny")
    save_tiny_base(tmp_path / "base")
    with pytest.raises(ModelError, match=re.escape(words)):
        check_method(ModelSpec(base=str(tmp_path / "base")), spec)


@pytest.mark.parametrize(
    "spec",
    [
        LoraSpec(target_modules=("self_attn.q_proj", "layers.1.mlp.down_proj")),
        PeftSpec(method="peft", name="lora", options={"modules_to_save": ["lm_head", "model.norm"]}),
        PeftSpec(
            method="peft", name="lora", options={"target_parameters": ["q_proj.weight"], "target_modules": ["v_proj"]}
        ),
        PeftSpec(method="peft", name="lora", options={"init_lora_weights": True, "modules_to_save": None}),
        PeftSpec(method="peft", name="hra"),
    ],
)
def test_parts_that_a_base_has_may_be_named(tmp_path: Path, spec: MethodSpec) -> None:
    save_tiny_base(tmp_path / "base")
    check_method(ModelSpec(base=str(tmp_path / "base")), spec)
    assert attach_adapter(tiny_model("llama"), spec, seed=0, base_name="tiny").peft_config


@pytest.mark.parametrize("family", ["llama4_text", "mamba"])
def test_an_adapter_of_the_default_targets_comes_back(tmp_path: Path, family: str) -> None:
    spec = ModelSpec(base=str(save_tiny_base(tmp_path / "base", family)), dtype="float32")
    model = attach_adapter(load_base(spec), LoraSpec(r=2), seed=1, base_name="tiny").eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    (tmp_path / "adapter").mkdir()
    save_adapter(model, tmp_path / "adapter", base="tiny", base_fingerprint=base_fingerprint(spec), method="lora")
    host = AdapterHost(load_base(spec), base_fingerprint(spec))
    host.load("one", tmp_path / "adapter")
    with torch.inference_mode(), host.active("one") as served:
        assert torch.equal(served(input_ids=IDS).logits, model(input_ids=IDS).logits)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral"])
def test_experts_that_quantization_does_not_reach_are_named_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, family: str, bits: int
) -> None:
    folder = save_tiny_base(tmp_path, family)
    spec = ModelSpec(base=str(folder), dtype="bfloat16", quantization=QuantizationSpec(bits=bits, double=False))
    with caplog.at_level(logging.WARNING, logger="didact"):
        model = load_base(spec)
    assert "model.quantization does not reach down_proj, gate_up_proj: experts held in one tensor" in caplog.text
    assert "stay in bfloat16" in caplog.text
    demand = demand_of(model.config, spec, LoraSpec(r=2), Load(32))
    assert "experts held in one tensor" in (demand.unpacked or "")
    scales = sum(each.weight.numel() // 64 * 4 for each in model.modules() if type(each).__name__ == "Linear4bit") * 2
    held = sum(each.nbytes for each in model.parameters()) + scales
    assert demand.base == pytest.approx(held, rel=0.05)
    assert demand_of(tiny_model().config, spec, LoraSpec(r=2), Load(32)).unpacked is None

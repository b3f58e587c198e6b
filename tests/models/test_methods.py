"""Methods do what their papers say, on the base they were given, and name what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftConfig

from didact.errors import AdapterError, ModelError
from didact.files import manifest, write_json
from didact.models import AdapterHost, attach_adapter, base_fingerprint, load_base, save_adapter, step_hook
from didact.spec import (
    AdaLoraSpec,
    BottleneckSpec,
    Ia3Spec,
    LoraSpec,
    MethodSpec,
    ModelSpec,
    PartialSpec,
    PeftSpec,
    PrefixSpec,
    PromptSpec,
    QuantizationSpec,
)
from tests.fakes.models import FAMILIES, save_tiny_base, tiny_model

IDS = torch.arange(20).unsqueeze(0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return ModelSpec(base=str(save_tiny_base(tmp_path_factory.mktemp("base"))), dtype="float32")


def logits(model: torch.nn.Module, **extra: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, attention_mask=torch.ones_like(IDS), **extra).logits


def attached(model: torch.nn.Module, spec: MethodSpec, **extra: Any) -> torch.nn.Module:
    return attach_adapter(model, spec, seed=0, base_name="tiny", num_steps=10, **extra)


def steps(model: torch.nn.Module, number: int = 3, rate: float = 5e-3) -> torch.nn.Module:
    """A few optimizer steps on one row."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=rate)
    for _ in range(number):
        scores = model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits[0, :-1]
        torch.nn.functional.cross_entropy(scores, IDS[0, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def saved(model: torch.nn.Module, base: ModelSpec, folder: Path, method: str) -> Path:
    folder.mkdir()
    save_adapter(model, folder, base="tiny", base_fingerprint=base_fingerprint(base), method=method)
    return folder


def test_host_switches_between_methods_of_every_kind(base: ModelSpec, tmp_path: Path) -> None:
    specs: dict[str, MethodSpec] = {
        "lora": LoraSpec(r=4),
        "second": LoraSpec(r=2, dora=True),
        "ia3": Ia3Spec(method="ia3"),
        "after": BottleneckSpec(method="bottleneck", placement="houlsby", size=8),
        "beside": BottleneckSpec(method="bottleneck", placement="parallel", size=8),
        "keys": PrefixSpec(method="prefix", num_virtual_tokens=4),
        "words": PromptSpec(method="prompt", num_virtual_tokens=4),
        "part": PartialSpec(method="partial", last_n_layers=1),
    }
    expected = {None: logits(load_base(base))}
    host = AdapterHost(load_base(base), base_fingerprint(base))
    for name, spec in specs.items():
        model = steps(attached(load_base(base), spec))
        expected[name] = logits(model)
        host.load(name, saved(model, base, tmp_path / name, spec.method))
    assert len({tensor.sum().item() for tensor in expected.values()}) == len(expected)
    order = (None, "lora", "ia3", "after", "keys", "part", "second", "lora", "beside", "words", "part", "after", None)
    for name in order:
        with host.active(name) as model:
            assert torch.allclose(logits(model), expected[name], atol=1e-5), name
    for name in specs:
        host.drop(name)
    assert host.names == () and torch.equal(logits(host.base), expected[None])
    assert list(dict(host.base.named_parameters())) == list(dict(load_base(base).named_parameters()))


def test_an_adapter_that_would_change_the_base_is_refused(base: ModelSpec, tmp_path: Path) -> None:
    folder = saved(attached(load_base(base), LoraSpec(r=4)), base, tmp_path / "adapter", "lora")
    config = LoraConfig.from_pretrained(folder)
    config.init_lora_weights = "pissa"
    config.save_pretrained(folder)
    record = json.loads((folder / "adapter.json").read_text())
    record["files"] = manifest(folder, record["files"])
    write_json(folder / "adapter.json", record)
    host = AdapterHost(load_base(base), base_fingerprint(base))
    before = logits(host.base)
    with pytest.raises(AdapterError, match="changes the base's own weights"):
        host.load("x", folder)
    assert torch.equal(logits(host.base), before)


@pytest.mark.parametrize("rslora", [False, True])
def test_pissa_is_saved_as_plain_lora_of_the_unchanged_base(base: ModelSpec, tmp_path: Path, rslora: bool) -> None:
    model = attached(load_base(base), LoraSpec(r=4, init="pissa", rslora=rslora))
    changed = model.get_base_model().model.layers[0].self_attn.q_proj.weight
    assert not torch.allclose(changed, load_base(base).model.layers[0].self_attn.q_proj.weight, atol=1e-3)
    assert torch.allclose(logits(model), logits(load_base(base)), atol=1e-5)
    expected = logits(steps(model))
    folder = saved(model, base, tmp_path / "adapter", "lora")
    config = PeftConfig.from_pretrained(folder)
    assert (config.r, config.init_lora_weights) == (8, True)
    host = AdapterHost(load_base(base), base_fingerprint(base))
    host.load("x", folder)
    with host.active("x") as live:
        assert torch.allclose(logits(live), expected, atol=1e-5)


def test_loftq_starts_nearer_to_the_unquantized_weights(base: ModelSpec) -> None:
    packed = base.model_copy(update={"quantization": QuantizationSpec(bits=4)})
    full = dict(load_base(base).named_modules())

    def error(init: str) -> float:
        model = attached(load_base(packed), LoraSpec(r=16, init=init), unquantized=lambda: load_base(base))
        layer = model.get_base_model().model.layers[0].mlp.up_proj
        identity = torch.eye(layer.in_features)
        with torch.inference_mode():
            return (layer(identity).T - full["model.layers.0.mlp.up_proj"].weight).norm().item()

    assert error("loftq") < 0.8 * error("default")


def test_loftq_without_the_full_weights_is_refused(base: ModelSpec) -> None:
    packed = base.model_copy(update={"quantization": QuantizationSpec(bits=4)})
    with pytest.raises(ModelError, match="needs the base's unquantized weights"):
        attached(load_base(packed), LoraSpec(init="loftq"))


def test_adalora_takes_ranks_away_until_the_budget_is_met(base: ModelSpec, tmp_path: Path) -> None:
    spec = AdaLoraSpec(method="adalora", init_r=6, target_r=2, interval=1, warmup_share=0.2, final_share=0.2)
    model = attached(load_base(base), spec)
    hook = step_hook(model)
    values = [parameter for name, parameter in model.named_parameters() if "lora_E" in name]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    ranks = []
    for step in range(1, 11):
        torch.nn.functional.cross_entropy(model(input_ids=IDS).logits[0, :-1], IDS[0, 1:]).backward()
        hook.before_update()
        optimizer.step()
        hook.after_update(step)
        optimizer.zero_grad()
        ranks.append(sum(int((value != 0).sum()) for value in values))
    assert ranks[0] == ranks[1] == 6 * len(values)
    assert ranks == sorted(ranks, reverse=True) and ranks[4] < ranks[1]
    assert ranks[-1] == 2 * len(values)
    expected = logits(model.eval())
    folder = saved(model, base, tmp_path / "adapter", "adalora")
    host = AdapterHost(load_base(base), base_fingerprint(base))
    host.load("x", folder)
    with host.active("x") as live:
        assert torch.allclose(logits(live), expected, atol=1e-5)


def test_adalora_regularises_as_peft_does(base: ModelSpec) -> None:
    spec = AdaLoraSpec(method="adalora", init_r=6, target_r=2)

    def gradients(by_hook: bool) -> list[torch.Tensor]:
        model = attached(load_base(base), spec)
        if by_hook:
            model.get_base_model()(input_ids=IDS, labels=IDS).loss.backward()
            step_hook(model).before_update()
        else:
            model(input_ids=IDS, labels=IDS).loss.backward()  # PEFT adds the regulariser to a loss it can see
        return [parameter.grad for name, parameter in model.named_parameters() if "lora_A" in name]

    for ours, theirs in zip(gradients(True), gradients(False), strict=True):
        assert ours.abs().sum() > 0 and torch.allclose(ours, theirs, atol=1e-6)


def test_adalora_needs_the_number_of_steps(base: ModelSpec) -> None:
    with pytest.raises(ModelError, match="number of steps"):
        attach_adapter(load_base(base), AdaLoraSpec(method="adalora"), seed=0, base_name="tiny")


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("placement", ["houlsby", "pfeiffer", "parallel"])
def test_bottlenecks_start_as_the_base_in_every_family(family: str, placement: str) -> None:
    plain = logits(tiny_model(family))
    spec = BottleneckSpec(method="bottleneck", placement=placement, size=8)
    model = tiny_model(family)
    if placement == "parallel" and not hasattr(_block(model), "mlp"):
        with pytest.raises(ModelError, match="'pfeiffer' or 'houlsby'"):
            attached(model, spec)
        return
    model = attached(model, spec)
    assert torch.equal(logits(model), plain)
    wrapped = [name for name, module in model.named_modules() if hasattr(module, "bottleneck_down")]
    assert len(wrapped) == (4 if placement == "houlsby" else 2)
    assert not torch.allclose(logits(steps(model)), plain, atol=1e-3)


def _block(model: Any) -> torch.nn.Module:
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return next(each for each in lists if len(each) == model.config.num_hidden_layers)[0]


def test_bottleneck_computes_what_the_paper_says() -> None:
    model = attached(tiny_model(), BottleneckSpec(method="bottleneck", size=8, activation="gelu", scale=3))
    layer = model.get_base_model().model.layers[1].mlp.down_proj
    torch.nn.init.normal_(layer.bottleneck_up["default"].weight)
    hidden = torch.randn(2, 5, layer.base_layer.in_features)
    result = layer.base_layer(hidden)
    inner = torch.nn.functional.gelu(layer.bottleneck_down["default"](result))
    assert torch.allclose(layer.eval()(hidden), result + 3 * layer.bottleneck_up["default"](inner), atol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_ia3_finds_its_layers_in_every_family(family: str) -> None:
    plain = logits(tiny_model(family))
    model = attached(tiny_model(family), Ia3Spec(method="ia3"))
    assert torch.allclose(logits(model), plain, atol=1e-6)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(names) in (4, 6)  # keys and values apart or fused, and the feed-forward, in two layers
    assert not any("q_proj" in name or "lm_head" in name for name in names)


def test_prompts_give_logits_of_the_text_only() -> None:
    model = attached(tiny_model(), PromptSpec(method="prompt", num_virtual_tokens=4))
    every = logits(model)
    assert every.shape[1] == IDS.shape[1]
    assert torch.allclose(logits(model, logits_to_keep=torch.tensor([3, 7])), every[:, [3, 7]], atol=1e-6)
    assert torch.allclose(logits(model, logits_to_keep=2), every[:, -2:], atol=1e-6)


def test_a_prompt_starts_from_the_embeddings_of_its_text(base: ModelSpec) -> None:
    spec = PromptSpec(method="prompt", num_virtual_tokens=4, init="text", text="ab")
    model = attached(load_base(base), spec)
    embedded = model.get_base_model().get_input_embeddings().weight
    start = model.prompt_encoder["default"].embedding.weight
    assert torch.equal(start[0], start[2]) and (embedded == start[0]).all(dim=1).any()
    assert model.peft_config["default"].tokenizer_name_or_path == "tiny"


@pytest.mark.parametrize(
    "spec", [PartialSpec(method="partial", last_n_layers=1), PartialSpec(method="partial", embeddings=True)]
)
def test_partial_training_leaves_the_rest_frozen(spec: PartialSpec) -> None:
    model = attached(tiny_model(), spec)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if spec.embeddings:
        assert {name.split(".")[-2] for name in trained} <= {"embed_tokens", "lm_head"}
    else:
        assert trained and all(name.startswith("model.layers.1.") for name in trained)


def test_more_layers_than_there_are_is_refused() -> None:
    with pytest.raises(ModelError, match="last_n_layers is 3, but this model has 2 blocks"):
        attached(tiny_model(), PartialSpec(method="partial", last_n_layers=3))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hra", {"rr": 4}, "adapter.options.rr is no option of PEFT's hra; did you mean 'r'"),
        ("hra", {"zzzzz": 4}, "known here: .*apply_GS.*target_modules"),
        ("nothing", {}, "is no PEFT method; known: .*hra"),
        ("cpt", {}, "cannot be trained here: it computes its own loss"),
        ("lora", {"bias": "all"}, "adapter.options.bias 'all' trains the base's own biases"),
        ("lora", {"init_lora_weights": "pissa"}, "use adapter.method lora and its init"),
        ("hra", {"r": -1}, "does not fit 'tiny'"),
    ],
)
def test_a_wrong_peft_method_or_option_names_the_right_ones(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        attached(tiny_model(), PeftSpec(method="peft", name=name, options=options))


def test_a_peft_method_that_misreads_quantized_weights_is_refused(base: ModelSpec) -> None:
    packed = base.model_copy(update={"quantization": QuantizationSpec(bits=8)})
    with pytest.raises(ModelError, match="not known to train rightly on a quantized base"):
        attached(load_base(packed), PeftSpec(method="peft", name="hra"))

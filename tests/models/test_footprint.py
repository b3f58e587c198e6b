"""Memory worked out on tensors without data, beside what is really kept, and the page that is written from it."""

import inspect

import pytest
import torch
from transformers import AutoConfig, LlamaForCausalLM

from benchmarks import footprint as page
from didact.models.adapter.attach import attach_adapter
from didact.models.base.load import load_base
from didact.models.dropout import turn_off_dropout
from didact.models.footprint import CUT, OFFLOADED, Demand, Load, StateSharding, demand_of, fewest
from didact.models.footprint.activations import layers_alike, measure_activations
from didact.models.footprint.counting import Subject
from didact.models.packing.packed_attention import use_packed_attention
from didact.spec import (
    FullSpec,
    LohaSpec,
    LoraSpec,
    MethodSpec,
    ModelSpec,
    PartialSpec,
    PeftSpec,
    QuantizationSpec,
    ShardingSpec,
)
from tests.fakes.models import UNUSUAL, save_tiny_base, tiny_model

GIB = 2**30
DEMAND = Demand(
    num_parameters=110 * GIB,
    num_trainable=10 * GIB,
    trains_base=False,
    base=200.0 * GIB,
    adapter=40.0 * GIB,
    block=2.0 * GIB,
    outside_blocks=8.0 * GIB,
    activations=4.0 * GIB,
    logits=1.0 * GIB,
    on_cpu=False,
    accumulates=True,
    flops=1.0,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_base(tmp_path_factory.mktemp("base")))


def really_kept(model: torch.nn.Module, load: Load, dtype: torch.dtype) -> int:
    """Bytes that the forward pass of a model with values leaves for its backward pass."""
    own = {each.untyped_storage().data_ptr() for each in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    count, length = load.rows
    ids, positions = torch.arange(count * length)[None] % 256, torch.arange(length).repeat(count)[None]
    model.train()
    base = getattr(model, "get_base_model", lambda: model)()
    base.get_output_embeddings().forward = lambda states: states
    inputs = {"position_ids": positions} if "position_ids" in inspect.signature(base.forward).parameters else {}
    autocast = torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        hidden = model(input_ids=ids, use_cache=False, **inputs).logits
    assert hidden.requires_grad
    return sum(each.untyped_storage().nbytes() for each in kept.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", [LoraSpec(r=4), FullSpec(method="full")], ids=["lora", "full"])
def test_what_is_counted_without_data_is_what_is_kept(base: str, dtype: str, adapter: MethodSpec) -> None:
    load, spec = Load(tokens=600, sample_tokens=200), ModelSpec(base=base, dtype=dtype)
    subject = Subject(spec, adapter)
    counted = measure_activations(AutoConfig.from_pretrained(base), subject.attached, load, subject.compute)
    held = spec.model_copy(update={"dtype": "float32"}) if adapter.trains_base else spec
    real = load_base(held)
    assert use_packed_attention(real, 200)
    model = attach_adapter(real, adapter, seed=0, base_name="tiny")
    kept = really_kept(model, load, subject.compute)
    assert counted.total == pytest.approx(kept, rel=0.02)


@pytest.mark.parametrize("family", sorted(UNUSUAL.keys() - {"jetmoe"}))
def test_families_whose_layers_differ_are_counted_as_they_are(family: str) -> None:
    model, spec, load = tiny_model(family), ModelSpec(base=family, dtype="float32"), Load(tokens=60)
    subject = Subject(spec, LoraSpec(r=2))
    alike = layers_alike(subject.attached(model.config))
    assert alike is (family not in ("deepseek_v2", "deepseek_v3", "deepseek_v32", "jamba"))
    counted = measure_activations(model.config, subject.attached, load, subject.compute, alike=alike)
    turn_off_dropout(model)  # as training does unless `training.base_dropout` is on
    switched = use_packed_attention(model, 60)
    adapted = attach_adapter(model, LoraSpec(r=2), seed=0, base_name="tiny")
    assert not counted.rough
    # PyTorch's SDPA keeps other things with a mask, which a lone sample that is counted does not need.
    assert counted.total == pytest.approx(really_kept(adapted, load, torch.float32), rel=0.02 if switched else 0.08)


def test_a_forward_pass_that_reads_values_is_counted_roughly() -> None:
    model, load = tiny_model("jetmoe"), Load(tokens=60)
    demand = demand_of(model.config, ModelSpec(dtype="float32"), LoraSpec(r=2), load)
    assert demand.rough
    adapted = attach_adapter(model, LoraSpec(r=2), seed=0, base_name="tiny")
    assert 0.3 < demand.activations / really_kept(adapted, load, torch.float32) < 3


@pytest.mark.parametrize(
    "adapter",
    [
        LoraSpec(r=2, target_modules=("layers.5.self_attn.q_proj", "layers.5.mlp.up_proj")),
        LoraSpec(r=2, target_modules=r".*\.layers\.(4|5)\..*_proj"),
        LoraSpec(r=2, target_modules=tuple(f"layers.{number}.self_attn.q_proj" for number in range(6))),
        PeftSpec(
            method="peft", name="lora", options={"r": 2, "target_modules": ["q_proj"], "layers_to_transform": [5]}
        ),
        PartialSpec(method="partial", last_n_layers=2),
    ],
    ids=["last", "expression", "each named", "peft", "partial"],
)
def test_an_adapter_on_some_layers_is_counted_there(base: str, adapter: MethodSpec) -> None:
    config = AutoConfig.from_pretrained(base)
    config.num_hidden_layers = 6
    demand = demand_of(config, ModelSpec(base=base, dtype="float32"), adapter, Load(tokens=60))
    real = attach_adapter(LlamaForCausalLM(config).requires_grad_(False), adapter, seed=0, base_name="tiny")
    assert demand.num_trainable == sum(each.numel() for each in real.parameters() if each.requires_grad)
    use_packed_attention(getattr(real, "get_base_model", lambda: real)(), 60)
    counted = measure_activations(
        config, Subject(ModelSpec(dtype="float32"), adapter).attached, Load(tokens=60), torch.float32, alike=False
    )
    assert counted.total == pytest.approx(really_kept(real, Load(tokens=60), torch.float32), rel=0.04)


def test_only_chosen_experts_compute() -> None:
    config = tiny_model("mixtral").config
    one, two = (
        demand_of(config, ModelSpec(dtype="float32"), LoraSpec(r=2), Load(60)).flops
        for config.num_experts_per_tok in (1, 2)
    )
    assert one < two < 1.7 * one


def test_methods_that_drop_layers_at_random_are_counted(base: str) -> None:
    demand = demand_of(AutoConfig.from_pretrained(base), ModelSpec(base=base), LohaSpec(method="loha", r=4), Load(64))
    assert demand.activations > 0


def test_recomputing_keeps_less_and_longer_rows_keep_more(base: str) -> None:
    config, model = AutoConfig.from_pretrained(base), ModelSpec(base=base, dtype="float32")
    config.num_hidden_layers = 12
    kept, recomputed, longer = (
        demand_of(config, model, LoraSpec(r=4), load).activations
        for load in (Load(256), Load(256, recompute=True), Load(512))
    )
    assert recomputed < kept / 2
    assert longer == pytest.approx(2 * kept, rel=0.05)


def test_a_quantized_base_is_small_and_its_embeddings_are_not_packed(base: str) -> None:
    config = AutoConfig.from_pretrained(base)
    plain = load_base(ModelSpec(base=base, dtype="float32"))
    linear = sum(
        each.weight.numel()
        for each in plain.modules()
        if isinstance(each, torch.nn.Linear) and each is not plain.get_output_embeddings()
    )
    rest = sum(each.numel() for each in plain.parameters()) - linear
    for bits, low, high in ((4, 0.5, 0.6), (8, 1.0, 1.01)):
        model = ModelSpec(base=base, dtype="bfloat16", quantization=QuantizationSpec(bits=bits))
        size = demand_of(config, model, LoraSpec(r=4), Load(64)).base - 2 * rest
        assert low * linear <= size <= high * linear


def test_strategies_cut_what_they_say() -> None:
    def of(workers: int = 4, *, trains_base: bool = False, **options: object) -> tuple[float, float, float]:
        spec = ShardingSpec.model_validate(options)
        cut = StateSharding.of(spec, workers, trains_base=trains_base, on_cpu=False)
        footprint = DEMAND.footprint(cut)
        return footprint.weights_gib, footprint.gradients_gib, footprint.optimizer_gib

    assert of(strategy="ddp") == (240, 40, 80)
    assert of(strategy="fsdp") == (50 + 40, 40, 80), "an adapter stays whole"
    assert of(strategy="fsdp", trains_base=True) == (50 + 40, 10, 20)
    assert of(strategy="zero1") == (240, 40, 30), "with DeepSpeed's own copy of the weights"
    assert of(strategy="zero2") == (240, 10, 30)
    assert of(strategy="zero3") == (60, 10, 30)
    assert of(strategy="zero3", cpu_offload=True) == (0, 0, 0)
    assert of(strategy="fsdp", cpu_offload=True) == (40, 40, 80)
    assert of(1, strategy="fsdp") == of(strategy="ddp"), "one worker alone has nothing to share"


def test_blocks_are_gathered_and_kept_as_asked() -> None:
    def activations(**options: object) -> float:
        spec = ShardingSpec.model_validate({"strategy": "fsdp", **options})
        return DEMAND.footprint(StateSharding.of(spec, 4, trains_base=False, on_cpu=False)).activations_gib

    # The message of the adapter's gradients, 40 GiB, is larger than the activations, which are gone by then.
    assert activations() == 40 + 8 + 2 * 2
    assert activations(reshard_after_forward=False) == 40 + 200


def test_fewest_is_the_smallest_that_fits() -> None:
    fit = fewest(DEMAND, 300, CUT)
    assert fit is not None and fit.footprint.total_gib <= 300
    halved = StateSharding.of(fit.sharding, fit.count // 2, trains_base=False, on_cpu=False)
    assert fit.count > 1 and DEMAND.footprint(halved).total_gib > 300
    assert fewest(DEMAND, 10, CUT) is None
    offloaded = fewest(DEMAND, 300, OFFLOADED)
    assert offloaded is not None and offloaded.count == 1 and offloaded.sharding.cpu_offload


def test_the_page_says_what_is_computed() -> None:
    assert page.PAGE.read_text(encoding="utf-8").startswith(page.accelerator_table())


def test_the_measured_table_is_within_a_fifth() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text[text.index("| setting |") :].splitlines()[2:]]
    assert len(rows) == 9
    for _, _, estimate, _, measured, ratio in rows:
        assert float(estimate) / float(measured) == pytest.approx(float(ratio), abs=0.01)
        assert 0.8 <= float(ratio) <= 1.2


def test_on_a_gpu_the_backward_pass_takes_the_room_of_logits_that_are_gone() -> None:
    def at_once(vocabulary: int, supervised_share: float) -> float:
        model = tiny_model()
        model.config.vocab_size = vocabulary
        load = Load(256, 32, supervised_share, recompute=True, on_cpu=False)
        demand = demand_of(model.config, ModelSpec(dtype="bfloat16"), LoraSpec(r=2), load)
        return demand.activations + demand.logits

    assert at_once(400, 0.1) == at_once(300, 0.1), "few logits: the block's gradients need more"
    assert at_once(20_000, 1.0) > at_once(10_000, 1.0) > at_once(400, 0.1)

"""Merging tensor by tensor equals PEFT's merge of the whole model, in flat memory; what is wrong is refused."""

import ctypes
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from didact.errors import AdapterError, ModelError
from didact.gpu_proof.methods import METHODS
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import (
    AdapterHost,
    Manners,
    attach_adapter,
    base_fingerprint,
    load_base,
    merge_adapter,
    save_adapter,
    verify_adapter,
)
from didact.models.adapter.put_weights import put_weights, read_config
from didact.models.export.hollow import hollow_model
from didact.models.export.stream import MergedWeights
from didact.models.weight_files import ShardWriter, read_shards
from didact.spec import LimitsSpec, LoraSpec, MergeSpec, ModelSpec, PartialSpec, PeftSpec, PrefixSpec
from didact.spec import QuantizationSpec as Bits
from tests.fakes.adapters import make_adapter
from tests.fakes.models import save_tiny_base

IDS = torch.arange(20).unsqueeze(0)
LINEAR = [
    *(
        "lora",
        "lora, rsLoRA",
        "lora, DoRA",
        "lora, PiSSA start",
        "adalora",
        "ia3",
        "vera",
        "oft",
        "boft",
        "loha",
        "lokr",
    ),
    *("peft: hra", "peft: fourierft", "peft: miss", "peft: ln_tuning"),
]


def sharded_base(folder: Path, family: str = "llama") -> ModelSpec:
    """A tiny base in many small files."""
    save_tiny_base(folder, family)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 3
    return ModelSpec(base=str(folder), dtype="float32")


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def live(base: ModelSpec, adapter: Path) -> torch.Tensor:
    host = AdapterHost(load_base(base), base_fingerprint(base))
    host.load("live", adapter)
    with host.active("live") as model:
        return logits(model)


def merged_by_peft(base: ModelSpec, adapter: Path) -> PreTrainedModel:
    model = PeftModel(load_base(base), read_config(adapter))
    put_weights(model, "default", load_file(adapter / "adapter_model.safetensors"))
    return model.merge_and_unload(safe_merge=True)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for shard in read_shards(folder) for name, tensor in shard}


@pytest.mark.parametrize("method", LINEAR)
def test_every_method_merges_to_what_peft_makes_of_the_whole_model(tmp_path: Path, method: str) -> None:
    base = sharded_base(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", METHODS[method])
    proof = merge_adapter(base, adapter, tmp_path / "merged")
    expected, found = merged_by_peft(base, adapter).state_dict(), tensors_of(tmp_path / "merged")
    assert found.keys() == expected.keys()
    assert max((found[name] - expected[name]).abs().max() for name in expected) < 1e-6
    assert proof.distances[0].mean_kl > 100 * proof.merged.mean_kl  # an adapter that changes nothing proves nothing


@pytest.mark.parametrize("family", ["gpt2", "bloom", "glm", "falcon", "opt", "gpt_neox", "gemma"])
def test_every_family_merges_by_the_names_in_its_files(tmp_path: Path, family: str) -> None:
    base = sharded_base(tmp_path / "base", family)
    adapter = make_adapter(base, tmp_path / "adapter", LoraSpec(r=2))
    merge_adapter(base, adapter, tmp_path / "merged")
    merged = load_base(ModelSpec(base=str(tmp_path / "merged"), dtype="float32"))
    assert torch.allclose(logits(merged), live(base, adapter), atol=1e-4)
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["architectures"] == [type(merged).__name__]


def test_files_without_the_models_prefix_are_understood(tmp_path: Path) -> None:
    folder = save_tiny_base(tmp_path / "base", "gpt2")
    AutoModelForCausalLM.from_pretrained(folder).transformer.save_pretrained(folder)
    assert "h.0.attn.c_attn.weight" in tensors_of(folder)
    base = ModelSpec(base=str(folder), dtype="float32")
    adapter = make_adapter(base, tmp_path / "adapter", LoraSpec(r=2))
    merge_adapter(base, adapter, tmp_path / "merged")
    merged = load_base(ModelSpec(base=str(tmp_path / "merged"), dtype="float32"))
    assert torch.allclose(logits(merged), live(base, adapter), atol=1e-4)


@pytest.mark.parametrize("targets", [("lm_head",), ("wte",), ("wte", "lm_head", "c_attn"), ".*(wte|c_attn)"])
def test_tied_embeddings_come_apart_when_one_of_them_changes(tmp_path: Path, targets: str | tuple[str, ...]) -> None:
    base = ModelSpec(base=str(save_tiny_base(tmp_path / "base", "gpt2")), dtype="float32")
    assert load_base(base).config.tie_word_embeddings
    adapter = make_adapter(base, tmp_path / "adapter", LoraSpec(r=2, target_modules=targets))
    merge_adapter(base, adapter, tmp_path / "merged")
    merged = load_base(ModelSpec(base=str(tmp_path / "merged"), dtype="float32"))
    assert torch.allclose(logits(merged), live(base, adapter), atol=1e-4)
    assert not merged.config.tie_word_embeddings


def test_partly_trained_weights_are_put_in_and_tied_ones_stay_tied(tmp_path: Path) -> None:
    base = ModelSpec(base=str(save_tiny_base(tmp_path / "base", "gpt2")), dtype="float32")
    adapter = make_adapter(base, tmp_path / "adapter", PartialSpec(method="partial", last_n_layers=1, embeddings=True))
    merge_adapter(base, adapter, tmp_path / "merged")
    merged = load_base(ModelSpec(base=str(tmp_path / "merged"), dtype="float32"))
    assert torch.allclose(logits(merged), live(base, adapter), atol=1e-5)
    assert merged.config.tie_word_embeddings


@pytest.fixture
def prompt_memory() -> Iterator[None]:
    """Has the C library give freed tensors back at once, so that resident memory is what is held."""
    library, threshold = ctypes.CDLL(None), -3  # M_MMAP_THRESHOLD
    library.mallopt(threshold, 1 << 16)
    library.malloc_trim(0)
    yield
    library.mallopt(threshold, 1 << 25)


@pytest.mark.usefixtures("prompt_memory")
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """Twice the layers, the same peak: a few of 15 files. A first merge imports modules, and is not measured."""
    _merging_growth_mib(tmp_path / "2", 2)
    growth = [_merging_growth_mib(tmp_path / str(layers), layers) for layers in (12, 24)]
    size = sum(file.stat().st_size for file in (tmp_path / "24" / "base").glob("*.safetensors")) / 2**20
    assert size > 280
    assert growth[1] < growth[0] + 25 and growth[1] < size / 2, growth


def _merging_growth_mib(folder: Path, layers: int) -> float:
    shape = {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "vocab_size": 300}
    config = AutoConfig.for_model("llama", num_hidden_layers=layers, **shape)
    config.save_pretrained(folder / "base")
    names = hollow_model(config).state_dict()
    writer = ShardWriter(folder / "base", 20 * 2**20)
    for name, tensor in names.items():
        writer.add(name, torch.full(tensor.shape, 0.01))
    writer.close()
    wrapped = attach_adapter(hollow_model(config), LoraSpec(r=2), seed=0, base_name="many layers")
    (folder / "adapter").mkdir(parents=True)
    save_adapter(wrapped, folder / "adapter", base="x", base_fingerprint="x", method="lora")
    (folder / "merged").mkdir()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _status_mib("VmRSS")
    merged = MergedWeights(hollow_model(config), folder / "adapter", partial=False, quantization=None)
    output = ShardWriter(folder / "merged", 20 * 2**20)
    for name, tensor, dtype in merged.of(folder / "base"):
        output.add(name, tensor.to(dtype))
    output.close()
    return _status_mib("VmHWM") - before


def _status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def test_files_are_numbered_and_indexed(tmp_path: Path) -> None:
    base = ModelSpec(base=str(save_tiny_base(tmp_path / "base")), dtype="float32")
    adapter = make_adapter(base, tmp_path / "adapter", LoraSpec(r=2))
    merge_adapter(base, adapter, tmp_path / "merged", MergeSpec(shard_gib=100_000 / 2**30))
    files = sorted(file.name for file in (tmp_path / "merged").glob("*.safetensors"))
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors" and len(files) > 2
    assert set(index["weight_map"].values()) == set(files)
    assert index["metadata"]["total_size"] == sum(each.nbytes for each in tensors_of(tmp_path / "merged").values())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("bits", [Bits(bits=4), Bits(bits=4, type="fp4", double=False)])
def test_an_adapter_of_a_quantized_base_is_merged_into_the_weights_it_met(
    tmp_path: Path, family: str, bits: Bits
) -> None:
    base = ModelSpec(base=str(save_tiny_base(tmp_path / "base", family)), dtype="float32", quantization=bits)
    adapter = make_adapter(base, tmp_path / "adapter", LoraSpec(r=2))
    assert verify_adapter(adapter).quantization == bits
    proof = merge_adapter(base.model_copy(update={"quantization": None}), adapter, tmp_path / "merged")
    assert proof.merged.max_logit_difference < 1e-3 and proof.distances[2].of == "merged in 4 bits"
    merged = load_base(ModelSpec(base=str(tmp_path / "merged"), dtype="float32"))
    assert torch.allclose(logits(merged), live(base, adapter), atol=1e-3)
    original = merge_adapter(base, adapter, tmp_path / "original", MergeSpec(weights="original"))
    assert original.merged.mean_kl > 10 * proof.merged.mean_kl
    record = json.loads((tmp_path / "original" / "proof.json").read_text())
    assert record["merged_into"] == "original" and record["quantization_in_training"] == bits.model_dump()


def test_an_8_bit_base_is_merged_up_to_its_rounding_of_activations(tmp_path: Path) -> None:
    base = ModelSpec(base=str(save_tiny_base(tmp_path / "base")), dtype="float32", quantization=Bits(bits=8))
    adapter = make_adapter(base, tmp_path / "adapter", LoraSpec(r=2))
    proof = merge_adapter(base, adapter, tmp_path / "merged")
    assert proof.merged.mean_kl < 1e-3 < proof.distances[0].mean_kl


def test_a_loftq_adapter_is_kept_to_its_quantization(tmp_path: Path) -> None:
    full = ModelSpec(base=str(save_tiny_base(tmp_path / "base")), dtype="float32")
    held = full.model_copy(update={"quantization": Bits(bits=4)})
    adapter = make_adapter(held, tmp_path / "adapter", LoraSpec(r=2, init="loftq"))
    for other in (full, full.model_copy(update={"quantization": Bits(bits=4, type="fp4")})):
        with pytest.raises(AdapterError, match=r"LoftQ.*Expected the base with model.quantization bits=4"):
            AdapterHost(load_base(other), base_fingerprint(other)).load("one", adapter)
    with pytest.raises(AdapterError, match="set weights to 'trained'"):
        merge_adapter(full, adapter, tmp_path / "merged", MergeSpec(weights="original"))
    merge_adapter(full, adapter, tmp_path / "merged")
    merged = load_base(ModelSpec(base=str(tmp_path / "merged"), dtype="float32"))
    assert torch.allclose(logits(merged), live(held, adapter), atol=1e-3)


def test_an_export_past_its_limits_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    base = ModelSpec(base=str(save_tiny_base(tmp_path / "base")), dtype="float32")
    adapter = make_adapter(base, tmp_path / "adapter", LoraSpec(r=2))
    narrow = MergeSpec(dtype="bfloat16", rounded=LimitsSpec(mean_kl=1e-9, min_top1_agreement=0))
    with pytest.raises(ModelError, match=r"merged is too far from base \+ adapter .* mean KL"):
        merge_adapter(base, adapter, tmp_path / "merged", narrow)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["adapter", "base"]
    proof = merge_adapter(base, adapter, tmp_path / "merged", MergeSpec(dtype="bfloat16"))
    assert 1e-9 < proof.merged.mean_kl < 1e-2
    assert {each.dtype for each in tensors_of(tmp_path / "merged").values()} == {torch.bfloat16}
    asked = MergeSpec(requantize=Bits(bits=4), quantized=LimitsSpec(mean_kl=1e-9, min_top1_agreement=0))
    with pytest.raises(ModelError, match="merged in 4 bits is too far"):
        merge_adapter(base, adapter, tmp_path / "again", asked)


def test_prompts_and_numbers_too_large_for_the_format_are_refused(tmp_path: Path) -> None:
    base = ModelSpec(base=str(save_tiny_base(tmp_path / "base")), dtype="float32")
    prefix = make_adapter(base, tmp_path / "prefix", PrefixSpec(method="prefix"))
    with pytest.raises(AdapterError, match="no weights to merge"):
        merge_adapter(base, prefix, tmp_path / "merged")
    huge = make_adapter(base, tmp_path / "huge", LoraSpec(r=2, alpha=1e8))
    with pytest.raises(ModelError, match=r"infinite in torch\.float16"):
        merge_adapter(base, huge, tmp_path / "merged", MergeSpec(dtype="float16"))


def test_trained_token_rows_are_merged(tmp_path: Path) -> None:
    base = ModelSpec(base=str(save_tiny_base(tmp_path / "base")), dtype="float32")
    options = {"target_modules": ["embed_tokens"], "token_indices": [1, 2, 3]}
    adapter = make_adapter(
        base, tmp_path / "adapter", PeftSpec(method="peft", name="trainable_tokens", options=options)
    )
    merge_adapter(base, adapter, tmp_path / "merged")
    merged = load_base(ModelSpec(base=str(tmp_path / "merged"), dtype="float32"))
    assert torch.allclose(logits(merged), live(base, adapter), atol=1e-5)


def test_engines_find_how_the_model_wants_to_be_asked(tmp_path: Path) -> None:
    base = ModelSpec(base=str(save_tiny_base(tmp_path / "base")), dtype="float32")
    adapter = make_adapter(base, tmp_path / "adapter", LoraSpec(r=2))
    (tmp_path / "note.json").write_text("{}")
    manners = Manners(
        "{{ messages[0]['content'] }}!", (256, 258), {"temperature": 0.7}, [[5, 6, 7]], [tmp_path / "note.json"]
    )
    merge_adapter(base, adapter, tmp_path / "merged", manners=manners)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi!"
    generation = json.loads((tmp_path / "merged" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [256, 258] and generation["temperature"] == 0.7
    assert (tmp_path / "merged" / "note.json").is_file()
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] and config["torch_dtype"] == "float32"
    classes = json.loads((tmp_path / "merged" / "tokenizer_config.json").read_text())["tokenizer_class"]
    assert classes == "PreTrainedTokenizerFast" and tokenizer.get_vocab() == byte_tokenizer().get_vocab()


@pytest.mark.parametrize(("method", "package"), [("gptq", "optimum"), ("awq", "gptqmodel")])
def test_a_packed_checkpoint_names_the_package_it_needs(tmp_path: Path, method: str, package: str) -> None:
    base = ModelSpec(base=str(save_tiny_base(tmp_path / "base")), dtype="float32")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    packing = {"quant_method": method, "bits": 4, "group_size": 64, "zero_point": True, "version": "gemm"}
    (tmp_path / "base" / "config.json").write_text(json.dumps({**config, "quantization_config": packing}))
    with pytest.raises(ModelError, match=f"quantized by {method} and needs a package.*{package}"):
        load_base(base)
    with pytest.raises(ModelError, match=f"quantized already, by {method}; remove model.quantization"):
        load_base(base.model_copy(update={"quantization": Bits(bits=4)}))


def test_no_adapter_is_merged_into_a_packed_checkpoint(tmp_path: Path) -> None:
    base = ModelSpec(base=str(save_tiny_base(tmp_path / "base")), dtype="float32")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    adapter = make_adapter(base, tmp_path / "adapter", LoraSpec(r=2))
    (tmp_path / "base" / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "gptq"}})
    )
    record = json.loads((adapter / "adapter.json").read_text())
    (adapter / "adapter.json").write_text(json.dumps({**record, "base_fingerprint": base_fingerprint(base)}))
    with pytest.raises(ModelError, match="packed by gptq, which no adapter can be folded into"):
        merge_adapter(base, adapter, tmp_path / "merged")

"""One small base and its adapters for every engine of the contract, and what transformers answers on them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from didact import env
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost, attach_adapter, base_fingerprint, load_base, save_adapter
from didact.serving import AdapterRef, EmbeddedEngine, Engine, GenerationRequest
from didact.serving.engine.on_vllm import start_vllm
from didact.spec import LoraSpec, MethodSpec, ModelSpec, ServeSpec, VllmSpec
from didact.tokens import TemplateContract

ENGINES = ("embedded", *(("vllm",) if env.vllm_python() else ()))
"""`make test-vllm` says where vLLM is; without it only the embedded engine is asked."""
PLACES, ROWS, WAITING, CONTEXT = 2, 4, 16, 1024
# Heads of 32, the smallest that vLLM computes on a processor.
_SHAPE = {"vocab_size": 272, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": CONTEXT}
_SPECIAL = {"bos_token_id": None, "eos_token_id": 256, "pad_token_id": 257, "tie_word_embeddings": False}


@dataclass
class Contract:
    """An engine, and what it must do."""

    name: str
    engine: Engine
    base: ModelSpec
    adapters: tuple[AdapterRef, ...]

    @cached_property
    def _host(self) -> AdapterHost:
        host = AdapterHost(load_base(self.base), base_fingerprint(self.base))
        for adapter in self.adapters:
            host.load(adapter.version_id, adapter.folder)
        return host

    def oracle(self, wanted: GenerationRequest) -> list[int]:
        """Greedy `generate()` of a model with only this adapter."""
        ids = torch.tensor([wanted.prompt_ids])
        with self._host.active(wanted.adapter.version_id if wanted.adapter else None) as model:
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=wanted.max_new_tokens,
                eos_token_id=list(wanted.stop_token_ids) or None,
                pad_token_id=0,
            )
        return output[0, ids.shape[1] :].tolist()


def save_contract_base(folder: Path) -> ModelSpec:
    """A random llama whose answers are not all alike."""
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", **_SHAPE, **_HEADS, **_SPECIAL)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return ModelSpec(base=str(folder), dtype="float32")


def save_contract_adapter(base: ModelSpec, folder: Path, seed: int, spec: MethodSpec | None = None) -> AdapterRef:
    """An adapter strong enough to change the answers."""
    chosen = spec or LoraSpec(r=4)
    model: PreTrainedModel = attach_adapter(load_base(base), chosen, seed=seed, base_name="tiny", num_steps=20)
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir(parents=True)
    TemplateContract.build(byte_tokenizer(), "auto").save(folder)
    fingerprint = base_fingerprint(base)
    facts = save_adapter(model, folder, base="tiny", base_fingerprint=fingerprint, method=chosen.method)
    return AdapterRef(f"a{seed}:1#{facts.sha256[:12]}", folder)


def open_contract(name: str, folder: Path) -> Contract:
    """An engine of that name over the small base."""
    base = save_contract_base(folder / "base")
    methods = (LoraSpec(r=4), LoraSpec(r=8, rslora=True, target_modules=["q_proj", "v_proj"]), LoraSpec(r=2))
    adapters = tuple(
        save_contract_adapter(base, folder / f"a{seed}", seed, method) for seed, method in enumerate(methods, start=1)
    )
    limits = {"max_adapters": PLACES, "max_batch_size": ROWS, "max_waiting": WAITING}
    fingerprint = base_fingerprint(base)
    if name == "embedded":
        engine: Engine = EmbeddedEngine(AdapterHost(load_base(base), fingerprint), byte_tokenizer(), **limits)
    else:
        spec = ServeSpec(engine="vllm", model=base, vllm=VllmSpec(max_lora_rank=8, cache_gib=0.25), **limits)
        engine = start_vllm(
            spec, Path(base.base), byte_tokenizer(), fingerprint, dtype="float32", on_gpu=False, num_threads=1
        )
    return Contract(name, engine, base, adapters)

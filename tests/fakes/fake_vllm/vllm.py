"""As much of vLLM's surface as didact's process beside it uses, with a model whose answers are plain to see.

A row's next token is the sum of its prompt and answer plus its adapter's weight; the adapter must have been loaded.
Commands come in the first token of a prompt. `FAKE_VLLM` in the environment says what is wrong with this build.
"""

import asyncio
import os
import sys
import types
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

if not os.environ.get("FAKE_GUIDED"):
    # Without it no tokenizer is read, which takes loading transformers.
    sys.modules["llguidance"] = None  # type: ignore[assignment]

__version__ = "0.0.fake"
__path__: list[str] = []
VOCABULARY = 256
DIE, FAIL, ENDLESS = 250, 251, 252
STEP = 0.001
WRONG = os.environ.get("FAKE_VLLM", "")


class SamplingParams(types.SimpleNamespace):
    """Whatever is given."""


class AsyncLLM:
    """Answers by arithmetic."""

    def __init__(self, settings: dict) -> None:
        assert settings["skip_tokenizer_init"] == ("structured_outputs_config" not in settings)
        self.errored, self.dead_error = False, RuntimeError("the fake engine died")
        self.loaded: dict[int, int] = {}
        self.last, self.adapted = 0, 0
        self.model_config = types.SimpleNamespace(
            max_model_len=settings["max_model_len"], get_vocab_size=lambda: VOCABULARY
        )
        self.vllm_config = types.SimpleNamespace(device_config=types.SimpleNamespace(device_type="cpu"))

    @classmethod
    def from_engine_args(cls, settings: dict, stat_loggers: list) -> "AsyncLLM":
        if WRONG == "start":
            print("ERROR the fake kernel is missing", flush=True)
            raise RuntimeError("engine core initialization failed")
        return cls(settings)

    async def add_lora(self, adapter) -> None:
        (file,) = Path(adapter.lora_path).glob("*.safetensors")
        weights = load_file(file)
        if WRONG == "rank":
            raise ValueError("rank is too high\nmore words")
        up = sum(float(np.abs(each).sum()) for name, each in weights.items() if "lora_B" in name)
        self.loaded[adapter.lora_int_id] = 0 if WRONG == "idle" else int(up * 1000) % 199 + 1 if up else 0
        self.last = self.loaded[adapter.lora_int_id]

    async def remove_lora(self, number: int) -> None:
        del self.loaded[number]

    async def generate(self, prompt: dict, params, request_id: str, lora_request=None, priority=0):
        ids, answer = list(prompt["prompt_token_ids"]), []
        if ids[0] == FAIL:
            raise ValueError("this request is refused")
        if ids[0] == ENDLESS:
            await asyncio.Event().wait()
        if ids[0] == DIE:
            self.errored = True
            raise self.dead_error
        if priority:  # told by an answer that begins with it
            ids = [priority]
        held = getattr(params, "structured_outputs", None)
        if held is not None and "refused" in held.grammar:
            raise ValueError("Grammar error: no rule of that name")
        self.adapted += lora_request is not None
        while True:
            await asyncio.sleep(STEP)
            mixed = WRONG == "mixed" and self.adapted  # as vLLM's kernels for processors
            weight = self.loaded[lora_request.lora_int_id] if lora_request else self.last if mixed else 0
            answer.append((sum(ids) + len(answer) + weight) % VOCABULARY)
            if held is not None:  # done with the grammar at once
                answer[-1] = 256
            token = answer[-1]
            told = {token: types.SimpleNamespace(rank=1, logprob=-0.1)}
            told[(token + 1) % VOCABULARY] = types.SimpleNamespace(rank=2, logprob=-3.0)
            stopped = token in params.stop_token_ids and len(answer) > params.min_tokens
            reason = "stop" if stopped else "length" if len(answer) == params.max_tokens else None
            scored = [None, *({one: types.SimpleNamespace(rank=1, logprob=-0.5)} for one in ids[1:])]
            scored = scored if len(answer) == 1 and getattr(params, "prompt_logprobs", None) is not None else None
            output = types.SimpleNamespace(
                token_ids=[token], logprobs=None if params.logprobs is None else [told], finish_reason=reason
            )
            yield types.SimpleNamespace(outputs=[output], num_cached_tokens=0, metrics=None, prompt_logprobs=scored)
            if reason:
                self.adapted -= lora_request is not None
                return

    def shutdown(self) -> None: ...


def _module(name: str, **names) -> None:
    module = types.ModuleType(f"vllm.{name}")
    module.__path__ = []
    vars(module).update(names)
    sys.modules[f"vllm.{name}"] = module


_module("lora")
_module("lora.request", LoRARequest=lambda **fields: types.SimpleNamespace(**fields))
_module("config", StructuredOutputsConfig=lambda **fields: types.SimpleNamespace(**fields))
_module(
    "sampling_params",
    RequestOutputKind=types.SimpleNamespace(DELTA="delta"),
    StructuredOutputsParams=lambda **fields: types.SimpleNamespace(**fields),
)
_module("engine")
_module("engine.arg_utils", AsyncEngineArgs=lambda **settings: settings)
_module("v1")
_module("v1.engine")
_module("v1.engine.async_llm", AsyncLLM=AsyncLLM)
_module("v1.metrics")
_module("v1.metrics.loggers", StatLoggerBase=object)

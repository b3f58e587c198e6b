"""`ServeSpec`: the arguments of the serving application, as in `serve/*.yaml` under `args:`."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from didact.spec.base import Spec
from didact.spec.batches import BatchesSpec
from didact.spec.model import ModelSpec
from didact.spec.training import MlflowAddress

PREDICTED_TOKENS = 256
"""Longest answer to a line of a file of prompts."""


class VllmSpec(Spec):
    """The engine vLLM, in a process and an environment of its own."""

    python: str | None = None
    """The Python of the environment that vLLM is installed in, on every node with replicas; default:
    `DIDACT_VLLM_PYTHON`, else the one that didact runs with."""
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = 64
    """Highest rank of an adapter; every place for one takes memory for it."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share the base's layers; the replica's `num_gpus` must be as many."""
    max_context_length: int | None = Field(default=None, ge=1)
    """Tokens of prompt and answer together; default: as many as the base has."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of each GPU's memory for weights, adapters, keys and values; without effect where `cache_gib` is set."""
    cache_gib: float | None = Field(default=None, gt=0)
    """Memory for keys and values, in GiB; default: what `gpu_memory_utilization` leaves, 4 on a processor."""
    prefix_cache: bool = True
    """Keep keys and values of prompts for later ones of the same adapter version that begin alike."""
    compile: bool = True
    """Compile the model and record CUDA graphs at start; without it a replica starts sooner and answers slower. On a
    processor nothing is compiled."""
    start_timeout_seconds: float = Field(default=1200, gt=0)
    """How long vLLM may take to start."""


class ServeSpec(Spec):
    """One base in memory and any number of registered adapters on it."""

    engine: Literal["embedded", "vllm"] = "embedded"
    """`embedded` serves every method and runs anywhere; `vllm` serves LoRA on GPUs faster, where it is installed."""
    vllm: VllmSpec = VllmSpec()
    """Settings of the engine `vllm`; without effect with another."""
    model: ModelSpec = ModelSpec()
    """The base model."""
    model_name: str | None = None
    """Name of the base in the API; default: the last part of `model.base`."""
    tracking_uri: MlflowAddress | None = None
    """MLflow registry; default `MLFLOW_TRACKING_URI`, else the sqlite file beside the runs."""
    default_alias: str = Field(default="champion", min_length=1)
    """Alias meant by a bare adapter name; when unset on a model, its `candidate`, then its newest version."""
    max_adapters: int = Field(default=8, ge=1)
    """Adapters held in memory by a replica; the least recently used one is dropped."""
    max_batch_size: int = Field(default=16, ge=1)
    """Requests generated together."""
    cache_gib: float | None = Field(default=None, gt=0)
    """Memory for keys and values of requests in generation, in GiB, of the engine `embedded`; default: most of what the
    base leaves free on a GPU, without a limit on a processor. Requests wait for room."""
    prompt_lookup_tokens: int = Field(default=0, ge=0, le=16)
    """Tokens of an answer that are guessed from what stood in prompt and answer before, and checked in one pass, by the
    engine `embedded`; 0 for none. Answers stay the same. Worth it where they repeat much of their prompts and few
    requests run at a time; a GPU that replays recorded steps guesses nothing."""
    max_waiting: int = Field(default=128, ge=1)
    """Requests that may wait in a replica; more are refused with 429."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Longest answer when a request does not say, in tokens."""
    request_timeout_seconds: float = Field(default=300, gt=0)
    """Longest time from arrival to last token."""
    registry_poll_seconds: float = Field(default=1.0, gt=0)
    """How soon a moved alias is followed."""
    num_threads: int | None = Field(default=None, ge=1)
    """Threads for matrix products on a CPU replica; default: the CPUs Ray gave it."""
    adapter_roots: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Folders below which keys of role admin may load adapters from while the server runs; empty: nobody may. On a
    cluster: paths that every node sees."""
    batches: BatchesSpec | None = None
    """Files of requests that are answered in the background; None: the routes are not there."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may ask the API, such as `https://chat.example.org`; `*` for all."""
    log_prompts: bool = False
    """Have the access log tell prompts as well."""

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(
                    f"found {origin!r}; expected an origin without a path, such as https://chat.example.org"
                )
        return origins

    @model_validator(mode="after")
    def _vllm_holds_it(self) -> "ServeSpec":
        if self.engine == "vllm" and self.model.quantization is not None:
            raise ValueError(
                "model.quantization: found bitsandbytes; the engine vllm expects none: it serves bases that were "
                "published in few bits (AWQ, GPTQ, FP8) as they are. Leave it out, or set engine=embedded"
            )
        if self.engine == "vllm" and self.prompt_lookup_tokens:
            raise ValueError(
                f"prompt_lookup_tokens: found {self.prompt_lookup_tokens}; only the engine embedded guesses tokens. "
                "Leave it out, or set engine=embedded"
            )
        return self

"""`ServeSpec`: the arguments of the serving application, as in `serve/*.yaml` under `args:`."""

from pydantic import Field

from didact.spec.base import Spec
from didact.spec.model import ModelSpec
from didact.spec.training import MlflowAddress

PREDICTED_TOKENS = 256
"""Longest answer to a line of a file of prompts."""


class ServeSpec(Spec):
    """One base in memory and any number of registered adapters on it."""

    model: ModelSpec = ModelSpec()
    """The base model."""
    model_name: str | None = None
    """Name of the base in the API; default: the last part of `model.base`."""
    tracking_uri: MlflowAddress | None = None
    """MLflow registry; default `MLFLOW_TRACKING_URI`, else the sqlite file beside the runs."""
    default_alias: str = "champion"
    """Alias meant by a bare adapter name; when unset on a model, its `candidate`, then its newest version."""
    max_adapters: int = Field(default=8, ge=1)
    """Adapters held in memory by a replica; the least recently used one is dropped."""
    max_batch_size: int = Field(default=16, ge=1)
    """Requests generated together."""
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
    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may ask the API, such as `https://chat.example.org`; `*` for all."""
    log_prompts: bool = False
    """Have the access log tell prompts as well."""

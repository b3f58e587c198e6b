"""Predict and chat without a server: the engine in this process, the adapter from a folder or the registry."""

from pathlib import Path

from didact import env
from didact.serving.chat import HttpTalk, LocalTalk, chat_loop
from didact.serving.model import load_model
from didact.serving.predict import PredictReport, PredictSettings
from didact.serving.replica.assemble import build_catalog
from didact.spec import PREDICTED_TOKENS, ModelSpec


def predict_locally(
    model: ModelSpec | None,
    adapter: str | None,
    source: Path,
    output: Path,
    *,
    max_new_tokens: int = PREDICTED_TOKENS,
    temperature: float = 0.0,
) -> PredictReport:
    """Answer a file of prompts; see `predict_file`.

    Args:
        model: the base; None for the one that the adapter was trained on.
        adapter: a run folder, an adapter folder, or `name`, `name@alias`, `name:version`; None is the base alone.
        source: JSON lines.
        output: JSON lines; an interrupted run's output is continued.
        max_new_tokens: longest answer, in tokens.
        temperature: 0 is greedy.

    Raises:
        AdapterError, NotRegistered, RegistryError: the adapter cannot be used.
        DataError: see `predict_file`.
        ModelError: the base cannot be loaded.
    """
    settings = PredictSettings(max_new_tokens=max_new_tokens, temperature=temperature)
    with load_model(adapter, model) as loaded:
        return loaded.predict_file(source, output, settings)


def chat_locally(model: ModelSpec | None, adapter: str | None = None) -> None:
    """Chat in the terminal with a base and the adapters registered for it; see `chat_loop`.

    Args:
        model: the base; None for the one that the adapter was trained on, else the bundled one.
        adapter: as for `predict_locally`.

    Raises:
        AdapterError, NotRegistered, RegistryError: the adapter cannot be used.
        ModelError: the base cannot be loaded.
    """
    with load_model(adapter, model) as loaded:
        catalog = build_catalog(loaded.spec, loaded.worker)
        folders = {adapter: loaded.adapter} if adapter and loaded.adapter else {}
        chat_loop(LocalTalk(loaded.worker, catalog, folders), adapter)


def chat_over_http(url: str, model: str | None = None) -> None:
    """Chat in the terminal with a running server; the first of `DIDACT_API_KEYS` is sent as key.

    Raises:
        ChatError: the server cannot be reached.
    """
    chat_loop(HttpTalk(url, next(iter(env.api_keys()), None)), model)

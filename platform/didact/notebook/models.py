"""Models that answer, from Python: one in memory, or rows and files answered by one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from didact import env
from didact.errors import DataError
from didact.notebook.runs import reference_of
from didact.spec import PREDICTED_TOKENS, ModelSpec, validate

if TYPE_CHECKING:
    from didact.serving.model import Model, Predictions
    from didact.serving.predict import PredictReport


def load(adapter: Any = None, *, base: "str | ModelSpec | None" = None) -> "Model":
    """Bring a model into memory, which then answers: `didact.load("demo@champion").chat("What is 27 + 58 - 13?")`.

    Args:
        adapter: a run folder, an adapter folder, `name`, `name@alias`, `name:version`, what `finetune` returned, or a
            version; left out: the base alone.
        base: the base model; left out: the one that the adapter was trained on, else the bundled one.

    Raises:
        AdapterError, NotRegistered, RegistryError: the adapter cannot be used.
        ModelError: the base cannot be loaded.
    """
    spec = validate(ModelSpec, {"base": base}, "load") if isinstance(base, str) else base
    env.quiet_libraries()
    from didact.serving.model import load_model

    return load_model(reference_of(adapter), spec)


@overload
def predict(
    prompts: "str | Path",
    output: "str | Path",
    *,
    model: Any = None,
    base: "str | ModelSpec | None" = None,
    max_new_tokens: int = PREDICTED_TOKENS,
    temperature: float = 0.0,
) -> "PredictReport": ...
@overload
def predict(
    prompts: Any,
    output: None = None,
    *,
    model: Any = None,
    base: "str | ModelSpec | None" = None,
    max_new_tokens: int = PREDICTED_TOKENS,
    temperature: float = 0.0,
) -> "Predictions": ...
def predict(
    prompts: Any,
    output: "str | Path | None" = None,
    *,
    model: Any = None,
    base: "str | ModelSpec | None" = None,
    max_new_tokens: int = PREDICTED_TOKENS,
    temperature: float = 0.0,
) -> "PredictReport | Predictions":
    """Answer many prompts.

    Args:
        prompts: a list of texts, rows with `prompt`, `messages` or `instruction` as a table or list of dicts, or a
            JSON lines file of such rows.
        output: with a file of prompts, the file for its answers; an interrupted one is continued.
        model: what `load` takes, or a loaded model, which stays open; left out: the base alone.
        base: see `load`.
        max_new_tokens: longest answer, in tokens.
        temperature: 0 is greedy.

    Raises:
        DataError: prompts that are no rows; or a file without `output`, or the other way round.
        DidactError: see `load`.
    """
    in_file = isinstance(prompts, str | Path)
    if in_file != (output is not None):
        raise DataError(
            f"predict: found the file {prompts} without output; give output as well, or the prompts as a list"
            if in_file
            else f"predict: found output {output} with prompts in memory; give a file of prompts, or leave output out"
        )
    from didact.serving.model import Model
    from didact.serving.predict import PredictSettings

    settings = PredictSettings(max_new_tokens=max_new_tokens, temperature=temperature)
    loaded = model if isinstance(model, Model) else load(model, base=base)
    try:
        return (
            loaded.predict_rows(prompts, settings)
            if output is None
            else loaded.predict_file(Path(prompts), Path(output), settings)
        )
    finally:
        if loaded is not model:
            loaded.close()

"""A model as a folder in Hugging Face form: whole whichever process writes it, and looked at before it is used."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from didact.errors import ModelError
from didact.files import new_folder
from didact.logs import get_logger

_LOG = get_logger(__name__)


def save_model(model: Any, folder: Path) -> None:
    """Write a transformers model, whose weights this process holds whole, into an existing folder."""
    from didact.models.dropout import stated_dropout  # loads torch, which looking at a folder does not need

    # In a process group, transformers writes nothing on a rank other than 0; who writes here is the caller's choice.
    model.should_save_on_this_rank = lambda is_main_process: is_main_process
    try:
        # Saving imports DeepSpeed where it is installed, which writes to what then is stdout.
        with contextlib.redirect_stdout(sys.stderr), stated_dropout(model):
            model.save_pretrained(folder)
    finally:
        del model.should_save_on_this_rank


def check_output(output: Path, *sources: Path) -> None:
    """Nothing, where a new model can be written to `output` without touching anything that is there.

    Args:
        output: the folder to write.
        sources: what the model is made from, which must stay as it is; a name that is no folder is passed over.

    Raises:
        ModelError: it exists, lies inside a source, or cannot be made.
    """
    if os.path.lexists(output):
        raise ModelError(f"{output} exists; give a folder that does not")
    resolved = output.resolve()
    for source in (each.expanduser() for each in sources):
        if source.is_dir() and resolved.is_relative_to(source.resolve()):
            raise ModelError(f"{output} lies inside {source}, which it is made from; give a folder elsewhere")
    there = next(each for each in resolved.parents if os.path.lexists(each))
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "may not be written to" if there.is_dir() else "is not a folder"
        raise ModelError(f"{output} cannot be made: {there} {reason}")


@contextlib.contextmanager
def new_model_folder(output: Path, check: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """A scratch folder that becomes `output`, which must not be there: neither before the block nor after it.

    Args:
        output: the folder to write.
        check: as for `files.new_folder`.

    Raises:
        ModelError: see `check_output`.
    """
    check_output(output)
    try:
        with new_folder(output, check, replace=False) as scratch:
            yield scratch
    except FileExistsError as error:
        raise ModelError(f"{error}; it was left as it is, give a folder that does not exist") from error


def check_model(folder: Path) -> None:
    """Nothing, where a folder holds a model's configuration and all its weights. Headers are read, not weights.

    Raises:
        ModelError: what is missing, cut off or not readable.
    """
    from didact.models.weight_files import check_weights  # loads torch, which a configuration alone does not need

    check_config(folder)
    check_weights(folder)


def check_config(folder: Path) -> None:
    """Nothing, where a folder holds a model's configuration.

    Raises:
        ModelError: it is missing, cut off or not readable.
    """
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file} holds {type(config).__name__}; expected a model's settings")


def cached_model(folder: Path, write: Callable[[Path], None], check: Callable[[Path], None] = check_model) -> Path:
    """The folder itself, made on first use: of all processes that ask, one writes and the others wait.

    What is there and is not whole is made again.

    Args:
        folder: its place in the cache.
        write: writes the model into an empty folder.
        check: whether all is there that there should be.

    Raises:
        ModelError: what was written is not a whole model.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_whole(folder, check):
            with new_folder(folder, check) as scratch:
                write(scratch)
    return folder


def _is_whole(folder: Path, check: Callable[[Path], None]) -> bool:
    if not folder.exists():
        return False
    try:
        check(folder)
    except ModelError as error:
        _LOG.warning("%s; %s is made again", error, folder)
        return False
    return True

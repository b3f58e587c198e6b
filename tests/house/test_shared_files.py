"""Files that others must read: permissions are the user's own choice, whichever library wrote them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from didact.files import new_folder, write_text


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_weights_may_be_read_by_whoever_may_read_the_other_files(tmp_path: Path, mask: int) -> None:
    with new_folder(tmp_path / "adapter") as scratch:
        save_file({"a": torch.zeros(2)}, scratch / "adapter_model.safetensors")
        (scratch / "inner").mkdir()
        save_file({"a": torch.zeros(2)}, scratch / "inner" / "model.safetensors")
        write_text(scratch / "adapter.json", "{}")
        (scratch / "run.sh").write_text("")
        (scratch / "run.sh").chmod(0o755 & ~mask)
    files = {file.name: mode(file) for file in (tmp_path / "adapter").rglob("*") if file.is_file()}
    assert files.pop("run.sh") & 0o666 == 0o666 & ~mask
    assert set(files.values()) == {0o666 & ~mask}

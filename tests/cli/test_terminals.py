"""What commands write on terminals and in pipes of any encoding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fakes.models import save_tiny_base

TEXT = "Caf\u00e9 \u4e2d\u6587 \U0001f600 \u2713 \u00a3"
WRITTEN = {
    "utf-8": TEXT,
    "ascii": "Caf\\xe9 \\u4e2d\\u6587 \\U0001f600 \\u2713 \\xa3",
    "latin-1": "Caf\u00e9 \\u4e2d\\u6587 \\U0001f600 \\u2713 \u00a3",
    "gbk": "Caf\u00e9 \u4e2d\u6587 \\U0001f600 \\u2713 \\xa3",
    "cp1252": "Caf\u00e9 \\u4e2d\\u6587 \\U0001f600 \\u2713 \u00a3",
}


def written(encoding: str, code: str, *words: str, folder: Path | None = None) -> tuple[int, str, str]:
    """Code, stdout and stderr of Python code, or of a command."""
    variables = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT / "platform"), "COLUMNS": "200"}
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, env=variables, cwd=folder, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)


@pytest.mark.parametrize("encoding", WRITTEN)
def test_what_an_encoding_lacks_is_written_as_its_number(encoding: str) -> None:
    code = f"""
import sys
from rich.console import Console
from rich.rule import Rule
from didact.cli import guarded
from didact.errors import DataError
with guarded():
    print({TEXT!r})
    Console().print(Rule("demo"))
    raise DataError({TEXT!r})
"""
    ended, out, err = written(encoding, code)
    assert ended == 2
    assert WRITTEN[encoding] in out and WRITTEN[encoding] in err
    assert "demo" in out and "Traceback" not in err


@pytest.mark.parametrize("encoding", ["ascii", "gbk"])
def test_a_preview_of_any_text_is_written_to_the_end(encoding: str, tmp_path: Path) -> None:
    base = save_tiny_base(tmp_path / "base")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"instruction": TEXT, "output": TEXT}) + "\n", encoding="utf-8")
    recipe = {
        "name": "shown",
        "model": {"base": str(base)},
        "data": {"sources": [{"name": "rows", "path": str(tmp_path / "rows.jsonl")}]},
        "training": {"steps": 1},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    code = "import sys; from didact.cli import main; main(sys.argv[1:])"
    ended, out, err = written(encoding, code, "data", "preview", "recipe.json", folder=tmp_path)
    assert (ended, "Traceback" in err) == (0, False), err
    assert WRITTEN[encoding].split()[0] in out


def test_a_pipe_that_is_closed_early_ends_without_a_word() -> None:
    command = [sys.executable, "-m", "didact.cli", "data", "list"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        assert listing.stdout and listing.stderr
        listing.stdout.read(1)
        listing.stdout.close()
        assert listing.stderr.read() == b""

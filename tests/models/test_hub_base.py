"""A base of the hub: its weights are downloaded when it is loaded, and not for what needs its tokenizer only."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT
from tests.fakes.hub_server import Hub, serve_hub
from tests.fakes.models import save_tiny_base

COMMIT = "1" * 40
PROGRAM = """
from didact.models import load_base, load_tokenizer
from didact.spec import ModelSpec
base = ModelSpec(base="someone/tiny", dtype="float32")
print(load_tokenizer(base).eos_token_id)
input()
print(load_base(base).num_parameters())
"""


def test_a_tokenizer_asks_for_no_weights(tmp_path: Path) -> None:
    folder = save_tiny_base(tmp_path / "base")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    passed = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    told = {"HF_HOME": str(tmp_path / "hf"), "DIDACT_CACHE": str(tmp_path / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    with serve_hub(Hub("someone/tiny", {COMMIT: files}, {"main": COMMIT}, kind="models")) as hub:
        environment = {**passed, **told, "HF_ENDPOINT": hub.url, "PYTHONPATH": str(ROOT / "platform")}
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment},
        ) as process:
            assert process.stdin and process.stdout
            assert process.stdout.readline() == "256\n"
            before = list(hub.asked)
            process.stdin.write("\n")
            process.stdin.flush()
            assert int(process.stdout.readline()) > 0
        weights = f"GET /someone/tiny/resolve/{COMMIT}/model.safetensors"
        assert f"GET /someone/tiny/resolve/{COMMIT}/tokenizer.json" in before
        assert weights not in before and weights in hub.asked

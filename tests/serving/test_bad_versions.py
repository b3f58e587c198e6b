"""An alias that moves, under load, to a version that cannot be served: nobody notices but who looks at its card."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file

from didact.adapter_folder import WEIGHTS, check_folder
from didact.files import manifest, write_json
from tests.fakes.adapters import TINY_BASE, save_tiny_adapter
from tests.fakes.registry import ShelfRegistry

HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, "temperature": 0}
SECONDS = 60


def foreign(registry: ShelfRegistry, folder: Path) -> None:
    save_tiny_adapter(folder, 7, base_fingerprint="c" * 64)
    registry.add("demo", folder)


def damaged(registry: ShelfRegistry, folder: Path) -> None:
    save_tiny_adapter(folder, 7)
    registry.add("demo", folder)
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def not_finite(registry: ShelfRegistry, folder: Path) -> None:
    """Registered past `didact`, which takes no such version: its digests hold."""
    save_tiny_adapter(folder, 7)
    registry.add("demo", folder)
    tensors = load_file(folder / WEIGHTS)
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_file(tensors, folder / WEIGHTS)
    names = [each.name for each in folder.iterdir() if each.name != "adapter.json"]
    record = {"format": 1, "base": "tiny", "base_fingerprint": TINY_BASE, "method": "lora"}
    write_json(folder / "adapter.json", {**record, "files": manifest(folder, names)})
    registry._sha256[folder] = check_folder(folder).sha256


def gone(registry: ShelfRegistry, folder: Path) -> None:
    save_tiny_adapter(folder, 7)
    registry.add("demo", folder)
    shutil.rmtree(folder)


@pytest.mark.fault("S2")
@pytest.mark.parametrize(
    ("make", "words"),
    [(foreign, "trained on base"), (damaged, "damaged"), (not_finite, "NaN or infinite"), (gone, "adapter")],
)
def test_a_version_that_cannot_be_served_costs_no_request(
    client: TestClient, registry: ShelfRegistry, tmp_path: Path, make: Callable[[ShelfRegistry, Path], None], words: str
) -> None:
    def ask(model: str) -> tuple[int, str]:
        answer = client.post("/v1/chat/completions", json={**HELLO, "model": model})
        text = answer.json()["choices"][0]["message"]["content"] if answer.status_code == 200 else answer.text
        return answer.status_code, text

    right = {model: ask(model) for model in ("tiny", "demo", "demo:2")}
    assert {status for status, _ in right.values()} == {200} and len(set(right.values())) == 3
    found: list[tuple[str, tuple[int, str]]] = []
    stop = threading.Event()

    def load(models: tuple[str, ...]) -> None:
        while not stop.is_set():
            found.extend([(model, ask(model)) for model in models])

    threads = [threading.Thread(target=load, args=(models,)) for models in (("demo",), ("tiny", "demo:2"))]
    for thread in threads:
        thread.start()
    try:
        make(registry, tmp_path / "bad")
        registry.point("demo", "champion", 3)
        deadline = time.monotonic() + SECONDS
        while not (problem := client.get("/v1/models/demo").json()["problem"]):
            assert time.monotonic() < deadline
        count = len(found)
        while len(found) < count + 6:  # and whoever asks after that
            assert time.monotonic() < deadline
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert "demo:3 cannot be served" in problem and words in problem
    assert str(tmp_path) not in problem
    assert all(answer == right[model] for model, answer in found)
    registry.point("demo", "champion", 2)
    deadline = time.monotonic() + SECONDS
    while ask("demo") != right["demo:2"]:
        assert time.monotonic() < deadline
    assert client.get("/v1/models/demo").json()["problem"] is None

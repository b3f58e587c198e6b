"""Adapters loaded and unloaded over HTTP while the server runs."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from didact.files import sha256_file
from didact.serving.api.keys import KeyFile
from didact.serving.replica.worker import Worker
from tests.fakes.adapters import save_tiny_adapter

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adapter, a run, a damaged adapter and one of another base; beside it one that is nobody's."""
    parent = tmp_path_factory.mktemp("built")
    folder = parent / "root"
    save_tiny_adapter(folder / "mine", 3)
    save_tiny_adapter(folder / "run" / "adapter", 4)
    save_tiny_adapter(folder / "foreign", 5, base_fingerprint="c" * 64)
    save_tiny_adapter(folder / "damaged", 6)
    (folder / "damaged" / "adapter_model.safetensors").write_bytes(b"0")
    save_tiny_adapter(folder / "pickled", 7)
    (folder / "pickled" / "adapter_model.bin").write_bytes(b"0")
    save_tiny_adapter(parent / "outside", 8)
    (folder / "empty").mkdir()
    save_tiny_adapter(folder / "plain", 3)
    for name in ("adapter.json", "template_contract.json"):
        (folder / "plain" / name).unlink()
    (folder / "plain" / "training_args.bin").write_bytes(b"never read")
    shutil.copytree(folder / "plain", folder / "misshapen")
    config = json.loads((folder / "misshapen" / "adapter_config.json").read_text())
    (folder / "misshapen" / "adapter_config.json").write_text(json.dumps({**config, "r": 8}))
    shutil.copytree(folder / "plain", folder / "untyped")
    (folder / "untyped" / "adapter_config.json").write_text("[]")
    shutil.copytree(folder / "plain", folder / "weightless")
    (folder / "weightless" / "adapter_model.safetensors").unlink()
    shutil.copytree(folder / "plain", folder / "linked")
    (folder / "linked" / "adapter_model.safetensors").unlink()
    return parent


@pytest.fixture()
def root(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    weights = "adapter_model.safetensors"
    (tmp_path / "root" / "linked" / weights).symlink_to(tmp_path / "outside" / weights)
    return tmp_path / "root"


@pytest.fixture()
def keys(tmp_path: Path) -> dict[str, str]:
    file = KeyFile(tmp_path / "keys.json")
    roles = {"root": ("admin",), "prometheus": ("metrics",), "ann": ()}
    return {name: file.add(name, roles=given) for name, given in roles.items()}


@pytest.fixture()
def open_client(
    worker: Worker, serve_worker: Callable[..., TestClient], root: Path, keys: dict[str, str], tmp_path: Path
) -> Callable[[], TestClient]:
    def build() -> TestClient:
        return serve_worker(
            worker,
            adapter_roots=(root,),
            loaded_record=tmp_path / "state" / "loaded.json",
            keys_file=tmp_path / "keys.json",
        )

    return build


@pytest.fixture()
def client(open_client: Callable[[], TestClient], keys: dict[str, str]) -> Iterator[TestClient]:
    with open_client() as each:
        each.headers["authorization"] = f"Bearer {keys['root']}"
        yield each


def load(client: TestClient, path: str, name: str = "mine", **more: Any) -> Any:
    return client.post(LOAD, json={"lora_name": name, "lora_path": path, **more})


def text(client: TestClient, model: str) -> str:
    body = {"model": model, "prompt": "abc", "max_tokens": 12, "temperature": 0}
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["text"]


def test_an_adapter_is_loaded_asked_listed_and_unloaded(
    client: TestClient, open_client: Callable[[], TestClient], root: Path, tmp_path: Path
) -> None:
    assert load(client, "mine").text == "Success: LoRA adapter 'mine' added successfully."
    assert load(client, str(root / "mine")).status_code == 200  # the same once more
    assert load(client, "run", "team/run").status_code == 200
    assert len({text(client, name) for name in ("tiny", "mine", "team/run")}) == 3
    card = next(each for each in client.get("/v1/models").json()["data"] if each["id"] == "mine")
    assert (card["parent"], card["root"][:5]) == ("tiny", "mine#")
    assert str(tmp_path) not in client.get("/v1/models").text
    with open_client() as other:  # another gateway, or the next start
        other.headers["authorization"] = client.headers["authorization"]
        assert text(other, "mine") == text(client, "mine")
        gone = other.post(UNLOAD, json={"lora_name": "mine"})
    assert gone.text == "Success: LoRA adapter 'mine' removed successfully."
    for answer in (client.post("/v1/completions", json={"model": "mine", "prompt": "a"}),
                   client.post(UNLOAD, json={"lora_name": "mine"})):  # fmt: skip
        assert answer.status_code == 404
    assert answer.json()["type"] == answer.json()["error"]["type"] == "NotFoundError"
    assert text(client, "team/run")


def test_another_adapter_of_the_name_needs_load_inplace(client: TestClient) -> None:
    load(client, "mine")
    before = text(client, "mine")
    taken = load(client, "run")
    assert (taken.status_code, taken.json()["type"]) == (400, "InvalidUserInput")
    assert "has already been loaded" in taken.json()["message"]
    assert text(client, "mine") == before
    assert load(client, "run", load_inplace=True).status_code == 200
    assert text(client, "mine") != before


def test_what_was_loaded_is_served_whatever_becomes_of_its_folder(client: TestClient, root: Path) -> None:
    load(client, "mine")
    before = text(client, "mine")
    shutil.rmtree(root / "mine")
    assert text(client, "mine") == before


def test_a_plain_peft_folder_answers_like_the_adapter_in_it(client: TestClient, root: Path) -> None:
    assert load(client, "mine").status_code == 200
    assert load(client, "plain", name="bare").text == "Success: LoRA adapter 'bare' added successfully."
    assert text(client, "bare") == text(client, "mine") != text(client, "tiny")
    assert load(client, "plain", name="bare").status_code == 200  # the same bytes again
    shutil.rmtree(root / "plain")
    assert text(client, "bare") == text(client, "mine")
    cards = {card["id"]: card for card in client.get("/v1/models").json()["data"]}
    assert cards["bare"]["parent"] == "tiny"
    assert "problem" not in cards["bare"] or cards["bare"]["problem"] is None


def test_a_plain_folder_that_names_another_base_is_said_to(
    client: TestClient, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = root / "plain" / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "base_model_name_or_path": "meta-llama/Llama-3.2-1B"}))
    assert load(client, "plain", name="bare").status_code == 200
    assert "adapter bare names base Llama-3.2-1B, and tiny is served" in caplog.text
    file.write_text(json.dumps({**config, "base_model_name_or_path": "meta-llama/Llama-3.2-1B", "r": 8}))
    refused = load(client, "plain", name="other").json()["error"]["message"]
    assert "does not fit the base that is served; its configuration names 'meta-llama/Llama-3.2-1B'" in refused


def test_an_adapter_of_equal_weights_and_another_template_is_another_one(client: TestClient, root: Path) -> None:
    shutil.copytree(root / "mine", root / "other")
    file = root / "other" / "template_contract.json"
    changed = file.read_text().replace("assistant", "helper")
    assert changed != file.read_text()
    file.write_text(changed)
    manifest = json.loads((root / "other" / "adapter.json").read_text())
    manifest["files"]["template_contract.json"] = {"size": file.stat().st_size, "sha256": sha256_file(file)}
    (root / "other" / "adapter.json").write_text(json.dumps(manifest))

    def spelled() -> str:
        body = {"model": "mine", "messages": [{"role": "user", "content": "?"}]}
        ids = client.post("/tokenize", json=body).json()["tokens"]
        return str(client.post("/detokenize", json={"model": "mine", "tokens": ids}).json()["prompt"])

    assert load(client, "mine").status_code == 200
    assert "helper" not in spelled()
    again = load(client, "other", name="mine", load_inplace=True)
    assert again.status_code == 200, again.text
    assert "helper" in spelled()


PATHS = [
    *("../outside", "link", "mine/../../outside", "/etc", "nothing", "empty", ".", "", "x" * 5000, "\0", "mine\0"),
    *("..%2foutside", "%2e%2e/outside", "..\\outside", "\u2024\u2024/outside", "~/x", "file:///etc", "s3://bucket/x"),
]


@pytest.mark.fault("X2")
def test_only_folders_below_a_root_are_looked_at(client: TestClient, tmp_path: Path) -> None:
    for given in [*PATHS, str(tmp_path / "outside")]:
        refused = load(client, given)
        assert refused.status_code == 400, refused.text
        assert str(tmp_path) not in refused.text
    assert len(client.get("/v1/models").json()["data"]) == 2


REFUSED: list[tuple[str, Any, dict[str, Any], str]] = [
    ("foreign", "foreign", {}, "trained on base"),
    ("damaged", "damaged", {}, "damaged"),
    ("pickled", "pickled", {}, "adapter_model.bin"),
    ("misshapen", "misshapen", {}, "does not fit"),
    ("untyped", "untyped", {}, "no configuration of PEFT"),
    ("weightless", "weightless", {}, "no plain file adapter_model.safetensors"),
    ("linked", "linked", {}, "no plain file adapter_model.safetensors"),
    ("tiny", "mine", {}, "is the base"),
    ("demo", "mine", {}, "registered model"),
    ("a b", "mine", {}, "letters, digits"),
    ("../x", "mine", {}, "letters, digits"),
    ("x", "mine", {"base_model_name": "other"}, "'tiny'"),
    ("x", 7, {}, "lora_path"),
    ("x", "mine", {"lora_rank": 8}, "lora_rank"),
]


@pytest.mark.fault("X4")
def test_refusals_say_why_and_name_no_folder(client: TestClient, tmp_path: Path) -> None:
    for name, path, more, said in REFUSED:
        refused = client.post(LOAD, json={"lora_name": name, "lora_path": path, **more})
        assert refused.status_code == 400
        assert said in json.dumps(refused.json())
        assert str(tmp_path) not in refused.text


def test_only_keys_of_role_admin_may(
    client: TestClient, keys: dict[str, str], worker: Worker, serve_worker: Callable[..., TestClient], root: Path
) -> None:
    for headers, status in [({}, 401), ({"authorization": "Bearer wrong"}, 401), *(
        ({"authorization": f"Bearer {keys[name]}"}, 403) for name in ("prometheus", "ann")
    )]:  # fmt: skip
        for path in (LOAD, UNLOAD):
            del client.headers["authorization"]
            refused = client.post(path, json={"lora_name": "mine", "lora_path": "mine"}, headers=headers)
            assert refused.status_code == status
            client.headers["authorization"] = "Bearer x"
    record = root.parent / "open.json"
    with serve_worker(worker, adapter_roots=(root,), loaded_record=record) as without_keys:
        assert load(without_keys, "mine").status_code == 403
    with serve_worker(worker) as off:
        assert load(off, "mine").status_code == 404
        assert LOAD not in off.get("/openapi.json").json()["paths"]

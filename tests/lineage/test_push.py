"""What is uploaded to a hub is said first, and holds neither folders of this machine nor secrets."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants
from peft import PeftModel
from typer.testing import CliRunner

from didact.adapter_folder import check_folder
from didact.cli import app
from didact.display import as_text
from didact.errors import AdapterError, RegistryError, RunError
from didact.evaluation import EvalReport, ModelFacts
from didact.files import write_json
from didact.lineage import Records
from didact.lineage.bundle import Hidden, _without_folders, make_bundle
from didact.lineage.push import plan_push, push
from tests.fakes.hub_server import Hub, serve_hub
from tests.fakes.models import tiny_model
from tests.fakes.traced import History

REPO = "someone/sums"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub without the repository."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with serve_hub(Hub(REPO, kind="models", exists=False)) as served:
        yield served


def uploaded(hub: Hub) -> dict[str, bytes]:
    return hub.commits[hub.refs["main"]]


def written(hub: Hub, folder: Path) -> Path:
    """What was uploaded, as a folder."""
    for name, content in uploaded(hub).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_adapter_card_and_proof_go_up_privately(history: History, hub: Hub, tmp_path: Path) -> None:
    plan = plan_push("more:1", REPO, records=history.records, endpoint=hub.url)
    assert hub.asked == [], "a plan asks nobody"
    text = as_text(plan)
    assert "more:1 -> someone/sums (private)" in text and "forbids commercial use" in text
    address = push(plan)
    assert hub.private and address.endswith(hub.refs["main"])
    assert hub.messages == [f"more:1, adapter {history.versions[1].adapter_sha256[:12]}"]
    assert set(uploaded(hub)) == {
        *("README.md", "adapter.json", "adapter_config.json", "adapter_model.safetensors", "recipe.json"),
        *("template_contract.json", "proof/lineage.json", "proof/report.json", "proof/verdict.json"),
    }
    card = ModelCard(uploaded(hub)["README.md"].decode())
    assert card.data.license == "cc-by-nc-4.0" and "| Version | `more:1` |" in card.text
    kinds = {node["kind"] for node in json.loads(uploaded(hub)["proof/lineage.json"])["nodes"]}
    assert {"file", "source", "mixture", "run", "adapter", "version"} <= kinds


def test_what_goes_up_names_no_folder_and_no_host(history: History, hub: Hub) -> None:
    push(plan_push("more:1", REPO, records=history.records, endpoint=hub.url))
    everything = b"\n".join(uploaded(hub).values()).decode("utf-8", errors="replace")
    assert str(history.folder) not in everything and '"host"' not in everything
    assert "others.jsonl" in everything and json.loads(uploaded(hub)["recipe.json"])["model"]["base"] == "base"


def test_what_was_uploaded_is_an_adapter_that_peft_loads(history: History, hub: Hub, tmp_path: Path) -> None:
    push(plan_push(str(history.first.path), REPO, records=history.records, endpoint=hub.url))
    folder = written(hub, tmp_path / "down")
    shutil.rmtree(folder / "proof")
    check_folder(folder, to_publish=True)
    manifest = json.loads((folder / "adapter.json").read_text())
    assert manifest["published_from"] == {"adapter_sha256": history.versions[0].adapter_sha256}
    assert PeftModel.from_pretrained(tiny_model(), folder).peft_config["default"].r == 4


def test_the_same_again_changes_nothing_and_a_public_repository_is_not_filled_by_chance(
    history: History, hub: Hub
) -> None:
    plan = plan_push("sums:1", REPO, records=history.records, endpoint=hub.url)
    push(plan)
    first = uploaded(hub)
    push(plan)
    assert uploaded(hub) == first and len(hub.messages) == 1
    assert sum("/repos/create" in each for each in hub.asked) == 1
    hub.private = False
    with pytest.raises(RegistryError, match="is there and public"):
        push(plan)
    assert push(replace(plan, public=True))


def test_a_hub_that_refuses_is_told(history: History, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.refuses = 403
    plan = plan_push("sums:1", REPO, records=history.records, endpoint=hub.url)
    with pytest.raises(RegistryError, match="the hub did not take someone/sums"):
        push(plan)
    with pytest.raises(RegistryError, match="the hub did not take someone/sums"):
        push(replace(plan, endpoint="http://127.0.0.1:1"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RegistryError, match="HF_HUB_OFFLINE is set"):
        push(plan)


@pytest.mark.parametrize("repo", ["sums", "a/b/c", "some one/sums"])
def test_a_repository_has_an_owner(history: History, repo: str) -> None:
    with pytest.raises(RegistryError, match="OWNER/REPO"):
        plan_push("sums:1", repo, records=history.records)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hf_" + "a" * 34, "a token of the Hugging Face hub"),
        ("https://me:secret@host/x", "a password in an address"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("sk-" + "b" * 40, "a key of OpenAI"),
    ],
)
def test_a_secret_is_not_uploaded(history: History, runs: Path, text: str, told: str) -> None:
    shutil.copytree(history.first.path, runs / "first")
    write_json(runs / "first" / "verdict.json", {"passed": True, "checks": [], "note": text})
    with pytest.raises(AdapterError, match=told):
        make_bundle(str(runs / "first"), Records(runs))


def test_a_version_without_its_run_goes_up_with_the_card_of_the_registry(history: History, tmp_path: Path) -> None:
    bundle = make_bundle("sums:1", Records(tmp_path / "none", history.registry))
    assert "proof/report.json" not in bundle.files and "| Version | `sums:1` |" in str(bundle.files["README.md"])
    assert any("run folder is not on this machine" in note for note in bundle.notes)


def test_a_published_report_is_whole_without_the_folders_that_it_named(tmp_path: Path) -> None:
    report = EvalReport(
        {"base": ModelFacts("/data/bases/tiny")}, {"base": {"eval/t/accuracy": 1.0}}, {"eval/t/accuracy": 1}
    )
    local = Hidden({"/data/bases/tiny": "tiny"})
    published = EvalReport.from_json(_without_folders(report.save(tmp_path / "report.json"), local))
    assert published == EvalReport({"base": ModelFacts("tiny")}, report.metrics_of, report.counts)


def test_a_run_goes_by_its_name_too(history: History) -> None:
    assert make_bundle("second", history.records).adapter_sha256 == history.versions[1].adapter_sha256


def test_folders_are_hidden_wherever_they_stand() -> None:
    assert Hidden().plain({"files": {"/home/me/q.jsonl": "ab12"}}) == {"files": {"q.jsonl": "ab12"}}
    local = Hidden()
    value: Any = {"path": "/data/my rows/a.jsonl", "id": "file:1@/data/my rows/a.jsonl", "url": "https://x/y", "n": 1}
    assert local.plain(value) == {"path": "a.jsonl", "id": "file:1@a.jsonl", "url": "https://x/y", "n": 1}
    assert local.text("read /data/my rows/a.jsonl") == "read a.jsonl"


def test_the_verb_says_what_it_would_do_and_asks_before_it_shows_anything(history: History) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["push", "sums:1", REPO, *arguments])

    dry = run("--dry-run", "--public")
    assert dry.exit_code == 0 and "PUBLIC" in dry.stdout and "proof/lineage.json" in dry.stdout
    asked = run("--public")
    assert isinstance(asked.exception, RegistryError) and "add --yes" in str(asked.exception)
    with pytest.raises(RunError):
        make_bundle("none", Records(history.folder / "empty"))

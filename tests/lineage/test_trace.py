"""From a version back to the bytes of its data, and from data forward to what was trained on it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from didact import env
from didact.cli import app
from didact.display import as_text
from didact.errors import DataError, DidactError, NotRegistered, RunError
from didact.evaluation import EvalReport, TaskFacts
from didact.evaluation.report import with_files
from didact.files import sha256_file, write_json
from didact.lineage import Records, trace
from didact.lineage.picture import save_picture
from didact.runs import record_of
from didact.spec import QuestionsTask, RegisterSpec
from didact.tracking import mlflow_run_id
from tests.fakes.traced import History


def chain(text: str) -> list[str]:
    """First words of the lines of a tree, guides taken off."""
    return [line.lstrip("│├└─ ").split(" ")[0].rstrip(":") for line in text.splitlines()]


def test_a_version_leads_back_to_the_bytes_of_its_data(history: History) -> None:
    found = trace("sums@champion", history.records)
    kinds = [node.kind for node in found.graph.nodes.values()]
    assert sorted(kinds) == sorted(
        [
            *("version", "alias", "verdict", "evaluation", "adapter", "checkpoint"),
            *("run", "base", "mixture", "cache", "source", "file"),
        ]
    )
    (file,) = found.graph.of_kind("file")
    assert file.facts["sha256"] == sha256_file(history.folder / "sums.jsonl")
    assert file.facts["path"] == str(history.folder / "sums.jsonl")
    (evaluation,) = found.graph.of_kind("evaluation")
    assert evaluation.facts["figures"] == {"eval/sums/loss": [2.5, 1.25]}
    (run,) = found.graph.of_kind("run")
    assert run.facts["packages"]["torch"] and run.facts["processor"] and run.facts["commit"]
    (checkpoint,) = found.graph.of_kind("checkpoint")
    assert checkpoint.facts["step"] == 2
    told = chain(as_text(found))
    road = ["sums", "evaluation", "adapter", "checkpoint", "run", "mixture", "prepared", "source", "file"]
    positions = [told.index(word, 1) if word != "sums" else told.index("sums:1") for word in road]
    assert positions == sorted(positions)
    assert "sums@champion" in as_text(found) and "not recorded" not in as_text(found)


def test_a_run_that_began_with_an_adapter_leads_back_to_the_run_that_made_it(history: History) -> None:
    found = trace("more:1", history.records)
    assert {node.facts["name"] for node in found.graph.of_kind("run")} == {"first", "second"}
    assert {Path(node.facts["path"]).name for node in found.graph.of_kind("file")} == {"sums.jsonl", "others.jsonl"}
    assert "NON-COMMERCIAL" in as_text(found)


def test_a_file_leads_to_what_was_trained_on_it_also_by_way_of_an_adapter(history: History) -> None:
    found = trace(str(history.folder / "sums.jsonl"), history.records)
    affected = found.affected
    assert set(affected.runs) == {str(history.first.path), str(history.second.path)}
    assert set(affected.versions) == {"sums:1", "more:1"}
    assert affected.aliases == ("sums@champion",)
    assert "to withdraw with it: more:1, sums:1; in service as sums@champion" in " ".join(as_text(found).split())
    only_second = trace(str(history.folder / "others.jsonl"), history.records).affected
    assert (only_second.runs, only_second.versions, only_second.aliases) == (
        (str(history.second.path),),
        ("more:1",),
        (),
    )


def test_the_same_bytes_are_found_under_any_name(history: History, tmp_path: Path) -> None:
    copy = Path(shutil.copy(history.folder / "others.jsonl", tmp_path / "renamed.jsonl"))
    assert trace(str(copy), history.records).affected.versions == ("more:1",)
    assert trace(f"sha256:{sha256_file(copy)[:10]}", history.records).affected.versions == ("more:1",)


def test_a_file_that_changed_or_went_since_is_found_by_its_place(history: History) -> None:
    file = history.folder / "others.jsonl"
    before = file.read_text()
    try:
        file.write_text(before + "\n")
        (note,) = trace(str(file), history.records).notes
        assert "holds other bytes now" in note
        file.unlink()
        gone = trace(str(file), history.records)
        assert gone.affected.versions == ("more:1",) and gone.notes == (f"{file} is gone",)
        assert "(gone)" in as_text(gone)
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    ("asked", "versions"), [("licence:cc-by-nc", ("more:1",)), ("licence:unknown", ("more:1", "sums:1"))]
)
def test_a_licence_leads_to_what_was_trained_under_it(history: History, asked: str, versions: tuple[str, ...]) -> None:
    assert trace(asked, history.records).affected.versions == versions


def test_another_machine_tells_it_from_what_was_kept_with_the_version(history: History, tmp_path: Path) -> None:
    elsewhere = Records(tmp_path / "no runs", history.registry)
    found = trace("more:1", elsewhere)
    assert {node.facts["name"] for node in found.graph.of_kind("run")} == {"first", "second"}
    assert found.notes == ("its run folder is not on this machine: traced from the record kept with the version",)
    assert trace(str(history.folder / "sums.jsonl"), elsewhere).affected.versions == ("more:1", "sums:1")


def test_a_version_without_that_record_is_told_from_its_tags(history: History, tmp_path: Path) -> None:
    tags = {
        **{"recipe": "old", "base": "some/base", "base_sha256": "b" * 64, "method": "lora", "base.eval/loss": "2.0"},
        **{"mixture": json.dumps({"rows": {"fingerprint": "f" * 64, "weight": 1.0}}), "adapter.eval/loss": "1.5"},
    }
    folder = shutil.copytree(history.second.adapter, tmp_path / "adapter")
    history.registry.register("old", folder, run_id=None, tags=tags, card="", alias=None)
    found = trace("old", Records(tmp_path / "no runs", history.registry))
    text = as_text(found)
    assert "eval/loss 2 -> 1.5" in text
    for missing in ("commit not recorded", "licence not recorded", "files not recorded", "path not recorded"):
        assert missing in text
    assert found.notes == ("its run folder is not on this machine: traced from the tags",)


def test_an_older_run_folder_opens_and_says_what_it_does_not_know(history: History, tmp_path: Path) -> None:
    old = tmp_path / "runs" / "first"
    shutil.copytree(history.first.path, old)
    for name in ("prepared.json", "provenance.jsonl", "workers.jsonl", "data.json"):
        (old / name).unlink()
    recorded = record_of(type(history.first)(old))
    assert (recorded.mixture, recorded.attempts, recorded.sources[0].files) == (None, (), None)
    text = as_text(trace(str(old), Records(tmp_path / "runs")))
    for missing in ("machine not recorded", "commit not recorded", "mixture not recorded", "files not recorded"):
        assert missing in text


def test_a_trial_names_its_sweep(history: History, tmp_path: Path) -> None:
    sweep = tmp_path / "ranks"
    for name in ("told", "by-place"):
        shutil.copytree(history.first.path, sweep / "trials" / name)
    write_json(sweep / "sweep.json", {})
    write_json(sweep / "trials" / "told" / "trial.json", {"sweep": "ranks", "trial": "7", "values": {"adapter.r": 8}})
    told = as_text(trace(str(sweep / "trials" / "told"), Records(tmp_path)))
    assert "trial 7" in told and "adapter.r 8" in told and "sweep ranks" in told
    placed = as_text(trace(str(sweep / "trials" / "by-place"), Records(tmp_path)))
    assert "trial by-place" in placed and "values not recorded" in placed
    assert len(Records(tmp_path).runs) == 2


def test_the_verdict_is_shown_where_it_is(history: History, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "judged"
    shutil.copytree(history.first.path, run)
    check = {"check": "gain", "of": "eval/sums/loss", "figure": "1.25", "limit": "2", "outcome": "failed"}
    write_json(run / "verdict.json", {"passed": False, "checks": [check]})
    text = as_text(trace(str(run), Records(tmp_path / "runs")))
    assert "verdict refused" in text and "gain eval/sums/loss: 1.25, asked for 2: failed" in text


def test_of_runs_that_made_the_same_adapter_a_version_has_its_own_verdict(history: History, tmp_path: Path) -> None:
    check = {"check": "gain", "of": "eval/sums/loss", "figure": "1.25", "limit": "2", "outcome": "failed"}
    refused = {"passed": False, "checks": [check]}
    passed = {"passed": True, "checks": [{**check, "limit": "1", "outcome": "passed"}]}
    for name, verdict in (("first", refused), ("again", passed)):
        shutil.copytree(history.first.path, tmp_path / "runs" / name)
        write_json(tmp_path / "runs" / name / "verdict.json", verdict)
    run_id, tags = mlflow_run_id(history.first.path), {"recipe": "first", "gate": "passed", "beta.forced": "a trial"}
    client = MlflowClient(history.registry.uri)
    try:
        version = history.registry.register(
            "judged", history.first.adapter, run_id=run_id, tags=tags, card="", alias=None
        )
        history.registry.keep_proof(version, {"verdict.json": json.dumps(passed)})
        text = as_text(trace("judged", Records(tmp_path / "runs", history.registry)))
    finally:
        client.delete_registered_model("judged")
    assert "asked for 1: passed" in text and "asked for 2: failed" not in text
    assert "@beta forced" in text


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("card:alpaca", "nothing was trained on or measured by 'card:alpaca'"),
        ("sha256:12", "at least 8 hex digits"),
        ("licence:", "names no licence"),
        ("data/none.jsonl", "nothing was trained on"),
    ],
)
def test_what_is_not_known_is_said(history: History, asked: str, told: str) -> None:
    with pytest.raises(RunError, match=told):
        trace(asked, history.records)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, text) for name in ("mlflow.json", "data.json", "recipe.json") for text in ("", "{", "5", "[5]")),
        *((name, text) for name in ("workers.jsonl", "provenance.jsonl") for text in ("5\n", "[]\n", "{}\n[]\n")),
    ],
)
def test_a_damaged_file_of_a_run_is_named(history: History, tmp_path: Path, name: str, text: str) -> None:
    shutil.copytree(history.folder / "runs" / "first", tmp_path / "first")
    (tmp_path / "first" / name).write_text(text)
    with pytest.raises(DidactError, match=name):
        trace(str(tmp_path / "first"), Records(tmp_path))


def test_a_file_of_questions_leads_to_what_it_measured(history: History, tmp_path: Path) -> None:
    shutil.copytree(history.folder / "runs" / "first", tmp_path / "first")
    file = tmp_path / "mine.jsonl"
    file.write_text('{"question": "1+1?", "answer": "2"}\n')
    spec = QuestionsTask(task="questions", name="mine", path=str(file), scorer="exact")
    report = EvalReport.load(tmp_path / "first" / "report.json")
    facts = TaskFacts("mine", "v1", "accuracy", 1, 0.1)
    with_files(replace(report, tasks=(facts,)), [spec]).save(tmp_path / "first" / "report.json")
    records = Records(tmp_path, history.registry)
    back = trace(str(tmp_path / "first"), records)
    (node,) = back.graph.of_kind("questions")
    assert (node.facts["task"], node.facts["sha256"]) == ("mine", sha256_file(file))
    assert "questions of mine:" in as_text(back)
    forward = trace(str(file), records)
    assert [each.kind for each in forward.graph.of_kind("evaluation")] == ["evaluation"]
    assert forward.affected.versions == () and not forward.graph.of_kind("run"), "nothing was trained on it"
    text = as_text(forward)
    assert "measured by it, not trained on it: sums:1" in text and "withdraw" not in text
    file.write_text("changed")
    assert any("holds other bytes now" in note for note in trace(str(file), records).notes)


def test_an_unknown_name_is_answered(history: History, tmp_path: Path) -> None:
    with pytest.raises(NotRegistered, match=r"registered: .*sums"):
        trace("nobody", history.records)
    with pytest.raises(RunError, match="there is no run in"):
        trace("nobody", Records(tmp_path))


def test_the_verb_gives_json_and_a_picture(history: History, tmp_path: Path) -> None:
    picture = tmp_path / "a.svg"
    done = CliRunner().invoke(app, ["lineage", "sums:1", "--json", "--picture", str(picture)], catch_exceptions=False)
    value = json.loads(done.stdout)
    assert (value["direction"], value["roots"]) == ("back", ["version:sums:1"])
    assert {"from": "mixture", "to": "run"} in [
        {"from": first.partition(":")[0], "to": then.partition(":")[0]} for first, then in value["arrows"]
    ]
    drawn = picture.read_bytes()
    for word in ("sums:1", "source sums", "run first", "sums@champion"):
        assert word in drawn.decode()
    save_picture(trace("sums:1", history.records).graph, picture)
    assert picture.read_bytes() == drawn
    with pytest.raises(DataError, match=r"written as \.svg or \.png"):
        save_picture(trace("sums:1", history.records).graph, tmp_path / "a.gif")


def test_nothing_is_made_where_nothing_was_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_RUNS", str(tmp_path))
    assert Records().registry is None and list(tmp_path.iterdir()) == []
    assert env.runs_dir() == tmp_path and RegisterSpec(name="x").alias

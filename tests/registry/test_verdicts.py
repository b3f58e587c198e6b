"""An alias moves only where a verdict on exactly that adapter lets it, or where somebody forces it by name."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from didact.cli import app
from didact.errors import RegistryError
from didact.evaluation.checks import Outcome
from didact.registry import ModelVersion, Registry, Verdict, why_refused
from didact.tracking import default_uri
from tests.fakes.adapters import small_adapter
from tests.fakes.verdicts import KEY, verdict_on


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(default_uri(tmp_path_factory.mktemp("registry")))


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIDACT_VERDICT_KEY", raising=False)


def put(
    registry: Registry,
    name: str,
    folder: Path,
    outcome: Outcome | None = "passed",
    alias: str | None = None,
    **tags: str,
) -> ModelVersion:
    """Register a new small adapter with a verdict of this outcome; None for none."""
    verdict = verdict_on(small_adapter(folder, folder.name), outcome) if outcome else None
    if outcome is None:
        small_adapter(folder, folder.name)
    return registry.register(name, folder, run_id=None, tags=tags, card="", alias=alias, verdict=verdict)


def test_a_verdict_comes_back_with_its_version(registry: Registry, tmp_path: Path) -> None:
    version = put(registry, "kept", tmp_path / "a")
    assert registry.verdict(version) == verdict_on(tmp_path / "a")
    assert version.tags["gate"] == "passed"
    assert registry.verdict(put(registry, "bare", tmp_path / "b", None)) is None


def test_a_later_verdict_takes_the_place_of_the_first(registry: Registry, tmp_path: Path) -> None:
    first = put(registry, "again", tmp_path / "a", "failed")
    assert (first.tags["gate"], first.gate) == ("failed", "failed")
    later = verdict_on(tmp_path / "a")
    second = registry.register("again", tmp_path / "a", run_id=None, tags={}, card="", alias="candidate", verdict=later)
    assert (second.version, second.tags["gate"], second.aliases) == (1, "passed", ("candidate",))
    assert registry.verdict(second) == later


@pytest.mark.parametrize("outcome", ["failed", "not measured"])
def test_what_did_not_pass_gets_no_alias(registry: Registry, tmp_path: Path, outcome: Outcome) -> None:
    name = outcome.replace(" ", "-")
    with pytest.raises(RegistryError, match=f"{name}:1 may not become @candidate: its gate failed: eval/sums/accuracy"):
        put(registry, name, tmp_path / "a", outcome, "candidate")
    with pytest.raises(RegistryError, match=r"may not become @champion.*--force REASON"):
        registry.promote(name, 1)
    assert registry.resolve(f"{name}:1").aliases == ()
    (refused,) = registry.moves(name)
    assert refused.refused is not None and refused.refused.startswith("its gate failed") and refused.after == 1


def test_a_forced_move_says_who_and_why(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(registry, "forced", tmp_path / "a", "failed")
    with pytest.raises(RegistryError, match="empty reason"):
        registry.promote("forced", 1, force=" ")
    version = registry.promote("forced", 1, force="the benchmark was wrong")
    assert version.aliases == ("champion",)
    assert version.gate == "failed; @champion forced: the benchmark was wrong"
    note = json.loads(version.tags["champion.forced"])
    assert note["against"].startswith("its gate failed") and "@" in note["by"] and note["at"]
    assert registry.moves("forced")[-1].forced == "the benchmark was wrong"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    monkeypatch.setenv("COLUMNS", "160")
    assert "@champion forced: the benchmark was wrong" in CliRunner().invoke(app, ["models"]).output


def test_force_is_not_noted_where_nothing_had_to_be_forced(registry: Registry, tmp_path: Path) -> None:
    put(registry, "unforced", tmp_path / "a")
    version = registry.promote("unforced", 1, force="just in case")
    assert "champion.forced" not in version.tags and registry.moves("unforced")[-1].forced is None


def test_going_back_needs_a_verdict_too(registry: Registry, tmp_path: Path) -> None:
    put(registry, "back", tmp_path / "a", "failed")
    put(registry, "back", tmp_path / "b")
    registry.promote("back", 1, force="nothing else was there")
    registry.promote("back", 2)
    with pytest.raises(RegistryError, match="back:1 may not become @champion"):
        registry.rollback("back")
    assert registry.resolve("back").version == 2
    assert registry.rollback("back", force="version 2 is worse").version == 1
    assert [(each.before, each.after, each.refused is None) for each in registry.moves("back")] == [
        (None, 1, True),
        (1, 2, True),
        (2, 1, False),
        (2, 1, True),
    ]


def test_an_alias_that_stays_is_not_asked_about(registry: Registry, tmp_path: Path) -> None:
    put(registry, "stays", tmp_path / "a", "failed")
    registry.promote("stays", 1, force="why not")
    assert registry.promote("stays", 1).aliases == ("champion",)
    assert len(registry.moves("stays")) == 1


def test_the_history_of_an_alias_stays_within_what_a_tag_holds(registry: Registry, tmp_path: Path) -> None:
    for letter in "ab":
        put(registry, "busy", tmp_path / letter, "failed")
    for number in range(30):
        registry.promote("busy", number % 2 + 1, force=f"{number} " + "x" * 400)
    moves = registry.moves("busy")
    assert 5 < len(moves) <= 20 and moves[-1].forced is not None and moves[-1].forced.startswith("29 ")


@pytest.mark.parametrize(
    ("gate", "words"),
    [("passed", None), ("none", None), ("failed", "its gate failed"), (None, "no verdict of a gate")],
)
def test_versions_from_before_there_were_verdicts(gate: str | None, words: str | None) -> None:
    tags = {} if gate is None else {"gate": gate}
    found = why_refused(tags, "a" * 64, None, None)
    assert (found is None) if words is None else (found is not None and words in found)
    signed_only = why_refused(tags, "a" * 64, None, KEY.encode())
    assert signed_only is not None and "no verdict signed" in signed_only


def test_an_old_version_may_be_promoted(registry: Registry, tmp_path: Path) -> None:
    put(registry, "old", tmp_path / "a", None, gate="passed")
    assert registry.promote("old", 1).aliases == ("champion",)


CHANGES: dict[str, Callable[[Verdict], Verdict]] = {
    "another adapter": lambda verdict: replace(verdict, adapter_sha256="0" * 64),
    "another figure": lambda verdict: replace(verdict, checks=(replace(verdict.checks[0], figure="better by 0.9"),)),
    "another policy": lambda verdict: replace(verdict, policy={"least": {}}),
    "another report": lambda verdict: replace(verdict, judged={"report": "s" * 64}),
    "no checks": lambda verdict: replace(verdict, checks=()),
    "another key": lambda verdict: verdict.signed(b"f" * 32),
    "no signature": lambda verdict: replace(verdict, signature=None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_key_trusts_only_what_it_signed(tmp_path: Path, change: Callable[[Verdict], Verdict]) -> None:
    key, verdict = KEY.encode(), verdict_on(small_adapter(tmp_path / "a", "a")).signed(KEY.encode())
    assert why_refused({}, verdict.adapter_sha256, verdict, key) is None
    assert why_refused({}, verdict.adapter_sha256, change(verdict), key) is not None


def test_a_verdict_of_another_adapter_is_refused_without_a_key_too(tmp_path: Path) -> None:
    verdict = verdict_on(small_adapter(tmp_path / "a", "a"))
    found = why_refused({}, "b" * 64, verdict, None)
    assert found is not None and "its verdict is of another adapter" in found


def test_a_set_key_is_asked_for_at_the_terminal(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIDACT_VERDICT_KEY", KEY)
    folder = small_adapter(tmp_path / "a", "a")
    signed = verdict_on(folder).signed(KEY.encode())
    for name, verdict in (("signed", signed), ("unsigned", verdict_on(folder))):
        registry.register(name, folder, run_id=None, tags={}, card="", alias=None, verdict=verdict)
    assert registry.promote("signed", 1).aliases == ("champion",)
    with pytest.raises(RegistryError, match=r"its verdict is not signed; DIDACT_VERDICT_KEY is set"):
        registry.promote("unsigned", 1)
    monkeypatch.setenv("DIDACT_VERDICT_KEY", "short")
    with pytest.raises(RegistryError, match="DIDACT_VERDICT_KEY has 5 bytes"):
        registry.promote("signed", 1, "candidate")


def test_a_changed_artifact_is_no_verdict(registry: Registry, tmp_path: Path) -> None:
    version = put(registry, "changed", tmp_path / "a", "failed")
    better = verdict_on(tmp_path / "a")
    registry.keep_proof(version, {"verdict.json": better.to_json()})
    with pytest.raises(RegistryError, match=r"the verdict of changed:1 was changed"):
        registry.verdict(version)
    with pytest.raises(RegistryError, match="may not become @champion: the verdict of changed:1"):
        registry.promote("changed", 1)


def test_a_verdict_file_that_claims_more_than_its_checks(tmp_path: Path) -> None:
    verdict = verdict_on(small_adapter(tmp_path / "a", "a"), "failed")
    path = verdict.save(tmp_path / "verdict.json")
    assert Verdict.load(path) == verdict
    path.write_text(path.read_text().replace('"passed": false', '"passed": true'))
    with pytest.raises(RegistryError, match=r"verdict\.json was changed"):
        Verdict.load(path)
    assert '"eval/sums/accuracy: better by 0.2000, asked for at least 0.1000: FAIL"' in path.read_text()
    path.write_text("[]")
    with pytest.raises(RegistryError, match="is not a verdict"):
        Verdict.load(path)
    with pytest.raises(RegistryError, match="no verdict"):
        Verdict.load(tmp_path / "none.json")


def beside(registry: Registry, name: str, folder: Path, champion: str) -> ModelVersion:
    """Register an adapter whose verdict compared it with this champion's adapter."""
    verdict = verdict_on(small_adapter(folder, folder.name))
    verdict = replace(verdict, judged={**verdict.judged, "champion": champion})
    return registry.register(name, folder, run_id=None, tags={}, card="", alias="candidate", verdict=verdict)


def test_a_champion_is_replaced_by_what_was_compared_with_it(registry: Registry, tmp_path: Path) -> None:
    first = beside(registry, "met", tmp_path / "a", "none")
    registry.promote("met", 1)
    second, third = (beside(registry, "met", tmp_path / each, first.adapter_sha256) for each in "bc")
    assert registry.promote("met", second.version).aliases == ("champion",)
    with pytest.raises(RegistryError, match=rf"beside adapter {first.adapter_sha256[:12]}.*is adapter .* now.*again"):
        registry.promote("met", third.version)
    assert registry.resolve("met").version == 2
    assert registry.moves("met")[-1].refused is not None
    assert registry.promote("met", 3, force="we looked at it").version == 3


def test_a_verdict_of_before_there_was_a_champion_says_nothing_beside_one(registry: Registry, tmp_path: Path) -> None:
    first, second = (beside(registry, "early", tmp_path / each, "none") for each in "ab")
    registry.promote("early", first.version)
    with pytest.raises(RegistryError, match="beside no champion"):
        registry.promote("early", second.version)
    assert registry.promote("early", second.version, "staging").version == 2, "other aliases stand beside nobody"


def test_a_champion_of_before_may_come_back(registry: Registry, tmp_path: Path) -> None:
    first = beside(registry, "again-champion", tmp_path / "a", "none")
    registry.promote(first.name, 1)
    beside(registry, first.name, tmp_path / "b", first.adapter_sha256)
    registry.promote(first.name, 2)
    assert registry.rollback(first.name).version == 1
    assert registry.promote(first.name, 2).version == 2, "it was champion a moment ago"
    assert registry.promote(first.name, 1).version == 1

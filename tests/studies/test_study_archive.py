"""A study in one file: the same bytes for the same study, opened, checked, gone on with elsewhere."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from didact.cli import app
from didact.errors import DataError, RunError
from didact.evaluation import EvalReport
from didact.spec import StudySpec, load_spec
from didact.studies import StudyResult, load_study, read_study
from didact.studies.archive import archive_study, check_archive, open_archive, read_archive
from didact.studies.reporting import write_report
from didact.studies.results import keep_study
from didact.studies.running import _refuse_another
from tests.fakes.recipes import tiny_recipe
from tests.fakes.studies import save_cell

RANKS = {"r4": {"adapter.r": 4}, "r8": {"adapter.r": 8}}


def measured(folder: Path, runs: Path) -> StudyResult:
    """A study loaded from its files, whose cells have been measured."""
    recipe = tiny_recipe(folder, evaluation=None).model_dump(mode="json")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    values = {"name": "ranks", "recipe": "recipe.yaml", "factors": {"rank": RANKS}, "evaluation": {}}
    (folder / "ranks.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    study = load_study(load_spec(StudySpec, folder / "ranks.yaml"), folder / "ranks.yaml")
    for place, cell in enumerate(study.cells):
        save_cell(runs / "ranks" / "cells" / cell.name, [float(n % (place + 2) == 0) for n in range(30)], 1.0)
    keep_study(study, runs / "ranks", {})
    write_report(read_study(runs / "ranks"))
    return read_study(runs / "ranks")


def changed(file: Path, edits: dict[str, bytes | None]) -> Path:
    """The archive with members replaced, added, or left out."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members |= {name: content for name, content in edits.items() if content is not None}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            if edits.get(name, b"") is not None:
                archive.writestr(name, content)
    other = file.with_name("other.zip")
    other.write_bytes(packed.getvalue())
    return other


def test_a_study_comes_back_whole_from_one_file(tmp_path: Path) -> None:
    before = measured(tmp_path, tmp_path / "runs")
    (before.cells[0].run / "adapter").mkdir()
    (before.cells[0].run / "adapter" / "weights").write_text("large")
    first = archive_study(before.folder, tmp_path / "a.zip").read_bytes()
    assert archive_study(before.folder, tmp_path / "b.zip").read_bytes() == first
    folder = open_archive(tmp_path / "a.zip", tmp_path / "elsewhere")
    after = read_study(folder)
    assert after.spec == before.spec and not list(folder.rglob("weights"))
    assert [(each.name, each.report, each.curve) for each in after.cells] == [
        (each.name, each.report, each.curve) for each in before.cells
    ]
    assert (folder / "study.html").read_text() == (before.folder / "study.html").read_text()
    with pytest.raises(RunError, match=r"ranks exists; move it, or open the archive with another DIDACT_RUNS"):
        open_archive(tmp_path / "a.zip", tmp_path / "elsewhere")


def test_an_opened_study_is_gone_on_with_from_its_own_file(tmp_path: Path) -> None:
    file = archive_study(measured(tmp_path, tmp_path / "runs").folder, tmp_path / "a.zip")
    folder = open_archive(file, tmp_path / "elsewhere")
    grown = yaml.safe_load((folder / "study.yaml").read_text())
    grown["factors"]["rank"]["r16"] = {"adapter.r": 16}
    (folder / "study.yaml").write_text(yaml.safe_dump(grown, sort_keys=False))
    study = load_study(load_spec(StudySpec, folder / "study.yaml"), folder / "study.yaml")
    _refuse_another(study, folder)  # the recipe is the same, though it lies elsewhere
    keep_study(study, folder, {})
    assert [cell.status for cell in read_study(folder).cells] == ["finished", "finished", "not run"]
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["tokens"] = {"max_length": 99}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(RunError, match=r"recipe.tokens: was .* now {'max_length': 99}"):
        _refuse_another(load_study(load_spec(StudySpec, folder / "study.yaml"), folder / "study.yaml"), folder)


def test_cells_measured_by_something_else_are_no_part_of_a_study(tmp_path: Path) -> None:
    folder = measured(tmp_path, tmp_path / "runs").folder
    values = yaml.safe_load((tmp_path / "ranks.yaml").read_text())
    values["evaluation"] = {"batch_size": 3}
    (tmp_path / "ranks.yaml").write_text(yaml.safe_dump(values))
    study = load_study(load_spec(StudySpec, tmp_path / "ranks.yaml"), tmp_path / "ranks.yaml")
    with pytest.raises(RunError, match=r"evaluation: was .*'batch_size': 16.*, now .*'batch_size': 3"):
        _refuse_another(study, folder)


def test_figures_are_worked_out_anew_from_answers(tmp_path: Path) -> None:
    result = measured(tmp_path, tmp_path / "runs")
    file = archive_study(result.folder, tmp_path / "a.zip")
    sound = check_archive(file)
    assert sound.problems == () and sound.num_figures == 4, "of base and adapter in two cells"
    report = result.cells[1].run / "report.json"
    values = json.loads(report.read_text())
    text = report.read_text().replace(f"{values['metrics_of']['adapter']['eval/sums/accuracy']!r}", "0.99", 1)
    assert text != report.read_text()
    report.write_text(text)
    edited = check_archive(archive_study(result.folder, tmp_path / "edited.zip"))
    assert any("it was changed after it was written" in each for each in edited.problems)
    EvalReport.from_json(text, is_sealed=False).save(report)  # by somebody who knows of the digest
    forged = check_archive(archive_study(result.folder, tmp_path / "forged.zip"))
    assert any("eval/sums/accuracy of adapter is 0.99, and" in each for each in forged.problems)
    assert "study.csv holds other tables than the reports give" in forged.problems


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ({"study.csv": b"other"}, "study.csv was changed"),
        ({"study.csv": None}, "study.csv is missing"),
        ({"more.txt": b"x"}, "more.txt is not listed"),
        ({"../out": b"x"}, "../out lies outside"),
        ({"archive.json": None}, "is no archive of a study that can be read"),
        ({"archive.json": b'{"format": 9, "study": "x", "sha256": {}}'}, "found format 9; this didact reads format 1"),
        ({"archive.json": b"[]"}, "is no archive of a study that can be read"),
        ({"study.csv/inside": b"x"}, "study.csv/inside is a file and a folder"),
        ({"archive.json": b'{"format": 1, "study": "a/b", "sha256": {"study.json": ""}}'}, "a/b is no name of a study"),
    ],
)
def test_an_archive_that_was_changed_is_refused(tmp_path: Path, edits: dict[str, bytes | None], told: str) -> None:
    file = archive_study(measured(tmp_path, tmp_path / "runs").folder, tmp_path / "a.zip")
    with pytest.raises(DataError, match=told.replace(".", r"\.")):
        open_archive(changed(file, edits), tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists() and not (tmp_path / "out").exists()


def test_an_archive_of_before_its_tables_had_one_line_of_headings_is_sound(tmp_path: Path) -> None:
    result = measured(tmp_path, tmp_path / "runs")
    file = result.folder / "study.csv"
    _, *lines = file.read_text().splitlines()
    old = "table,rank,column,metric,value,low,high,runs,best,not worse\n"
    cut = [line.replace("rank,rank,", "rank,", 1) for line in lines]
    file.write_text(old + "".join(f"{line}\n" for line in cut))
    assert check_archive(archive_study(result.folder, tmp_path / "old.zip")).problems == ()
    value = cut[-1].split(",")[4]
    file.write_text(old + "".join(f"{line}\n" for line in [*cut[:-1], cut[-1].replace(value, "0.77", 1)]))
    told = check_archive(archive_study(result.folder, tmp_path / "other.zip")).problems
    assert told == ("study.csv holds other tables than the reports give",)


def test_no_byte_of_an_archive_changes_unseen(tmp_path: Path) -> None:
    file = archive_study(measured(tmp_path, tmp_path / "runs").folder, tmp_path / "a.zip")
    whole, sound = file.read_bytes(), read_archive(file)
    for place in range(0, len(whole), len(whole) // 150):
        for mask in (0xFF, 0x01):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
            try:
                found = read_archive(file)
            except DataError:
                continue
            assert found == sound, f"byte {place}"  # a time, or what zip says twice
    for size in (0, len(whole) * 6 // 10, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(DataError, match="is no archive of a study that can be read"):
            read_archive(file)


def test_an_archive_whose_study_cannot_be_read_leaves_no_folder(tmp_path: Path) -> None:
    result = measured(tmp_path, tmp_path / "runs")
    file = archive_study(result.folder, tmp_path / "a.zip")
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    index = json.loads(members["archive.json"])
    study = members["study.json"].replace(result.cells[0].name.encode(), b"../../outside")
    index["sha256"]["study.json"] = hashlib.sha256(study).hexdigest()
    other = changed(file, {"study.json": study, "archive.json": json.dumps(index).encode()})
    with pytest.raises(DataError, match=r"study.json cannot be read .*'../../outside' is no cell of this study"):
        open_archive(other, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere" / "ranks").exists()


@pytest.mark.parametrize("content", [None, b"", b"no zip at all"])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match="does not exist" if content is None else "is no archive of a study"):
        check_archive(tmp_path / "a.zip")


def test_the_verbs_archive_check_and_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(tmp_path, tmp_path / "runs")
    monkeypatch.setenv("DIDACT_RUNS", str(tmp_path / "runs"))
    runner, file = CliRunner(), str(tmp_path / "a.zip")
    assert "written:" in runner.invoke(app, ["study", "archive", "ranks", "-o", file]).output
    checked = runner.invoke(app, ["study", "check", file])
    assert checked.exit_code == 0 and "worked out anew from answers: 4 figures" in checked.output
    monkeypatch.setenv("DIDACT_RUNS", str(tmp_path / "others"))
    assert "more levels or seeds in" in runner.invoke(app, ["study", "open", file]).output
    assert (tmp_path / "others" / "ranks" / "study.yaml").is_file()

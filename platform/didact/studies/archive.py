"""A study in one file, which another person opens, checks and goes on with.

A zip with `archive.json`: what it is, and the digest of every other member. It holds the study and its recipe, of every
cell the recipe, report with questions and answers, curve and where its data came from, and the tables. Bases, data and
adapters are not in it.
"""

import csv
import hashlib
import io
import json
import math
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from didact.errors import DataError, RunError
from didact.evaluation import EvalReport
from didact.files import new_folder, write_bytes
from didact.studies.reporting import table_values
from didact.studies.results import CellResult, StudyResult, read_study

_FORMAT = 1
_INDEX = "archive.json"
_STUDY = ("study.json", "study.html", "study.md", "study.csv", "study.tex", "beside.csv")
_CELL = (
    *("recipe.json", "report.json", "report.html", "report.md", "steps.jsonl", "data.json", "prepared.json"),
    *("provenance.jsonl", "workers.jsonl", "interruptions.jsonl"),
)
_OLDEST = (1980, 1, 1, 0, 0, 0)
"""Time of every member: the same study is the same bytes."""
_UNREADABLE = (zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error)
_MOST_BYTES = 4 * 2**30
"""Of one member, unpacked."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive whose digests are right."""

    name: str
    """Of the study."""
    members: dict[str, bytes]


def archive_study(folder: Path, file: Path) -> Path:
    """Put a study into one file; the same study gives the same bytes.

    Args:
        folder: of the study, finished or not.
        file: to write; one that is there is replaced.

    Raises:
        RunError: the folder holds no study.
    """
    result = read_study(folder)
    members = {name: (folder / name).read_bytes() for name in _STUDY if (folder / name).is_file()}
    members |= _files_to_go_on(members["study.json"])
    for cell in result.cells:
        found = (name for name in _CELL if (cell.run / name).is_file())
        members |= {f"cells/{cell.name}/{name}": (cell.run / name).read_bytes() for name in found}
    index = {
        "format": _FORMAT,
        "study": result.spec.name,
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in sorted(members.items())},
    }
    members[_INDEX] = (json.dumps(index, indent=2) + "\n").encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in sorted(members.items()):
            archive.writestr(zipfile.ZipInfo(name, _OLDEST), content, zipfile.ZIP_DEFLATED)
    write_bytes(file, packed.getvalue())
    return file


def _files_to_go_on(kept: bytes) -> dict[str, bytes]:
    """The study's file and recipe, so that `didact study run study.yaml` adds cells anywhere."""
    values = json.loads(kept)
    if "recipe" not in values:
        return {}  # written before recipes were kept
    spec = {**values["spec"], "recipe": "recipe.yaml"}
    return {
        name: yaml.safe_dump(each, sort_keys=False, allow_unicode=True).encode()
        for name, each in (("study.yaml", spec), ("recipe.yaml", values["recipe"]))
    }


def read_archive(file: Path) -> Archive:
    """An archive, every byte of it checked against its digest.

    Raises:
        DataError: it is none, or a member is missing, added or changed; names it.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            large = [each.filename for each in archive.infolist() if each.file_size > _MOST_BYTES]
            if large:
                raise DataError(f"{file}: {large[0]} would unpack to more than {_MOST_BYTES // 2**30} GiB")
            names = archive.namelist()
            members = {name: archive.read(name) for name in names}
        index = json.loads(members.pop(_INDEX))
        listed: dict[str, str] = index["sha256"]
        if index["format"] != _FORMAT:
            raise DataError(f"{file}: found format {index['format']}; this didact reads format {_FORMAT}")
        name = str(index["study"])
        if len(members) < len(names) - 1:
            raise DataError(f"{file} is not as it was written: a name is there twice")
    except FileNotFoundError as error:
        raise DataError(f"{file} does not exist") from error
    except (*_UNREADABLE, KeyError, TypeError, ValueError, EOFError, OSError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{file} is no archive of a study that can be read: {error}") from error
    problems = [f"{each} is missing" for each in listed.keys() - members.keys()]
    problems += [f"{each} is not listed" for each in members.keys() - listed.keys()]
    problems += [
        f"{each} was changed"
        for each in listed.keys() & members.keys()
        if hashlib.sha256(members[each]).hexdigest() != listed[each]
    ]
    problems += [f"{each} lies outside" for each in (*members, name) if not _stays_inside(each)]
    problems += [f"{each} is a file and a folder" for each in members if any(map(members.__contains__, _above(each)))]
    if "study.json" not in listed:
        problems.append("study.json is missing")
    elif "/" in name:
        problems.append(f"{name} is no name of a study")
    if problems:
        raise DataError(f"{file} is not as it was written: " + "; ".join(sorted(problems)))
    return Archive(name, members)


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        bool(name)
        and name != "."
        and "\0" not in name
        and "\\" not in name
        and ":" not in name
        and not path.is_absolute()
        and ".." not in path.parts
    )


def _above(name: str) -> Iterator[str]:
    yield from map(str, PurePosixPath(name).parents)


def open_archive(file: Path, runs_dir: Path) -> Path:
    """Unpack an archive into a folder of the study's name, and return the folder.

    Raises:
        DataError: as `read_archive`.
        RunError: there is a study of that name.
    """
    archive = read_archive(file)
    folder = runs_dir / archive.name
    if folder.exists():
        raise RunError(f"{folder} exists; move it, or open the archive with another DIDACT_RUNS")
    with new_folder(folder, replace=False) as scratch:
        _unpack(archive, scratch)
        read_study(scratch)  # a folder that could not be read is none
    return folder


def _unpack(archive: Archive, folder: Path) -> None:
    for name, content in archive.members.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)


@dataclass(frozen=True, slots=True)
class Check:
    """What an archive's own answers say of its figures."""

    result: StudyResult
    num_files: int
    num_figures: int
    """Figures that were worked out anew from answers."""
    problems: tuple[str, ...]


def check_archive(file: Path) -> Check:
    """Digests, then figures: each report's means over its questions, and the tables over the reports, anew.

    Raises:
        DataError: as `read_archive`.
    """
    archive = read_archive(file)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "study"
        _unpack(archive, folder)
        result = read_study(folder)
        problems: list[str] = []
        count = 0
        for cell in result.cells:
            for figure, told, found in _means(cell):
                count += 1
                if not _equal(told, found):
                    problems.append(f"{cell.name}: {figure} is {told:g}, and {found:g} by its answers")
            if cell.status == "failed" and f"cells/{cell.name}/report.json" in archive.members:
                problems.append(f"{cell.name}: {cell.error}")
        written = archive.members.get("study.csv")
        if written is not None and result.measured:
            before, anew = _figures(written.decode()), _figures(table_values(result))
            if before.keys() != anew.keys() or not all(_equal(before[key], anew[key]) for key in before):
                problems.append("study.csv holds other tables than the reports give")
    return Check(result, len(archive.members), count, tuple(problems))


def _equal(told: float | None, found: float | None) -> bool:
    """Whether figures are the same but for rounding, which processors do otherwise."""
    return told == found or (
        told is not None and found is not None and math.isclose(told, found, rel_tol=1e-6, abs_tol=1e-9)
    )


def _figures(text: str) -> dict[tuple[str, str, str], float | None]:
    """(table, level, column) -> value of `study.csv`; also as it was before it had one line of headings."""
    found: dict[tuple[str, str, str], float | None] = {}
    at = 0
    for row in csv.reader(io.StringIO(text)):
        if row[:1] == ["table"] and "column" in row:
            at = row.index("column")
        elif at and len(row) > at + 2:
            found[row[0], row[at - 1], row[at]] = _number(row[at + 2])
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None  # why there is no figure


def _means(cell: CellResult) -> Iterator[tuple[str, float, float]]:
    """Figures of a report that are means over its questions: name, as told, as its answers give it."""
    report: EvalReport | None = cell.report
    if report is None:
        return
    by_task: dict[str, list[Any]] = {}
    for question in report.questions:
        by_task.setdefault(question.task, []).append(question)
    for model, figures in report.metrics_of.items():
        for task in report.tasks:
            name = f"eval/{task.name}/{task.metric}"
            values = [each.value(model, task.metric) for each in by_task.get(task.name, ())]
            known = [value for value in values if value is not None]
            if name in figures and known:
                yield f"{name} of {model}", figures[name], sum(known) / len(known)

"""Folders of runs that were moved or copied: MLflow writes absolute paths into its database, and so do runs.

A database in a folder that bears its runs' artifacts is their home, whatever it says; what lies at the place that it
names, the original of a copy, is left alone.
"""

import contextlib
import sqlite3
from pathlib import Path

from didact.logs import get_logger
from didact.tracking.uris import ARTIFACTS, sqlite_file, sqlite_uri

_LOG = get_logger(__name__)


def settle_artifacts(database: Path) -> None:
    """Have a database name the artifacts beside itself, where it was moved together with them.

    Runs whose artifacts lie here are led here, and experiments that hold such a run, or whose own folder is gone or
    that of another database, keep the artifacts of later runs here. Those that keep theirs elsewhere on purpose stay.
    """
    here = database.parent.absolute() / ARTIFACTS
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        if not connection.execute("select 1 from sqlite_master where name = 'experiments'").fetchone():
            return
        away = {
            number: location.rstrip("/")
            for number, location in connection.execute("select experiment_id, artifact_location from experiments")
            if location and Path(location).name == ARTIFACTS and Path(location) != here
        }
        for number, location in away.items():
            runs = connection.execute(
                "select run_uuid, artifact_uri from runs where experiment_id = ? and artifact_uri like ?",
                (number, f"{location}/%"),
            ).fetchall()
            moved = [(f"{here}{uri.removeprefix(location)}", run) for run, uri in runs if (here / run).is_dir()]
            if not moved and _is_home(Path(location), database):
                continue
            connection.executemany("update runs set artifact_uri = ? where run_uuid = ?", moved)
            connection.execute(
                "update experiments set artifact_location = ? where experiment_id = ?", (str(here), number)
            )
            _LOG.info("%s was moved from %s: its artifacts are read and written here", database, Path(location).parent)


def _is_home(artifacts: Path, database: Path) -> bool:
    """Whether a folder elsewhere is this database's own, and not that of the one it is a copy of."""
    return artifacts.is_dir() and not (artifacts.parent / database.name).is_file()


def database_of(run_dir: Path, uri: str, run_id: str) -> str:
    """The address of the MLflow that holds a run now: the database above its folder, where it was moved with it.

    Args:
        run_dir: the run folder.
        uri: where the run was recorded.
        run_id: its MLflow run.
    """
    database = sqlite_file(uri)
    above = _database_above(run_dir, database)
    if above is None or not _holds(above, run_id):
        return uri
    return sqlite_uri(above)


def never_met(run_dir: Path, uri: str) -> bool:
    """Whether a run that MLflow has not met yet was moved away from the folder whose database it was meant for."""
    database = sqlite_file(uri)
    return database is not None and database.parent not in run_dir.absolute().parents


def _database_above(run_dir: Path, database: Path | None) -> Path | None:
    if database is None:
        return None
    found = (parent / database.name for parent in run_dir.absolute().parents)
    above = next((each for each in found if each.is_file()), None)
    return None if above is None or above == database else above


def _holds(database: Path, run_id: str) -> bool:
    with contextlib.closing(sqlite3.connect(database, timeout=20)) as connection:
        try:
            return connection.execute("select 1 from runs where run_uuid = ?", (run_id,)).fetchone() is not None
        except sqlite3.DatabaseError:
            return False

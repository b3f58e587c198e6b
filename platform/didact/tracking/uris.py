"""Which MLflow a run is recorded in. Always an absolute address: workers have another working directory."""

from pathlib import Path

from didact import env
from didact.errors import SpecError
from didact.spec import TrackingSpec
from didact.spec.training import without_password

ARTIFACTS = "mlartifacts"
"""Name of the folder beside a database, or beside the runs, that holds artifacts."""
_SQLITE = "sqlite:///"
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")


def default_uri(runs_dir: Path) -> str:
    """A sqlite file beside the run folders."""
    return sqlite_uri(runs_dir.absolute() / "mlflow.db")


def sqlite_uri(database: Path) -> str:
    """The address of a database file."""
    return f"{_SQLITE}{database}"


def resolve_uri(tracking: TrackingSpec, runs_dir: Path) -> str:
    """`tracking.uri`, else `MLFLOW_TRACKING_URI`, else the sqlite file in `runs_dir`.

    Raises:
        SpecError: an address that MLflow cannot write to from every worker: a folder, or a relative sqlite path; or
            one with a password.
    """
    given = tracking.uri or env.mlflow_uri()
    field = "tracking.uri" if tracking.uri else "MLFLOW_TRACKING_URI"
    if given is None:
        return default_uri(runs_dir)
    try:
        without_password(given)
    except ValueError as error:
        raise SpecError(f"{field}: {error}") from error
    scheme = given.partition(":")[0].partition("+")[0]
    if scheme not in _SCHEMES or "://" not in given:
        raise SpecError(
            f"{field}: found {given!r}; expected http(s)://HOST:PORT, sqlite:////ABSOLUTE/FILE.db "
            "or a database address such as postgresql+psycopg://USER@HOST/NAME"
        )
    if scheme == "sqlite" and not given.startswith(_SQLITE + "/"):
        raise SpecError(f"{field}: found {given!r}; expected an absolute path, as sqlite:////home/me/mlflow.db")
    return given


def sqlite_file(uri: str) -> Path | None:
    """The database file of a sqlite address, None for servers."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def artifact_root(uri: str) -> Path | None:
    """Where a new experiment keeps its artifacts; None leaves it to the server.

    Without a server MLflow's own default is relative to the working directory, which differs between workers.
    """
    if uri.startswith("http"):
        return None
    database = sqlite_file(uri)
    return (database.parent if database else env.runs_dir()) / ARTIFACTS

"""The verbs for keys of the serving API.

didact keys add -> the key, shown once -> list, revoke
"""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from didact import env
from didact.display import terminal
from didact.errors import SpecError

if TYPE_CHECKING:
    from didact.serving.api.keys import KeyFile

keys = typer.Typer(no_args_is_help=True, help="Keys of the serving API: who may ask which models, how much a minute.")
_DAY = "%Y-%m-%d"


@keys.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is")],
    model: Annotated[
        list[str] | None, typer.Option("--model", help="A model it may ask, such as 'demo*'; repeat it; default: all")
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", help="admin (loads and unloads adapters) or metrics (reads figures); repeat it"),
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="Default: no limit")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(help="Prompts and answers together; default: no limit")
    ] = None,
    least_priority: Annotated[
        int | None, typer.Option(help="Smallest priority its requests may have (smaller begin earlier); default: any")
    ] = None,
    days: Annotated[float | None, typer.Option(min=0.001, help="How long it is valid; default: always")] = None,
) -> None:
    """Make a key and print it, once: only its digest is kept. Servers that are started with its file answer nobody
    without one."""
    file = _file()
    secret = file.add(
        name,
        models=model or (),
        roles=role or (),
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        least_priority=least_priority,
        days=days,
    )
    print(secret)
    terminal(stderr=True).print(f"the key of {name} is shown this once; {file.path} holds its digest", highlight=False)


@keys.command("list")
def list_keys() -> None:
    """List the keys, without the keys themselves."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("name", "key", "models", "roles", "requests/min", "tokens/min", "priority", "made", "valid"):
        table.add_column(column, overflow="fold", no_wrap=column == "valid")
    for key in _file().read():
        valid = "always" if key.expires is None else f"until {_day(key.expires)}"
        table.add_row(
            escape(key.name),
            f"{key.hint}...",
            escape(", ".join(key.models) or "all"),
            ", ".join(key.roles) or "-",
            _limit(key.requests_per_minute),
            _limit(key.tokens_per_minute),
            "-" if key.least_priority is None else f"from {key.least_priority}",
            _day(key.created),
            valid if key.is_valid(time.time()) else "[red]revoked[/]" if key.revoked else "[red]expired[/]",
        )
    terminal().print(table if table.row_count else "there are no keys; didact keys add NAME makes one")


@keys.command("revoke")
def revoke(name: Annotated[str, typer.Argument(help="Whose key it is")]) -> None:
    """Make a key invalid; running servers know within two seconds."""
    _file().revoke(name)
    terminal().print(f"the key of {name} is revoked", highlight=False)


def _file() -> "KeyFile":
    from didact.serving.api.keys import KeyFile

    path = env.keys_file()
    if path is None:
        raise SpecError("DIDACT_KEYS is not set; expected the file of keys that servers are started with as well")
    return KeyFile(path)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(_DAY)


def _limit(per_minute: int | None) -> str:
    return "no limit" if per_minute is None else f"{per_minute:,}"

"""MLflow's tables, which take a second in each new database, are made by MLflow once and then copied."""

import contextlib
import functools
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

_MODULE = "mlflow.store.db.utils"


def make_tables_once() -> None:
    """Have this process copy tables into all sqlite files after the first; does not load MLflow for that."""
    if (module := sys.modules.get(_MODULE)) is not None and not hasattr(module._initialize_tables, "__wrapped__"):
        module._initialize_tables = _copying(module._initialize_tables)  # type: ignore[attr-defined]


def _copying(make: Callable[[Any], None]) -> Callable[[Any], None]:
    script = ""

    @functools.wraps(make)
    def tables(engine: Any) -> None:
        nonlocal script
        if engine.dialect.name != "sqlite":
            make(engine)
            return
        if not script:
            make(engine)
        with contextlib.closing(sqlite3.connect(engine.url.database)) as database:
            if script:
                database.executescript(script)
            script = script or "\n".join(database.iterdump())

    return tables

"""The command line: one verb per thing a person does.

    words -> Typer -> a verb reads its files as specs -> one call of a room below -> tables; DidactError -> exit code

Each verb imports the heavy libraries it needs when it runs, so that `didact --help` is instant.

Example:
    >>> from typer.testing import CliRunner
    >>> from didact.cli import app
    >>> shown = CliRunner().invoke(app, ["data", "list", "--task", "math"]).output
    >>> "gsm8k-cot" in shown
    True
"""

from didact.cli.verbs import app, guarded, main

__all__ = ["app", "guarded", "main"]

"""The command line: one verb per thing a person does.

    words -> Typer -> a verb reads its files as specs -> one call of a room below -> tables; DidactError -> exit code

Each verb imports the heavy libraries it needs when it runs, so that `didact --help` is instant.

Example:
    >>> from didact.cli import main
    >>> main(["data", "list", "--task", "math"])  # doctest: +SKIP
"""

from didact.cli.verbs import app, guarded, main

__all__ = ["app", "guarded", "main"]

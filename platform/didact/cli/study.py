"""`didact study`: many variants of a recipe, run and laid beside each other."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from didact.cli.data import Overrides
from didact.connect import begin_early
from didact.display import counted, terminal
from didact.errors import SpecError
from didact.spec import StudySpec, load_spec

if TYPE_CHECKING:
    from didact.studies import Study, StudyResult
    from didact.studies.published import Paper

study = typer.Typer(no_args_is_help=True, help="Run one recipe in many variants and compare them")
File = Annotated[Path, typer.Argument(help="A study, such as studies/embedded.yaml")]


@study.command()
def plan(file: File, overrides: Overrides = None) -> None:
    """Show a study's cells with steps, tokens and memory. Trains nothing."""
    loaded = _loaded(file, overrides)
    from didact import env
    from didact.studies.plan import plan_study

    terminal().print(plan_study(loaded, env.runs_dir()))


@study.command()
def run(file: File, overrides: Overrides = None) -> None:
    """Run every cell that has no result yet; an interrupted study continues. Ends with 1 where cells failed."""
    loaded = _loaded(file, overrides)
    begin_early()
    from didact.studies import run_study

    result = run_study(loaded)
    _tell(result)
    if len(result.measured) < len(result.cells):
        raise typer.Exit(1)


@study.command()
def report(
    name: Annotated[str, typer.Argument(help="Name of the study, or its folder")],
    beside: Annotated[str | None, typer.Option(help="Lay published figures beside the study's: `paper`")] = None,
) -> None:
    """Write the tables and the page of a study, finished or not."""
    if beside not in (None, "paper"):
        raise SpecError(f"--beside: found {beside!r}; expected paper, the study of Chinese instruction tuning")
    from didact.runs import folder_named
    from didact.studies import read_study
    from didact.studies.published import published_paper

    _tell(read_study(folder_named(name)), published_paper() if beside else None)


@study.command()
def archive(
    name: Annotated[str, typer.Argument(help="Name of the study, or its folder")],
    to: Annotated[Path | None, typer.Option("--to", "-o", help="File to write; default NAME.study.zip")] = None,
) -> None:
    """Put a study into one file: what was asked, results, answers, digests. Bases, data and adapters stay here."""
    from didact.runs import folder_named
    from didact.studies.archive import archive_study

    folder = folder_named(name)
    written = archive_study(folder, to or Path(f"{folder.name}.study.zip"))
    typer.echo(f"written: {written}, {written.stat().st_size / 2**20:.1f} MiB")


@study.command()
def check(file: Annotated[Path, typer.Argument(help="An archive of a study")]) -> None:
    """Check an archive's digests, and work out its figures and tables anew. Ends with 1 where something differs."""
    from didact.studies.archive import check_archive

    found = check_archive(file)
    terminal().print(found.result)
    typer.echo(
        f"as written: {counted(found.num_files, 'file')}; worked out anew from answers: "
        f"{counted(found.num_figures, 'figure')}"
    )
    for problem in found.problems:
        typer.echo(f"differs: {problem}")
    if found.problems:
        raise typer.Exit(1)


@study.command("open")
def unpack(file: Annotated[Path, typer.Argument(help="An archive of a study")]) -> None:
    """Unpack an archive, checked, into a study's folder, to report on it or to go on with it."""
    from didact import env
    from didact.studies.archive import open_archive

    folder = open_archive(file, env.runs_dir())
    typer.echo(f"opened: {folder}")
    if (folder / "study.yaml").is_file():
        typer.echo(f"more levels or seeds in {folder / 'study.yaml'}, then: didact study run {folder / 'study.yaml'}")


def _loaded(file: Path, overrides: list[str] | None) -> "Study":
    spec = load_spec(StudySpec, file, overrides or [])
    from didact.studies import load_study

    return load_study(spec, file)


def _tell(result: "StudyResult", paper: "Paper | None" = None) -> None:
    """Show a study and write its page.

    Raises:
        SpecError: a table asks for a metric that nothing measured; the rest is written all the same.
    """
    from didact.studies.reporting import write_report

    console = terminal()
    console.print(result)
    for path in write_report(result, paper):
        console.print(f"written: {path}", highlight=False, markup=False, soft_wrap=True)
    if result.unmeasured:
        told = "\n".join(f"  - {each}" for each in result.unmeasured)
        raise SpecError(f"tables of {result.spec.name} lack figures; mend the study's file and run it again:\n{told}")

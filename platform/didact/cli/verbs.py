"""The command line: one verb per thing a person does. Heavy libraries are imported by the verb that needs them.

didact plan recipe.yaml -> train -> evaluate -> register -> promote -> serve -> chat
"""

import contextlib
import gc
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from didact import env, logs
from didact.cli.data import Overrides, Recipe, data
from didact.cli.evaluate import evaluate
from didact.cli.keys import keys
from didact.cli.lineage import lineage, push, reproduce
from didact.cli.prepare import preparing
from didact.cli.quality import quality
from didact.cli.recipes import init, recipes
from didact.cli.study import study
from didact.cli.sweep import sweep
from didact.connect import begin_early
from didact.display import terminal, write_anything
from didact.errors import DidactError
from didact.interrupts import Terminated, ending_in_order
from didact.spec import (
    PREDICTED_TOKENS,
    EvaluateSpec,
    FinetuneSpec,
    MergeSpec,
    ModelSpec,
    RegisterSpec,
    ServeSpec,
    SourceSpec,
    Spec,
    StudySpec,
    SweepSpec,
    json_schema,
    load_spec,
    spec_of,
    validate,
)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
data.add_typer(preparing)
data.add_typer(quality)
app.add_typer(data, name="data")
app.add_typer(keys, name="keys")
app.add_typer(study, name="study")
app.add_typer(sweep, name="sweep")
app.command()(recipes)
app.command()(init)
app.command()(lineage)
app.command()(evaluate)
app.command()(reproduce)
app.command()(push)

BaseName = Annotated[
    str | None, typer.Option(help="Base model; default: the one the adapter was trained on, else the bundled one")
]
Force = Annotated[
    str | None, typer.Option(metavar="REASON", help="Move it although its gate does not allow it; the reason is kept")
]
_INTERRUPTED = 130
AdapterName = Annotated[str, typer.Argument(help="A run folder, an adapter folder, or name, name@alias, name:version")]


_OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""Importing PyTorch, transformers and MLflow makes a million objects that stay; with Python's 700 they are looked
through again and again, a second of eight."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script.

    Args:
        arguments: default: those of the command line.
    """
    with guarded():
        app(arguments)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Quiet libraries, didact's errors as one clear message and their exit code, and an orderly end when told to."""
    write_anything()
    logs.configure()
    env.quiet_libraries()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    try:
        with ending_in_order():
            yield
    except DidactError as error:
        terminal(stderr=True).print(f"[bold red]error:[/] {type(error).__name__}:", end=" ")
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise  # not about a file that the user named
        terminal(stderr=True).print("[bold red]error:[/]", end=" ")
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(DidactError.exit_code)
    except Terminated:
        print("ended by SIGTERM", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:  # as Typer ends for Ctrl-C, without a word
            print("interrupted", file=sys.stderr)
        raise


@app.command()
def plan(
    recipe: Recipe,
    overrides: Overrides = None,
    probe: Annotated[bool, typer.Option("--probe", help="Run two steps here and measure memory and time")] = False,
) -> None:
    """Show what a recipe will do: data, steps, memory, placement. Starts nothing, unless to probe it."""
    spec = load_spec(FinetuneSpec, recipe, overrides or [])
    from didact.connect import cluster_to_join
    from didact.evaluation import task_texts
    from didact.preparation import Plan, prepare_data

    cluster = cluster_to_join()
    planned = Plan.of(spec, prepare_data(spec, task_texts=task_texts), cluster=cluster)
    terminal().print(planned.render())
    if probe:
        from didact.preparation import probe_recipe

        terminal().print(planned.beside(probe_recipe(spec, task_texts=task_texts)), highlight=False)


@app.command()
def train(
    recipe: Recipe,
    overrides: Overrides = None,
    allow_fresh: Annotated[
        bool, typer.Option("--allow-fresh", help="When no checkpoint verifies, set them aside and start from the base")
    ] = False,
) -> None:
    """Finetune, evaluate and register. Called again with the same name, it resumes."""
    spec = load_spec(FinetuneSpec, recipe, overrides or [])
    begin_early()
    from didact.cluster import finetune

    result = finetune(spec, allow_fresh=allow_fresh)
    terminal().print(result.render())


@app.command()
def tune(
    search: Annotated[Path, typer.Argument(help="A search, such as tune_spaces/lora.yaml")],
    overrides: Overrides = None,
    budget: Annotated[
        str | None,
        typer.Option(help="What it may spend: 2h, '5e6 tokens' or '$20'; decides on trials and their length"),
    ] = None,
) -> None:
    """Search over settings and mixtures; an interrupted search continues."""
    stated = [f"budget={budget}"] if budget is not None else []
    spec = load_spec(SweepSpec, search, [*(overrides or []), *stated])
    begin_early()
    from didact.tuning import run_sweep

    terminal().print(run_sweep(spec, search))


@app.command()
def predict(
    source: Annotated[
        Path, typer.Argument(help="JSON lines with `prompt`, `messages` or `instruction`, or OpenAI's batch lines")
    ],
    output: Annotated[Path, typer.Argument(help="JSON lines with `prediction` added, or OpenAI's results")],
    model: Annotated[str, typer.Option(help="An adapter, as for `merge`; left out: the base alone")] = "",
    base: BaseName = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = PREDICTED_TOKENS,
    temperature: Annotated[float, typer.Option(min=0.0)] = 0.0,
    num_beams: Annotated[int, typer.Option(min=1, max=10, help="Beam search: answers followed at once")] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, help="On Ray, this many workers at most; left out: as RAY_ADDRESS has room")
    ] = None,
    cpus_per_worker: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Answer a file of prompts or of batch lines. Continues after the last complete line of OUTPUT."""
    from didact.serving.local import predict_locally

    counts = predict_locally(
        _named(base),
        model or None,
        source,
        output,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        num_beams=num_beams,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
    )
    terminal().print(counts.render())


@app.command()
def merge(
    adapter: AdapterName,
    output: Annotated[Path, typer.Argument(help="Folder to write; it must not exist")],
    settings: Annotated[
        list[str] | None, typer.Argument(help="Settings of the merge, such as dtype=float32 weights=original")
    ] = None,
    base: BaseName = None,
) -> None:
    """Write base + adapter as one Hugging Face folder, with the proof that it computes the same."""
    spec = spec_of(MergeSpec, settings or [], "merge settings")
    from didact.registry import locate_adapter, open_registry, recorded_base
    from didact.registry.export import export_merged

    folder = locate_adapter(adapter, open_registry())
    proof = export_merged(_named(base) or recorded_base(folder), folder, output, spec)
    terminal().print(f"merged into {output}; distance from base + adapter (also in proof.json):")
    for distance in proof.distances:
        terminal().print(f"  {distance}", highlight=False)


@app.command()
def vocabulary(
    corpus: Annotated[str, typer.Argument(help="Text files, or JSON lines with `text`: a file, folder or glob")],
    output: Annotated[Path, typer.Argument(help="Folder for the new base, to name as model.base")],
    size: Annotated[int, typer.Option(min=1, help="New tokens")],
    base: Annotated[str, typer.Option(help="Base model")] = ModelSpec().base,
    ascii_too: Annotated[bool, typer.Option("--ascii", help="Also learn pieces of ASCII characters")] = False,
) -> None:
    """Learn new tokens on a corpus and write a base that has them; train it with adapter.train_new_tokens."""
    source = validate(SourceSpec, {"name": "corpus", "path": corpus, "format": "text"}, "vocabulary")
    from didact.models.vocabulary import extend_vocabulary

    facts = extend_vocabulary(ModelSpec(base=base), source, size, output, ascii_too=ascii_too)
    terminal().print(
        f"{facts.num_tokens:,} new tokens in {output}: {facts.characters_per_token:.2f} characters a token of the "
        f"corpus, {facts.characters_per_token_before:.2f} before",
        soft_wrap=True,
    )


@app.command()
def register(
    run: Annotated[Path, typer.Argument(help="A run folder, such as runs/demo")],
    name: Annotated[str, typer.Option(help="Registered model; default: the recipe's, else the run's name")] = "",
    alias: Annotated[str, typer.Option(help="candidate, champion, or empty for none")] = "candidate",
) -> None:
    """Make a finished run a version of a registered model. Doing it twice makes one version."""
    from didact.lineage import keep_lineage
    from didact.registry import registry_of
    from didact.registry.publish import publish_run
    from didact.registry.versions import registered
    from didact.runs import open_run
    from didact.tracking import mlflow_run_id

    opened = open_run(run)
    spec = opened.spec()
    asked = spec.register_as or RegisterSpec(name=spec.name)
    changes = {"name": name or asked.name, "alias": alias or None, "gate": asked.gate.model_dump()}
    gate, version = publish_run(opened, spec, validate(RegisterSpec, changes, "register"), mlflow_run_id(opened.path))
    keep_lineage(registry_of(opened, spec.tracking), version, opened)
    for line in gate.lines if gate else ():
        terminal().print(line)
    terminal().print(registered(version, is_refused=gate is not None and not gate.passed), highlight=False)


@app.command()
def promote(
    name: str,
    version: int,
    alias: Annotated[str, typer.Option()] = "champion",
    expected: Annotated[int | None, typer.Option(help="Refuse unless the alias points to this version now")] = None,
    force: Force = None,
) -> None:
    """Point an alias to a version that can be served and passed its gate; replicas follow within a second."""
    from didact.registry import ANY, open_registry
    from didact.registry.promotion import promote_servable

    wanted = ANY if expected is None else expected
    promoted = promote_servable(open_registry(), name, version, alias, wanted, force)
    terminal().print(f"{promoted.name}@{alias} is version {promoted.version}")
    if f"{alias}.forced" in promoted.tags:
        terminal().print(f"gate: {promoted.gate}", highlight=False, markup=False)


@app.command()
def rollback(name: str, alias: Annotated[str, typer.Option()] = "champion", force: Force = None) -> None:
    """Point an alias back to the version that it pointed to before it was last moved."""
    from didact.registry import open_registry

    version = open_registry().rollback(name, alias, force=force)
    terminal().print(f"{version.name}@{alias} is version {version.version} again")


@app.command()
def models() -> None:
    """List registered adapters."""
    from didact.registry import open_registry

    terminal().print(open_registry().list(), highlight=False)


@app.command()
def serve(
    config: Annotated[Path, typer.Argument(help="A Ray Serve file")] = Path("serve/local.yaml"),
    overrides: Overrides = None,
    port: Annotated[int | None, typer.Option(help="Instead of the file's")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be started, and what fits")] = False,
) -> None:
    """Serve the base and every registered adapter over HTTP until Ctrl-C."""
    if dry_run:
        from didact.serving.start_plan import plan_start

        terminal().print(plan_start(config, overrides or [], port), soft_wrap=True)
        return
    from didact.serving.deploy import serve_forever

    serve_forever(config, port, overrides or [])


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="An adapter, as for `merge`; left out: the base alone")] = "",
    url: Annotated[
        str, typer.Option(help="A running server, such as http://127.0.0.1:8000; left out: in this process")
    ] = "",
    base: BaseName = None,
) -> None:
    """Talk to a model in the terminal. A server that asks for a key gets the first of DIDACT_API_KEYS."""
    from didact.serving.local import chat_locally, chat_over_http

    if url:
        chat_over_http(url, model or None)
    else:
        chat_locally(_named(base), model or None)


@app.command()
def sync(run: Annotated[Path, typer.Argument(help="A run folder")]) -> None:
    """Bring MLflow up to date with a run that was recorded while it was down."""
    from didact.runs import open_run
    from didact.tracking import sync_run

    opened = open_run(run)
    terminal().print(str(sync_run(opened.path, opened.spec().tracking)))


@app.command()
def schema(kind: Annotated[str, typer.Argument(help="finetune, sweep, study, evaluate or serve")] = "finetune") -> None:
    """Print the JSON schema of a file, for completion and checks in an editor."""
    kinds: dict[str, type[Spec]] = {
        "finetune": FinetuneSpec,
        "sweep": SweepSpec,
        "study": StudySpec,
        "evaluate": EvaluateSpec,
        "serve": ServeSpec,
    }
    if kind not in kinds:
        raise typer.BadParameter(f"expected one of {', '.join(kinds)}; found {kind!r}")
    print(json_schema(kinds[kind]), end="")


def _named(base: str | None) -> ModelSpec | None:
    return None if base is None else ModelSpec(base=base)

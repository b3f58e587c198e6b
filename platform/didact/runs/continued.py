"""What a run descends from: an adapter that it begins with, or itself, when it goes on after its end to more steps.

    <run>/start/                a copy of the adapter that it began with

<run>/earlier/120-steps/    the adapter and report that it had then
<run>/descent.jsonl         one line for each time: from what to what, the earlier adapter, whether it is exact
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from didact.adapter_folder import check_folder
from didact.errors import AdapterError, RunError
from didact.files import append_jsonl, read_jsonl
from didact.logs import get_logger
from didact.runs.run import Run
from didact.spec import FinetuneSpec, TrainingSpec, load_spec

_LOG = get_logger(__name__)
_SCHEDULED_METHODS = ("adalora",)


@dataclass(frozen=True, slots=True)
class Descent:
    """What a run went on from."""

    before: str
    """Its length then, such as `120 steps`; or the adapter that it begins with, as the recipe names it."""
    now: str
    adapter_sha256: str | None
    """Identity of the adapter that it had then; None where the base itself was trained."""
    exact: bool
    """The result is that of one run of the new length."""
    why: str
    """Why it is not; empty where it is."""

    def __str__(self) -> str:
        adapter = f", adapter {self.adapter_sha256[:12]}" if self.adapter_sha256 else ""
        return f"{self.before}{adapter}{'' if self.exact else ' (not as in one run)'}"


def descents(run: Run) -> list[Descent]:
    """What a run began with and each time that it went on after its end, the first one first."""
    return [Descent(**record) for record in read_jsonl(_record(run))]


def note_start(run: Run, reference: str, length: str, sha256: str) -> None:
    """Write down that a run begins with the weights of an adapter.

    Args:
        run: the run.
        reference: the adapter as the recipe names it.
        length: of the run, in words.
        sha256: the adapter's identity.
    """
    descent = Descent(reference, length, sha256, exact=True, why="")
    if descent not in descents(run):
        append_jsonl(_record(run), asdict(descent))


def note_branch(run: Run, donor: str, step: int, length: str) -> None:
    """Write down that a run goes on from a checkpoint of another one.

    Args:
        run: the run.
        donor: the other run's name.
        step: of the checkpoint.
        length: of the run, in words.
    """
    append_jsonl(_record(run), asdict(Descent(f"{donor} at step {step}", length, None, exact=True, why="")))


def go_on(run: Run, spec: FinetuneSpec, num_rows: int) -> Descent | None:
    """Put the result of a shorter run aside, so that training goes on from its last checkpoint. Hold the run's lock.

    Args:
        run: opened with `spec`, by `start_run`.
        spec: the recipe with its new length.
        num_rows: training rows of all sources together, which an epoch is made of.

    Returns:
        What it goes on from; None where there is no result, or one of this length.

    Raises:
        RunError: an earlier result is in the place where this one would be put.
    """
    recipe = run.adapter / "recipe.json"
    if not recipe.is_file():
        return None
    before = load_spec(FinetuneSpec, recipe).training
    if not before.is_shorter_than(spec.training):
        return None
    why = _why_not_exact(spec, before.num_steps(num_rows), spec.training.num_steps(num_rows), before)
    descent = Descent(before.length, spec.training.length, _sha256(run.adapter), not why, why)
    aside = run.path / "earlier" / before.length.replace(" ", "-")
    if (aside / run.adapter.name).exists():
        raise RunError(f"{aside} holds an earlier result already; move it elsewhere to go on from {before.length}")
    if descents(run)[-1:] != [descent]:  # a kill may have come between
        append_jsonl(_record(run), asdict(descent))
    aside.mkdir(parents=True, exist_ok=True)
    for report in (run.report, run.report_page, run.report_text):
        if report.is_file():
            report.rename(aside / report.name)
    run.adapter.rename(aside / run.adapter.name)
    _LOG.info("run %s goes on from %s to %s; the earlier result is in %s", run.name, before.length, descent.now, aside)
    if why:
        _LOG.warning("run %s: the result is not that of one run of %s: %s", run.name, descent.now, why)
    return descent


def _why_not_exact(spec: FinetuneSpec, num_before: int, num_now: int, before: TrainingSpec) -> str:
    training = spec.training
    if training.schedule != "constant":
        return f"the learning rate had followed the {training.schedule} schedule to its end; constant has none"
    if before.num_warmup_steps(num_before) != training.num_warmup_steps(num_now):
        return "the warm-up is a share of the steps and was shorter; training.warmup_steps stays the same"
    if spec.adapter.method in _SCHEDULED_METHODS:
        return f"{spec.adapter.method} spreads its budget over all steps"
    return ""


def _sha256(adapter: Path) -> str | None:
    try:
        return check_folder(adapter).sha256
    except AdapterError:
        return None


def _record(run: Run) -> Path:
    return run.path / "descent.jsonl"

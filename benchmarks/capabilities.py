"""What every method can do, found by doing it on a tiny model. Writes docs/capabilities.md.

    PYTHONPATH=platform python -m benchmarks.capabilities [column ...]

With columns named, only those are found anew and the others stay as written.
A cell is "yes" when the check passes, and "no" with didact's own words when didact refuses. Anything else is a failure.
The test suite runs the same table and compares it with the written one.
"""

import argparse
import functools
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.sharded_capabilities import STRATEGIES, refusal, sharded_outcomes
from didact.errors import DidactError
from didact.files import write_text
from didact.gpu_proof.methods import METHODS
from didact.models import (
    AdapterHost,
    attach_adapter,
    base_fingerprint,
    estimate_footprint,
    load_base,
    merge_adapter,
    save_adapter,
)
from didact.preparation import prepare_data
from didact.spec import FinetuneSpec, FullSpec, LoraSpec, MethodSpec, to_json, validate
from didact.training import CheckpointStore, Objective, StepReport, train
from tests.fakes.recipes import tiny_recipe

PAGE = Path(__file__).parents[1] / "docs" / "capabilities.md"
_STEPS = 6
_HEAD = """# What each method can do

Written by `PYTHONPATH=platform python -m benchmarks.capabilities`; the tests compare every cell with what happens. Each
cell was run on a random two-layer Llama: *train*, *4-bit* and *8-bit* lower the loss, quantized ones with the gradients
of the unquantized base; *packed* trains with many samples in one row; *recompute* gives the same gradients with
activation checkpointing; *resume* equals the unbroken run to the bit; *host* saves, loads and switches in `AdapterHost`
with the trained model's logits and the base's own afterwards; *merge* writes a plain model with the same logits; *plan*
counts trained parameters without loading weights; *DDP*, *FSDP2*, *ZeRO-2* and *ZeRO-3* train on two workers with the
losses, held-out losses and adapter of one process (two steps, within 1e-4; the tests repeat the refusals, and the runs
of some methods).
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """One method on the tiny base."""

    spec: MethodSpec
    folder: Path
    """Holds the base and its data; scratch goes beside."""

    def recipe(self, **changes: Any) -> FinetuneSpec:
        """Six short steps in float32; LoftQ needs its 4-bit base in every recipe."""
        if isinstance(self.spec, LoraSpec) and self.spec.init == "loftq":
            changes = {"model__quantization": {"bits": 4}, **changes}
        settings = {
            "adapter": self.spec.model_dump(),
            "training__steps": _STEPS,
            "training__learning_rate": 2e-3,
            "training__global_batch_size": 2,
            "training__micro_batch_size": 2,
            "training__checkpoint_every": 2,
            "training__evaluate_every": None,
            "placement__num_workers": 1,
            "tokens__max_length": 96,
        }
        return tiny_recipe(self.folder, **{**settings, **changes})

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for one check."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            yield Path(folder)


class _Interrupt:
    """Stops the loop after a step, as a crash would."""

    def __init__(self, after: int | None) -> None:
        self._after = after

    def on_start(self, start: int, num_steps: int) -> None:
        """Nothing."""

    def on_step(self, report: StepReport) -> None:
        """Stop when it is time."""
        if report.step == self._after:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Nothing."""


def attached(recipe: FinetuneSpec) -> torch.nn.Module:
    """The base with the recipe's fresh adapter."""
    full = recipe.model.model_copy(update={"quantization": None})
    return attach_adapter(
        load_base(recipe.model),
        recipe.adapter,
        seed=0,
        base_name="tiny",
        gradient_checkpointing=recipe.training.gradient_checkpointing,
        num_steps=_STEPS,
        unquantized=lambda: load_base(full),
    )


def trained(recipe: FinetuneSpec, checkpoints: Path, stop_after: int | None = None) -> torch.nn.Module:
    """The model after the recipe's steps."""
    model = attached(recipe)
    train(
        model,
        prepare_data(recipe).loader(recipe),
        recipe.training,
        num_steps=_STEPS,
        compute_dtype=torch.float32,
        checkpoints=CheckpointStore(checkpoints, keep=2, identity="capabilities"),
        adapter=recipe.adapter,
        callbacks=[_Interrupt(stop_after)],
    )
    return model


@functools.lru_cache(maxsize=4)
def _trained(text: str) -> torch.nn.Module:
    recipe: FinetuneSpec = validate(FinetuneSpec, json.loads(text), "recipe of a capability")
    with tempfile.TemporaryDirectory() as scratch:
        return trained(recipe, Path(scratch))


def trained_once(recipe: FinetuneSpec) -> torch.nn.Module:
    """The model after the recipe's steps, the same one for checks that follow each other and only look at it."""
    return _trained(to_json(recipe))


def loss_of(model: torch.nn.Module, recipe: FinetuneSpec) -> torch.Tensor:
    """Loss of the first step's samples, with dropout off, with gradient."""
    batches = prepare_data(recipe).loader(recipe).step(0)
    objective = Objective(model.eval(), torch.float32)
    return sum(objective.summed_loss(batch) for batch in batches.micro_batches) / batches.num_supervised


def gradient(model: torch.nn.Module, recipe: FinetuneSpec) -> torch.Tensor:
    """All gradients of that loss, flat."""
    model.zero_grad()
    loss_of(model, recipe).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None])


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Of a fixed row of 20 tokens."""
    ids = torch.arange(20).unsqueeze(0)
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """What is trained."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def check_train(trial: Trial, **changes: Any) -> None:
    """The loss falls."""
    recipe = trial.recipe(**changes)
    before = loss_of(attached(recipe), recipe).item()
    after = loss_of(trained_once(recipe), recipe).item()
    assert after < before - 1e-4, f"loss went from {before} to {after}"


def _check_quantized(trial: Trial, bits: int) -> None:
    recipe = trial.recipe(model__quantization={"bits": bits})
    model = attached(recipe)
    direction = gradient(model, recipe)
    logits(model)  # an evaluation between two steps must not change what is learned
    again = gradient(model, recipe)
    assert torch.equal(direction, again), "evaluating changed the gradients"
    full = trial.recipe()
    if full.model.quantization is None:
        same = torch.cosine_similarity(direction, gradient(attached(full), full), dim=0).item()
        assert same > 0.9, f"gradients differ from the unquantized base's: cosine {same}"
    check_train(trial, model__quantization={"bits": bits})


def check_4_bit(trial: Trial) -> None:
    """Trains on a 4-bit base with the gradients of the full one."""
    _check_quantized(trial, 4)


def check_8_bit(trial: Trial) -> None:
    """Trains on an 8-bit base with the gradients of the full one."""
    _check_quantized(trial, 8)


def check_packed(trial: Trial) -> None:
    """The packed loss is the padded one."""
    packed, padded = trial.recipe(tokens__packing=True), trial.recipe(tokens__packing=False)
    model = attached(packed)
    difference = (loss_of(model, packed) - loss_of(model, padded)).abs().item()
    assert difference < 1e-4, f"packed and padded losses differ by {difference}"


def check_recompute(trial: Trial) -> None:
    """Gradients are those without activation checkpointing."""
    plain, again = trial.recipe(), trial.recipe(training__gradient_checkpointing=True)
    expected, found = attached(plain), attached(again)
    expected.train(), found.train()
    assert torch.allclose(gradient(expected, plain), gradient(found, again), atol=1e-5)


def check_resume(trial: Trial) -> None:
    """An interrupted run ends with the bits of the unbroken one."""
    recipe = trial.recipe()
    expected = weights(trained_once(recipe))
    with trial.scratch() as scratch:
        try:
            trained(recipe, scratch, stop_after=5)
        except KeyboardInterrupt:
            resumed = weights(trained(recipe, scratch))
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def check_host(trial: Trial) -> None:
    """Saved, loaded beside the bare base, and taken off again."""
    if isinstance(trial.spec, FullSpec):
        raise DidactError("the result is a whole model, which is its own base")
    recipe = trial.recipe()
    with trial.scratch() as scratch:
        model = trained_once(recipe).eval()
        folder = _saved(model, recipe, scratch / "adapter")
        host = AdapterHost(load_base(recipe.model), base_fingerprint(recipe.model))
        plain = logits(host.base)
        host.load("one", folder)
    with host.active("one") as live:
        assert torch.allclose(logits(live), logits(model), atol=1e-5), "served and trained logits differ"
    with host.active(None) as base:
        assert torch.equal(logits(base), plain), "the base is changed while the adapter is loaded"
    host.drop("one")
    assert torch.equal(logits(host.base), plain), "the base is changed after the adapter was dropped"


def check_merge(trial: Trial) -> None:
    """Merged logits are the live ones; `merge_adapter` proves it."""
    if isinstance(trial.spec, FullSpec):
        raise DidactError("the result is a whole model already")
    recipe = trial.recipe()
    with trial.scratch() as scratch:
        model = trained_once(recipe).eval()
        folder = _saved(model, recipe, scratch / "adapter")
        merge_adapter(recipe.model, folder, scratch / "merged")
        if recipe.model.quantization is None:
            merged = load_base(recipe.model.model_copy(update={"base": str(scratch / "merged")}))
            assert torch.allclose(logits(merged), logits(model), atol=1e-4)


def check_plan(trial: Trial) -> None:
    """The estimate counts what is really trained."""
    recipe = trial.recipe()
    expected = sum(tensor.numel() for tensor in weights(attached(recipe)).values())
    assert estimate_footprint(recipe, 64, 0.5).num_trainable == expected


CHECKS: dict[str, Callable[[Trial], None]] = {
    "train": check_train,
    "4-bit": check_4_bit,
    "8-bit": check_8_bit,
    "packed": check_packed,
    "recompute": check_recompute,
    "resume": check_resume,
    "host": check_host,
    "merge": check_merge,
    "plan": check_plan,
}
COLUMNS = (*CHECKS, *STRATEGIES)


def outcome(method: str, check: str, folder: Path) -> str:
    """`yes`, or didact's reason for refusing.

    Raises:
        Exception: whatever fails that didact did not refuse.
    """
    try:
        CHECKS[check](Trial(METHODS[method], folder))
    except DidactError as refusal:
        return _reason(str(refusal), folder)
    return "yes"


def sharded_refusal(method: str, column: str, folder: Path) -> str:
    """`yes` where a sharded recipe can be loaded, or didact's reason for refusing."""
    refused = refusal(method, STRATEGIES[column], folder)
    return _reason(refused, folder) if refused else "yes"


def table(outcomes: dict[tuple[str, str], str]) -> str:
    """The page: a table of yes and no, and the reasons below it."""
    answers = (outcomes[method, column] for method in METHODS for column in COLUMNS)
    reasons = list(dict.fromkeys(answer for answer in answers if answer != "yes"))
    lines = [_HEAD, f"| method | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for method in METHODS:
        cells = [outcomes[method, check] for check in COLUMNS]
        shown = ["yes" if cell == "yes" else f"no ({reasons.index(cell) + 1})" for cell in cells]
        lines.append(f"| {method} | {' | '.join(shown)} |")
    lines += ["", "## Why not", "", *(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)), ""]
    return "\n".join(lines)


def read_page() -> dict[tuple[str, str], str]:
    """Cells of the written page: (method, column) -> "yes", or the reason."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    reasons = dict(line.split(". ", 1) for line in lines if line[:1].isdigit())
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    return {
        (row[0], column): cell if cell == "yes" else reasons[cell.removeprefix("no (").removesuffix(")")]
        for row in rows[2:]
        for column, cell in zip(rows[0][1:], row[1:], strict=True)
    }


def _saved(model: Any, recipe: FinetuneSpec, folder: Path) -> Path:
    folder.mkdir()
    fingerprint = base_fingerprint(recipe.model)
    save_adapter(model, folder, base="tiny", base_fingerprint=fingerprint, method=recipe.adapter.method)
    return folder


def _reason(message: str, folder: Path) -> str:
    """One line, without the names of scratch folders."""
    message = message.removeprefix("tiny recipe cannot be used:\n  - ").splitlines()[0]
    return re.sub(rf"adapter {re.escape(str(folder))}\S* ", "it ", message)


def main() -> None:
    """Run every check of every method, or those named on the command line, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("columns", nargs="*", metavar="column", help=", ".join(COLUMNS))
    columns = parser.parse_args().columns or COLUMNS
    if unknown := set(columns) - set(COLUMNS):
        parser.error(f"no columns {sorted(unknown)}; there are {', '.join(COLUMNS)}")
    outcomes = {} if len(columns) == len(COLUMNS) else read_page()
    checks, strategies = [c for c in columns if c in CHECKS], [c for c in columns if c in STRATEGIES]
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS if checks else ():
            for check in checks:
                outcomes[method, check] = outcome(method, check, Path(folder))
            print(method, *("yes" if outcomes[method, check] == "yes" else "no" for check in checks), file=sys.stderr)
        for cell, answer in sharded_outcomes(Path(folder), list(METHODS), strategies).items():
            outcomes[cell] = answer if answer == "yes" else _reason(answer, Path(folder))
    write_text(PAGE, table(outcomes))


if __name__ == "__main__":
    main()

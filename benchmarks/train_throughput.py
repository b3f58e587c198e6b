"""Training throughput beside transformers.Trainer + PEFT, TRL's SFTTrainer and LLaMA-Factory.

    make bench-peers                                    # TRL and LLaMA-Factory, each in an environment of its own
    python benchmarks/train_throughput.py [--data FOLDER] [--steps 12] [--rounds 2] [--threads 2]
    python benchmarks/train_throughput.py --ablation    # what each technique gives, as a table
    python benchmarks/train_throughput.py --quantized   # LoRA on all linear layers of a base in 4 and 8 bits

LoRA r=8 on the query and value projections of the bundled base, batch 8, equal starting adapter, constant learning
rate. Contestants share the same threads, as one process or as workers of a data-parallel group; rounds alternate and
the best of each counts. Trainer and TRL get our token ids and mask; LLaMA-Factory renders the same records with its
template of the same wording. Tokens are real ones, without padding; memory of workers is added up, pages they share
counted twice. `--data` is a folder of alpaca-form JSON files; without it `--generated` problems are made.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from didact.env import for_training
from didact.files import write_json
from didact.models import attach_adapter, base_folder, compute_dtype, load_base
from didact.preparation import PreparedData, prepare_data
from didact.spec import FinetuneSpec, validate

HERE = Path(__file__).resolve().parent
# Name -> script, environment and workers; those of which the environment is missing are left out.
CONTESTANTS = {
    "didact": ("didact_loop.py", None, 1),
    "didact-compiled": ("didact_loop.py", None, 1),
    "didact-2-workers": ("didact_loop.py", None, 2),
    "trainer": ("hugging_face.py", None, 1),
    "trainer-2-workers": ("hugging_face.py", None, 2),
    "trl": ("hugging_face.py", "trl", 1),
    "trl-plain": ("hugging_face.py", "trl", 1),
    "llamafactory": ("llama_factory.py", "llamafactory", 1),
    "llamafactory-plain": ("llama_factory.py", "llamafactory", 1),
}
TECHNIQUES = {
    "packing": "samples packed into one row",
    "attention": "attention inside samples, own backward pass",
    "supervised": "vocabulary projection of supervised positions only",
    "chunked": "loss and gradient straight from hidden states",
    "prefixes": "first tokens that samples have in common, once",
    "compile": "`training.compile`",
}
BITS = {"bfloat16": None, "4-bit": 4, "8-bit": 8}


def recipe(data: Path | None, generated: str, steps: int, targets: str | list[str]) -> dict[str, Any]:
    """The run, as a recipe's mapping."""
    if data is None:
        sources = [{"name": generated, "path": f"reasoning-gym:{generated}", "max_rows": 8 * steps}]
    else:
        files = sorted(data.glob("*.json"))
        if not files:
            raise SystemExit(f"{data}: found no *.json file; expected files of alpaca-form rows")
        rows = -(-8 * steps // len(files)) + 2
        sources = [{"name": file.stem, "path": str(file), "max_rows": rows} for file in files]
    return {
        "name": "throughput",
        "data": {"sources": sources},
        "adapter": {"method": "lora", "r": 8, "alpha": 16, "dropout": 0.0, "target_modules": targets},
        "training": {
            "steps": steps,
            "global_batch_size": 8,
            "micro_batch_size": 8,
            "schedule": "constant",
            "warmup_share": 0.0,
            "checkpoint_every": 100_000,
        },
    }


def write_job(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything contestants read: token ids, records, starting adapter, settings."""
    targets = "all-linear" if arguments.quantized else ["q_proj", "v_proj"]
    mapping = recipe(arguments.data, arguments.generated, arguments.steps, targets) | {
        "model": {"dtype": arguments.dtype}
    }
    spec = validate(FinetuneSpec, mapping, "benchmark")
    prepared = prepare_data(spec)
    size = spec.training.global_batch_size
    ids = prepared.mixture.mixture.ids(0, arguments.steps * size)
    samples = [prepared.mixture.tables[each.source][each.row] for each in ids]
    rows = [{"ids": sample.ids.tolist(), "mask": sample.mask.tolist()} for sample in samples]
    write_json(folder / "samples.json", rows)
    write_json(folder / "records.json", [_record(prepared, each.source, each.row) for each in ids])
    model = attach_adapter(load_base(spec.model), spec.adapter, seed=0, base_name=str(base_folder(spec.model)))
    model.save_pretrained(folder / "start")
    lengths = [len(sample.ids) for sample in samples]
    job = {
        "recipe": mapping,
        "base": str(base_folder(spec.model)),
        "dtype": str(compute_dtype(spec.model)).removeprefix("torch."),
        "batch": size,
        "threads": arguments.threads,
        "learning_rate": spec.training.learning_rate,
        "max_length": spec.tokens.max_length,
        "template": "smollm2",
        "llamafactory": {},
        "bits": {},
        "warm": arguments.warm,
        "tokens": [sum(lengths[start : start + size]) for start in range(0, len(lengths), size)],
        "supervised": int(sum(sample.mask[1:].sum() for sample in samples)),
        "techniques": {
            "didact": [name for name in TECHNIQUES if name != "compile"],
            "didact-compiled": list(TECHNIQUES),
            "didact-2-workers": list(TECHNIQUES),
        },
        "flops": flops(model, sum(lengths), int(sum(sample.mask[1:].sum() for sample in samples))),
    }
    write_json(folder / "job.json", job)
    return job


def _record(prepared: PreparedData, source: int, row: int) -> dict[str, str]:
    wanted = int(prepared.mixture.tables[source].rows[row])
    found = next(each for each in prepared.datasets[source].train if each.row == wanted)
    content = {message.role: message.content for message in found.messages}
    return {"instruction": content["user"], "input": "", "output": content["assistant"]}


def flops(model: torch.nn.Module, tokens: int, supervised: int) -> float:
    """What a step needs at least, all steps together: no padding, no gradient of frozen weights, no unused logits.

    Two operations a weight and token forward, two more backward for the gradient of the input; the adapter's own
    weights and attention's products are left out, so the share reached is understated.
    """
    base = model.get_base_model()
    head = base.get_output_embeddings().weight
    body = sum(p.numel() for p in base.parameters() if not p.requires_grad and p.dim() == 2 and p is not head)
    embeddings = 0 if base.get_input_embeddings().weight is head else base.get_input_embeddings().weight.numel()
    return 4.0 * ((body - embeddings) * tokens + head.numel() * supervised)


def matmul_rate(threads: int, dtype: torch.dtype) -> float:
    """Operations per second of a 2048-wide matrix product, best of five."""
    torch.set_num_threads(threads)
    left, right = torch.randn(2048, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        began = time.monotonic()
        for _ in range(5):
            left @ right
        best = min(best, (time.monotonic() - began) / 5)
    return 2 * 2048**3 / best


class ContestantFailed(Exception):
    """A contestant's process ended with an error; the end of what it printed."""


def run(name: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One contestant, in a process of its own; its report.

    Raises:
        ContestantFailed: it did not come to its end.
    """
    script, environment, workers = CONTESTANTS.get(name, CONTESTANTS["didact"])
    python = str(arguments.peers / environment / "bin" / "python") if environment else sys.executable
    job = json.loads((folder / "job.json").read_text())
    job["llamafactory"] = {"disable_gradient_checkpointing": name.endswith("-plain")}
    job["threads"] = arguments.threads // workers
    write_json(folder / "job.json", job)
    command = [python, str(HERE / "contestants" / script), name, str(folder)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile("w+") as errors:
        ranks = [
            subprocess.Popen(
                command,
                env=_variables(script, environment, job["threads"], rank, workers, port),
                stdout=errors,
                stderr=errors,
            )
            for rank in range(workers)
        ]
        if any([rank.wait() for rank in ranks]):
            errors.seek(0)
            raise ContestantFailed(errors.read()[-4000:])
    reports = [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(workers)]
    seconds = max(each["seconds"] for each in reports)
    report = {
        "tokens_per_second": reports[0]["tokens"] / seconds,
        "tokens_per_cpu_second": reports[0]["tokens"] / sum(each["cpu_seconds"] for each in reports),
        "peak_gib": sum(each["peak_gib"] for each in reports),
        "losses": reports[0]["losses"],
    }
    rates = f"{report['tokens_per_second']:7.1f} tokens/s, {report['tokens_per_cpu_second']:7.1f} a CPU second"
    print(f"  {name:<20} {rates}", file=sys.stderr, flush=True)
    return report


def _variables(
    script: str, environment: str | None, threads: int, rank: int, workers: int, port: int
) -> dict[str, str]:
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    # The peers' environments must not see this one's packages.
    variables["PYTHONPATH"] = "" if environment else os.pathsep.join(filter(None, sys.path))
    if script == CONTESTANTS["didact"][0]:
        variables |= for_training()
    if workers > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": workers, "LOCAL_WORLD_SIZE": workers}
        variables |= {key: str(value) for key, value in place.items()}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return variables


def best_of_rounds(names: list[str], folder: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Every contestant's best report; rounds alternate. One that fails is named and left out of later rounds."""
    best: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for _ in range(arguments.rounds):
        for name in [name for name in names if name not in failed]:
            try:
                report = run(name, folder, arguments)
            except ContestantFailed as error:
                failed[name] = str(error)
                print(f"  {name:<20} failed", file=sys.stderr, flush=True)
                continue
            if name not in best or report["tokens_per_second"] > best[name]["tokens_per_second"]:
                best[name] = report
    for name, words in failed.items():
        print(f"\n{name} failed:\n{words}", file=sys.stderr)
    if not best:
        raise SystemExit(f"none came to its end of: {', '.join(names) or 'nobody (no contestant is installed)'}")
    return best


def print_contest(best: dict[str, dict[str, Any]], job: dict[str, Any], rate: float) -> None:
    """The table of contestants; the ratio, where there is one of ours and a rival; the share of the machine's rate."""
    rates = {name: report["tokens_per_second"] for name, report in best.items()}
    ours = max((name for name in best if name.startswith("didact")), key=rates.__getitem__, default=None)
    rival = max((name for name in best if not name.startswith("didact")), key=rates.__getitem__, default=None)
    losses = best[ours or rival]["losses"]
    print("| loop | real tokens/s | per CPU second | peak GiB | largest loss difference |\n|---|---:|---:|---:|---:|")
    for name, report in best.items():
        gap = max(abs(a - b) for a, b in zip(report["losses"], losses, strict=True))
        print(f"| {name} | {rates[name]:.0f} | {report['tokens_per_cpu_second']:.0f} ", end="")
        print(f"| {report['peak_gib']:.2f} | {gap:.3f} |")
    instructions = "AMX" if torch.cpu._is_amx_tile_supported() else torch.backends.cpu.get_cpu_capability()
    print(f"\nprocessor with {instructions}; {job['dtype']} matrix products: {rate / 1e9:.0f} GFLOP/s")
    if ours is None:
        return
    if rival is not None:
        print(f"ratio to the fastest ({rival}): {rates[ours] / rates[rival]:.2f}")
    reached = job["flops"] / sum(job["tokens"]) * rates[ours]
    print(f"needed products done in the step: {reached / 1e9:.0f} GFLOP/s, {reached / rate:.0%}")


def print_beside_first(kind: str, labels: dict[str, str], best: dict[str, dict[str, Any]]) -> None:
    """A table of ours, each beside the first that came to its end."""
    first, report = next(iter(best.items()))
    slowest = report["tokens_per_second"]
    print(
        f"| {kind} | real tokens/s | per CPU second | ratio to {labels[first]} | peak GiB |\n|---|---:|---:|---:|---:|"
    )
    for name, report in best.items():
        rates = f"{report['tokens_per_second']:.0f} | {report['tokens_per_cpu_second']:.0f}"
        print(f"| {labels[name]} | {rates} | {report['tokens_per_second'] / slowest:.2f} | {report['peak_gib']:.2f} |")


def main() -> None:
    """Measure, alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of alpaca-form JSON files")
    parser.add_argument("--generated", default="gsm_symbolic", help="task of reasoning-gym, where there is no --data")
    parser.add_argument("--peers", type=Path, default=HERE.parent / ".venv-peers", help="folder of environments")
    parser.add_argument("--only", nargs="*", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--quantized", action="store_true")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warm", type=int, default=2, help="first steps that are not counted")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--dtype", default="auto", choices=["auto", "bfloat16", "float32"], help="float32 is auto's choice on AVX2"
    )
    arguments = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job = write_job(folder, arguments)
        print(f"{8 * arguments.steps} samples, {sum(job['tokens'])} tokens, {job['supervised']} learned\n")
        if arguments.ablation:
            names = ["plain", *TECHNIQUES]
            job["techniques"] = {name: list(TECHNIQUES)[:position] for position, name in enumerate(names)}
            write_json(folder / "job.json", job)
            labels = {"plain": "padded rows, dense mask, all logits", **TECHNIQUES}
            print_beside_first("cumulative", labels, best_of_rounds(names, folder, arguments))
            return
        if arguments.quantized:
            job["techniques"] = {name: job["techniques"]["didact"] for name in BITS}
            job["bits"] = BITS
            write_json(folder / "job.json", job)
            print_beside_first("base", {name: name for name in BITS}, best_of_rounds(list(BITS), folder, arguments))
            return
        present = [name for name in arguments.only if _is_there(CONTESTANTS[name][1], arguments.peers)]
        if missing := [name for name in arguments.only if name not in present]:
            print(f"left out, since `make bench-peers` was not run: {', '.join(missing)}", file=sys.stderr)
        best = best_of_rounds(present, folder, arguments)
        print_contest(best, job, matmul_rate(arguments.threads, getattr(torch, job["dtype"])))


def _is_there(environment: str | None, peers: Path) -> bool:
    return environment is None or (peers / environment / "bin" / "python").exists()


if __name__ == "__main__":
    main()

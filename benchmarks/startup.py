"""Time from process start to the end of the first training step, and memory of workers that share a node.

    python benchmarks/startup.py [--rounds 3] [--threads 1] [--bits 16 4 8]

The bundled base with LoRA, one row of 128 tokens, without Ray: our loading beside plain transformers + PEFT, rounds
alternate and the best of each counts. Then one worker against two at once. `Pss` splits pages among the processes that
map them, so `more for the second` is what a worker costs on a machine that has one already.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from didact.models import base_folder
from didact.spec import ModelSpec

SCRIPT = Path(__file__).resolve().parent / "contestants" / "first_step.py"
NAMES = ("didact", "plain")


def start(name: str, threads: int, folder: Path, bits: int, count: int = 1) -> tuple[float, list[dict[str, int]]]:
    """Run `count` processes at once; seconds until the last did its step, and the memory of each while all live."""
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    command = [sys.executable, str(SCRIPT), name, str(time.time()), str(threads), str(folder), str(bits)]
    workers = [subprocess.Popen(command, env=variables, **pipes) for _ in range(count)]
    seconds = max(float(worker.stdout.readline()) for worker in workers)
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    memory = [json.loads(worker.stdout.readline()) for worker in workers]
    for worker in workers:
        worker.communicate()
    return seconds, memory


def main() -> None:
    """Measure, alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 4, 8])
    arguments = parser.parse_args()
    folder = base_folder(ModelSpec())
    print("| base | loading | first step after, s | one worker, MiB | two workers, MiB | more for the second |")
    print("|---|---|---:|---:|---:|---:|")
    for bits in arguments.bits:
        start("didact", arguments.threads, folder, bits)  # the first ever writes the form to the cache
        best = dict.fromkeys(NAMES, float("inf"))
        for _ in range(arguments.rounds):
            for name in NAMES:
                best[name] = min(best[name], start(name, arguments.threads, folder, bits)[0])
        for name in NAMES:
            one, two = (
                sum(each["Pss"] for each in start(name, arguments.threads, folder, bits, count)[1]) for count in (1, 2)
            )
            form = "bfloat16" if bits == 16 else f"{bits}-bit"
            print(f"| {form} | {name} | {best[name]:.1f} | {one} | {two} | {two - one} |")


if __name__ == "__main__":
    main()

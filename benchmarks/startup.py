"""Time from process start to the end of the first training step, and memory of workers that share a node.

    python benchmarks/startup.py [--rounds 3] [--threads 1]

The bundled base with LoRA, one row of 128 tokens, without Ray: our loading beside plain transformers + PEFT, rounds
alternate and the best of each counts. Then one worker against two at once. `Pss` splits pages among the processes that
map them, so weights read once a node show as a lower sum than twice one worker's.
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


def start(name: str, threads: int, folder: Path, count: int = 1) -> tuple[float, list[dict[str, int]]]:
    """Run `count` processes at once; seconds until the last did its step, and the memory of each while all live."""
    variables = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    command = [sys.executable, str(SCRIPT), name, str(time.time()), str(threads), str(folder)]
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
    arguments = parser.parse_args()
    folder = base_folder(ModelSpec())
    best = {"didact": float("inf"), "plain": float("inf")}
    for _ in range(arguments.rounds):
        for name in best:
            best[name] = min(best[name], start(name, arguments.threads, folder)[0])
    print(f"first step after: didact {best['didact']:.1f} s, plain {best['plain']:.1f} s, ", end="")
    print(f"ratio {best['plain'] / best['didact']:.2f}\n")
    print("| workers | Rss MiB each | Pss MiB, sum | file pages shared, MiB each | file pages own, MiB each |")
    print("|---:|---:|---:|---:|---:|")
    for count in (1, 2):
        memory = start("didact", arguments.threads, folder, count)[1]
        each = {kind: sum(one[kind] for one in memory) // count for kind in memory[0]}
        total = each["Pss"] * count
        print(f"| {count} | {each['Rss']} | {total} | {each['Shared_Clean']} | {each['Private_Clean']} |")


if __name__ == "__main__":
    main()

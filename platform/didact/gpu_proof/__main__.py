"""`python -m didact.gpu_proof`: run the checks on this machine's GPU and say what works.

python -m didact.gpu_proof [--device cpu] [--only engine memory] [--json FILE]
"""

import argparse
import logging
import platform
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from didact.devices import this_machine, why_no_gpu
from didact.files import write_json
from didact.gpu_proof.checks import Result
from didact.gpu_proof.proof import all_checks, prove

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "deepspeed", "triton", "flash-attn", "liger-kernel")


def main(words: Sequence[str] | None = None) -> int:
    """The exit code: 0 when nothing failed.

    Args:
        words: of the command line; None for this process's own.
    """
    checks = all_checks()
    groups = list(dict.fromkeys(check.group for check in checks))
    parser = argparse.ArgumentParser(prog="python -m didact.gpu_proof", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--device", choices=("auto", "cuda", "cpu"), default="auto", help="cpu tries the checks themselves"
    )
    parser.add_argument("--only", nargs="+", choices=groups, default=groups, metavar="GROUP", help=", ".join(groups))
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args(words)
    chosen = [check for check in checks if check.group in arguments.only]
    machine = this_machine()
    if arguments.device != "cpu" and not machine.gpus:
        print(f"no GPU to prove anything on: {why_no_gpu(machine)}\n{len(chosen)} checks skipped")
        return 0 if arguments.device == "auto" else 2
    device = torch.device("cpu") if arguments.device == "cpu" else machine.device
    _be_quiet()
    print(f"{_name(device)}; " + ", ".join(f"{name} {found}" for name, found in versions().items()), flush=True)
    results = prove(device, chosen, lambda result: print(result.line(), flush=True))
    counts = Counter(result.verdict for result in results)
    print(", ".join(f"{counts[verdict]} {verdict}" for verdict in ("passed", "failed", "skipped")))
    if arguments.json:
        write_json(arguments.json, {"device": _name(device), "versions": versions(), "results": [*map(_row, results)]})
    return 1 if counts["failed"] else 0


def versions() -> dict[str, str]:
    """Of the packages that decide what works; those that are not installed are left out."""
    found = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"


def _row(result: Result) -> dict[str, object]:
    return {
        "group": result.group,
        "name": result.name,
        "verdict": result.verdict,
        "words": result.words,
        "seconds": round(result.seconds, 2),
    }


def _be_quiet() -> None:
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    for name in ("bitsandbytes", "torch._dynamo", "torch._inductor"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())

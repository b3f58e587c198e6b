"""Who made a run: code, versions, command, machine. Written once per attempt, never read by the run itself."""

import contextlib
import getpass
import platform
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("didact", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "bitsandbytes", "deepspeed"),
    *("flash_attn", "liger_kernel", "ray", "mlflow", "datasets", "reasoning_gym"),
)
"""Those whose version may change what a run computes, or how it is recorded."""


def provenance() -> dict[str, Any]:
    """Git commit and state, package versions, argv, host, processor and time, as plain data."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "argv": sys.argv,
        "git": git_state(Path(__file__).parent),
        "python": platform.python_version(),
        "packages": package_versions(),
        "host": socket.gethostname(),
        "user": getpass.getuser(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
    }


def package_versions() -> dict[str, str | None]:
    """Package -> its version; None for one that is not installed."""
    return {name: _version(name) for name in PACKAGES}


def processor() -> str:
    """The processor's name, as Linux tells it; elsewhere what Python knows of it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, name = line.partition(":")
            if key.strip() == "model name":
                return name.strip()
    return platform.processor() or platform.machine()


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the source tree and whether it was changed since; None outside a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

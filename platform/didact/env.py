"""The only reader of environment variables: what the user's shell may set, with its default.

Every other module asks here, so this file is the complete list.
"""

import contextlib
import importlib.util
import logging
import os
import secrets
import sys
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

_SHARED_PREFIXES = ("NCCL_", "TORCH_NCCL_", "TORCH_FR_", "GLOO_")
_SHARED = ("HF_HUB_OFFLINE", "HF_HOME", "DIDACT_ALLOWED_ADDRESSES")
# Any of these may hold a secret, if only in an address.
_PRIVATE_PREFIXES = ("AWS_", "AZURE_", "FSSPEC_", "MLFLOW_TRACKING_", "OTEL_")
_PRIVATE = (
    *("MLFLOW_S3_ENDPOINT_URL", "HF_TOKEN", "HF_ENDPOINT", "DIDACT_API_KEYS"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "STORAGE_EMULATOR_HOST"),
)


def cache_dir() -> Path:
    """Where converted base models, token caches and downloaded adapters live (`DIDACT_CACHE`)."""
    return Path(os.environ.get("DIDACT_CACHE", "~/.cache/didact")).expanduser().absolute()


def runs_dir() -> Path:
    """Where run folders are made (`DIDACT_RUNS`, default `./runs`). On a cluster: a path every node sees."""
    return Path(os.environ.get("DIDACT_RUNS", "runs")).expanduser().absolute()


def allowed_addresses() -> frozenset[str]:
    """Link-local addresses that sources and endpoints may have all the same (`DIDACT_ALLOWED_ADDRESSES`, by commas)."""
    return frozenset(each.strip() for each in os.environ.get("DIDACT_ALLOWED_ADDRESSES", "").split(",") if each.strip())


def price_per_hour() -> float | None:
    """What the cluster costs an hour (`DIDACT_PRICE_PER_HOUR`), for budgets in money; None when nobody has said."""
    try:
        price = float(os.environ.get("DIDACT_PRICE_PER_HOUR", ""))
    except ValueError:
        return None
    return price if price > 0 else None


def mlflow_uri() -> str | None:
    """The MLflow server or database (`MLFLOW_TRACKING_URI`); None means sqlite beside the runs.

    A name and password in a server's address move to the variables that MLflow reads them from, since addresses are
    written into run folders.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI") or None
    parts = urlsplit(given or "")
    if parts.scheme not in ("http", "https") or not parts.password:
        return given
    os.environ.setdefault("MLFLOW_TRACKING_USERNAME", unquote(parts.username or ""))
    os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", unquote(parts.password))
    os.environ["MLFLOW_TRACKING_URI"] = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return os.environ["MLFLOW_TRACKING_URI"]


def ray_address() -> str | None:
    """The Ray cluster to join (`RAY_ADDRESS`, set inside a Ray job); None, as `local`, starts a local one."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return None if address in ("", "local") else address


def ray_auth_mode() -> str | None:
    """Whether Ray asks for a token (`RAY_AUTH_MODE`: `token` or `disabled`); None when nobody has said."""
    return os.environ.get("RAY_AUTH_MODE", "").lower() or None


def make_ray_token() -> None:
    """Give this process, and the local Ray that it starts, a token that nobody else knows (`RAY_AUTH_TOKEN`)."""
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def ray_temp_dir() -> Path:
    """Where a local Ray keeps its sockets and logs, in `ray/` (`RAY_TMPDIR`, else `TMPDIR` on Linux, else /tmp)."""
    on_linux = os.environ.get("TMPDIR") if sys.platform.startswith("linux") else None
    return Path(os.environ.get("RAY_TMPDIR") or on_linux or "/tmp")


def inherited() -> dict[str, str]:
    """All variables of this process, for a process like it."""
    return dict(os.environ)


def forks_workers() -> bool:
    """Whether workers of a local Ray may be forked from one process that has imported (`DIDACT_FORK`: 0 for no)."""
    return os.environ.get("DIDACT_FORK", "1") != "0"


def threads() -> int | None:
    """Threads per process for matrix products (`OMP_NUM_THREADS`), or None when the user did not say."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdigit() else None


def visible_gpus() -> str | None:
    """The GPUs that this process may use (`CUDA_VISIBLE_DEVICES`); None for all. Ray sets it in its workers."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def cpp_compiler() -> str:
    """The C++ compiler that `torch.compile` calls on processors (`CXX`)."""
    return os.environ.get("CXX") or "g++"


def launcher_file() -> Path:
    """The configuration that `ray up` leaves on a cluster's head node, where jobs' drivers run as well."""
    return Path("~/ray_bootstrap_config.yaml").expanduser()


def ray_job_config() -> str | None:
    """What Ray tells a driver about the job it runs in, as JSON; None outside a Ray job."""
    return os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or None


def for_workers() -> dict[str, str]:
    """The variables that Ray workers must share with the driver and that anybody may read, since Ray writes them into
    its logs: caches, run folders, and how workers reach each other (`NCCL_SOCKET_IFNAME`, `NCCL_DEBUG`, ...)."""
    return {
        **{"DIDACT_CACHE": str(cache_dir()), "DIDACT_RUNS": str(runs_dir())},
        **({"DIDACT_KEYS": str(keys)} if (keys := keys_file()) else {}),
        **({"DIDACT_VLLM_PYTHON": python} if (python := vllm_python()) else {}),
        **_given(_SHARED, _SHARED_PREFIXES),
    }


def private_for_workers() -> dict[str, str]:
    """Those that may hold secrets: hub, object storage, tracker, keys of the serving API. No file may hold them."""
    return _given(_PRIVATE, _PRIVATE_PREFIXES)


def take(variables: Mapping[str, str]) -> None:
    """Have what the driver handed over, in a worker."""
    os.environ.update(variables)


def handed_over() -> str | None:
    """Under which key the driver has left `private_for_workers` (`DIDACT_HANDED_OVER`, set in workers only)."""
    return os.environ.get("DIDACT_HANDED_OVER") or None


def _given(names: Collection[str], prefixes: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if value and (name in names or name.startswith(prefixes))}


def for_training() -> dict[str, str]:
    """The variables that a process which trains must be started with, unless the user has set them.

    An allocator that keeps few holes: glibc's heap keeps some between the tensors of a step, a third of the peak and
    more; the jemalloc that Ray brings does not. Left out where there is none (not Linux).

    A process whose NCCL operation timed out ends at once, as is torch's default; Ray would have it abort the
    communicator first, which may hang as well.
    """
    nccl = {} if "TORCH_NCCL_ASYNC_ERROR_HANDLING" in os.environ else {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "3"}
    ray = importlib.util.find_spec("ray")  # finds it without importing it
    library = Path(ray.origin).parent / "core" / "libjemalloc.so" if ray and ray.origin else None
    if "LD_PRELOAD" in os.environ or library is None or not library.is_file():
        return nccl
    return {**nccl, "LD_PRELOAD": str(library)}


def vllm_python() -> str | None:
    """The Python of the environment that vLLM is installed in (`DIDACT_VLLM_PYTHON`); None when nobody has said."""
    path = os.environ.get("DIDACT_VLLM_PYTHON")
    return str(Path(path).expanduser().absolute()) if path else None


def for_other_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """All variables for a program of another Python environment, and `variables` where the user has not set them.

    Nothing that would have it find this environment's packages, and no secret.
    """
    given = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", *_PRIVATE_PREFIXES)) and name not in (*_PRIVATE, "VIRTUAL_ENV", "DIDACT_KEYS")
    }
    return {**variables, **given}


def api_keys() -> tuple[str, ...]:
    """Keys without limits that the serving API accepts (`DIDACT_API_KEYS`, comma separated)."""
    return tuple(key for key in os.environ.get("DIDACT_API_KEYS", "").split(",") if key)


def keys_file() -> Path | None:
    """The serving API's keys with names, models and rates (`DIDACT_KEYS`). On a cluster: a path every node sees."""
    path = os.environ.get("DIDACT_KEYS")
    return Path(path).expanduser().absolute() if path else None


def traces_endpoint() -> str | None:
    """Where traces of requests go (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, or `OTEL_EXPORTER_OTLP_ENDPOINT` with
    `/v1/traces` behind it); None where nobody has said, or with `OTEL_SDK_DISABLED` or `OTEL_TRACES_EXPORTER=none`."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() == "none":
        return None
    if own := os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "").strip():
        return own
    base = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
    return f"{base.rstrip('/')}/v1/traces" if base else None


def traces_protocol() -> str:
    """How traces are sent (`OTEL_EXPORTER_OTLP_TRACES_PROTOCOL`, `OTEL_EXPORTER_OTLP_PROTOCOL`)."""
    return _for_traces("PROTOCOL") or "http/protobuf"


def traces_headers() -> dict[str, str]:
    """Headers for whoever takes traces (`OTEL_EXPORTER_OTLP_TRACES_HEADERS`, `OTEL_EXPORTER_OTLP_HEADERS`)."""
    pairs = (each.partition("=") for each in _for_traces("HEADERS").split(",") if "=" in each)
    return {unquote(name).strip(): unquote(value).strip() for name, _, value in pairs}


def traces_timeout() -> float:
    """Seconds for one message of traces (`OTEL_EXPORTER_OTLP_TRACES_TIMEOUT`, `OTEL_EXPORTER_OTLP_TIMEOUT`)."""
    try:
        return max(0.1, float(_for_traces("TIMEOUT") or 10))
    except ValueError:
        return 10.0


def _for_traces(name: str) -> str:
    own, common = f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}"
    return (os.environ.get(own) or os.environ.get(common) or "").strip()


def verdict_key() -> bytes | None:
    """What verdicts of the gate are signed with (`DIDACT_VERDICT_KEY`); None when nobody has set it. It stays here."""
    return os.environ.get("DIDACT_VERDICT_KEY", "").encode() or None


def endpoint_key(name: str) -> str | None:
    """The key of an endpoint that evaluation asks, from the variable that its spec names (`..._API_KEY`).

    It is read where requests are sent, the driver, and handed to no worker.
    """
    return os.environ.get(name) or None


@contextlib.contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    """Set a variable that Ray passes on to its processes for the time of a block, unless the user has set it."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def set_default(name: str, value: str) -> None:
    """Set a variable that a library reads at import, unless the user has set it."""
    os.environ.setdefault(name, value)


def quiet_libraries() -> None:
    """Keep libraries from telling users of didact, who cannot act on it, how they load. Before they are imported."""
    set_default("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", message="IProgress not found")  # of tqdm, whose bars are off
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # PEFT itself writes patterns for experts held in one tensor, and misses modules to match them.
    warnings.filterwarnings("ignore", message=r"The following \w+_pattern keys did not match .*gate_up_proj")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it reports every optional kernel it lacks
    logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)  # it asks for ipywidgets in every notebook


def prepend_path(folder: Path) -> None:
    """Look for programs in `folder` first."""
    os.environ["PATH"] = os.pathsep.join([str(folder), os.environ.get("PATH", os.defpath)])

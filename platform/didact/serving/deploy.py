"""Start the serving application from a Ray Serve YAML, on the cluster at hand or on a local Ray.

    serve/local.yaml + key=value -> DeployPlan -> deploy -> Deployed(url) -> close

`serve deploy serve/local.yaml` does the same on a running cluster through its dashboard; this needs no dashboard and
gives the replicas what they need to find the package.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
from pydantic import ValidationError
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig, ServeApplicationSchema, ServeDeploySchema

from didact import env
from didact.capacity import Cluster, Resources
from didact.connect import check_ray, hand_over, join_ray, new_key, ray_logs, take_back, worker_variables
from didact.connect.half_open import CALLED_BY_PROXIES
from didact.errors import PlacementError, ServerError, SpecError
from didact.interrupts import Terminated
from didact.logs import get_logger
from didact.serving.api.keys import KeyFile
from didact.serving.app import application
from didact.serving.engine.on_vllm.vllm_link import find_vllm
from didact.serving.place import check_port, place_for
from didact.serving.replica.assemble import base_name
from didact.serving.serve_options import unknown_options
from didact.serving.tracing import check_protocol
from didact.spec import BUNDLED_BASE, ServeSpec, read_mapping, set_dotted, validate
from didact.spec.explain import complaints
from didact.spec.load import read_override

_log = get_logger(__name__)
_IMPORT_PATH = "didact.serving.app:build"


@dataclass(frozen=True)
class DeployPlan:
    """A checked Serve YAML."""

    name: str
    """The application."""
    route_prefix: str
    spec: ServeSpec
    options: dict[str, dict[str, Any]]
    """Ray Serve's options by deployment name."""
    http: HTTPOptions
    logging: LoggingConfig | None

    @property
    def url(self) -> str:
        """Where the API answers, for clients on this machine when it listens everywhere."""
        host = "127.0.0.1" if self.http.host in ("0.0.0.0", "::") else self.http.host
        return f"http://{host}:{self.http.port}{self.route_prefix.rstrip('/')}"


def read_plan(config: Path, overrides: Sequence[str] = (), port: int | None = None) -> DeployPlan:
    """Read and check a Ray Serve YAML with one didact application.

    Args:
        config: the file, of the form that `serve deploy` takes.
        overrides: `key=value` for the application's args, such as `max_batch_size=8`.
        port: instead of `http_options.port`.

    Raises:
        SpecError: the file, an argument or an override is wrong.
    """
    values = read_mapping(config)
    try:
        schema = ServeDeploySchema.model_validate(values)
    except ValidationError as error:
        raise _refusal(config, complaints(ServeDeploySchema, values, error.errors())) from None
    if len(schema.applications) != 1:
        raise SpecError(f"{config}: applications holds {len(schema.applications)} entries; expected one")
    if unknown := unknown_options(ServeDeploySchema, values):
        raise _refusal(config, unknown)
    app = schema.applications[0]
    if wrong := [*_wrong(app)]:
        raise _refusal(config, wrong)
    http = schema.http_options.model_dump(exclude_unset=True)
    if port is not None:
        http["port"] = port
    return DeployPlan(
        name=app.name,
        route_prefix=app.route_prefix or "/",
        spec=_spec(values["applications"][0].get("args") or {}, overrides, config),
        options={each.name: each.model_dump(exclude_unset=True, exclude={"name"}) for each in app.deployments},
        http=HTTPOptions(location=str(schema.proxy_location.value), **http),
        logging=app.logging_config,
    )


def _wrong(app: ServeApplicationSchema) -> Iterator[str]:
    """What Serve takes, and `didact serve` could not do."""
    if app.import_path != _IMPORT_PATH:
        yield f"applications.0.import_path: found {app.import_path!r}; expected {_IMPORT_PATH!r}"
    names = [each.name for each in app.deployments]
    if twice := next((name for name in names if names.count(name) > 1), None):
        yield f"applications.0.deployments: {twice} stands twice"
    for name in app.runtime_env.get("env_vars") or {}:
        if name.startswith("DIDACT_"):
            yield (
                f"applications.0.runtime_env.env_vars.{name}: has no effect with `didact serve`, which hands on "
                "its own environment; set it there"
            )
    for each in app.deployments:
        scaling = each.model_dump(exclude_unset=True).get("autoscaling_config")
        least, most = (scaling.get(name) for name in ("min_replicas", "max_replicas")) if scaling else (None, None)
        if isinstance(least, int) and isinstance(most, int) and least > most:
            yield f"{each.name}: min_replicas is {least}, and max_replicas {most}"


def _refusal(config: Path, lines: Sequence[str]) -> SpecError:
    return SpecError(f"{config} is not a Ray Serve config:\n" + "\n".join(f"  - {line}" for line in lines))


class Deployed:
    """A running application. A context manager: leaving it shuts down what `deploy` started."""

    def __init__(self, url: str, model: str, close: Callable[[], None]) -> None:
        self.url = url
        """Base address; the OpenAI client's `base_url` is this plus `/v1`."""
        self.model = model
        """The base's name in the API."""
        self._close = close

    def close(self) -> None:
        """Remove the application, and Serve and Ray where `deploy` started them."""
        self._close()

    def wait(self, greeting: str = "") -> None:
        """Block until interrupted, by Ctrl-C or SIGTERM; print `greeting` once that is heard."""
        with contextlib.suppress(KeyboardInterrupt, Terminated):
            print(greeting, end="\n" if greeting else "", flush=True)
            while True:
                time.sleep(3600)

    def __enter__(self) -> "Deployed":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def deploy(
    config: Path, overrides: Sequence[str] = (), port: int | None = None, *, log_to_driver: bool = True
) -> Deployed:
    """Deploy and return once replicas answer.

    Joins the Ray that this process is connected to, else the one at `RAY_ADDRESS`, else starts a local one.

    Raises:
        SpecError: see `read_plan`.
        DeviceError: the engine is vLLM, which is not installed.
        ModelError: there is no such base.
        ServerError: the port is taken, or the application runs already.
        ClusterError: see `check_ray`.
        PlacementError: the cluster will never have room for it, or it did not start; says why.
    """
    plan = read_plan(config, overrides, port)
    check_keys()
    key = new_key()
    options = with_environment(plan, key)
    with contextlib.ExitStack() as held:
        ours = not ray.is_initialized() and env.ray_address() is None
        check_engine(plan, config, here=ours)
        check_base(plan.spec, here=ours)
        if not ray.is_initialized():
            check_ray()
            if ours:
                held.enter_context(place_for(plan.http.host, plan.http.port))
                held.enter_context(env.setting(*CALLED_BY_PROXIES))
            held.callback(ray.shutdown)
            # Serve's own processes import nothing that takes long.
            own = {"env_vars": {"DIDACT_FORK": "0"}} if ours else None
            join_ray(own, log_to_driver=log_to_driver, forked=_forked(options))
            if not log_to_driver:
                _log.info("what Ray and the replicas say goes to %s", ray_logs())
        check_room(options, config, Cluster.of(ray.nodes(), env.launcher_file()))
        _check_not_running(plan)
        hand_over(key)
        get_logger("ray.serve").setLevel("WARNING")  # says where it answers before it is known whether it will
        _log.info("starting the server; waiting for base %s to be loaded", base_name(plan.spec))
        try:
            serve.start(http_options=plan.http)
            if not ours:  # our own Ray ends with all that is on it
                held.callback(_remove, plan.name, key)
            serve.run(
                application(plan.spec, options),
                name=plan.name,
                route_prefix=plan.route_prefix,
                logging_config=plan.logging,
            )
        except RuntimeError as error:
            raise PlacementError(f"the application of {config} did not start: {_reason(error, plan.name)}") from error
        return Deployed(plan.url, base_name(plan.spec), held.pop_all().close)
    raise AssertionError("unreachable")


def serve_forever(config: Path, port: int | None = None, overrides: Sequence[str] = ()) -> None:
    """`deploy`, say where, and stay until interrupted.

    Raises:
        SpecError, PlacementError: see `deploy`.
    """
    with deploy(config, overrides, port, log_to_driver=False) as deployed:
        deployed.wait(_greeting(deployed))


def _greeting(deployed: Deployed) -> str:
    """What a user does with it next."""
    body = json.dumps({"model": deployed.model, "messages": [{"role": "user", "content": "What is 2 + 3?"}]})
    key = ' -H "Authorization: Bearer $KEY"' if env.api_keys() or env.keys_file() else ""
    asking = f"-H 'Content-Type: application/json'{key} -d '{body}'"
    return "\n".join(
        (
            f"serving {deployed.model} and every registered adapter at {deployed.url}",
            f"  chat page    {deployed.url}/",
            f"  API          {deployed.url}/v1 (as OpenAI's; GET /v1/models lists what it serves)",
            f"  ask it       curl {deployed.url}/v1/chat/completions {asking}",
            "  end it       Ctrl-C",
        )
    )


def check_room(options: Mapping[str, Mapping[str, Any]], config: Path, cluster: Cluster) -> None:
    """Nothing, where replicas fit on a cluster, or may once it has grown: Serve itself waits for them for ever.

    Raises:
        PlacementError: they never will.
    """
    for name, given in options.items():
        ask, number = asked_by(given["ray_actor_options"]), fewest_replicas(given)
        never, now = cluster.lasting_shortage(ask, number), cluster.shortage(ask, number)
        replicas = f"{number} {name}" if number == 1 else f"{number} of {name}"
        words = f"{config}: no room for {replicas}: {(never or now).words}. The cluster has {cluster}" if now else ""
        if never:
            raise PlacementError(f"{words}. Change {name}'s ray_actor_options, or add nodes")
        if now:
            _log.warning("%s; waiting for nodes that have it", words)


def asked_by(actor: Mapping[str, Any]) -> Resources:
    """What a replica reserves, by Ray's names."""
    ask = {"CPU": actor.get("num_cpus", 1), "GPU": actor.get("num_gpus", 0), **(actor.get("resources") or {})}
    if kind := actor.get("accelerator_type"):
        ask[f"accelerator_type:{kind}"] = 0.001
    return {name: amount for name, amount in ask.items() if amount}


def fewest_replicas(given: Mapping[str, Any]) -> int:
    """Replicas that an application needs to answer at all."""
    scaling = given.get("autoscaling_config")
    number = scaling.get("min_replicas", 1) if isinstance(scaling, Mapping) else given.get("num_replicas", 1)
    return max(1, number) if isinstance(number, int) else 1


def _reason(error: RuntimeError, name: str) -> str:
    """Our own word for it, where a replica of the application said one; else all that Serve says."""
    found = serve.status().applications.get(name)
    said = [str(error), *(each.message for each in found.deployments.values())] if found is not None else [str(error)]
    lines = [line for text in said for line in text.splitlines()]
    own = [line.partition("didact.errors.")[2] for line in lines if "didact.errors." in line]
    return own[-1].partition(": ")[2] if own else str(error)


def check_engine(plan: DeployPlan, config: Path, *, here: bool) -> None:
    """vLLM is looked for where the replicas run on this machine (`here`); nodes of a cluster say it themselves.

    Raises:
        SpecError, DeviceError: settings do not go together; vLLM is not installed.
    """
    check_protocol()
    spec = plan.spec
    if spec.engine != "vllm":
        if "vllm" in spec.model_fields_set:
            _log.warning("%s: args.vllm has no effect with engine %s", config, spec.engine)
        return
    actor = plan.options.get("ModelReplica", {}).get("ray_actor_options") or {}
    gpus, shared = actor.get("num_gpus") or 0, spec.vllm.tensor_parallel_size
    if shared > 1 and gpus != shared:
        raise SpecError(
            f"{config}: args.vllm.tensor_parallel_size is {shared}; expected as many num_gpus in ModelReplica's "
            f"ray_actor_options, found {gpus:g}"
        )
    if here:
        find_vllm(spec.vllm.python)


def check_keys() -> None:
    """What `DIDACT_KEYS` names is a file of keys. A server with a mistyped name would answer nobody.

    Raises:
        SpecError: it is not there, or something else.
    """
    path = env.keys_file()
    if path is None:
        return
    if not path.is_file():
        raise SpecError(
            f"DIDACT_KEYS names {path}, which is not there; `didact keys add NAME` makes it with a first key"
        )
    KeyFile(path).read()


def check_base(spec: ServeSpec, *, here: bool) -> None:
    """A base that is not there, or not whole, is told at once. On a cluster a path may exist on its nodes only.

    Raises:
        ModelError: there is no such base, or a file of it is missing or cut off.
    """
    base = Path(spec.model.base)
    if here and (base / "config.json").is_file():
        from didact.models.base.fits import check_stored  # takes seconds

        check_stored(spec.model)
    if spec.model.base == BUNDLED_BASE or (base / "config.json").is_file():
        return
    if here or not base.is_absolute():
        from didact.models.base.description import base_description  # takes seconds

        base_description(spec.model)


def _check_not_running(plan: DeployPlan) -> None:
    """Nothing of that name runs on this Ray, and where Serve does not run yet, nobody has its port."""
    running = serve.status()
    if plan.name in running.applications:
        raise ServerError(
            f"application {plan.name!r} runs on this Ray already ({running.applications[plan.name].status.value}); "
            f"remove it with `serve.delete({plan.name!r})`, or give this one another name and route_prefix"
        )
    if not running.proxies and env.ray_address() is None:
        check_port(plan.http.host, plan.http.port)


def _remove(name: str, key: str) -> None:
    """Take the application from a Ray that goes on. A cluster does it by itself once it is told."""
    take_back(key)
    serve.delete(name, _blocking=env.ray_address() is None)


def _spec(args: dict[str, Any], overrides: Sequence[str], config: Path) -> ServeSpec:
    for override in overrides:
        key, value = read_override(override)
        set_dotted(args, key, value, str(config))
    spec = validate(ServeSpec, args, f"{config}: args")
    if spec.vllm.python:
        python = Path(spec.vllm.python).expanduser().absolute()
        spec = spec.model_copy(update={"vllm": spec.vllm.model_copy(update={"python": str(python)})})
    folder = Path(spec.model.base).expanduser()
    if not folder.is_dir():
        return spec
    # Replicas have another working directory.
    model = spec.model.model_copy(update={"base": str(folder.resolve())})
    return spec.model_copy(update={"model": model, "model_name": base_name(spec)})


def with_environment(plan: DeployPlan, key: str) -> dict[str, dict[str, Any]]:
    """The deployments' options, with the environment that lets their processes find and run didact."""
    options = {}
    for deployment in ("Gateway", "ModelReplica"):
        given = dict(plan.options.get(deployment, {}))
        actor = dict(given.get("ray_actor_options") or {"num_cpus": 0 if deployment == "Gateway" else 1})
        runtime = dict(actor.get("runtime_env") or {})
        fork = "1" if deployment == "ModelReplica" else "0"  # the other loads next to nothing of what a fork has
        runtime["env_vars"] = {
            **_variables(plan.spec, actor, key),
            **{"DIDACT_FORK": fork},
            **runtime.get("env_vars", {}),
        }
        options[deployment] = {**given, "ray_actor_options": {**actor, "runtime_env": runtime}}
    return options


def _forked(options: Mapping[str, Mapping[str, Any]]) -> dict[str, str] | None:
    """Variables of replicas that a local Ray forks; None for those of several threads, which cannot be."""
    variables: dict[str, str] = options["ModelReplica"]["ray_actor_options"]["runtime_env"]["env_vars"]
    return variables if variables["OMP_NUM_THREADS"] == "1" else None


def _variables(spec: ServeSpec, actor: dict[str, Any], key: str) -> dict[str, str]:
    threads = spec.num_threads or max(int(actor.get("num_cpus") or 1), 1)
    return {**worker_variables(key), "OMP_NUM_THREADS": str(threads)}

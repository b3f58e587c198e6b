"""The shipped Serve files, and what may be wrong with one."""

from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from didact.errors import SpecError
from didact.serving.app import build
from didact.serving.deploy import read_plan
from didact.spec import ServeSpec
from tests.conftest import ROOT

FILES = sorted((ROOT / "serve").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_shipped_files_are_complete(path: Path) -> None:
    schema = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    plan = read_plan(path)
    assert schema.applications[0].import_path == "didact.serving.app:build"
    assert {each.name for each in schema.applications[0].deployments} == {"Gateway", "ModelReplica"}
    assert plan.http.request_timeout_s > plan.spec.request_timeout_seconds
    replica = plan.options["ModelReplica"]
    assert replica["autoscaling_config"]["max_replicas"] > replica["autoscaling_config"]["min_replicas"]
    assert build(schema.applications[0].args) is not None


def test_gpu_file_asks_for_a100() -> None:
    actor = read_plan(ROOT / "serve" / "a100.yaml").options["ModelReplica"]["ray_actor_options"]
    assert (actor["num_gpus"], actor["accelerator_type"]) == (1, "A100")


def test_overrides_and_port() -> None:
    plan = read_plan(ROOT / "serve" / "local.yaml", ["max_batch_size=3", "model.dtype=float32"], port=8123)
    assert (plan.spec.max_batch_size, plan.spec.model.dtype) == (3, "float32")
    assert plan.url == "http://127.0.0.1:8123"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"args": {"max_batchsize": 3}}, "max_batch_size"),
        ({"args": {"max_adapters": 0}}, "max_adapters"),
        ({"deployments": [{"name": "ModelReplica", "num_replicas": -1}]}, "num_replicas"),
        ({"import_path": None}, "import_path"),
        ({"import_path": "didact.serving.app:bild"}, "expected 'didact.serving.app:build'"),
        ({"deployments": [{"name": "Gateway"}, {"name": "Gateway"}]}, "Gateway stands twice"),
        ({"runtime_env": {"env_vars": {"DIDACT_API_KEYS": "x"}}}, "DIDACT_API_KEYS: has no effect"),
        (
            {"deployments": [{"name": "Gateway", "autoscaling_config": {"min_replicas": 5, "max_replicas": 2}}]},
            "min_replicas",
        ),
        ({"args": {"cors_origins": ["chat.example.org"]}}, "expected an origin without a path"),
        ({"args": {"cors_origins": ["https://chat.example.org/"]}}, "expected an origin without a path"),
        ({"args": {"adapter_roots": [""]}}, "adapter_roots"),
        ({"args": {"default_alias": ""}}, "default_alias"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict, words: str) -> None:
    values = {"applications": [{"name": "x", "import_path": "didact.serving.app:build", **changes}]}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SpecError, match=words):
        read_plan(tmp_path / "serve.yaml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("port: 8000", "port: soon", "line 6: http_options.port: found 'soon'; expected a whole number"),
        (
            "proxy_location: HeadOnly",
            "proxy_location: Head",
            "line 3: proxy_location: found 'Head'; did you mean 'HeadOnly'?",
        ),
        (
            "- name: Gateway",
            "- nam: Gateway",
            "line 21: applications.0.deployments.0.name: missing; this key is required (text)",
        ),
        (
            "max_adapters: 8",
            "max_loras: 8",
            "args cannot be used:\n  - line 15: max_loras: `max_loras: 8` is written max_adapters: 8",
        ),
    ],
)
def test_mistakes_are_told_by_line_and_in_plain_words(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (ROOT / "serve" / "local.yaml").read_text()
    assert text.count(old) == 1
    (tmp_path / "serve.yaml").write_text(text.replace(old, new))
    with pytest.raises(SpecError) as caught:
        read_plan(tmp_path / "serve.yaml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "min_replicas: 1",
            "min_replica: 1",
            "line 27: {1}.autoscaling_config.min_replica: unknown key; did you mean {1}.",
        ),
        ("- name: ModelReplica", "- name: ModelReplicas", "line 25: {1}.name: found 'ModelReplicas'; did you mean Mod"),
        ("- name: Gateway", "- name: Router", "line 22: {0}.name: found 'Router'; expected Gateway or ModelReplica"),
        ("    num_cpus: 0", "    num_cpu: 0", "{0}.ray_actor_options.num_cpu: unknown key; did you mean {0}."),
        ("graceful_shutdown_timeout_s", "graceful_shutdown_timeout", "did you mean {1}.graceful_shutdown_timeout_s?"),
        (
            "  request_timeout_s: 330",
            "  request_timeout: 1",
            "unknown key; did you mean http_options.request_timeout_s?",
        ),
        ("proxy_location:", "proxy_locations:", "line 3: proxy_locations: unknown key; did you mean proxy_location?"),
        ("    route_prefix: /", "    route_prefx: /", "unknown key; did you mean applications.0.route_prefix?"),
        ("upscale_delay_s: 10", "upscale_delays: 10", "{1}.autoscaling_config.upscale_delays: unknown key; did you me"),
        ("      - name: Gateway", "      - name: Gateway\n        num_cpus: 3", "line 23: {0}.num_cpus: "),
    ],
    ids=lambda each: each.strip()[:25],
)
def test_options_that_serve_would_leave_out_are_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (ROOT / "serve" / "local.yaml").read_text()
    assert text.count(old) == 1
    (tmp_path / "serve.yaml").write_text(text.replace(old, new))
    with pytest.raises(SpecError) as caught:
        read_plan(tmp_path / "serve.yaml")
    assert said.format(*(f"applications.0.deployments.{number}" for number in (0, 1))) in str(caught.value)
    assert str(caught.value).count("\n") == 1


def test_an_override_that_is_no_yaml_is_named() -> None:
    with pytest.raises(SpecError, match=r"override 'max_batch_size=\[1' is not valid YAML"):
        read_plan(ROOT / "serve" / "local.yaml", ["max_batch_size=[1"])


def test_build_checks_its_arguments() -> None:
    with pytest.raises(SpecError, match="max_adapter: unknown key; did you mean max_adapters\\?"):
        build({"max_adapter": 3})
    assert build(ServeSpec()) is not None

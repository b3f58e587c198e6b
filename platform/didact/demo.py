"""The whole road in one go: finetune, evaluate, register, serve, ask base and adapter the same question, sum up.

demo recipe -> finetune -> deploy -> one question over HTTP to both -> summary
"""

import time
from pathlib import Path

from openai import OpenAI
from rich.console import Group
from rich.rule import Rule
from rich.text import Text

from didact import env
from didact.cluster import FinetuneResult, finetune, ray_cluster
from didact.display import in_words, terminal
from didact.errors import RegistryError
from didact.serving.deploy import deploy
from didact.spec import FinetuneSpec
from didact.tracking import resolve_uri

_QUESTION = "State the final answer to the following arithmetic problem: 27 + 58 - 13 ="
_ANSWER = "72"
# On two cores with AVX2 that do nothing else: all around training, a step, all after it, the last questions.
_TRAINING_SECONDS, _STEP_SECONDS, _SERVING_SECONDS, _ASKING_SECONDS = 95.0, 2.0, 20.0, 10.0


def run_demo(spec: FinetuneSpec, serve_config: Path, port: int) -> FinetuneResult:
    """Run `spec`, serve what it registered, and print one summary. Stops everything it started.

    Args:
        spec: a recipe that registers its adapter.
        serve_config: a Ray Serve file, such as serve/local.yaml.
        port: of the HTTP API.

    Raises:
        DidactError: any step that failed.
    """
    console, began = terminal(), time.monotonic()
    training = _TRAINING_SECONDS + (spec.training.steps or 0) * _STEP_SECONDS
    console.print(
        f"1 of 3  training, evaluation and registration: about {in_words(training)} on two CPU cores, "
        f"the whole demo about {in_words(training + _SERVING_SECONDS)}"
    )
    with ray_cluster():
        result = finetune(spec)
        if result.version is None:
            raise RegistryError(f"recipe {spec.name!r} registers nothing; set register_as")
        pace = (time.monotonic() - began) / training  # this machine's, for what is left
        console.print(f"2 of 3  starting the server: about {in_words(pace * _SERVING_SECONDS)} to the end")
        with deploy(serve_config, port=port, log_to_driver=False) as deployed:
            console.print(
                f"3 of 3  asking base and adapter over HTTP: about {in_words(pace * _ASKING_SECONDS)} to the end"
            )
            key = next(iter(env.api_keys()), "none")
            client = OpenAI(base_url=f"{deployed.url}/v1", api_key=key, timeout=300)
            answers = {name: _ask(client, name) for name in (deployed.model, result.version.id)}
    console.print(_summary(result, answers, time.monotonic() - began))
    return result


def _ask(client: OpenAI, model: str) -> str:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": _QUESTION}], max_tokens=24, temperature=0
    )
    return " ".join((answer.choices[0].message.content or "").split())


def _summary(result: FinetuneResult, answers: dict[str, str], seconds: float) -> Group:
    version = result.version
    assert version is not None  # checked before serving
    lines = [
        f"asked      {_QUESTION} (right: {_ANSWER})",
        *(f"  {name}: {answer}" for name, answer in answers.items()),
        f"whole demo {seconds / 60:.1f} minutes",
        "",
        "go on with (after: source .venv/bin/activate)",
        "  didact serve                           then open http://127.0.0.1:8000",
        f"  didact chat {version.name:<28}talk in the terminal",
        "  didact plan jobs/recipes/demo.yaml     what a recipe does",
        "  didact tune tune_spaces/lora.yaml      search rank and learning rate",
        f"  mlflow ui --backend-store-uri {resolve_uri(result.run.spec().tracking, result.run.path.parent)}",
    ]
    return Group(Rule("demo"), result.render(), *(Text(line) for line in lines))

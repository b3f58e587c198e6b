"""An adapter is asked by the template, and with the arguments, that it was trained with; tools included."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from didact.datasets.conversation import Message
from didact.errors import DataError
from didact.gpu_proof.tokenizer import CHATML, byte_tokenizer
from didact.serving.chat import ChatError
from didact.serving.model import Model
from didact.serving.predict import PredictSettings, predict_file
from didact.serving.replica.worker import Worker
from didact.spec import ServeSpec, TokensSpec
from didact.tokens import TemplateContract
from tests.conftest import ROOT
from tests.fakes.adapters import save_tiny_adapter
from tests.fakes.registry import ShelfRegistry

OWN = CHATML + "{% if add_generation_prompt and enable_thinking is false %}{{ '<think></think>' }}{% endif %}"


def test_template_and_arguments_of_the_adapter(
    tmp_path: Path, registry: ShelfRegistry, worker: Worker, serve_worker: Callable[..., TestClient]
) -> None:
    tokens = TokensSpec(template=OWN, template_arguments={"enable_thinking": False})
    save_tiny_adapter(tmp_path / "own", 1, tokens=tokens)
    registry.add("own", tmp_path / "own", alias="champion")
    with serve_worker(worker) as client:
        counts = {}
        for model in ("own@champion", "tiny"):
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
            counts[model] = client.post("/v1/chat/completions", json=body).json()["usage"]["prompt_tokens"]
    tokenizer = byte_tokenizer()
    asked = TemplateContract.load(tmp_path / "own").prompt_ids(tokenizer, (Message("user", "Hi"),))
    assert counts["own@champion"] == len(asked) == counts["tiny"] + len("<think></think>")


CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALLED = [
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "4", "tool_call_id": "c1"},
]


def test_prompts_with_tools_are_asked_in_the_templates_syntax(
    tmp_path: Path, registry: ShelfRegistry, worker: Worker
) -> None:
    save_tiny_adapter(
        tmp_path / "tools", 1, tokens=TokensSpec(template=str(ROOT / "jobs/templates/chatml_tools.jinja"))
    )
    version = registry.add("tools", tmp_path / "tools")
    rows = [{"messages": CALLED}, {"prompt": "Which?", "tools": [TOOL]}, {"messages": CALLED[:2]}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = PredictSettings(max_new_tokens=2)
    out = tmp_path / "out.jsonl"
    predict_file(worker, tmp_path / "in.jsonl", out, model="tools", adapter=version, settings=settings)
    first, second, third = map(json.loads, out.read_text().splitlines())
    assert "prediction" in first and "prediction" in second
    assert "the last turn is the assistant's" in third["error"]
    predict_file(worker, tmp_path / "in.jsonl", tmp_path / "base.jsonl", model="tiny", settings=settings)
    errors = [json.loads(line)["error"] for line in (tmp_path / "base.jsonl").read_text().splitlines()]
    assert "does not write calls" in errors[0] and "the tools on offer" in errors[1]


def test_a_model_in_memory_takes_tools(worker: Worker) -> None:
    with Model(worker, "tiny", ServeSpec()) as model:
        with pytest.raises(ChatError, match="does not write the tools on offer"):
            model.chat("Which?", tools=[TOOL])
        with pytest.raises(DataError, match="arguments of add"):
            model.chat(
                [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "function_call": {"name": "add", "arguments": "{"}},
                ]
            )

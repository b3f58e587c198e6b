"""An adapter is asked by the template, and with the arguments, that it was trained with."""

from collections.abc import Callable
from pathlib import Path

from fastapi.testclient import TestClient

from didact.datasets.conversation import Message
from didact.gpu_proof.tokenizer import CHATML, byte_tokenizer
from didact.serving.replica.worker import Worker
from didact.spec import TokensSpec
from didact.tokens import TemplateContract
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

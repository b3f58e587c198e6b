"""Generated tokens a second over HTTP beside the same engine in one process, in one run.

    python benchmarks/serving_http.py [--rounds 3] [--threads 1] [--requests 16] [--tokens 64] [--layers N]

The bundled base, prompts of 37 tokens that no round repeats, greedy. `didact serve` with one replica and an engine in
this process answer in turn, each while the other rests; the best round of each counts, by the clock.
The replica and the engine have `--threads` each; proxy, gateway and the client take what they need of other cores.
`--layers 1` takes a random base of so many narrow layers with the bundled one's tokenizer: what is left is what answers
cost on their way, as behind a GPU.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import torch
from serving import prompt, request
from soaking.server import served
from transformers import LlamaConfig, LlamaForCausalLM

from didact.gpu_proof.engine import FINGERPRINT, generate
from didact.models import AdapterHost, load_base, load_tokenizer
from didact.runs import processor
from didact.serving import EmbeddedEngine
from didact.spec import BUNDLED_BASE, ModelSpec

GOAL = 0.95


def narrow_base(folder: Path, layers: int) -> Path:
    """A random base that computes next to nothing."""
    tokenizer = load_tokenizer(ModelSpec())
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=layers, tie_word_embeddings=True, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


async def ask_server(url: str, prompts: list[tuple[int, ...]], tokens: int, *, stream: bool) -> int:
    """All prompts at once; how many tokens were generated."""
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        return sum(await asyncio.gather(*(_ask(client, model, each, tokens, stream=stream) for each in prompts)))


async def _ask(client: httpx.AsyncClient, model: str, ids: tuple[int, ...], tokens: int, *, stream: bool) -> int:
    body = {"model": model, "prompt": list(ids), "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    if not stream:
        answer = await client.post("/v1/completions", json=body)
        answer.raise_for_status()
        return int(answer.json()["usage"]["completion_tokens"])
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    found = 0
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and (usage := json.loads(line[6:]).get("usage")):
                found = int(usage["completion_tokens"])
    return found


def main() -> None:
    """Measure in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 3), ("threads", 1), ("requests", 16), ("tokens", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--layers", type=int, help="of a narrow random base in place of the bundled one")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as scratch:
        measure(asked, Path(scratch))


def measure(asked: argparse.Namespace, scratch: Path) -> None:
    """Rounds of all contestants, and their table."""
    base_name = str(narrow_base(scratch / "narrow", asked.layers)) if asked.layers else BUNDLED_BASE
    spec = ModelSpec(base=base_name, dtype=asked.dtype)
    settings = [f"model.base={base_name}", f"model.dtype={asked.dtype}", f"num_threads={asked.threads}"]
    settings.append(f"max_batch_size={asked.requests}")
    base = load_base(spec)
    engine = EmbeddedEngine(AdapterHost(base, FINGERPRINT), load_tokenizer(spec), max_batch_size=asked.requests)
    with served(scratch, settings, replicas=1, threads=asked.threads) as server:
        named: dict[str, Callable[[list[tuple[int, ...]]], int]] = {
            "engine": lambda prompts: sum(
                map(len, asyncio.run(generate(engine, [request(each, None, asked.tokens) for each in prompts])))
            ),
            "HTTP, streamed": lambda prompts: asyncio.run(ask_server(server.url, prompts, asked.tokens, stream=True)),
            "HTTP, whole": lambda prompts: asyncio.run(ask_server(server.url, prompts, asked.tokens, stream=False)),
        }
        best, number = dict.fromkeys(named, 0.0), 0
        for place in range(asked.rounds + 1):  # the first is not counted
            for name, contestant in named.items():
                prompts = [prompt(number + row) for row in range(asked.requests)]
                number += asked.requests
                began = time.perf_counter()
                rate = contestant(prompts) / (time.perf_counter() - began)
                best[name] = max(best[name], rate if place else 0.0)
    engine.close()
    print(f"{processor()}, {base.dtype}, {asked.threads} thread(s)")
    print("\n| | tokens/s | of the engine's |\n|---|---:|---:|")
    for name, rate in best.items():
        print(f"| {name} | {rate:.1f} | {rate / best['engine']:.2f} |")
    print(f"\nGoal: {GOAL} of the engine's.")


if __name__ == "__main__":
    main()

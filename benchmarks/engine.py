"""Parts of the embedded engine beside what they stand for: prompts read, tokens guessed, beams. Processor time, ratios.

    python benchmarks/engine.py [--rounds 2] [--tokens 24] [--dtype float32]

16 prompts that arrive together, until each has its first token, beside the prefill of transformers' `generate` over the
same batch, padded. Then answers with and without guessed tokens: to a prompt that asks for its own text again, and to a
free one. Then beam search beside `generate(num_beams=4)`, whose answers must be the same. Minutes at most; the best of
the rounds counts.
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from didact.gpu_proof.engine import FINGERPRINT, generate
from didact.models import AdapterHost, load_base, load_tokenizer
from didact.serving import EmbeddedEngine, GenerationRequest
from didact.serving.replica.beams import beam_search
from didact.spec import ModelSpec

ROWS = 16
LENGTHS = {"20 to 79 tokens": [20 + (row * 13) % 60 for row in range(ROWS)], "37 tokens each": [37] * ROWS}
TEXT = (
    "The ship left the harbour at dawn with nineteen men on board. Captain Morris had sailed these waters for thirty "
    "years, and he knew that the wind from the north would bring rain before noon. The men tied down the barrels, "
    "checked the ropes, and said little."
)
ASKED = {
    "copy": f"Repeat this text word for word, and nothing else:\n\n{TEXT}",
    "free": "Tell me about a journey to the mountains.",
}
GUESSED = {1: 8, 4: 6}
"""Tokens that are guessed at once, by how many requests run together."""
BEAMS = 4
Ids = tuple[int, ...]


def engine_on(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, guessed: int = 0) -> EmbeddedEngine:
    """An engine that knows no prompt from before."""
    host = AdapterHost(base, FINGERPRINT)
    return EmbeddedEngine(host, tokenizer, max_batch_size=ROWS, prefix_cache_bytes=0, prompt_lookup_tokens=guessed)


def answered(engine: EmbeddedEngine, prompts: Sequence[Ids], tokens: int) -> list[list[int]]:
    """Greedy answers of exactly `tokens` tokens."""
    asked = [GenerationRequest(f"{time.monotonic_ns()}-{row}", ids, None, tokens) for row, ids in enumerate(prompts)]
    return asyncio.run(generate(engine, asked))


@contextmanager
def unfrozen(base: PreTrainedModel) -> Iterator[None]:
    """As it comes from the hub, and without gradients: of frozen weights torch copies the vocabulary's for each row."""
    base.requires_grad_(True)
    try:
        with torch.inference_mode():
            yield
    finally:
        base.requires_grad_(False)


def prefilled(base: PreTrainedModel, prompts: Sequence[Ids]) -> None:
    """The first token of each, by `generate`."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(each)) + list(each) for each in prompts])
    mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
    with unfrozen(base):
        base.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=1, pad_token_id=0)


def seconds(what: Callable[[], object]) -> float:
    """Processor time."""
    began = time.process_time()
    what()
    return time.process_time() - began


def print_reading(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rounds: int) -> None:
    """Prompts read, beside `generate`."""
    engine = engine_on(base, tokenizer)
    print("| prompts | engine, s | generate, s | ratio |\n|---|---:|---:|---:|")
    for name, lengths in LENGTHS.items():
        prompts = [tuple(100 + (row * 131 + place * 17) % 4000 for place in range(length))
                   for row, length in enumerate(lengths)]  # fmt: skip
        best = [float("inf")] * 2
        for _ in range(rounds):
            found = seconds(lambda: answered(engine, prompts, 1)), seconds(lambda: prefilled(base, prompts))  # noqa: B023
            best = [min(pair) for pair in zip(best, found, strict=True)]
        print(f"| {name} | {best[0]:.2f} | {best[1]:.2f} | {best[0] / best[1]:.2f} |", flush=True)
    engine.close()


def print_guessing(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rounds: int, tokens: int) -> None:
    """Steps with guessed tokens, beside plain ones."""
    print("\n| prompt | requests | guessed at once | of these right | faster by |\n|---|---:|---:|---:|---:|")
    for (count, guessed), (name, text) in ((each, asked) for each in GUESSED.items() for asked in ASKED.items()):
        turn = [{"role": "user", "content": text}]
        ids = tuple(tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False))
        engines = [engine_on(base, tokenizer), engine_on(base, tokenizer, guessed)]
        best = [float("inf")] * 2
        for _ in range(rounds):
            answers = []
            for place, engine in enumerate(engines):
                prefill = seconds(lambda: answered(engine, [ids] * count, 1))  # noqa: B023
                whole = seconds(lambda: answers.append(answered(engine, [ids] * count, tokens + 1)))  # noqa: B023
                best[place] = min(best[place], whole - prefill)
            assert answers[0] == answers[1], "guessing changes no answer"
        stats = engines[1].stats()
        right = stats.right_drafted_tokens / max(stats.drafted_tokens, 1)
        print(f"| {name} | {count} | {guessed} | {right:.0%} | {best[0] / best[1]:.2f} |", flush=True)
        for engine in engines:
            engine.close()


def print_beams(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rounds: int, tokens: int) -> None:
    """Beam search, beside `generate`."""
    print("\n| prompt | beams | tokens | engine, s | generate, s | ratio |\n|---|---:|---:|---:|---:|---:|")
    for name, text in ASKED.items():
        turn = [{"role": "user", "content": text}]
        ids = tuple(tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False))
        best, answers = [float("inf")] * 2, list[list[int]]()
        for _ in range(rounds):
            engine = EmbeddedEngine(AdapterHost(base, FINGERPRINT), tokenizer, max_batch_size=ROWS)  # knows no prompt
            found = seconds(lambda: answers.append(searched(engine, ids, tokens)))  # noqa: B023
            best = [min(best[0], found), min(best[1], seconds(lambda: answers.append(generated(base, ids, tokens))))]  # noqa: B023
            engine.close()
            assert answers[-1] == answers[-2], "both follow the same beams"
        print(f"| {name} | {BEAMS} | {tokens} | {best[0]:.2f} | {best[1]:.2f} | {best[0] / best[1]:.2f} |", flush=True)


def searched(engine: EmbeddedEngine, ids: Ids, tokens: int) -> list[int]:
    """The engine's likeliest answer of so many tokens."""
    asked = GenerationRequest(f"beams-{time.monotonic_ns()}", ids, None, tokens)
    return list(asyncio.run(beam_search(engine, asked, BEAMS)).token_ids)


def generated(base: PreTrainedModel, ids: Ids, tokens: int) -> list[int]:
    """The same by transformers."""
    entered = torch.tensor([ids])
    with unfrozen(base):
        found = base.generate(
            input_ids=entered,
            attention_mask=torch.ones_like(entered),
            do_sample=False,
            num_beams=BEAMS,
            max_new_tokens=tokens,
            eos_token_id=None,
            pad_token_id=0,
        )
    answer: list[int] = found[0, len(ids) :].tolist()
    return answer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 2), ("tokens", 24)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="float32", help="in bfloat16 a pass of another size rounds otherwise")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = ModelSpec(dtype=arguments.dtype)
    base, tokenizer = load_base(spec), load_tokenizer(spec)
    prefilled(base, [(1, 2, 3)])
    print_reading(base, tokenizer, arguments.rounds)
    print_guessing(base, tokenizer, arguments.rounds, arguments.tokens)
    print_beams(base, tokenizer, arguments.rounds, arguments.tokens)


if __name__ == "__main__":
    main()

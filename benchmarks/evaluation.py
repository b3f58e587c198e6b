"""Evaluation by the serving engine beside transformers' `generate` in static batches, on questions of mixed lengths.

    python benchmarks/evaluation.py [--questions 64] [--batch 16] [--rounds 2] [--batches sorted mixed]

One process, the same base, questions, number format, threads and rows in a batch; greedy answers that end where the
model ends them. Batches of `generate` are sorted by the length of prompts, as lm-eval's Hugging Face backend does it,
or hold the questions as they come (`mixed`). Loading and a first warm batch are not counted. Best of the rounds, which
alternate. The steps tell how much faster continuous batching can be where a step costs the same.
"""

import argparse
import asyncio
import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from typing_extensions import override

from didact.cluster.asking.answering import EngineModels
from didact.cluster.asking.subjects import Subject
from didact.datasets.conversation import Message
from didact.devices import processor
from didact.evaluation import Answer, Ask, Asked, Identity, Model, Question, Score, run_task
from didact.evaluation.tasks.text_task import TextTask
from didact.models import base_folder, compute_dtype, load_tokenizer
from didact.spec import ModelSpec, QuestionTask
from didact.tokens import TemplateContract

KEY = "base"
TOPICS = ("a lighthouse", "bread", "the tides", "a chess opening", "rain in a city", "an old clock", "bees", "glass")
KINDS = (
    "Answer in one word: is {topic} older than the telephone?",
    "What is {number} + {number}? Give only the number.",
    "Name three things that have to do with {topic}.",
    "Write a short paragraph about {topic}.",
    "Explain {topic} to a child, step by step, with an example for each step.",
)
FILLER = (
    "Somebody told me the following about it, which may or may not be of use: {topic} was seen by {number} people. "
)


@dataclass(frozen=True)
class Measured:
    """What one contestant did."""

    seconds: float
    cpu_seconds: float
    """Of all threads, which other work on the machine moves less."""
    texts: list[str]
    tokens: int
    steps: int
    """Decoding steps: those that static batches took; of continuous batching the fewest that its rows allow."""


class OnEngine(Model):
    """The bare base of an `EngineModels`."""

    def __init__(self, models: EngineModels, at_once: int) -> None:
        """Wrap it."""
        self._models, self._at_once = models, at_once

    @property
    @override
    def identity(self) -> Identity:
        return self._models.facts[KEY].identity

    @property
    @override
    def at_once(self) -> int:
        return self._at_once

    @override
    async def answer(self, ask: Ask) -> Answer:
        return await self._models.answer(KEY, ask)


def questions(count: int) -> list[Question]:
    """Short and long ones in random order, whose answers have one word or many."""
    draw = random.Random(0)
    made = []
    for number in range(count):
        topic = draw.choice(TOPICS)
        text = draw.choice(KINDS).format(topic=topic, number=draw.randint(10, 99))
        before = "".join(
            FILLER.format(topic=topic, number=draw.randint(10, 99)) for _ in range(draw.choice((0, 0, 1, 4, 12)))
        )
        made.append(Question(str(number), (Message("user", before + text),)))
    return made


def by_engine(models: EngineModels, task: TextTask, batch: int) -> Measured:
    """An evaluation as `didact evaluate` runs it, nothing remembered."""
    asked = {"model": Asked(OnEngine(models, 2 * batch), None)}
    began, computed = time.perf_counter(), time.process_time()
    result = asyncio.run(run_task(task, asked))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - computed
    texts = [each.answers[0].texts[0] for each in result.scored]
    tokens = sum(each.num_tokens for each in texts)
    return Measured(seconds, cpu_seconds, [each.text for each in texts], tokens, math.ceil(tokens / batch))


def by_generate(
    model: Any, tokenizer: Any, contract: TemplateContract, task: TextTask, *, batch: int, sort: bool
) -> Measured:
    """Static batches, padded on the left; each lasts until its longest answer ends."""
    began, computed = time.perf_counter(), time.process_time()
    prompts = [contract.prompt_ids(tokenizer, question.messages) for question in task.questions]
    order = sorted(range(len(prompts)), key=lambda number: -len(prompts[number])) if sort else range(len(prompts))
    texts: dict[int, str] = {}
    tokens = steps = 0
    stops = list(contract.stop_token_ids)
    for start in range(0, len(prompts), batch):
        numbers = list(order)[start : start + batch]
        width = max(len(prompts[number]) for number in numbers)
        ids = torch.tensor([[stops[0]] * (width - len(prompts[n])) + prompts[n] for n in numbers])
        mask = torch.tensor([[0] * (width - len(prompts[n])) + [1] * len(prompts[n]) for n in numbers])
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=task.settings.max_new_tokens,
                eos_token_id=stops,
                pad_token_id=stops[0],
            )
        steps += output.shape[1] - width
        for number, row in zip(numbers, output[:, width:].tolist(), strict=True):
            own = row[: next((at for at, token in enumerate(row) if token in stops), len(row))]
            tokens += len(own)
            texts[number] = tokenizer.decode(own, skip_special_tokens=True)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - computed
    return Measured(seconds, cpu_seconds, [texts[number] for number in range(len(prompts))], tokens, steps)


def main() -> None:
    """Measure all in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batches", nargs="+", default=["sorted"], choices=("sorted", "mixed"), help="of generate")
    options = parser.parse_args()
    base = ModelSpec(dtype=options.dtype)
    task = TextTask.of(
        "mixed",
        QuestionTask(max_new_tokens=options.new_tokens),
        questions(options.questions),
        lambda question, text: Score({"accuracy": float(bool(text))}),
        "1",
    )
    tokenizer = load_tokenizer(base)
    plain = AutoModelForCausalLM.from_pretrained(base_folder(base), dtype=compute_dtype(base)).eval()
    models = EngineModels({KEY: Subject("base", base)}, device=torch.device("cpu"), batch_size=options.batch)
    try:
        contract = models.facts[KEY].contract
        contestants: dict[str, Callable[[TextTask], Measured]] = {
            "didact": lambda asked: by_engine(models, asked, options.batch),
        }
        for kind in options.batches:
            contestants[f"generate, {kind}"] = partial(
                by_generate, plain, tokenizer, contract, batch=options.batch, sort=kind == "sorted"
            )
        warm = TextTask.of("warm", QuestionTask(max_new_tokens=4), task.questions[:2], task.scorer)
        best: dict[str, Measured] = {}
        for run in contestants.values():
            run(warm)
        for _ in range(options.rounds):
            for name, run in contestants.items():
                found = run(task)
                print(f"{name}: {found.seconds:.1f} s, {found.tokens} tokens", file=sys.stderr, flush=True)
                best[name] = min(best.get(name, found), found, key=lambda each: each.seconds)
    finally:
        models.close()
    show(best, options)


def show(best: dict[str, Measured], options: argparse.Namespace) -> None:
    """The table, with our ratio to each."""
    ours = best["didact"]
    kind = processor().splitlines()[0].partition(":")[2].strip()
    print(f"{kind}, {torch.get_num_threads()} threads, {options.dtype}; {options.questions} questions\n")
    print("| contestant | seconds | CPU seconds | answer tokens/s | steps | faster by | by CPU | equal answers |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, found in best.items():
        equal = sum(one == other for one, other in zip(ours.texts, found.texts, strict=True))
        speed, ratio = found.tokens / found.seconds, found.seconds / ours.seconds
        by_cpu, took = found.cpu_seconds / ours.cpu_seconds, f"{found.seconds:.1f} | {found.cpu_seconds:.1f}"
        print(f"| {name} | {took} | {speed:.0f} | {found.steps} | {ratio:.2f} | {by_cpu:.2f} | {equal} |")


if __name__ == "__main__":
    main()

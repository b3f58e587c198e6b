"""Generated tokens a second of the embedded engine, beside transformers and PEFT on the same base, in one run.

    python benchmarks/serving.py [--rounds 3] [--threads 1] [--requests 16] [--tokens 64] [--minutes 14] [--dtype auto]
                                 [--quick]

The bundled base, LoRA of rank 8, prompts of 37 tokens, greedy. First how long rows wait between two tokens while others
arrive, which is on the clock. Then contestants alternate; the best round of each counts, in seconds on the clock and of
the processor, so a busy machine is seen: ratios are of processor time. No round begins that would not end within
`--minutes`. `--quick` tries everything once with few tokens and without warming up: its figures say nothing.

Leave `--threads` at 1 on a machine that others use: threads that wait for each other take many times as long there.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from transformers import ContinuousBatchingConfig, GenerationConfig

from didact.devices import this_machine
from didact.gpu_proof.engine import FINGERPRINT, generate
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.models import AdapterHost, attach_adapter, load_base, load_tokenizer, save_adapter
from didact.serving import AdapterRef, EmbeddedEngine, GenerationRequest
from didact.spec import LoraSpec, ModelSpec
from didact.tokens import TemplateContract

PROMPT_TOKENS = 37
LONG_PROMPT = 6000
NUM_NAMES = 64
NAMED_REQUESTS, NAMED_TOKENS = 48, 16


@dataclass(frozen=True, slots=True)
class Goal:
    """What a contestant's tokens a second of processor time should be beside another's."""

    name: str
    beside: str
    at_least: float


class Contestants:
    """What is measured; each answers `requests` requests with `tokens` tokens and returns how many it generated."""

    def __init__(self, folder: Path, spec: ModelSpec, requests: int, tokens: int) -> None:
        self.requests, self.tokens = requests, tokens
        self.spec = spec
        base = load_base(spec)
        self.all_layers = save_adapters(base, folder / "all", NUM_NAMES, LoraSpec(r=8))
        narrow = LoraSpec(r=8, target_modules=["q_proj", "v_proj"])
        self.narrow = save_adapters(base, folder / "narrow", requests, narrow)
        # No prompt is known from the round before: every round reads its prompts, as its peers do.
        self.engine = EmbeddedEngine(
            AdapterHost(base, FINGERPRINT),
            load_tokenizer(spec),
            max_adapters=requests,
            max_batch_size=requests,
            prefix_cache_bytes=0,
        )
        # Not frozen, as its peers load it: of frozen weights torch copies the vocabulary's for each row of a prompt.
        self.plain = load_base(spec).requires_grad_(True)
        self.wrapped: PeftModel | None = None

    def named(self) -> dict[str, Callable[[], int]]:
        """Contestants by the names of the table."""
        count = self.requests
        return {
            "engine, base only": lambda: self.ask([None] * count),
            "engine, one adapter": lambda: self.ask([self.all_layers[0]] * count),
            f"engine, {count} adapters": lambda: self.ask(self.all_layers[:count]),
            f"engine, {count} adapters on q and v": lambda: self.ask(self.narrow),
            "engine, base, one by one": lambda: sum(self.ask([None], first) for first in range(max(count // 8, 1))),
            "transformers `generate`, one batch": lambda: self.generate(self.plain, self.tokens),
            "transformers, continuous batching": self.continuous_batching,
            f"PEFT `adapter_names`, {count} adapters": self.adapter_names,
            f"engine, {NAMED_REQUESTS} requests for {count} names": lambda: self.many_names(count),
            f"engine, {NAMED_REQUESTS} requests for {NUM_NAMES} names": lambda: self.many_names(NUM_NAMES),
        }

    def goals(self) -> list[Goal]:
        """What the engine is meant to reach."""
        base, many = "engine, base only", f"engine, {self.requests} adapters"
        named = f"engine, {NAMED_REQUESTS} requests for "
        return [
            Goal(many, base, 0.9),
            Goal(f"{many} on q and v", base, 0.97),
            Goal(base, "engine, base, one by one", self.requests / 2),
            Goal(base, "transformers `generate`, one batch", 0.95),
            Goal(base, "transformers, continuous batching", 1.1),
            Goal(many, f"PEFT `adapter_names`, {self.requests} adapters", 5.0),
            Goal(f"{named}{NUM_NAMES} names", f"{named}{self.requests} names", 0.9),
        ]

    def ask(self, adapters: Sequence[AdapterRef | None], first: int = 0, tokens: int | None = None) -> int:
        """All at once, the prompts from number `first` on."""
        asked = [request(prompt(first + row), adapter, tokens or self.tokens) for row, adapter in enumerate(adapters)]
        return sum(map(len, asyncio.run(generate(self.engine, asked))))

    def many_names(self, count: int) -> int:
        """Adapters by a Zipf law: the second name is asked for half as often as the first, the third a third."""
        weights = torch.tensor([1 / (rank + 1) for rank in range(count)])
        drawn = torch.multinomial(weights, NAMED_REQUESTS, True, generator=torch.Generator().manual_seed(7))
        return self.ask([self.all_layers[name] for name in drawn.tolist()], tokens=min(NAMED_TOKENS, self.tokens))

    def adapter_names(self) -> int:
        """PEFT's way to mix adapters in a batch; an eighth of the tokens, for it is slow."""
        if self.wrapped is None:
            base = load_base(self.spec)
            self.wrapped = PeftModel.from_pretrained(base, self.all_layers[0].folder, adapter_name="a0")
            for index, ref in enumerate(self.all_layers[1 : self.requests], 1):
                self.wrapped.load_adapter(ref.folder, adapter_name=f"a{index}")
        names = [f"a{index}" for index in range(self.requests)]
        return self.generate(self.wrapped, max(self.tokens // 8, 1), adapter_names=names)

    def generate(self, model: torch.nn.Module, tokens: int, **more: list[str]) -> int:
        """transformers' `generate` over all prompts."""
        ids = torch.tensor([prompt(row) for row in range(self.requests)])
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                pad_token_id=0,
                **more,
            )
        return int(output[:, ids.shape[1] :].numel())

    def continuous_batching(self) -> int:
        """transformers' own engine, with room for all that is asked."""
        room = self.requests * (PROMPT_TOKENS + self.tokens)
        answers = self.plain.generate_batch(
            inputs=[list(prompt(row)) for row in range(self.requests)],
            generation_config=GenerationConfig(
                max_new_tokens=self.tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=32,
                num_blocks=2 * room // 32 + self.requests,
                max_batch_tokens=max(256, self.requests),
                max_requests_per_batch=self.requests,
                allow_block_sharing=False,
            ),
            warmup=False,
        )
        return sum(len(each.generated_tokens) for each in answers.values())


def save_adapters(base: torch.nn.Module, folder: Path, count: int, spec: LoraSpec) -> list[AdapterRef]:
    """Adapters with random weights, in folders as a run leaves them."""
    model = attach_adapter(base, spec, seed=0, base_name="random")
    refs = []
    for seed in range(count):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.02)
        own = folder / str(seed)
        own.mkdir(parents=True)
        TemplateContract.build(byte_tokenizer(), "auto").save(own)
        facts = save_adapter(model, own, base="random", base_fingerprint=FINGERPRINT, method="lora")
        refs.append(AdapterRef(f"{folder.name}{seed}:1#{facts.sha256[:12]}", own))
    model.unload()
    return refs


def prompt(row: int, length: int = PROMPT_TOKENS) -> tuple[int, ...]:
    """Tokens that no other row begins with."""
    return tuple(100 + (row * 131 + place * 17) % 4000 for place in range(length))


def request(ids: tuple[int, ...], adapter: AdapterRef | None, tokens: int) -> GenerationRequest:
    """Greedy, and no token ends it early."""
    return GenerationRequest(f"{time.monotonic_ns()}-{ids[0]}", ids, adapter, tokens)


def rates(contestant: Callable[[], int]) -> tuple[float, float]:
    """Tokens a second, by the clock and by the processor's time."""
    clock, processor = time.perf_counter(), time.process_time()
    tokens = contestant()
    return tokens / (time.perf_counter() - clock), tokens / (time.process_time() - processor)


async def waits(
    engine: EmbeddedEngine, running: int, arriving: Sequence[GenerationRequest], tokens: int
) -> list[float]:
    """Seconds between two tokens of `running` rows, to which others come when all have begun."""
    begun, found = asyncio.Semaphore(0), list[float]()

    async def timed(asked: GenerationRequest) -> None:
        last = None
        async for delta in engine.generate(asked):
            now = time.perf_counter()
            if last is None:
                begun.release()
            else:
                found.extend([(now - last) / len(delta.token_ids)] * len(delta.token_ids))
            last = now

    async def later() -> None:
        for _ in range(running):
            await begun.acquire()
        await generate(engine, arriving)

    await asyncio.gather(later(), *(timed(request(prompt(row), None, tokens)) for row in range(running)))
    return found


def print_rates(best: dict[str, tuple[float, float]], goals: Sequence[Goal]) -> None:
    """Tables of what was measured and of what it means."""
    base = best["engine, base only"][1]
    print("| contestant | tokens/s | a second of processor time | beside the base alone |")
    print("|---|---:|---:|---:|")
    for name, (clock, processor) in best.items():
        print(f"| {name} | {clock:.1f} | {processor:.1f} | {processor / base:.2f} |")
    print("\n| ratio | goal | measured |")
    print("|---|---:|---:|")
    for goal in goals:
        ratio = best[goal.name][1] / best[goal.beside][1]
        print(f"| {goal.name} : {goal.beside} | {goal.at_least:g} | {ratio:.2f} |")


def print_waits(contestants: Contestants, long_prompt: int) -> None:
    """How evenly tokens come."""
    count, tokens = contestants.requests, contestants.tokens
    crowd = [request(prompt(100 + row), None, tokens // 2) for row in range(count)]
    cases = {
        f"{count} requests arrive beside {count // 2}": (count // 2, crowd),
        f"one brings {long_prompt} tokens": (count - 1, [request(prompt(99, long_prompt), None, 1)]),
    }
    print("\n| between two tokens of running rows, ms | half at most | 99 of 100 at most | ratio (goal: 4 at most) |")
    print("|---|---:|---:|---:|")
    for name, (running, arriving) in cases.items():
        found = sorted(asyncio.run(waits(contestants.engine, running, arriving, tokens)))
        half, most = statistics.median(found), found[int(0.99 * (len(found) - 1))]
        print(f"| {name} | {1000 * half:.0f} | {1000 * most:.0f} | {most / half:.1f} |")


def warm_up(contestants: Contestants, named: dict[str, Callable[[], int]]) -> None:
    """Load and compile what the first answers need."""
    tokens, contestants.tokens = contestants.tokens, 4
    for name, each in named.items():
        began = time.perf_counter()
        each()
        print(f"{name}: ready after {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    contestants.tokens = tokens


def best_rates(named: dict[str, Callable[[], int]], rounds: int, seconds: float) -> dict[str, tuple[float, float]]:
    """Each contestant's best rates by the clock and by the processor, of as many rounds as there is time for."""
    best = dict.fromkeys(named, (0.0, 0.0))
    until, longest = time.perf_counter() + seconds, 0.0
    for number in range(rounds):
        began = time.perf_counter()
        if number and began + longest > until:
            print(f"no time for round {number + 1} of {rounds}", file=sys.stderr, flush=True)
            break
        for name, contestant in named.items():
            found = rates(contestant)
            print(f"{name}: {found[0]:.1f} tokens/s, {found[1]:.1f} of processor time", file=sys.stderr, flush=True)
            best[name] = (max(best[name][0], found[0]), max(best[name][1], found[1]))
        longest = max(longest, time.perf_counter() - began)
    return best


def main() -> None:
    """Measure, alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 3), ("threads", 1), ("requests", 16), ("tokens", 64), ("minutes", 14)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.tokens = 1, 4
    torch.set_num_threads(arguments.threads)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        spec = ModelSpec(dtype=arguments.dtype)
        contestants = Contestants(Path(folder), spec, arguments.requests, arguments.tokens)
        known = "" if this_machine().cpu_bfloat16 else "out"
        print(f"{contestants.plain.dtype}, {arguments.threads} thread(s), a processor with{known} instructions for "
              f"bfloat16, {torch.backends.cpu.get_cpu_capability()}", flush=True)  # fmt: skip
        named = contestants.named()
        if not arguments.quick:
            warm_up(contestants, named)
        print_waits(contestants, 300 if arguments.quick else LONG_PROMPT)
        seconds = 60 * arguments.minutes - (time.perf_counter() - began)
        print_rates(best_rates(named, arguments.rounds, seconds), contestants.goals())
        contestants.engine.close()


if __name__ == "__main__":
    main()

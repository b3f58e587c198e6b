"""Generated tokens a second of the embedded engine, beside transformers and PEFT on the same base, in one run.

    python benchmarks/serving.py [--rounds 3] [--threads 1] [--requests 16] [--tokens 64]

The bundled base, LoRA of rank 8 on all linear layers, prompts of 37 tokens, greedy. Contestants alternate; the best
round of each counts, in seconds on the clock and of the processor, so a busy machine is seen.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel

from didact.devices import this_machine
from didact.gpu_proof.engine import FINGERPRINT, generate, random_adapter
from didact.models import AdapterHost, load_base, load_tokenizer
from didact.serving import AdapterRef, EmbeddedEngine, GenerationRequest
from didact.spec import ModelSpec

PROMPT_TOKENS = 37


class Contestants:
    """What is measured; each answers `requests` requests with `tokens` tokens each."""

    def __init__(self, folder: Path, requests: int, tokens: int) -> None:
        self.requests, self.tokens = requests, tokens
        spec = ModelSpec()
        base = load_base(spec)
        self.refs = [random_adapter(base, folder / str(seed), seed, 0.02) for seed in range(requests)]
        self.engine = EmbeddedEngine(
            AdapterHost(base, FINGERPRINT), load_tokenizer(spec), max_adapters=requests, max_batch_size=requests
        )
        self.plain = load_base(spec)
        self._wrapped: PeftModel | None = None

    def prompts(self) -> list[tuple[int, ...]]:
        """A prompt for each request."""
        return [tuple(100 + (row * 131 + place * 17) % 4000 for place in range(PROMPT_TOKENS)) for row in
                range(self.requests)]  # fmt: skip

    def base_only(self) -> int:
        """All at once, without adapters."""
        return self._ask([None] * self.requests)

    def one_adapter(self) -> int:
        """All at once, one adapter for all."""
        return self._ask([self.refs[0]] * self.requests)

    def many_adapters(self) -> int:
        """All at once, an adapter for each."""
        return self._ask(self.refs)

    def one_by_one(self) -> int:
        """A quarter of the requests, each after the other, without adapters."""
        rows = range(max(self.requests // 4, 1))
        return sum(self._ask([None], first) for first in rows)

    def static_batch(self) -> int:
        """transformers' `generate` over all prompts."""
        return self._generate(self.plain, self.tokens)

    def adapter_names(self) -> int:
        """PEFT's way to mix adapters in a batch; a quarter of the tokens, for it is slow."""
        if self._wrapped is None:
            base = load_base(ModelSpec())
            self._wrapped = PeftModel.from_pretrained(base, self.refs[0].folder, adapter_name="a0")
            for index, ref in enumerate(self.refs[1:], 1):
                self._wrapped.load_adapter(ref.folder, adapter_name=f"a{index}")
        names = [f"a{index}" for index in range(self.requests)]
        return self._generate(self._wrapped, max(self.tokens // 4, 1), adapter_names=names)

    def _ask(self, adapters: list[AdapterRef | None], first: int = 0) -> int:
        asked = [
            GenerationRequest(f"{time.monotonic_ns()}-{row}", prompt, adapter, self.tokens)
            for row, (prompt, adapter) in enumerate(zip(self.prompts()[first:], adapters, strict=False))
        ]
        return sum(map(len, asyncio.run(generate(self.engine, asked))))

    def _generate(self, model: torch.nn.Module, tokens: int, **more: list[str]) -> int:
        ids = torch.tensor(self.prompts())
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


def rates(contestant: Callable[[], int]) -> tuple[float, float]:
    """Tokens a second, by the clock and by the processor's time."""
    clock, processor = time.perf_counter(), time.process_time()
    tokens = contestant()
    return tokens / (time.perf_counter() - clock), tokens / (time.process_time() - processor)


def processor_words() -> str:
    """What decides about speed here."""
    known = "" if this_machine().cpu_bfloat16 else "out"
    return f"a processor with{known} instructions for bfloat16"


def main() -> None:
    """Measure, alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 3), ("threads", 1), ("requests", 16), ("tokens", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        contestants = Contestants(Path(folder), arguments.requests, arguments.tokens)
        named = {
            "engine, base only": contestants.base_only,
            "engine, one adapter": contestants.one_adapter,
            f"engine, {arguments.requests} adapters": contestants.many_adapters,
            "engine, base, one by one": contestants.one_by_one,
            "transformers `generate`, one batch": contestants.static_batch,
            f"PEFT `adapter_names`, {arguments.requests} adapters": contestants.adapter_names,
        }
        best = dict.fromkeys(named, (0.0, 0.0))
        for number in range(arguments.rounds + 1):
            for name, contestant in named.items():
                found = rates(contestant)
                if number:  # the first round loads and warms up
                    best[name] = (max(best[name][0], found[0]), max(best[name][1], found[1]))
        contestants.engine.close()
    base = best["engine, base only"][1]
    print(f"{contestants.plain.dtype}, {arguments.threads} thread(s), {processor_words()}")
    print("| contestant | tokens/s | a second of processor time | beside the base alone |")
    print("|---|---:|---:|---:|")
    for name, (clock, processor) in best.items():
        print(f"| {name} | {clock:.1f} | {processor:.1f} | {processor / base:.2f} |")


if __name__ == "__main__":
    main()

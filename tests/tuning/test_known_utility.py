"""The searcher for few trials on runs that are really trained, of sources whose best shares are known.

Four sources share 64 prompts, and each always answers its own word; the target answers prompts of this kind with the
shares `BEST`. What a model learns of the answers are then the shares of tokens that it was shown, and how far those lie
from the best ones is what it loses: their divergence.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from didact.tuning.searchers import RandomProposer
from tests.fakes.loops import run_loop
from tests.fakes.mixture_search import BEST, found, regret, search, tried
from tests.fakes.recipes import tiny_recipe

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]
STEPS, PROMPTS, SEEDS = 30, 64, 10
ANSWERS = ("a", "b", "c", "d")


class Trained:
    """Measures a mixture by a run of the tiny model."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed, self._count = folder, seed, 0
        tiny_recipe(folder)
        prompts = [f"Say the word for {number}." for number in range(PROMPTS)]
        for number, answer in enumerate(ANSWERS):
            write(folder / f"s{number}.jsonl", [(prompt, answer) for prompt in prompts])
        told = np.random.default_rng(0).permutation(np.repeat(ANSWERS, (BEST * 2 * PROMPTS).round().astype(int)))
        # Prompts of its own, since nothing is trained on that asks what is held out; the answers do not hang on them.
        write(
            folder / "target.jsonl", [(f"Say the word for {1000 + number}.", each) for number, each in enumerate(told)]
        )

    def __call__(self, shares: np.ndarray, _values: dict[str, Any]) -> dict[str, float]:
        self._count += 1
        sources = [
            {"name": f"s{number}", "path": str(self._folder / f"s{number}.jsonl"), "weight": float(share)}
            for number, share in enumerate(shares)
        ]
        sources.append(
            {
                "name": "target",
                "path": str(self._folder / "target.jsonl"),
                "weight": 0.0,
                "held_out_rows": 2 * PROMPTS - 4,
            }
        )
        changes = {"training__steps": STEPS, "training__evaluate_every": STEPS, "training__checkpoint_every": STEPS}
        changes |= {"training__learning_rate": 1e-2, "training__seed": self._seed, "data__seed": self._seed}
        spec = tiny_recipe(self._folder, adapter={"method": "full"}, data__sources=sources, **changes)
        loop = run_loop(spec, self._folder / "checkpoints" / str(self._count), measured=True)
        return {"eval/loss": loop.reports[-1].metrics["eval/target/loss"]}


def write(file: Path, rows: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"instruction": prompt, "output": str(answer)}) for prompt, answer in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_9_of_10_seeds_come_near_the_best_shares_within_24_runs(tmp_path: Path) -> None:
    regrets, random = [], []
    for seed in range(SEEDS):
        sweep, space, objective = search(seed=seed)
        measure = Trained(tmp_path / str(seed), seed)
        seen, mixtures = tried(sweep, space, objective, measure, 0.0, seed)
        regrets.append(regret(mixtures[found(seen)]))
        by_chance, drawn = tried(sweep, space, objective, measure, 0.0, seed, RandomProposer(space, seed))
        random.append(regret(drawn[found(by_chance)]))
        print(f"seed {seed}: searched {regrets[-1]:.4f}, random {random[-1]:.4f}")
    assert sum(each <= 0.06 for each in regrets) >= 0.9 * SEEDS, regrets
    assert np.median(regrets) < np.median(random), (regrets, random)

"""How well `searcher: mixture`'s models rank mixtures that they were not shown: RegMix's published runs, fitted again.

    PYTHONPATH=platform python benchmarks/regmix.py [--folder FILES] [--seeds 10]

Liu et al. 2024 (arXiv 2407.01492, MIT licence) trained 512 models of 1M parameters on random mixtures of 17 domains of
the Pile and measured each on 13 of them; 256 more runs of 1M and 64 of 1B parameters were kept aside. The tables are
read from `--folder`, or downloaded from the authors' repository into it. Of the 512 runs, 51, 85 or 170 are drawn; each
model is fitted to them and predicts the mean loss of the runs kept aside. What counts is the rank correlation with
what was measured, since a search needs the order. Linear regression, which RegMix compares with too, and one law for
the mean loss are what a simpler search would use.
"""

import argparse
import csv
import statistics
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from didact.files import write_bytes
from didact.tuning.searchers.surrogates import GaussianProcess, LogLinear
from didact.tuning.spaces.polytope import Vector

URL = "https://raw.githubusercontent.com/sail-sg/regmix/{}/data/{}.csv"
COMMIT = "b004d3a3f39846dcec6b3740da22bcd1ba95a5d0"
COUNTS = (51, 85, 170)
TABLES = {
    "train": ("train_mixture_1m", "train_pile_loss_1m"),
    "1M": ("test_mixture_1m", "test_pile_loss_1m"),
    "1B": ("test_mixture_1B", "test_pile_loss_1B"),
}
Runs = tuple[Vector, Vector]
"""Weights [runs, domains] and losses [runs, metrics]."""


def per_metric(fit: Callable[[Vector, Vector], Callable[[Vector], Vector]]) -> Callable[[Runs, Vector], Vector]:
    """A model for each metric, and then the mean of what they say."""

    def predict(runs: Runs, points: Vector) -> Vector:
        found: Vector = np.mean([fit(runs[0], losses)(points) for losses in runs[1].T], axis=0)
        return found

    return predict


def of_mean(fit: Callable[[Vector, Vector], Callable[[Vector], Vector]]) -> Callable[[Runs, Vector], Vector]:
    """One model of the mean loss."""
    return lambda runs, points: fit(runs[0], runs[1].mean(axis=1))(points)


def linear(points: Vector, values: Vector) -> Callable[[Vector], Vector]:
    """Least squares."""
    found = np.linalg.lstsq(np.column_stack([points, np.ones(len(points))]), values, rcond=None)[0]
    return lambda asked: np.column_stack([asked, np.ones(len(asked))]) @ found


def law(points: Vector, values: Vector) -> Callable[[Vector], Vector]:
    """c + exp(a + t . x)."""
    model = LogLinear.fit(points, values)
    return lambda asked: model.predict(asked)[0]


def process(points: Vector, values: Vector) -> Callable[[Vector], Vector]:
    """A Gaussian process over square roots of weights."""
    model = GaussianProcess.fit(np.sqrt(points), values, [points.shape[1]])
    return lambda asked: model.predict(np.sqrt(asked))[0]


MODELS = {
    "linear regression on the mean": of_mean(linear),
    "one law on the mean": of_mean(law),
    "a Gaussian process for each metric": per_metric(process),
    "a law for each metric": per_metric(law),
}


def table(name: str, folder: Path) -> dict[str, dict[str, float]]:
    """Run -> column -> number; downloaded where it is not in `folder`."""
    file = folder / f"{name}.csv"
    if not file.is_file():
        with urllib.request.urlopen(URL.format(COMMIT, name), timeout=60) as answer:
            write_bytes(file, answer.read())
    with file.open(encoding="utf-8", newline="") as stream:
        return {row.pop("index"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)}


def runs_of(which: str, folder: Path) -> Runs:
    """Those of which both weights and losses are there."""
    weights, losses = (table(name, folder) for name in TABLES[which])
    both = [run for run in weights if run in losses]
    return tuple(np.array([list(each[run].values()) for run in both]) for each in (weights, losses))  # type: ignore[return-value]


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("regmix"), help="of the tables")
    parser.add_argument("--seeds", type=int, default=10, help="draws of runs to fit to; the median is shown")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    runs = {which: runs_of(which, asked.folder) for which in TABLES}
    weights, losses = runs["train"]
    print(", ".join(f"{len(each[0])} runs {which}" for which, each in runs.items()), flush=True)
    print(f"\n| fitted to | model | {' | '.join(f'{which} runs' for which in ('1M', '1B'))} |\n|---:|---|---:|---:|")
    for count in COUNTS:
        for name, predict in MODELS.items():
            found: dict[str, list[float]] = {"1M": [], "1B": []}
            for seed in range(asked.seeds):
                chosen = np.random.default_rng(seed).choice(len(weights), count, replace=False)
                for which, correlations in found.items():
                    predicted = predict((weights[chosen], losses[chosen]), runs[which][0])
                    correlations.append(float(spearmanr(predicted, runs[which][1].mean(axis=1)).statistic))
            shown = " | ".join(f"{statistics.median(each):.2f}" for each in found.values())
            print(f"| {count} | {name} | {shown} |", flush=True)


if __name__ == "__main__":
    main()

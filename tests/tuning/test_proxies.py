"""Sums of single sources' adapters as stand-ins for mixtures, on models small enough to add up by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from didact.errors import AdapterError, SpecError
from didact.models import load_base
from didact.spec import FinetuneSpec, SweepSpec, validate
from didact.training import trainable_model
from didact.tuning import Search, load_search
from didact.tuning.proxies import MergedAdapters, check_proxy, merged_model, score_mixes, source_weights
from didact.tuning.searchers import MixtureProposer, Ranking, Seen, build_proposer, ranking_of
from didact.tuning.spaces import Sizes
from tests.fakes.recipes import tiny_recipe

RECIPE: dict[str, Any] = {
    "name": "r",
    "data": {"sources": [{"name": name, "path": "reasoning-gym:chain_sum", "held_out_rows": 4} for name in "ab"]},
    "training": {"steps": 8, "evaluate_every": 2},
}
SWEEP: dict[str, Any] = {
    "name": "s",
    "recipe": "r.yaml",
    "space": {"data.weights": {"mixture": {"floor": 0.05}}},
    "searcher": "mixture",
    "num_trials": 12,
    "proxy": {},
}


def adapters(folder: Path, spec: FinetuneSpec, count: int) -> list[Path]:
    """Random ones, as PEFT would save them."""
    model, _ = trainable_model(spec, 4, torch.device("cpu"))
    made = []
    for number in range(count):
        torch.manual_seed(number)
        tensors = {
            name.replace(".default", ""): 0.3 * torch.randn(each.shape)
            for name, each in model.named_parameters()
            if each.requires_grad
        }
        made.append(folder / f"{number}")
        made[-1].mkdir()
        save_file(tensors, made[-1] / "adapter_model.safetensors")
    return made


def with_updates(spec: FinetuneSpec, folders: list[Path], weights: list[float], scale: float) -> torch.nn.Module:
    """The plain twin: the base with all updates added to its own weights."""
    from safetensors.torch import load_file

    base = load_base(spec.model)
    modules = dict(base.named_modules())
    for folder, weight in zip(folders, weights, strict=True):
        tensors = load_file(folder / "adapter_model.safetensors")
        for name in {key.rpartition(".lora_")[0] for key in tensors}:
            update = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
            modules[name.removeprefix("base_model.model.")].weight.data += weight * scale * update  # type: ignore[operator]
    return base


@pytest.mark.parametrize(("rslora", "scale"), [(False, 8 / 4), (True, 8 / 2)])
def test_sums_are_exact(tmp_path: Path, rslora: bool, scale: float) -> None:
    spec = tiny_recipe(tmp_path, adapter__rslora=rslora)
    folders = adapters(tmp_path, spec, 3)
    model, merged, _ = merged_model(spec, folders, torch.device("cpu"), 4)
    model.eval()
    tokens = torch.arange(5, 25).reshape(2, 10)
    with torch.no_grad():
        for weights in ([0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]):
            merged.weigh(weights)
            twin = with_updates(spec, folders, weights, scale).eval()
            torch.testing.assert_close(model(tokens).logits, twin(tokens).logits, rtol=1e-4, atol=1e-4)


def test_sums_are_scored_on_held_out_rows(tmp_path: Path) -> None:
    tiny_recipe(tmp_path)
    path = str(tmp_path / "sums.jsonl")
    sources = [{"name": name, "path": path, "max_rows": 20, "held_out_rows": 4} for name in ("first", "second")]
    spec = tiny_recipe(tmp_path, data__sources=sources)
    folders = adapters(tmp_path, spec, 2)
    scored = score_mixes(spec, folders, [[0.0, 0.0], [0.5, 0.5], [0.0, 0.0]], torch.device("cpu"))
    assert set(scored[0]) == {"eval/first/loss", "eval/second/loss", "eval/loss"}
    assert scored[0] == scored[2] != scored[1], "a sum leaves nothing behind"


def test_an_adapter_of_other_layers_is_refused(tmp_path: Path) -> None:
    spec = tiny_recipe(tmp_path)
    model, _ = trainable_model(spec, 4, torch.device("cpu"))
    with pytest.raises(AdapterError, match="an adapter of a source has no base_model"):
        MergedAdapters(model, [{}], 1.0)


def test_a_ranking_begins_with_trials_from_good_to_bad() -> None:
    named = [({"n": "uniform"}, 5.0)]
    drawn = [({"n": number}, float(number)) for number in (3, 9, 1, 7, 0, 2, 8, 4, 6)]
    first, ranking = ranking_of(named, drawn, calibrate=4, top=3, at_least=0.7)
    assert [each["n"] for each in first] == [0, 4, 9] and ranking.expected == (5.0, 0.0, 4.0, 9.0)
    assert [each["n"] for each in ranking.best] == [1, 2, 3]


@pytest.mark.parametrize(
    ("measured", "rho", "said"),
    [
        ({0: 1.0, 1: 2.0, 2: 3.0, 3: 9.0}, 1.0, "proxy: it ranks the first 4 trials with a correlation of 1.00"),
        ({0: 1.0, 1: 3.0, 2: 2.0, 3: 9.0}, 0.8, "proxy: it ranks the first 4 trials with a correlation of 0.80"),
        ({0: 3.0, 1: 1.0, 2: 2.0, 3: 9.0}, 0.4, "correlation of 0.40, below 0.7"),
        ({0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}, 0.0, "correlation of 0.00, below 0.7"),
        ({0: 1.0, 1: 2.0, 3: 9.0}, None, "since not all of the first 4 trials were measured"),
    ],
)
def test_a_proxy_is_believed_where_it_ranks_what_it_has_not_seen(
    measured: dict[int, float], rho: float | None, said: str
) -> None:
    ranking = Ranking((1.0, 2.0, 3.0, 4.0), (), 0.7)
    assert ranking.correlation(measured) == rho and ranking.is_believed(measured) == (rho is not None and rho >= 0.7)
    assert said in ranking.words(measured)
    assert Ranking((), (), 0.7, "run s-a failed").words({}) == "proxy: not followed, since run s-a failed"


def search(folder: Path, recipe: dict[str, Any] = RECIPE, **changes: Any) -> Search:
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    found = load_search(validate(SweepSpec, {**SWEEP, **changes}, "s.yaml"), folder / "s.yaml")
    return found.sized(Sizes({"a": 9, "b": 9}, {"a": 5.0, "b": 5.0}, 64))


@pytest.mark.parametrize(("sign", "followed"), [(1.0, True), (-1.0, False)])
def test_the_searcher_follows_a_proxy_that_ranks_and_no_other(tmp_path: Path, sign: float, followed: bool) -> None:
    found = search(tmp_path)
    proposer = build_proposer(found.sweep, found.space, found.objective)
    assert isinstance(proposer, MixtureProposer) and found.space.mixtures is not None
    points = list(found.space.mixtures.draw(np.random.default_rng(0), 40))
    scored = [(found.space.mixtures.values(point), float(point[0])) for point in points]
    first, ranking = ranking_of((), scored, calibrate=4, top=3, at_least=0.7)
    made = MixtureProposer(
        proposer.space, proposer.objective, 0, 6, tuple(("calibration", each) for each in first), ranking=ranking
    )
    seen = list[Seen]()
    for index in range(8):
        draw = made.propose(index, seen)
        loss = sign * draw.values["data.sources.a.weight"]
        seen.append(Seen(draw, "ended", (loss,), (), {"eval/loss": loss}))
    origins = [each.draw.origin for each in seen]
    assert origins[:4] == ["calibration"] * 4
    assert origins[4:7] == (["ranked best by the proxy"] * 3 if followed else ["random"] * 2 + ["expected improvement"])
    if followed:
        assert [each.draw.values["data.sources.a.weight"] for each in seen[4:7]] == sorted(
            each["data.sources.a.weight"] for each in ranking.best
        )
    assert ("not followed" in (made.proxy_words(seen) or "")) != followed


def test_none_of_the_best_is_passed_over_while_the_first_trials_still_run(tmp_path: Path) -> None:
    found = search(tmp_path)
    values = [{"data.sources.a.weight": share, "data.sources.b.weight": 1 - share} for share in (0.1, 0.3, 0.6, 0.9)]
    best = ({"data.sources.a.weight": 0.2, "data.sources.b.weight": 0.8},)
    ranking = Ranking((0.1, 0.3, 0.6, 0.9), best, 0.7)
    starts = tuple(("calibration", each) for each in values)
    made = MixtureProposer(found.space, found.objective, 0, 6, starts, ranking=ranking)
    seen = list[Seen]()
    for index in range(4):
        loss = values[index]["data.sources.a.weight"]
        seen.append(Seen(made.propose(index, seen), "ended", (loss,), (), {"eval/loss": loss}))
    running = [*seen[:3], replace(seen[3], status="running")]
    early = made.propose(4, running)
    assert early.origin == "random", "not all of the first trials were measured"
    late = made.propose(5, [*seen, Seen(early, "running")])
    assert late.values == best[0]
    assert made.propose(6, [*seen, Seen(early, "running"), Seen(late, "running")]).origin != late.origin


def test_each_source_is_learned_beside_the_prior() -> None:
    assert source_weights(np.array([0.8, 0.2]), 1, 0.5).tolist() == [0.4, 0.6]


@pytest.mark.parametrize(
    ("recipe", "changes", "said"),
    [
        ({**RECIPE, "adapter": {"dora": True}}, {}, "updates add up for plain LoRA alone"),
        ({**RECIPE, "adapter": {"method": "ia3"}}, {}, "updates add up for plain LoRA alone"),
        (RECIPE, {"space": {"adapter.r": {"choice": [2, 4]}}}, "it ranks mixtures of fixed sources"),
        (RECIPE, {"metric": "train/loss"}, "it knows held-out losses; found 'train/loss'"),
    ],
)
def test_what_cannot_be_added_up_is_refused(
    tmp_path: Path, recipe: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        check_proxy(search(tmp_path, recipe, **changes))
    check_proxy(search(tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"searcher": "random"}, "proxy is of searcher 'mixture'; found searcher 'random'"),
        ({"budget": "2h"}, "proxy costs what a budget does not count"),
        ({"num_trials": 4}, r"proxy.calibrate is 4, and num_trials 4 leaves none to follow it"),
    ],
)
def test_what_goes_with_no_proxy_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        validate(SweepSpec, {**SWEEP, **changes}, "s.yaml")

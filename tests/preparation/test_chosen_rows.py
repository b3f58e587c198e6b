"""`choose`: a figure of each row, and the share of rows that stays by it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from didact.datasets.conversation import Conversation
from didact.errors import DataError, ModelError
from didact.models import load_base
from didact.preparation import DataFacts, RowScores, prepare_data, score_here, scores_of_rows, training_rows
from didact.spec import ChoiceSpec, FinetuneSpec
from tests.fakes.recipes import tiny_recipe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe(folder: Path, by: str, share: float = 0.25, **choice: Any) -> FinetuneSpec:
    source = {"name": "sums", "path": str(folder / "sums.jsonl"), "held_out_rows": 8}
    choose = {"by": by, "share": share, **choice}
    return tiny_recipe(folder, data__sources=[{**source, "choose": choose}])


def mean_loss(model: Any, ids: list[int], learned: list[bool]) -> float:
    """Of learned tokens that have a predecessor, one sample alone, in plain torch."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0].double()
    told = torch.log_softmax(logits, -1)
    losses = [-told[at - 1, ids[at]].item() for at in range(1, len(ids)) if learned[at]]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("by", ["answer_loss", "ifd"])
def test_figures_are_those_of_the_base_asked_row_by_row(tmp_path: Path, by: str) -> None:
    spec = recipe(tmp_path, by)
    ((dataset, scores),) = scores_of_rows(spec).values()
    everything = prepare_data(recipe(tmp_path, by, share=1.0))
    (table,), tokenizer = everything.mixture.tables, everything.tokenizer
    model = load_base(spec.model)
    before = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    expected = []
    for index in range(len(table)):
        ids, mask = table[index].ids.tolist(), table[index].mask.tolist()
        loss = mean_loss(model, ids, mask)
        if by == "ifd":
            answer = [each for each, learned in zip(ids, mask, strict=True) if learned]
            loss /= mean_loss(model, [before, *answer], [False] + [True] * len(answer))
        expected.append(loss)
    np.testing.assert_allclose(scores.values, expected, rtol=1e-4)
    kept = [row for row, keep in zip(dataset.train, scores.keep, strict=True) if keep]
    best = sorted(range(len(expected)), key=lambda index: -expected[index])[:13]
    assert kept == [dataset.train[index] for index in sorted(best)]
    assert list(prepare_data(spec).datasets[0].train) == kept == list(training_rows(spec)[0].train)


@pytest.mark.parametrize(
    ("keep", "below", "stay"),
    [
        ("highest", None, [0, 3]),
        ("lowest", None, [1, 4]),
        ("middle", None, [2, 5]),
        ("highest", 4.0, [2, 5]),
        ("highest", 1.5, [1]),
    ],
)
def test_a_share_is_of_the_rows_that_have_a_figure(keep: Any, below: float | None, stay: list[int]) -> None:
    values = np.array([5.0, 1.0, 3.0, 4.0, 2.0, 3.0, math.nan])
    choice = ChoiceSpec(by="answer_loss", share=0.34, keep=keep, below=below)
    scores = RowScores.of(choice, values)
    assert [*np.flatnonzero(scores.keep)] == [*stay, 6]
    assert scores.bounds == (values[stay].min(), values[stay].max())


def test_equal_figures_leave_the_earlier_rows() -> None:
    choice = ChoiceSpec(by="answer_tokens", share=0.5)
    assert RowScores.of(choice, np.ones(6)).keep.tolist() == [True] * 3 + [False] * 3


def test_what_was_not_chosen_is_counted(tmp_path: Path) -> None:
    spec = recipe(tmp_path, "answer_tokens", share=0.5)
    prepared = prepare_data(spec)
    assert dict(prepared.datasets[0].dropped) == {"not_chosen:answer_tokens": 26}
    assert len(prepared.mixture.tables[0]) == 26 and len(prepared.mixture.held_out["sums"]) == 8
    (facts,) = DataFacts.of(spec, prepared).sources
    assert dict(facts.rows_dropped) == {"not_chosen:answer_tokens": 26}


def test_another_share_asks_the_base_nothing(tmp_path: Path, cache: Path) -> None:
    whole = prepare_data(recipe(tmp_path, "ifd", share=1.0))
    made = sorted((cache / "scores").iterdir())
    asked: list[Any] = []

    def refuse(jobs: Any, spec: FinetuneSpec) -> Any:
        asked.extend(jobs)
        return iter(())

    for choice in ({"share": 0.5}, {"by": "answer_loss"}, {"below": 2.0}):
        changed = recipe(tmp_path, **{"by": "ifd", **choice})
        prepare_data(changed, score=refuse)
    assert asked == [] and sorted((cache / "scores").iterdir()) == made
    assert len(whole.mixture.tables[0]) == 52


def test_both_losses_of_a_row_are_asked_at_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def counted(jobs: Any, spec: FinetuneSpec) -> Any:
        calls.append(len(jobs))
        return score_here(jobs, spec)

    prepare_data(recipe(tmp_path, "ifd"), score=counted)
    assert calls == [2]


def test_random_rows_follow_the_seed(tmp_path: Path) -> None:
    def rows(seed: int) -> list[Conversation]:
        spec = recipe(tmp_path, "random", share=0.5)
        data = spec.data.model_copy(update={"seed": seed})
        return list(training_rows(spec.model_copy(update={"data": data}))[0].train)

    assert rows(0) == rows(0) != rows(1)


def test_a_bound_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    expected = r"source 'sums': choose.below 0.5 leaves no row; the lowest answer_tokens is \d+$"
    with pytest.raises(DataError, match=expected):
        prepare_data(recipe(tmp_path, "answer_tokens", below=0.5))


def test_a_damaged_base_scores_nothing(tmp_path: Path) -> None:
    spec = recipe(tmp_path, "ifd")
    (tmp_path / "base" / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"model\.safetensors: .*header too small"):
        prepare_data(spec)

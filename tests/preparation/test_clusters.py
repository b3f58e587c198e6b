"""Rows clustered by their words, and choices that look at the clusters, on rows whose topics are known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from didact.datasets import Dataset
from didact.preparation import clusters as clusters_of
from didact.preparation import read_sources, scores_of_rows
from didact.preparation.clusters import row_clusters, turns
from didact.preparation.row_scores import RowScores
from didact.spec import ChoiceSpec, FinetuneSpec
from tests.fakes.recipes import tiny_recipe

SUMS = [
    (
        f"Add {n % 4 + 2} to {n % 5 + 4}, then write the result of this sum.",
        "The result of the sum is " + "very " * (n % 5),
    )
    for n in range(30)
]
CAKES = [
    (f"How long do I bake a cake with {fruit}?", "Bake a cake in an oven until it looks brown.")
    for fruit in ("apples", "pears", "plums", "cherries", "figs")
]
VERSES = [(f"写一首关于{what}的诗歌。", f"这首诗歌写的是{what}, 诗歌很美。") for what in ("春天", "月亮", "大海")]
TOPICS = np.array([0] * len(SUMS) + [1] * len(CAKES) + [2] * len(VERSES))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe(folder: Path, rows: list[tuple[str, str]] | None = None, **choose: Any) -> FinetuneSpec:
    lines = [json.dumps({"instruction": asked, "output": told}) for asked, told in rows or SUMS + CAKES + VERSES]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    source = {"name": "mixed", "path": str(folder / "rows.jsonl"), "choose": choose or None}
    return tiny_recipe(folder, data__sources=[source])


def dataset_of(folder: Path, rows: list[tuple[str, str]] | None = None) -> Dataset:
    (dataset,) = read_sources(recipe(folder, rows))
    return dataset


def same_groups(left: np.ndarray, right: np.ndarray) -> bool:
    return bool(np.array_equal(left[:, None] == left, right[:, None] == right))


def test_topics_are_told_apart_by_their_words(tmp_path: Path) -> None:
    found = row_clusters(dataset_of(tmp_path), 3)
    assert same_groups(found.of_row, TOPICS)
    sums, cakes, verses = (found.words[found.of_row[row]] for row in (0, 30, 35))
    assert {"the", "sum"} & set(sums) and "cake" in cakes and "诗歌" in verses
    assert all(len(words) == 5 for words in found.words)


def test_rows_that_were_not_learned_from_are_put_where_they_belong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters_of, "_LEARNED_FROM", 20)
    found = row_clusters(dataset_of(tmp_path, (SUMS[:5] + CAKES + VERSES) * 3), 3)
    assert same_groups(found.of_row, np.array(([0] * 5 + [1] * 5 + [2] * 3) * 3))


def test_threads_change_nothing_and_the_cache_is_asked_first(tmp_path: Path, cache: Path) -> None:
    dataset = dataset_of(tmp_path)
    with threadpool_limits(1):
        first = row_clusters(dataset, None)
    (entry,) = (cache / "scores").glob("*/")
    made = {path.name: path.read_bytes() for path in entry.glob("*.npy")}
    written = [path.stat().st_mtime_ns for path in entry.glob("*.npy")]
    again = row_clusters(dataset, 5)  # ceil(sqrt(38 / 2)): what was asked for with None
    assert [path.stat().st_mtime_ns for path in entry.glob("*.npy")] == written
    assert np.array_equal(first.of_row, again.of_row) and first.words == again.words
    (entry / "manifest.json").unlink()
    (entry / "00000.clusters.npy").unlink()
    with threadpool_limits(2):
        row_clusters(dataset, None)
    assert {path.name: path.read_bytes() for path in entry.glob("*.npy")} == made


@pytest.mark.parametrize("rows", [[("?!", "...")] * 4, [("Say it.", "It.")] * 4], ids=["no words", "all alike"])
def test_rows_that_say_nothing_or_the_same_are_no_error(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    found = row_clusters(dataset_of(tmp_path, rows), 9)
    assert len(set(found.of_row.tolist())) == 1 and not found.distances.any()


def test_clusters_take_turns() -> None:
    assert turns(np.array([7, 7, 2, 7, 2, 9])).tolist() == [0, 1, 0, 2, 1, 0]
    assert turns(np.array([], np.int64)).tolist() == []


def test_diverse_rows_come_from_all_clusters_in_equal_numbers(tmp_path: Path) -> None:
    ((dataset, scores),) = scores_of_rows(recipe(tmp_path, by="diversity", share=9 / 38, clusters=3)).values()
    assert np.bincount(TOPICS[scores.keep]).tolist() == [3, 3, 3]
    cakes = np.flatnonzero(TOPICS == 1)
    of_cakes = scores.values[cakes]
    assert sorted(of_cakes, reverse=True) == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])
    found = row_clusters(dataset, 3)
    assert found.distances[cakes][of_cakes.argmax()] == found.distances[cakes].min()
    assert scores.clusters is not None and scores.clusters.words == found.words


def test_each_cluster_gives_its_best_rows_by_another_figure(tmp_path: Path) -> None:
    by_length = {"by": "answer_tokens", "share": 6 / 38}
    (alone,) = scores_of_rows(recipe(tmp_path, **by_length)).values()
    (in_turn,) = scores_of_rows(recipe(tmp_path, **by_length, clusters=3)).values()
    assert len(set(TOPICS[alone[1].keep])) < 3, "the longest answers are of one kind"
    assert np.bincount(TOPICS[in_turn[1].keep]).tolist() == [2, 2, 2]
    values = in_turn[1].values
    for mine in (np.flatnonzero(topic == TOPICS) for topic in range(3)):
        assert sorted(values[mine][in_turn[1].keep[mine]]) == sorted(values[mine])[-2:]


def test_where_a_turn_is_cut_the_better_figures_stay() -> None:
    clusters = clusters_of.Clusters(np.array([0, 0, 1, 1, 2]), np.zeros(5), ((), (), ()))
    values = np.array([5.0, 9.0, 1.0, 8.0, 2.0])
    for share, stay in ((0.4, [1, 3]), (0.6, [1, 3, 4]), (0.8, [0, 1, 3, 4])):
        choice = ChoiceSpec(by="answer_loss", share=share, clusters=3)
        assert np.flatnonzero(RowScores.of(choice, values, clusters).keep).tolist() == stay


def test_rows_without_a_sample_take_no_turn(tmp_path: Path) -> None:
    long = ("Bake a cake with everything: " + "cake " * 200, "Brown.")
    spec = recipe(tmp_path, [*CAKES, long], by="diversity", share=1.0, clusters=2)
    ((_, scores),) = scores_of_rows(spec).values()
    known = scores.values[~np.isnan(scores.values)]
    assert np.isnan(scores.values[-1]) and scores.keep.all() and len(known) == 5 and known.max() == 1


def test_tokens_are_those_of_the_whole_row(tmp_path: Path) -> None:
    ((_, whole),) = scores_of_rows(recipe(tmp_path, by="tokens", share=1.0)).values()
    ((_, answers),) = scores_of_rows(recipe(tmp_path, by="answer_tokens", share=1.0)).values()
    assert (whole.values > answers.values).all()

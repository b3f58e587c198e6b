"""Preparing a recipe's data and looking after the cache from the command line."""

import os
import time
from pathlib import Path

import pytest

from didact.cache.pruning import list_cache, other_sizes, prune
from didact.cli import main
from didact.env import cache_dir
from didact.preparation import prepare_data
from didact.spec import to_json
from tests.fakes.recipes import tiny_recipe


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "recipe.yaml").write_text(to_json(tiny_recipe(tmp_path)))
    return tmp_path / "recipe.yaml"


def run(*arguments: str) -> None:
    try:
        main(list(arguments))
    except SystemExit as stop:
        assert not stop.code, stop.code


def age(days: int) -> None:
    for each in list_cache(cache_dir()):
        then = time.time() - days * 86_400
        os.utime(each.entry.used, (then, then))


def test_prepare_says_what_it_made_and_training_finds_it(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("data", "prepare", str(recipe))
    shown = capsys.readouterr()
    assert "1 of 1 parts, 60 rows" in shown.err and "sums" in shown.out and "52" in shown.out
    jobs: list[object] = []
    from didact.spec import FinetuneSpec, load_spec

    prepare_data(load_spec(FinetuneSpec, recipe), run=lambda asked, _: iter(jobs.extend(asked) or ()))
    assert not jobs


def test_the_cache_is_listed_and_pruned_by_last_use(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("data", "prepare", str(recipe))
    capsys.readouterr()
    run("data", "cache")
    shown = capsys.readouterr().out
    assert "conversations sums" in shown and "tokens" in shown and "2 entries" in shown
    (cache_dir() / "models" / "base").mkdir(parents=True)
    (cache_dir() / "models" / "base" / "weights").write_bytes(bytes(3_000_000))
    (cache_dir() / "stray").write_bytes(bytes(1500))
    run("data", "cache")
    shown = capsys.readouterr().out
    assert "models: 3.0 MB, not pruned" in shown and "stray: 1.5 kB, not pruned" in shown
    files = [each for each in cache_dir().rglob("*") if each.is_file()]
    assert sum(each.size for each in list_cache(cache_dir())) + sum(other_sizes(cache_dir()).values()) == sum(
        each.stat().st_size for each in files
    )
    run("data", "cache", "--prune")
    assert len(list_cache(cache_dir())) == 2
    age(days=31)
    run("data", "cache", "--prune", "--dry-run")
    assert "would remove tokens sums" in capsys.readouterr().out and len(list_cache(cache_dir())) == 2
    run("data", "cache", "--prune", "--older-than", "5w")
    assert len(list_cache(cache_dir())) == 2
    run("data", "cache", "--prune")
    assert list_cache(cache_dir()) == []


def test_what_is_in_use_is_not_removed(recipe: Path) -> None:
    from didact.spec import FinetuneSpec, load_spec

    prepared = prepare_data(load_spec(FinetuneSpec, recipe))
    run("data", "cache", "--prune", "--all")
    assert [each.kind for each in list_cache(cache_dir())].count("tokens") == 1
    assert len(prepared.mixture.tables[0][0].ids)
    tokens = next(each for each in list_cache(cache_dir()) if each.kind == "tokens")
    del prepared
    with tokens.entry.lock():
        assert not prune(tokens)
    assert prune(tokens) and not tokens.entry.folder.exists()

"""Finding, filtering, grouping and resolving cards, and the licence gate."""

from pathlib import Path
from typing import Any

import pytest

from didact.datasets import load_dataset
from didact.datasets.catalog import (
    GROUPS,
    check_commercial,
    filter_cards,
    find_card,
    group_cards,
    licence_of,
    load_cards,
)
from didact.errors import DataError
from didact.spec import DataSpec, SourceSpec, validate

CARDS = load_cards(Path("no such folder"))


def names(**conditions: Any) -> set[str]:
    return {card.name for card in filter_cards(CARDS, **conditions)}


def source(path: str, **fields: Any) -> SourceSpec:
    return SourceSpec(name="mine", path=path, **fields)


def load(path: str, **fields: Any) -> None:
    load_dataset(source(path, **fields), seed=0, max_bad_rows_share=0, quarantine_dir=None)


def test_a_close_name_is_offered() -> None:
    assert find_card("gsm8k-cot", CARDS).title
    with pytest.raises(DataError, match=r"no dataset 'gsm8k_cot' in the catalog; did you mean gsm8k-cot"):
        find_card("gsm8k_cot", CARDS)
    with pytest.raises(DataError, match="see `didact data list`"):
        find_card("zzzz", CARDS)


def test_filters_hold_together_and_apart() -> None:
    assert names() == {card.name for card in CARDS}
    chinese = names(language="zh")
    assert {"belle", "chinese-cot", "hc3", "xp3"} <= chinese
    assert "dolly" not in chinese
    assert "gsm8k-cot" in names(reasoning=True, task="math", commercial=True, language="en")
    assert not names(reasoning=True) & names(reasoning=False)
    assert {"dolly"} <= names(generation="human", licence="cc-by-sa")
    assert "alpaca" in names(commercial=False)
    assert "guanaco" not in names(commercial=True) | names(commercial=False)


def test_sizes_bound_and_unknown_ones_do_not_fit() -> None:
    small = names(max_rows=2061)
    assert {"qasc-cot", "strategyqa-cot"} <= small
    assert "stack-llama" not in small | names(min_rows=0)
    assert names(min_rows=50_000_000) == {"xp3"}
    assert names(min_rows=2061, max_rows=2061) == {"strategyqa-cot"}


def test_groups_name_cards() -> None:
    for group, members in GROUPS.items():
        assert [card.name for card in group_cards(group, CARDS)] == list(members)
    assert len(GROUPS["chain-of-thought"]) == 9
    assert set(GROUPS["alpaca-belle-cot"]) == set(GROUPS["alpaca-cot"]) | set(GROUPS["alpaca-belle"])
    with pytest.raises(DataError, match="no group 'all'"):
        group_cards("all", CARDS)


def test_a_group_is_no_source() -> None:
    with pytest.raises(DataError, match=r"'alpaca-belle' is a group.*card:alpaca-cleaned, card:belle-0.5m"):
        load("card:alpaca-belle")


def test_a_card_without_hub_says_where_its_files_come_from() -> None:
    with pytest.raises(DataError, match=r"finqa is on no hub; get its files from https://github.com/.*options.root"):
        load("card:finqa")


def test_files_of_the_hub_that_cannot_be_had_say_what_to_do() -> None:
    with pytest.raises(DataError, match=r"databricks-dolly-15k.jsonl.*cannot be had.*options.root"):
        load("card:dolly")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"options": {"root": "nowhere"}}, "there is no file or folder nowhere"),
        ({"options": {"root": 3}}, r"options.root is 3, expected a folder or file"),
        ({"options": {"rout": "."}}, "options.rout.*known options: .*files.*root"),
        ({"options": {"files": []}}, r"options.files is \[\], expected globs"),
        ({"options": {"files": "../*.jsonl"}}, "leads out of the folder"),
        ({"format": "alpaca"}, "the card dolly says how its rows are written; remove format: alpaca"),
    ],
)
def test_a_source_that_a_card_does_not_take(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        load("card:dolly", **{"options": {"root": str(tmp_path)}, **fields})


def test_a_root_without_the_cards_files(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(
        DataError, match=r"holds no file of dolly; expected databricks-dolly\*\.jsonl, found other\.json"
    ):
        load("card:dolly", options={"root": str(tmp_path)})


def test_options_of_a_recipe_reach_the_reader(tmp_path: Path) -> None:
    (tmp_path / "gsm8k_train.tsv").write_text("a?\t7\tbecause\n")
    asked = source("card:gsm8k-cot", options={"root": str(tmp_path), "reasoning": "only"})
    (row,) = load_dataset(asked, seed=0, max_bad_rows_share=0, quarantine_dir=None).train
    assert row.messages[-1].content == "7"


def test_some_of_a_cards_files(tmp_path: Path) -> None:
    for language in ("en", "zh", "fr"):
        (tmp_path / language).mkdir()
        (tmp_path / language / f"merged_{language}.jsonl").write_text(f'{{"inputs": "{language}", "targets": "a"}}\n')
    asked = source("card:xp3", options={"root": str(tmp_path), "files": ["zh/*.jsonl", "fr/*.jsonl"]})
    rows = load_dataset(asked, seed=0, max_bad_rows_share=0, quarantine_dir=None).train
    assert [row.messages[0].content for row in rows] == ["fr", "zh"]
    one = {"root": str(tmp_path / "zh" / "merged_zh.jsonl"), "files": "*"}
    with pytest.raises(DataError, match=r"options.files chooses inside a folder, not in .*merged_zh.jsonl"):
        load("card:xp3", options=one)


def gate(*sources: dict[str, Any], commercial: bool = True) -> None:
    named = [{"name": f"s{place}", **each} for place, each in enumerate(sources)]
    values = {"commercial": commercial, "sources": named}
    check_commercial(validate(DataSpec, values, "recipe"))


@pytest.mark.parametrize(
    "allowed",
    [
        {"path": "card:dolly"},
        {"path": "mine.jsonl", "commercial": True},
        {"path": "card:guanaco", "commercial": True},
        {"path": "card:alpaca", "commercial": True, "licence": "own agreement"},
    ],
)
def test_the_gate_lets_pass(allowed: dict[str, Any]) -> None:
    gate(allowed)


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        ({"path": "card:alpaca"}, r"s0: alpaca forbids commercial use \(licence CC-BY-NC-4.0\)"),
        ({"path": "card:alpaca", "commercial": True}, "s0: alpaca forbids commercial use"),
        ({"path": "card:guanaco"}, r"s0: the terms of guanaco are not clear \(licence unknown\)"),
        ({"path": "card:dolly", "commercial": False}, "s0: the source itself states commercial: false"),
        ({"path": "mine.jsonl"}, r"s0: mine.jsonl has no card \(licence unknown\)"),
        ({"path": "mine.jsonl", "licence": "MIT"}, r"s0: mine.jsonl has no card \(licence MIT\)"),
    ],
)
def test_the_gate_refuses_by_name(refused: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        gate(refused)
    gate(refused, commercial=False)


def test_the_gate_names_every_source_at_once() -> None:
    with pytest.raises(DataError) as caught:
        gate({"path": "card:alpaca"}, {"path": "card:dolly"}, {"path": "card:belle"})
    assert "s0: " in str(caught.value)
    assert "s2: " in str(caught.value)
    assert "s1: " not in str(caught.value)


def test_the_licence_of_a_source_is_its_own_or_its_cards() -> None:
    assert licence_of(source("card:gsm8k-cot")) == "MIT"
    assert licence_of(source("card:gsm8k-cot", licence="bought")) == "bought"
    assert licence_of(source("x.json")) == "unknown"

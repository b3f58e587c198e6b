"""Data of the user's own becomes a card."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from didact.datasets import load_dataset
from didact.datasets.added import add_card
from didact.datasets.catalog import card_yaml, find_card, load_cards, user_card_dir
from didact.datasets.samples import card_samples
from didact.errors import DataError, SpecError
from didact.spec import SourceSpec


@pytest.fixture(autouse=True)
def own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_RUNS", str(tmp_path / "runs"))


def lines(file: Path, records: list[Any]) -> Path:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def good(count: int) -> list[Any]:
    return [{"instruction": f"a{row}", "output": "b"} for row in range(count)]


def test_a_file_becomes_a_card_that_loads(tmp_path: Path) -> None:
    file = lines(tmp_path / "mine.jsonl", good(3))
    added = add_card(str(file), "mine", licence="MIT", commercial=True, languages=("de",), tasks=("qa",))
    assert added.file == user_card_dir() / "mine.yaml"
    card = find_card("mine")
    assert card == added.card
    assert (card.rows.format, card.num_rows, card.licence, card.languages) == ("alpaca", 3, "MIT", ("de",))
    source = SourceSpec(name="s", path="card:mine")
    assert len(load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None).train) == 3
    assert not card_samples(card).made_up


def test_names_of_fields_may_differ(tmp_path: Path) -> None:
    file = lines(tmp_path / "mine.jsonl", [{"frage": "a", "antwort": "b"}])
    with pytest.raises(DataError, match="is in no known form"):
        add_card(str(file), "mine")
    assert not user_card_dir().exists()
    add_card(str(file), "mine", fields={"instruction": "frage", "output": "antwort"})
    (conversation,) = card_samples(find_card("mine")).conversations
    assert [message.content for message in conversation.messages] == ["a", "b"]


def test_files_in_another_encoding_are_told_of_and_read_when_it_is_named(tmp_path: Path) -> None:
    file = tmp_path / "old.csv"
    file.write_text("问题,答案\n何为一,一是数。\n", encoding="gb18030")
    fields = {"instruction": "问题", "output": "答案"}
    with pytest.raises(DataError, match=r"not_utf8 .*files in another encoding need options\.encoding"):
        add_card(str(file), "old", fields=fields)
    with pytest.raises(DataError, match=r"options\.encoding 'klingon'"):
        add_card(str(file), "old", fields=fields, options={"encoding": "klingon"})
    with pytest.raises(DataError, match=r"found the keys '问题', '答案'.*--field instruction=FIELD"):
        add_card(str(file), "old", options={"encoding": "gb18030"})
    add_card(str(file), "old", fields=fields, options={"encoding": "gb18030"})
    (conversation,) = card_samples(find_card("old")).conversations
    assert [message.content for message in conversation.messages] == ["何为一", "一是数。"]


def test_a_long_file_is_checked_at_its_beginning_and_its_size_left_open(tmp_path: Path) -> None:
    added = add_card(str(lines(tmp_path / "mine.jsonl", good(1200))), "mine")
    assert len(added.checked.accepted) == 1000
    assert added.card.num_rows is None


def test_too_many_bad_rows_are_refused_with_their_place(tmp_path: Path) -> None:
    file = lines(tmp_path / "mine.jsonl", [*good(97), {"instruction": "a"}, {"instruction": "b"}])
    with pytest.raises(DataError, match=r"2 of 99 rows .*mine.jsonl:98 missing_field"):
        add_card(str(file), "mine")
    assert not user_card_dir().exists()


@pytest.mark.parametrize("name", ["alpaca", "chain-of-thought", "mine"])
def test_a_name_that_is_taken_is_refused(name: str, tmp_path: Path) -> None:
    file = lines(tmp_path / "mine.jsonl", good(1))
    add_card(str(file), "mine")
    before = (user_card_dir() / "mine.yaml").read_text()
    by = str(user_card_dir() / "mine.yaml") if name == "mine" else "another dataset or group"
    with pytest.raises(DataError, match=f"the name '{name}' is taken by {re.escape(by)}"):
        add_card(str(lines(tmp_path / "other.jsonl", good(2))), name)
    assert (user_card_dir() / "mine.yaml").read_text() == before


def test_what_is_not_there_and_names_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        add_card(str(tmp_path / "nothing.jsonl"), "mine")
    with pytest.raises(DataError, match="hf:nobody/nothing"):
        add_card("nobody/nothing", "mine")
    with pytest.raises(SpecError, match="name"):
        add_card(str(lines(tmp_path / "mine.jsonl", good(1))), "Not A Name")


def test_a_card_in_a_file_of_another_name_or_under_a_built_in_name_is_refused(tmp_path: Path) -> None:
    added = add_card(str(lines(tmp_path / "mine.jsonl", good(1))), "mine")
    added.file.rename(user_card_dir() / "other.yaml")
    with pytest.raises(DataError, match=r"holds the card 'mine'; name the file mine.yaml"):
        load_cards()
    (user_card_dir() / "other.yaml").unlink()
    (user_card_dir() / "dolly.yaml").write_text(card_yaml(added.card.model_copy(update={"name": "dolly"})))
    with pytest.raises(DataError, match="is the name of a built-in card"):
        load_cards()

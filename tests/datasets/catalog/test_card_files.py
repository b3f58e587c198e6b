"""Cards against folders as people have them."""

import gzip
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from didact.datasets import Dataset, load_dataset
from didact.datasets.catalog import find_card, load_cards
from didact.datasets.samples import write_example
from didact.errors import DataError
from didact.spec import SourceSpec

PAPER = {
    "keywords": "made_up",
    "example": [
        {"year": "2022", "category": "x", "question": "1+1?", "answer": ["2"], "analysis": "One and one.", "index": 0}
    ],
}
REPORT = {
    "table": {"uid": "t", "table": [["", "2019"], ["Sales", "9"]]},
    "paragraphs": [],
    "questions": [{"question": "Sales?", "answer": ["9"], "derivation": "", "scale": ""}],
}
TRAIN = "tatqa_dataset_train"


def load(card: str, root: Path, **options: Any) -> Dataset:
    source = SourceSpec(name="s", path=f"card:{card}", options={"root": str(root), **options})
    return load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("2022.json", json.dumps(PAPER, indent=1)),
        ("2022.json", json.dumps(PAPER)),
        ("2022.json", json.dumps(PAPER) + "\n" + json.dumps(PAPER) + "\n"),
        ("2022.json", json.dumps([PAPER, PAPER])),
        ("2022.json", json.dumps([PAPER, PAPER], indent=1)),
        ("2022.jsonl", json.dumps(PAPER) + "\n" + json.dumps(PAPER) + "\n"),
    ],
)
def test_a_card_of_one_object_a_file_reads_lines_and_arrays(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    dataset = load("gaokao", tmp_path)
    assert (len(dataset.train), dataset.rows_rejected) == (text.count("1+1?"), 0)
    assert dataset.train[0].messages[1].content == "One and one.\nThe answer is 2."


def test_a_recipe_that_states_the_container_is_taken_at_its_word(tmp_path: Path) -> None:
    (tmp_path / "2022.json").write_text(json.dumps(PAPER) + "\n" + json.dumps(PAPER) + "\n")
    with pytest.raises(DataError):
        load("gaokao", tmp_path, container="object")


@pytest.mark.parametrize("name", [f"{TRAIN}.json", f"{TRAIN}.jsonl", f"{TRAIN}.ndjson", f"{TRAIN}.jsonl.gz"])
def test_a_file_may_have_another_ending_than_its_card_says(name: str, tmp_path: Path) -> None:
    rows = [{**REPORT, "uid": number} for number in range(3)]
    text = json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    assert load("tatqa", tmp_path).rows_read == 3


def test_one_set_in_two_endings_is_read_once_and_the_rest_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("didact.datasets.catalog.card_files")
    logger.addHandler(caplog.handler)
    for name in (f"{TRAIN}.json", f"{TRAIN}.jsonl", "tatqa_dataset_dev.json", "notes.txt"):
        (tmp_path / name).write_text(json.dumps(REPORT) + "\n")
    with caplog.at_level(logging.INFO, logger="didact"):
        assert load("tatqa", tmp_path).rows_read == 1
    logger.removeHandler(caplog.handler)
    expected = f"source s: tatqa is read from {TRAIN}.json; not read as rows: tatqa_dataset_dev.json, {TRAIN}.jsonl"
    assert expected in [record.getMessage() for record in caplog.records]
    (tmp_path / "both").mkdir()
    for ending in ("json", "jsonl"):
        write_example(find_card("moss", load_cards()), tmp_path / "both")
        (tmp_path / "both" / "conversation_1.json").rename(tmp_path / "both" / f"chat.{ending}")
    assert load("moss", tmp_path / "both").rows_read == 1


@pytest.mark.parametrize("names", [["tatqa_dataset_dev.json"], ["b/tatqa_dataset_dev.json", "a.jsonl"]])
def test_a_folder_with_other_parts_says_what_is_there_and_what_to_set(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(REPORT) + "\n")
    with pytest.raises(DataError) as caught:
        load("tatqa", tmp_path)
    message = str(caught.value)
    assert f"expected {TRAIN}.json, found {', '.join(sorted(names))}" in message
    told = re.search(r"files: '([^']+)'\}", message)
    assert told is not None
    assert load("tatqa", tmp_path, files=told[1]).rows_read == 1


def test_a_folder_without_data_says_so(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("empty")
    with pytest.raises(DataError, match=r"found no data file at all; its files come from https://"):
        load("tatqa", tmp_path)

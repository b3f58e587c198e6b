import json
from pathlib import Path

import pytest

from didact.datasets import Dataset, load_dataset
from didact.spec import SourceSpec
from tests.conftest import shared_data

FOLDERS = {
    "chain_of_thought": "*.tsv",
    "alpaca": "*.json",
    "alpaca_gpt4": "*.json",
}


def load(path: Path, folder: Path) -> Dataset:
    source = SourceSpec(name="real", path=str(path))
    return load_dataset(source, seed=0, max_bad_rows_share=0.0, quarantine_dir=folder)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_row_of_the_real_files_is_accounted_for(folder: str, tmp_path: Path) -> None:
    raw = shared_data() / "raw"
    records = {entry["file"]: entry["records"] for entry in json.loads((raw / "MANIFEST.json").read_text())["files"]}
    files = sorted((raw / folder).glob(FOLDERS[folder]))
    assert files
    for file in files:
        dataset = load(file, tmp_path)
        assert dataset.rows_read == records[f"{folder}/{file.name}"]
        assert len(dataset.train) + dataset.rows_rejected == dataset.rows_read
        assert dataset.rows_rejected == 0


def test_reading_element_by_element_equals_reading_the_whole_array(tmp_path: Path) -> None:
    file = shared_data() / "raw" / "alpaca_gpt4" / "alpaca_zh_demo.json"
    whole = json.loads(file.read_text("utf-8"))
    assert [item.messages[1].content for item in load(file, tmp_path).train] == [row["output"] for row in whole]


def test_real_chat_logs_are_read_in_their_three_layouts(tmp_path: Path) -> None:
    folder = shared_data() / "raw" / "sharegpt"
    dataset = load(folder, tmp_path)
    assert (dataset.rows_read, dataset.rows_rejected) == (605, 0)
    assert max(len(item.messages) for item in dataset.train) > 4

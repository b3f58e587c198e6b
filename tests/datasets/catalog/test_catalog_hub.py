"""Cards whose files or tables come from the hub, served from its local cache."""

import json
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest

from didact.datasets import Dataset, load_dataset
from didact.errors import DataError
from didact.spec import SourceSpec

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(cache: Path, repo: str, name: str, text: str) -> None:
    folder = cache / f"datasets--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    file = folder / "snapshots" / COMMIT / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def load(card: str, **fields: object) -> Dataset:
    source = SourceSpec.model_validate({"name": "s", "path": f"card:{card}", **fields})
    return load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None)


def test_only_the_cards_files_of_the_hub_are_read_in_their_raw_form(cache: Path) -> None:
    folder = "Chain-of-Thought/origin_cot_data"
    put(cache, "QingyiSi/Alpaca-CoT", f"{folder}/gsm8k_train.tsv", "a?\t7\tbecause\n")
    put(cache, "QingyiSi/Alpaca-CoT", f"{folder}/qasc_train.tsv", "b?\t8\tbecause\n")
    (row,) = load("gsm8k-cot").train
    assert [message.content for message in row.messages] == ["a?", "because\nThe answer is 7."]
    assert len(load("flan-cot").train) == 2


def test_a_converted_copy_is_read_as_instructions_whatever_the_raw_form(cache: Path) -> None:
    record = {"instruction": "a", "input": "b", "output": "c"}
    name = "Tabular-LLM-Data/Table-Question-Answering/WTQ/WTQ-train-markdown.json"
    put(cache, "QingyiSi/Alpaca-CoT", name, json.dumps([record]))
    (row,) = load("wtq").train
    assert [message.content for message in row.messages] == ["a\n\nb", "c"]


def test_files_names_some_of_them(cache: Path) -> None:
    for language in ("en", "zh"):
        put(cache, "bigscience/xP3", f"{language}/merged_{language}.jsonl", '{"inputs": "a", "targets": "b"}\n')
    assert load("xp3").rows_read == 2
    assert load("xp3", options={"files": "zh/*.jsonl"}).rows_read == 1


def test_another_revision_that_is_not_there_is_an_error(cache: Path) -> None:
    put(
        cache,
        "databricks/databricks-dolly-15k",
        "databricks-dolly-15k.jsonl",
        '{"instruction": "a", "response": "b"}\n',
    )
    assert load("dolly").rows_read == 1
    with pytest.raises(DataError, match="cannot be had"):
        load("dolly", revision="v9")


def test_a_table_of_the_hub_goes_through_the_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "nomic-ai" / "gpt4all_prompt_generations"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"prompt": "a", "response": "b", "source": "c"}\n')
    (row,) = load("gpt4all").train
    assert [message.content for message in row.messages] == ["a", "b"]

"""A folder in the working directory stands for a hub data set of that name, as the library takes it."""

import json
from pathlib import Path

import datasets
import pytest

from didact.errors import DataError
from didact.evaluation.tasks.multiple_choice import build_choices
from didact.spec import AquaTask, MmluTask


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(file: Path, *rows: dict[str, object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_mmlu_of_the_hub_with_examples_of_its_split_dev(hub: Path) -> None:
    rows = [
        {"question": f"{subject}?", "subject": subject, "choices": ["w", "x", "y", "z"], "answer": 2}
        for subject in ("law", "art")
    ]
    write(hub / "cais" / "mmlu" / "test.jsonl", *rows)
    write(hub / "cais" / "mmlu" / "dev.jsonl", *({**row, "question": "Before?"} for row in rows))
    files = "".join(f"  - {{split: {split}, path: {split}.jsonl}}\n" for split in ("dev", "test"))
    (hub / "cais" / "mmlu" / "README.md").write_text(
        f"---\nconfigs:\n- config_name: all\n  data_files:\n{files}---\n", encoding="utf-8"
    )
    task = build_choices(MmluTask(task="mmlu", path="hf:cais/mmlu:all", few_shot=1))
    assert [(each.group, each.expected, each.options) for each in task.questions] == [
        ("law", "C", ("w", "x", "y", "z")),
        ("art", "C", ("w", "x", "y", "z")),
    ]
    (ask,) = task.asks(task.questions[1], ())
    assert [turn.content.splitlines()[0] for turn in ask.prompt] == ["Before?", "C", "art?"]  # type: ignore[union-attr]


def test_rows_of_the_hub_that_cannot_be_used_are_named(hub: Path) -> None:
    good = {"question": "1 + 1?", "options": ["A)1", "B)2"], "rationale": "r", "correct": "B"}
    write(hub / "deepmind" / "aqua_rat" / "test.jsonl", good, {**good, "correct": "E"})
    with pytest.raises(DataError, match=r"1 of 2 rows .* hf:deepmind/aqua_rat:2 unknown_label \(answer 'E' is none"):
        build_choices(AquaTask(task="aqua", path="hf:deepmind/aqua_rat"))

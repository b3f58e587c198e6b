"""Each real file is read once, whatever links lead to it; what is left aside is said in one line."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from didact.datasets import add_card, load_dataset
from didact.datasets.places.locate import locate
from didact.errors import DataError
from didact.spec import SourceSpec


def write(path: Path, *words: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"instruction": word, "output": word}) + "\n" for word in words))


def load(path: Path | str, **fields: Any) -> list[str]:
    source = SourceSpec(name="s", path=str(path), **fields)
    dataset = load_dataset(source, seed=0, max_bad_rows_share=0, quarantine_dir=None)
    return sorted(row.messages[-1].content for row in dataset.train)


def names(path: Path | str) -> list[str]:
    return [file.name for file in locate("s", str(path))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file, and every kind of link that leads to it, in a circle or to nothing."""
    root = tmp_path / "data"
    write(root / "rows.jsonl", "a", "b")
    (root / "loop").symlink_to(".")
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "up").symlink_to("../..")
    (root / "same.jsonl").symlink_to("rows.jsonl")
    os.link(root / "rows.jsonl", root / "twin.jsonl")
    (root / "one.jsonl").symlink_to("other.jsonl")
    (root / "other.jsonl").symlink_to("one.jsonl")
    (root / "gone.jsonl").symlink_to("/nowhere/at.jsonl")
    (root / "notes.md").write_text("notes")
    (root / ".hidden.jsonl").write_text("hidden")
    return root


@pytest.mark.parametrize("pattern", ["", "*.jsonl", "**/*.jsonl", "**/**/*.jsonl", "loop/**/*.jsonl", "*/r*.jsonl"])
def test_each_real_file_is_read_once(pattern: str, folder: Path) -> None:
    assert load(folder / pattern) == ["a", "b"]
    assert len(names(folder / pattern)) == 1


def test_a_file_is_called_by_its_own_name_where_it_has_one_here(folder: Path) -> None:
    assert names(folder) == names(folder / "**/*.jsonl") == ["rows.jsonl"]
    assert names(folder / "[s-t]*.jsonl") == ["twin.jsonl"]
    assert names(folder / "same*.jsonl") == ["same.jsonl"]


def test_what_is_left_aside_is_said_in_one_line(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(folder)
    (said,) = [record.getMessage() for record in caplog.records if "left aside" in record.getMessage()]
    assert said == (
        f"source s: of {folder} left aside: deep/, loop/, notes.md; "
        "links to files that are read: same.jsonl, twin.jsonl; broken links: gone.jsonl, one.jsonl, other.jsonl"
    )


def test_what_is_read_is_said_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "didact")
    for place in range(9):
        write(tmp_path / f"{place}.jsonl", str(place))
    (tmp_path / "8.jsonl").write_text("")
    load(tmp_path, format="alpaca")
    said = [record.getMessage() for record in caplog.records]
    listed = ", ".join(str(tmp_path / f"{place}.jsonl") for place in range(5))
    assert f"source s reads {listed} and 4 more" in said
    assert f"source s: {tmp_path / '8.jsonl'} is empty" in said


def test_linked_folders_are_entered_and_those_with_a_place_of_their_own_through_it(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "x.jsonl", "x")
    write(tmp_path / "data" / "own" / "y.jsonl", "y")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a").symlink_to("own")
    assert names(tmp_path / "data" / "**" / "*.jsonl") == ["linked/x.jsonl", "own/y.jsonl"]
    assert names(tmp_path / "data" / "*" / "*.jsonl") == ["linked/x.jsonl", "own/y.jsonl"]
    assert names(tmp_path / "data" / "linked") == ["x.jsonl"]


def test_copies_are_files_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", "a")
    write(tmp_path / "b.jsonl", "a")
    assert load(tmp_path) == ["a", "a"]


def test_patterns_match_what_they_matched_in_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jsonl", "x/b.jsonl", "x/y/c.jsonl", "x/[odd] *name/d.jsonl", ".hidden/e.jsonl"):
        write(tmp_path / name, name)
    monkeypatch.chdir(tmp_path)
    below = ["a.jsonl", "x/[odd] *name/d.jsonl", "x/b.jsonl", "x/y/c.jsonl"]
    assert names("**/*.jsonl") == names("**") == names(tmp_path / "**") == below
    assert names("x/**/*.jsonl") == ["[odd] *name/d.jsonl", "b.jsonl", "y/c.jsonl"]
    assert names("x/**/[cd].jsonl") == ["[odd] *name/d.jsonl", "y/c.jsonl"]
    assert names("*/**/y/*.jsonl") == ["x/y/c.jsonl"]
    assert names("x/*/*.jsonl") == ["[odd] *name/d.jsonl", "y/c.jsonl"]
    assert names("x/[odd] *name") == ["d.jsonl"]


def test_a_folder_without_data_says_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "rows.zip").write_bytes(b"PK")
    (tmp_path / "rows.jsonl").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"left aside: rows\.zip, train/; broken links: rows\.jsonl\)"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"no file or folder .*left aside: broken links: rows\.jsonl"):
        load(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match=r"no file matches .*broken links: rows\.jsonl"):
        load(tmp_path / "*.jsonl")


def test_a_place_that_is_not_there_makes_no_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CATALOG", str(tmp_path / "cards"))
    with pytest.raises(DataError, match=r"there is no file or folder .*none\.jsonl"):
        add_card(str(tmp_path / "none.jsonl"), "mine")

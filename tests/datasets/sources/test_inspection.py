"""A file is looked at once; whoever reads it after that takes what was found."""

import json
from pathlib import Path
from typing import Any

import pytest

from didact.datasets.forms.field_mapping import FieldMapping
from didact.datasets.places.locate import LocatedFile
from didact.datasets.readers.reading import Layout, read
from didact.datasets.rows.options import RowOptions
from didact.datasets.sources.inspection import inspect
from didact.errors import DataError
from didact.spec.data import Format

ROW = {"instruction": "Add 2 and 3.", "output": "5"}
LINE = json.dumps(ROW) + "\n"


class CountedPath(type(Path())):  # type: ignore[misc]
    """A path that counts how often it is opened."""

    opened = 0

    def open(self, *arguments: Any, **named: Any) -> Any:
        self.opened += 1
        return super().open(*arguments, **named)


def written(path: Path, text: str) -> CountedPath:
    path.write_text(text)
    return CountedPath(path)


def look(path: Path, format: Format | None = "auto", mapping: FieldMapping | None = None, **options: Any) -> Layout:
    return inspect("s", LocatedFile(path, path.name), RowOptions.model_validate(options), format, mapping)


@pytest.mark.parametrize(
    ("name", "text", "times"),
    [
        # Its beginning says what it is, how rows stand in it and whether columns have names; its first row the form.
        ("a.jsonl", LINE, 2),
        ("a.csv", "instruction,output\na,b\n", 2),
        ("a.json", LINE * 2, 2),
        ("a.json", json.dumps([ROW]), 2),
        ("a.tsv", "instruction\toutput\na\tb\n", 2),
        ("a.tsv", "question\tanswer only in name\twhy\n", 1),
        # Whether the members of an object are rows is seen in the members alone.
        ("a.json", json.dumps({"1": ROW, "2": ROW}), 3),
    ],
)
def test_a_file_is_opened_for_each_question_once_and_then_read_once(
    name: str, text: str, times: int, tmp_path: Path
) -> None:
    path = written(tmp_path / name, text)
    layout = look(path)
    assert path.opened == times
    assert list(read(layout)) and path.opened == times + 1


def test_of_what_the_recipe_says_only_the_kind_of_the_file_is_looked_at(tmp_path: Path) -> None:
    for name, text, options in [
        ("a.jsonl", LINE, {}),
        ("b.json", LINE, {"container": "lines"}),
        ("c.tsv", "x\ty\n", {}),
    ]:
        path = written(tmp_path / name, text)
        assert look(path, "alpaca", **options).form == "alpaca"
        assert path.opened == 1


def test_a_layout_holds_all_that_was_decided(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("instruction;output\n五;b\n".encode("gb18030"))
    layout = look(path, encoding="gb18030", delimiter=";")
    assert (layout.container, layout.header, layout.form, layout.encoding) == ("delimited", True, "alpaca", "gb18030")
    assert (layout.delimited.mark, layout.delimited.quotes, layout.tables) == (";", True, None)
    assert [row.content for row in read(layout)] == [{"instruction": "五", "output": "b"}]


def test_the_form_is_that_of_the_mapped_fields(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", json.dumps({"ask": "a", "say": "b"}) + "\n")
    mapping = FieldMapping(fields={"instruction": "ask", "output": "say"})
    assert look(path, mapping=mapping).form == "alpaca"
    with pytest.raises(DataError, match=r"'s'.*a\.jsonl.*no known form: found the keys 'ask', 'say'"):
        look(path)


def test_rows_are_said_to_stand_where_the_user_knows_them(tmp_path: Path) -> None:
    path = written(tmp_path / "copy.jsonl", LINE)
    layout = inspect("s", LocatedFile(path, "a.jsonl", "https://example.org/a.jsonl"), RowOptions())
    assert [row.file for row in read(layout)] == [layout.file] == ["https://example.org/a.jsonl"]

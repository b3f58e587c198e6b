"""A file is what its bytes say: archives, databases and pages are refused with a word, whatever its name."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from didact.datasets import load_dataset
from didact.errors import DataError
from didact.spec import SourceSpec

ROWS = [{"instruction": f"Say {place}.", "output": f"{place} é"} for place in range(30)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zipped(*names: str, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name in names:
            archive.writestr(name, LINES)
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("a.jsonl", "b.jsonl"):
            entry = tarfile.TarInfo(name)
            entry.size = len(LINES)
            archive.addfile(entry, io.BytesIO(LINES))
    return stream.getvalue()


def database(folder: Path) -> bytes:
    with sqlite3.connect(folder / "db") as connection:
        connection.execute("create table rows (instruction text, output text)")
    connection.close()
    return (folder / "db").read_bytes()


def array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.arange(5))
    return stream.getvalue()


PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in &amp; go\n on</title></head><body>{}</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
KINDS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "zip": (lambda _: zipped("a.jsonl", "b.jsonl"), r"a zip archive of a\.jsonl, b\.jsonl; unpack it"),
    "deflated": (lambda _: zipped("x/a.jsonl", compression=zipfile.ZIP_DEFLATED), r"a zip archive of x/a\.jsonl;"),
    "many": (lambda _: zipped(*(f"{place}.jsonl" for place in range(9))), "and 4 more; unpack it"),
    "empty zip": (lambda _: zipped(), "a zip archive; unpack it"),
    "xlsx": (lambda _: zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook; save each sheet as CSV"),
    "docx": (lambda _: zipped("word/document.xml"), "a Word document"),
    "torch": (lambda _: zipped("model/data.pkl"), "a file of PyTorch with a pickle inside"),
    "tar": (lambda _: tarred(), "a tar archive; unpack it"),
    "7z": (lambda _: b"7z\xbc\xaf\x27\x1c\0\4" + bytes(99), "a 7z archive"),
    "gzip": (lambda _: gzip.compress(LINES), r"compressed: let its name end in \.gz"),
    "bz2": (lambda _: bz2.compress(LINES), r"compressed: let its name end in \.bz2"),
    "xz": (lambda _: lzma.compress(LINES), r"compressed: let its name end in \.xz"),
    "zst": (lambda _: bytes(pa.compress(LINES, "zstd", asbytes=True)), r"compressed: let its name end in \.zst"),
    "lz4": (lambda _: bytes(pa.compress(LINES, "lz4", asbytes=True)), "compressed with lz4"),
    "sqlite": (database, "an SQLite database; write what it holds as JSON lines"),
    "pickle": (lambda _: pickle.dumps(ROWS, protocol=4), "a Python pickle, which can run any code"),
    "numpy": (lambda _: array(), "a NumPy array"),
    "old excel": (lambda _: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a file of Excel or Word before 2007"),
    "pdf": (lambda _: b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
    "page": (lambda _: PAGE, "a web page, 'Sign in & go on'; the address may need a login"),
    "xml": (lambda _: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page; the address"),
    "pointer": (lambda _: POINTER, "a pointer of git-lfs; run `git lfs pull`"),
    "utf-16": (lambda _: LINES.decode().encode("utf-16"), "set options.encoding: utf-16$"),
    "no mark": (lambda _: LINES.decode().encode("utf-16-le"), "set options.encoding: utf-16-le"),
    "other end": (lambda _: LINES.decode().encode("utf-16-be"), "set options.encoding: utf-16-be"),
    "picture": (lambda _: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(50), "binary data of a kind that is not known"),
    "weights": (lambda _: (9).to_bytes(8, "little") + b'{"a": []}' + bytes(50), "binary data of a kind"),
}


def load(path: Path, **fields: Any) -> list[str]:
    source = SourceSpec.model_validate({"name": "rows", "path": str(path), **fields})
    dataset = load_dataset(source, seed=0, max_bad_rows_share=1.0, quarantine_dir=None)
    return [row.messages[-1].content for row in dataset.train]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt", "a.parquet", "a", "a.jsonl.gz"])
def test_what_holds_no_rows_is_refused_with_a_word_whatever_its_name(name: str, kind: str, tmp_path: Path) -> None:
    make, says = KINDS[kind]
    content = make(tmp_path)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    for format in ("auto", "alpaca"):
        with pytest.raises(DataError) as refused:
            load(path, format=format)
        text = str(refused.value)
        assert text.startswith(f"{path} is "), text
        if name.endswith(".gz") and content.startswith(b"PK"):
            assert "a zip archive" in text
        elif name != "a.parquet":
            assert re.search(says, text), text


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.bz2", "a.jsonl.xz", "a.jsonl.zst"])
def test_a_file_that_is_not_compressed_as_its_name_says_is_told_what_it_is(name: str, tmp_path: Path) -> None:
    for content, says in ((LINES, "not compressed, although its name says so"), (PAGE, "a web page"), (POINTER, "lfs")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name} is .*{says}"):
            load(tmp_path / name)


def test_columns_are_read_by_their_bytes_or_asked_for(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    for name in ("a", "a.json", "a.jsonl"):
        pq.write_table(table, tmp_path / name)
        if name == "a.jsonl":
            with pytest.raises(
                DataError, match=r"is parquet: let its name end in \.parquet, or set options\.container"
            ):
                load(tmp_path / name)
        options = {"container": "parquet"} if name == "a.jsonl" else {}
        assert load(tmp_path / name, options=options) == [row["output"] for row in ROWS]
    (tmp_path / "b.parquet").write_bytes(LINES)
    with pytest.raises(DataError, match=r"b\.parquet is no Parquet file: it begins with"):
        load(tmp_path / "b.parquet")


def test_text_that_only_looks_strange_is_read(tmp_path: Path) -> None:
    for name, content in (
        ("a.csv", b"instruction,output\nPK,BZh and %PDF-\n"),
        ("b.csv", b'"instruction","output"\n"<html>","<b>7z</b>"\n'),
        ("c.jsonl", b'\n\n  {"instruction": "<!doctype html>", "output": "x"}\n'),
        ("d.tsv", b"version of 7z?\tRar!\tbecause\n"),
        ("e.jsonl", b'{"instruction": "a\x00", "output": "b"}\n{"instruction": "a", "output": "b"}\n'),
    ):
        (tmp_path / name).write_bytes(content)
        assert len(load(tmp_path / name)) == 1, name
    (tmp_path / "page.txt").write_bytes(PAGE)
    assert len(load(tmp_path / "page.txt", format="text")) == 1


@pytest.mark.parametrize(
    ("name", "text", "mark"),
    [
        ("a.csv", 'instruction;output\n"a; b";c\n', '";"'),
        ("a.csv", '"instruction";"output"\n"a\nb";c\n', '";"'),
        ("a.csv", "instruction\toutput\na\tb\n", r'"\\t"'),
        ("a.csv", "instruction|output\na|b\n", r'"\|"'),
        ("a.tsv", "instruction,output\na,b\n", '","'),
        ("a.csv.gz", "instruction;output\na;b\n", '";"'),
    ],
)
def test_a_header_that_is_one_column_names_the_delimiter(name: str, text: str, mark: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    with pytest.raises(
        DataError, match=rf"its first row is one column: .*instruction.*set options\.delimiter: {mark}$"
    ):
        load(path)
    found = {'";"': ";", r'"\\t"': "\t", r'"\|"': "|", '","': ","}[mark]
    assert len(load(path, options={"delimiter": found, "quotes": True})) == 1


def test_lines_that_are_one_array_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for indent in (None, 1):
        path.write_text("\n" + json.dumps(ROWS, indent=indent))
        for format in ("auto", "alpaca"):
            with pytest.raises(DataError, match=r"a\.jsonl begins with '\[' .*options\.container: array"):
                load(path, format=format)
        assert len(load(path, options={"container": "array"})) == len(ROWS)
    # A line that is a list is a bad row like others.
    path.write_bytes(b'["a"]\n' + LINES)
    assert len(load(path)) == len(ROWS)

"""Files are old or new, never half-written; damage is found."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from didact.files import (
    append_jsonl,
    clear_scratch,
    fingerprint,
    follow_jsonl,
    manifest,
    manifest_problems,
    new_folder,
    read_jsonl,
    sha256_file,
    sha256_text,
    write_json,
    write_lines,
    write_text,
)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_text_makes_folders_and_leaves_nothing_beside(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "note.txt"
    write_text(file, "größer\n")
    write_text(file, "größer als zuvor\n")
    assert file.read_bytes() == "größer als zuvor\n".encode()
    assert entries(file.parent) == ["note.txt"]


def test_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "note.txt"
    write_text(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_lines(file, ["n" * 100_000, "\ud800"])
    assert file.read_text() == "old"


def test_half_a_character_is_written_as_json_escapes_it(tmp_path: Path) -> None:
    write_json(tmp_path / "note.json", {"said": "half \ud800"})
    assert json.loads((tmp_path / "note.json").read_text())["said"] == "half \ud800"


def test_value_that_is_not_json_leaves_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    write_json(file, {"step": 1})
    with pytest.raises(TypeError):
        write_json(file, {"step": 2, "bad": object()})
    assert json.loads(file.read_text()) == {"step": 1}
    assert entries(tmp_path) == ["state.json"]


def test_open_reader_keeps_the_old_content(tmp_path: Path) -> None:
    file = tmp_path / "note.txt"
    write_text(file, "old")
    with file.open() as stream:
        write_text(file, "new")
        assert stream.read() == "old"
    assert file.read_text() == "new"


def test_new_folder_appears_whole_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    with new_folder(target) as scratch:
        (scratch / "weights").mkdir()
        (scratch / "weights" / "a.bin").write_bytes(b"a")
        assert not target.exists()
    assert (target / "weights" / "a.bin").read_bytes() == b"a"
    assert entries(tmp_path) == ["checkpoint"]


def test_new_folder_replaces_the_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with new_folder(target) as scratch:
        (scratch / "old.bin").write_bytes(b"old")
    with new_folder(target) as scratch:
        (scratch / "new.bin").write_bytes(b"new")
        assert entries(target) == ["old.bin"]
    assert entries(target) == ["new.bin"]


def test_failed_new_folder_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with new_folder(target) as scratch:
        (scratch / "old.bin").write_bytes(b"old")
    with pytest.raises(ArithmeticError), new_folder(target) as scratch:
        (scratch / "new.bin").write_bytes(b"new")
        raise ArithmeticError
    assert entries(target) == ["old.bin"]
    assert entries(tmp_path) == ["adapter"]


def test_new_folder_that_fails_its_check_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with new_folder(target, lambda folder: (folder / "a.bin").stat()) as scratch:
        (scratch / "a.bin").write_bytes(b"old")
    with pytest.raises(FileNotFoundError), new_folder(target, lambda folder: (folder / "a.bin").stat()):
        pass
    assert entries(target) == ["a.bin"]
    assert entries(tmp_path) == ["adapter"]


def test_scratch_of_a_killed_writer_is_no_obstacle_and_is_cleared(tmp_path: Path) -> None:
    leftover = tmp_path / ".adapter.1.tmp"
    leftover.mkdir()
    (leftover / "half.bin").write_bytes(b"half")
    (tmp_path / ".note.txt.1.tmp").write_text("half")
    with new_folder(tmp_path / "adapter") as scratch:
        (scratch / "new.bin").write_bytes(b"new")
    assert entries(tmp_path / "adapter") == ["new.bin"]
    clear_scratch(tmp_path)
    assert entries(tmp_path) == ["adapter"]


def test_threads_that_write_one_file_hinder_each_other_in_nothing(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for _ in range(20):
            write_text(tmp_path / "choice.json", f"{number}" * 1000)
            with new_folder(tmp_path / f"folder-{number}", replace=True) as scratch:
                (scratch / "a.bin").write_bytes(b"a")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    assert len(set((tmp_path / "choice.json").read_text())) == 1
    assert entries(tmp_path) == ["choice.json", *(f"folder-{number}" for number in range(4))]


def test_no_two_writers_of_a_process_have_one_scratch_folder(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a", replace=False) as first:
        with pytest.raises(FileExistsError), new_folder(tmp_path / "a", replace=False) as second:
            (first / "a.bin").write_bytes(b"first")
            (second / "a.bin").write_bytes(b"second")
            (tmp_path / "a").mkdir()
        (tmp_path / "a").rmdir()
    assert (tmp_path / "a" / "a.bin").read_bytes() == b"first"


def damaged(folder: Path, damage: str) -> None:
    file = folder / "weights.bin"
    content = file.read_bytes()
    match damage:
        case "missing":
            file.unlink()
        case "truncated":
            file.write_bytes(content[:-1])
        case "flipped":
            file.write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.mark.parametrize(
    ("damage", "problems"),
    [
        ("none", []),
        ("missing", ["weights.bin is missing"]),
        ("truncated", ["weights.bin has 999 bytes, expected 1000"]),
        ("flipped", ["weights.bin does not match its sha256"]),
    ],
)
def test_manifest_finds_damage(tmp_path: Path, damage: str, problems: list[str]) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(1000))
    (tmp_path / "config.json").write_text("{}")
    written = manifest(tmp_path, ["weights.bin", "config.json"])
    damaged(tmp_path, damage)
    assert manifest_problems(tmp_path, json.loads(json.dumps(written))) == problems


def test_manifest_does_not_depend_on_the_order_of_names(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    assert list(manifest(tmp_path, ["b", "a"])) == list(manifest(tmp_path, iter(["a", "b"]))) == ["a", "b"]


def test_digest_of_file_and_text_agree(tmp_path: Path) -> None:
    write_text(tmp_path / "x", "größer")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_text("abc") == known
    assert sha256_file(tmp_path / "x") == sha256_text("größer")


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"b": [1, 2], "a": "x"}, True),
        ({"a": "x", "b": [2, 1]}, False),
        ({"a": "x", "b": [1, 2], "c": None}, False),
        ({"a": "x", "b": [1.0, 2]}, False),
    ],
)
def test_fingerprint_sees_values_and_order_of_lists_but_not_of_keys(other: dict[str, Any], same: bool) -> None:
    assert (fingerprint(other) == fingerprint({"a": "x", "b": [1, 2]})) is same


def test_json_lines_come_back_and_a_cut_last_line_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "run" / "metrics.jsonl"
    records = [{"step": 1, "text": "zwei\nZeilen"}, {"step": 2, "text": "ü"}]
    for record in records:
        append_jsonl(file, record)
    with file.open("a") as stream:
        stream.write('{"step": 3, "te')
    assert list(read_jsonl(file)) == records


def test_append_after_a_cut_line_loses_only_that_line(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    append_jsonl(file, {"step": 1})
    with file.open("a") as stream:
        stream.write('{"step": 2, "te')
    append_jsonl(file, {"step": 3})
    assert list(read_jsonl(file)) == [{"step": 1}, {"step": 3}]


def test_growing_file_is_followed_from_where_the_last_read_ended(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert follow_jsonl(file, 0) == ([], 0)
    append_jsonl(file, {"text": "ü"})
    records, offset = follow_jsonl(file, 0)
    assert (records, offset) == ([{"text": "ü"}], file.stat().st_size)
    with file.open("a") as stream:
        stream.write('{"step": 2')
    assert follow_jsonl(file, offset) == ([], offset)
    with file.open("a") as stream:
        stream.write("}\n")
    assert follow_jsonl(file, offset) == ([{"step": 2}], file.stat().st_size)


def test_json_lines_of_no_file_are_none(tmp_path: Path) -> None:
    assert list(read_jsonl(tmp_path / "none.jsonl")) == []

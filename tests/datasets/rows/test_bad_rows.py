import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from didact.datasets import Dataset, load_dataset
from didact.errors import DataError
from didact.spec import SourceSpec

GOOD = b'{"instruction": "Say caf\xc3\xa9", "output": "caf\xc3\xa9 \xe4\xb8\xad"}'
BAD_LINES: dict[str, tuple[bytes, str]] = {
    "malformed": (b'{"instruction": "a", "output": }', "broken_json"),
    "unclosed": (b'{"instruction": "a", "output": "b"', "broken_json"),
    "two objects": (b'{"instruction": "a", "output": "b"} {}', "broken_json"),
    "control character": (b'{"instruction": "a", "output": "b\x01"}', "broken_json"),
    "too deep": (b'{"instruction": ' + b"[" * 200_000 + b"}", "broken_json"),
    "number": (b"3", "not_an_object"),
    "list": (b'["a", "b"]', "not_an_object"),
    "null": (b"null", "not_an_object"),
    "missing": (b'{"instruction": "a"}', "missing_field"),
    "number as output": (b'{"instruction": "a", "output": 3}', "wrong_type"),
    "list as output": (b'{"instruction": "a", "output": ["b"]}', "wrong_type"),
    "null as output": (b'{"instruction": "a", "output": null}', "wrong_type"),
    "number as input": (b'{"instruction": "a", "input": 3, "output": "b"}', "wrong_type"),
    "empty output": (b'{"instruction": "a", "output": ""}', "empty_output"),
    "blank output": (b'{"instruction": "a", "output": " \\n\\t"}', "empty_output"),
    "empty prompt": (b'{"instruction": " ", "input": "", "output": "b"}', "empty_prompt"),
    "latin-1": (b'{"instruction": "caf\xe9", "output": "b"}', "not_utf8"),
    "raw NUL": (b'{"instruction": "a", "output": "b\x00"}', "nul"),
    "escaped NUL": (b'{"instruction": "a", "output": "b\\u0000"}', "nul"),
    "lone surrogate": (b'{"instruction": "a", "output": "b\\ud83d"}', "lone_surrogate"),
    "surrogate bytes": (b'{"instruction": "a", "output": "\xed\xa0\x80"}', "not_utf8"),
    "duplicate key": (b'{"instruction": "a", "output": "b", "output": "c"}', "duplicate_key"),
    "nested duplicate key": (b'{"instruction": "a", "output": "b", "meta": {"k": 1, "k": 2}}', "duplicate_key"),
    "NaN": (b'{"instruction": "a", "output": "b", "score": NaN}', "not_a_number"),
    "minus infinity": (b'{"instruction": "a", "output": "b", "score": -Infinity}', "not_a_number"),
    "11 MB": (b'{"instruction": "a", "output": "' + b"b" * 11_000_000 + b'"}', "too_long"),
}


def load(path: Path, quarantine_dir: Path | None = None, share: float = 1.0, **fields: object) -> Dataset:
    source = SourceSpec(name="rows", path=str(path), **fields)
    return load_dataset(source, seed=0, max_bad_rows_share=share, quarantine_dir=quarantine_dir)


def quarantined(dataset: Dataset) -> list[dict[str, object]]:
    assert dataset.quarantine is not None
    return [json.loads(line) for line in dataset.quarantine.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_line_costs_only_itself_and_is_found_again(kind: str, tmp_path: Path) -> None:
    bad, reason = BAD_LINES[kind]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(GOOD + b"\n\n" + bad + b"\n" + GOOD + b"\n")
    dataset = load(file, tmp_path / "quarantine")
    assert (dataset.rows_read, dataset.rows_rejected) == (3, 1)
    assert [conversation.row for conversation in dataset.train] == [0, 2]
    for conversation in dataset.train:
        assert [message.content for message in conversation.messages] == ["Say café", "café 中"]
    (entry,) = quarantined(dataset)
    assert (entry["file"], entry["line"], entry["reason"]) == (str(file), 3, reason)
    assert file.read_bytes()[entry["byte_offset"] :].startswith(bad)
    assert entry["raw"] == bad.decode("utf-8", errors="backslashreplace")[:2000]


@pytest.mark.parametrize("kind", sorted(set(BAD_LINES) - {"unclosed", "too deep", "two objects"}))
def test_a_bad_element_of_an_array_costs_only_itself(kind: str, tmp_path: Path) -> None:
    bad, reason = BAD_LINES[kind]
    file = tmp_path / "rows.json"
    file.write_bytes(b"[\n  " + GOOD + b",\n  " + bad + b",\n  " + GOOD + b"\n]\n")
    dataset = load(file, tmp_path / "quarantine", format="alpaca")
    assert (dataset.rows_read, len(dataset.train)) == (3, 2)
    (entry,) = quarantined(dataset)
    assert (entry["line"], entry["reason"], entry["byte_offset"]) == (3, reason, file.read_bytes().index(bad))


def test_a_truncated_last_line_refuses_the_file_and_a_whole_one_without_line_end_does_not(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(GOOD + b"\n" + GOOD[:-5])
    with pytest.raises(DataError, match="it ends in the middle of line 2"):
        load(file)
    file.write_bytes(GOOD + b"\n" + GOOD)
    assert (load(file).rows_read, load(file).rows_rejected) == (2, 0)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.tsv"])
def test_a_byte_order_mark_and_windows_line_ends_are_accepted(name: str, tmp_path: Path) -> None:
    body = b"question\tyes\tbecause\r\n" if name.endswith("tsv") else GOOD + b"\r\n\r\n" + GOOD + b"\r\n"
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + body)
    dataset = load(tmp_path / name)
    assert dataset.rows_rejected == 0
    assert "\ufeff" not in dataset.train[0].messages[0].content
    assert "\r" not in dataset.train[-1].messages[1].content


def test_byte_offsets_count_the_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf[]\n[]\n" + GOOD)
    assert [entry["byte_offset"] for entry in quarantined(load(file, tmp_path / "q"))] == [3, 6]


def test_a_quarantine_line_stays_short_and_readable_whatever_the_row_and_the_file_are_called(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    file.write_bytes(b'{"' + b"k" * 5000 + b'": 1}\n' + "{中".encode() * 1500 + b"\n" + GOOD)
    first, second = quarantined(load(file, tmp_path / "q"))
    assert len(str(first["detail"])) == 300
    assert first["file"] == str(file)
    assert second["raw"] == "{中" * 1000


def test_a_utf16_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes((GOOD.decode() + "\n").encode("utf-16") * 3)
    with pytest.raises(DataError, match=r"options\.encoding: utf-16"):
        load(file, format="alpaca", share=0.5)


def test_too_many_bad_rows_stop_the_load_and_say_where_they_are(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join([GOOD] * 6 + [b"1", b"2", b"3", b"4"]))
    with pytest.raises(DataError) as caught:
        load(file, tmp_path / "q", share=0.39)
    message = str(caught.value)
    for expected in ("4 of 10 rows", f"{file}:7 not_an_object", f"{file}:9", "data.max_bad_rows_share"):
        assert expected in message
    assert f"{file}:10" not in message
    assert str(tmp_path / "q" / "rows.jsonl") in message
    assert len((tmp_path / "q" / "rows.jsonl").read_text().splitlines()) == 4
    assert load(file, share=0.4).rows_rejected == 4


def test_without_a_quarantine_folder_nothing_is_written_but_counts_hold(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(GOOD + b"\n[]\n")
    dataset = load(file)
    assert (dataset.rows_read, dataset.rows_rejected, dataset.quarantine) == (2, 1, None)
    assert list(tmp_path.iterdir()) == [file]


def test_a_repaired_source_leaves_no_old_quarantine(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(GOOD + b"\n[]\n")
    old = load(file, tmp_path / "q").quarantine
    file.write_bytes(GOOD + b"\n")
    assert load(file, tmp_path / "q").quarantine is None
    assert old is not None and not old.exists()


# Kinds of row, their bytes, and the reason or None for one that is good: a blank line is no row at all.
MIXED: list[tuple[bytes, str | None]] = [
    *BAD_LINES.values(),
    (b'{"instruction": "a", "output": "b", "extra": [1, {"k": null}]}', None),
    (b'{"instruction": "a", "input": null, "output": "b"}', None),
    ('{"instruction": "utf-16"}'.encode("utf-16-le"), "nul"),
]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.jsonl.gz", "rows.jsonl.zst"])
def test_all_kinds_of_bad_row_in_one_file_add_up_and_leave_the_good_rows_as_they_are(name: str, tmp_path: Path) -> None:
    lines = [line for bad, _ in MIXED for line in (GOOD, bad, b"  ")]
    content = b"\xef\xbb\xbf" + b"\n".join([*lines, GOOD[:-2] + b"\n"])
    file = tmp_path / name
    packed = {".gz": gzip.compress, ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True)}
    file.write_bytes(packed.get(file.suffix, bytes)(content))
    dataset = load(file, tmp_path / "quarantine")
    assert len(dataset.train) + dataset.rows_rejected == dataset.rows_read == 2 * len(MIXED) + 1
    entries = quarantined(dataset)
    expected = [reason for _, reason in MIXED if reason is not None]
    assert [entry["reason"] for entry in entries] == [*expected, "broken_json"]
    for entry in entries:
        assert content[: entry["byte_offset"]].count(b"\n") == entry["line"] - 1
    texts = {tuple(message.content for message in item.messages) for item in dataset.train}
    assert texts == {("Say café", "café 中"), ("a", "b")}
    with pytest.raises(DataError, match=r"data\.max_bad_rows_share = 0\.01"):
        load(file, share=0.01)

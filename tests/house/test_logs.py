"""What libraries say: kept in a file, and out of sight where nothing is wrong."""

import logging
import warnings
from pathlib import Path

import pytest

from didact.logs import get_logger, kept_file, kept_in


def test_lines_and_warnings_of_libraries_go_to_the_file_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, library = tmp_path / "log.txt", logging.getLogger("transformers.some_model")
    with kept_in(file):
        get_logger("didact.somewhere").warning("ours")
        library.warning("theirs")
        logging.getLogger("a_library").warning("from one without a handler")
        logging.getLogger("a_library").error("broken")
        warnings.warn("old-fashioned", UserWarning, stacklevel=1)
    library.warning("afterwards")
    text = file.read_text(encoding="utf-8")
    for said in ("ours", "theirs", "from one without a handler", "broken", "old-fashioned"):
        assert text.count(f": {said}") == 1, text
    assert "afterwards" not in text
    shown = capsys.readouterr().err
    assert "broken" in shown and "old-fashioned" not in shown and "without a handler" not in shown


def test_a_second_attempt_adds_to_the_file(tmp_path: Path) -> None:
    for attempt in ("first", "second"):
        with kept_in(tmp_path / "log.txt"):
            logging.getLogger("a_library").warning("%s", attempt)
    assert [line.rsplit(" ", 1)[1] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["first", "second"]


@pytest.mark.parametrize("file", ["/dev/full", "nowhere/log.txt"], ids=["full", "absent"])
def test_a_file_that_cannot_be_written_stops_nothing(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with kept_in(tmp_path / file):
        logging.getLogger("a_library").warning("lost")
    assert "Traceback" not in capsys.readouterr().err


def test_without_a_line_there_is_no_file(tmp_path: Path) -> None:
    with kept_in(tmp_path / "log.txt"):
        pass
    assert not (tmp_path / "log.txt").exists()


def test_other_processes_are_told_the_innermost_file(tmp_path: Path) -> None:
    assert kept_file() is None
    with kept_in(tmp_path / "outer.txt"):
        with kept_in(tmp_path / "inner.txt"):
            assert kept_file() == tmp_path / "inner.txt"
        assert kept_file() == tmp_path / "outer.txt"
    assert kept_file() is None

"""What a run says of itself where no terminal shows a bar."""

import json
import re
from pathlib import Path

import pytest

from didact.cluster.progress import show_progress
from didact.display import in_words
from didact.runs import Run


def test_plain_lines_say_how_long_the_rest_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path)
    run.steps.touch()
    with show_progress(run, 4):
        for step in (2, 3, 4):  # as after a resume
            record = {"step": step, "metrics": {"train/loss": 1.0, "train/tokens_per_second": 7.0}}
            with run.steps.open("a") as stream:
                stream.write(json.dumps(record) + "\n")
    lines = capsys.readouterr().err.splitlines()
    told = [re.sub(r"about \d+ \w+", "about SO LONG", line.split("tokens/s")[1].strip()) for line in lines]
    assert told == ["", "about SO LONG left", ""]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "10 seconds"), (44, "40 seconds"), (95, "2 minutes"), (3000, "50 minutes")]
)
def test_times_are_told_roughly(seconds: float, words: str) -> None:
    assert in_words(seconds) == words

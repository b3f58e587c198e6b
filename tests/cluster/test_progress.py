"""What a run says of itself where no terminal shows a bar."""

import json
import re
from pathlib import Path

import pytest

from didact.cluster.progress import StepsOfRuns, show_progress
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


def test_runs_beside_each_other_are_counted_together(tmp_path: Path) -> None:
    runs = [Run(tmp_path / name) for name in ("resumed", "begun", "waiting")]
    for run in runs[:2]:
        run.path.mkdir()
        run.data.write_text(json.dumps({"num_steps": 8}))
    write_steps(runs[0], 1, 2, 3)
    steps = StepsOfRuns(runs, until=None)
    assert str(steps) == "no step yet", "what an earlier attempt did says nothing of the pace"
    write_steps(runs[0], 3, 4)  # step 3 once more: it came after the checkpoint
    write_steps(runs[1], 1)
    assert re.fullmatch(r"step 5 of 24 in all, about \d+ \w+ left", str(steps))
    assert str(StepsOfRuns(runs, until=4)) == "no step yet"
    write_steps(runs[0], 5, 6, 7, 8)
    write_steps(runs[1], 2, 3, 4, 5, 6, 7, 8)
    write_steps(runs[2], 1, 2, 3, 4, 5, 6, 7, 8)
    assert str(steps) == "step 24 of 24 in all"


def write_steps(run: Run, *steps: int) -> None:
    run.path.mkdir(exist_ok=True)
    with run.steps.open("a") as stream:
        stream.writelines(json.dumps({"step": step, "metrics": {}}) + "\n" for step in steps)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "10 seconds"), (44, "40 seconds"), (95, "2 minutes"), (3000, "50 minutes")]
)
def test_times_are_told_roughly(seconds: float, words: str) -> None:
    assert in_words(seconds) == words

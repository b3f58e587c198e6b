"""`didact data`: list, show, add."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from didact.cli import app
from didact.errors import DataError, DidactError


@pytest.fixture(autouse=True)
def narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("DIDACT_RUNS", str(tmp_path / "runs"))


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["data", *arguments])
    if isinstance(result.exception, DidactError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_the_list_fits_eighty_columns_and_names_every_card_whole() -> None:
    lines = run("list").splitlines()
    assert max(map(len, lines)) <= 80
    shown = {line.split()[0] for line in lines if line[:1].strip()}
    assert {"alpaca-belle-cot-merged", "natural-instructions", "pubhealthtab"} <= shown
    assert "71 of 71 datasets" in lines[-1]
    (xp3,) = [line for line in lines if line.startswith("xp3 ")]
    assert xp3.split() == ["xp3", "multi", "nlp", "collection", "78.9M", "yes"]


def test_filters_and_json() -> None:
    cards = json.loads(run("list", "--task", "math", "--reasoning", "--commercial", "--json"))
    assert [card["name"] for card in cards] == ["aqua-cot", "gsm8k-cot"]
    names = [card["name"] for card in json.loads(run("list", "--group", "alpaca-belle", "--json"))]
    assert names == ["alpaca-cleaned", "belle-0.5m"]
    assert {card["commercial"] for card in json.loads(run("list", "--no-commercial", "--json"))} == {False}
    assert "| [`dolly`](" in run("list", "--licence", "CC-BY-SA-3", "--markdown")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list", "--task", "maths"), "known: .*math"),
        (("list", "--generation", "robot"), "not one of human"),
        (("list", "--group", "all"), "expected one of chain-of-thought"),
        (("show", "doly"), "did you mean dolly"),
        (("add", "x.json", "--name", "x", "--field", "output"), "ROLE=FIELD"),
    ],
)
def test_mistakes_are_answered_with_what_there_is(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(*arguments)


def test_show_without_files_tells_their_home_and_shows_the_example() -> None:
    text = run("show", "gsm8k-cot")
    assert "MIT; commercial use: yes" in text
    assert "They come from https://github.com/openai/grade-school-math" in text
    assert "made-up example 1" in text
    assert "4 + 3 = 7" in text


def test_show_with_files_shows_three_of_them(tmp_path: Path) -> None:
    rows = "".join(f"question {row}?\t{row}\tbecause [b]{row}[/b]\n" for row in range(30))
    (tmp_path / "gsm8k_train.tsv").write_text(rows)
    text = run("show", "gsm8k-cot", "--root", str(tmp_path))
    assert [f"question {row}?" in text for row in (0, 10, 20)] == [True] * 3
    assert "because [b]10[/b]" in text
    assert "made-up" not in text


def test_added_data_is_listed_and_shown(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"frage": "wie?", "output": "so"}\n')
    text = run("add", str(file), "--name", "mine", "--field", "instruction=frage", "--field", "output=output")
    assert "form alpaca; 1 of 1 rows checked are good" in text
    assert "path: card:mine" in text
    assert "72 of 72 datasets" in run("list")
    assert "wie?" in run("show", "mine")
    assert json.loads(run("show", "mine", "--json"))["source"]["path"] == str(file)

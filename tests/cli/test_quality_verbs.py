"""`didact data`: overlap, stats, report."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from didact.cli import app
from didact.errors import DataError, DidactError
from didact.spec import FinetuneSpec
from tests.fakes.recipes import tiny_recipe

PNG = b"\x89PNG"


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["data", *arguments])
    if isinstance(result.exception, DidactError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def card_root(folder: Path, *questions: str) -> str:
    folder.mkdir()
    (folder / "gsm8k_train.tsv").write_text("".join(f"{question}\t4\tbecause\n" for question in questions))
    return str(folder)


def write_recipe(spec: FinetuneSpec, path: Path) -> str:
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json")), encoding="utf-8")
    return str(path)


def test_overlap_of_two_cards_as_table_and_json(tmp_path: Path) -> None:
    one = card_root(tmp_path / "one", "what is two and two?", "what is one and three?")
    other = tmp_path / "other"
    other.mkdir()
    (other / "aqua_train.tsv").write_text("What is  two and two?\t4\tbecause\n")
    cards = ("gsm8k-cot", "aqua-cot", "--root", one, "--root", str(other))
    overlap = json.loads(run("overlap", *cards, "--exact", "--json"))
    assert overlap["exact"] == [[0, 1], [1, 0]]
    assert overlap["shares"] == [[0, 0.5], [1, 0]]
    assert overlap["near"] is None
    assert "50" in run("overlap", *cards).splitlines()[1]
    with pytest.raises(DataError, match="1 times --root for 2 datasets"):
        run("overlap", "gsm8k-cot", "aqua-cot", "--root", one)


@pytest.mark.parametrize("name", ["o.svg", "o.png"])
def test_overlap_is_drawn_the_same_each_time(tmp_path: Path, name: str) -> None:
    root = card_root(tmp_path / "one", "what is two and two?", "what is two and two?")
    pictures = []
    for attempt in ("a", "b"):
        file = tmp_path / attempt / name
        run("overlap", "gsm8k-cot", "--root", root, "--picture", str(file))
        pictures.append(file.read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(PNG) if name.endswith("png") else b"<svg" in pictures[0]


def test_pictures_of_other_kinds_are_refused_before_anything_is_read() -> None:
    with pytest.raises(DataError, match=r"o\.gif: expected a name that ends in \.svg or \.png"):
        run("overlap", "gsm8k-cot", "--picture", "o.gif")


def test_stats_of_a_card_and_of_a_recipe(tmp_path: Path) -> None:
    root = card_root(tmp_path / "one", "What is the sum of two and two, when both are added?")
    (figures,) = json.loads(run("stats", "gsm8k-cot", "--root", root, "--json"))
    assert (figures["num_rows"], figures["rows_rejected"], figures["prepared"]) == (1, 0, None)
    assert figures["share_with_rationale"] == 1.0
    assert "en 100%" in run("stats", "gsm8k-cot", "--root", root)
    recipe = write_recipe(tiny_recipe(tmp_path), tmp_path / "tiny.yaml")
    (figures,) = json.loads(run("stats", recipe, "--json"))
    assert figures["num_rows"] == figures["prepared"]["rows_train"] + 8 == 60
    assert "trained" in run("stats", recipe)


@pytest.mark.parametrize(("policy", "trained", "left_out"), [("fail", 2, {}), ("drop", 1, {"contaminated:exam": 1})])
def test_stats_are_of_all_rows_under_every_policy(
    tmp_path: Path, policy: str, trained: int, left_out: dict[str, int]
) -> None:
    rows = [
        {"instruction": f"How many {thing} are there in the whole of the old town?", "output": "Ten."}
        for thing in ("red houses", "blue doors")
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "exam.jsonl").write_text(json.dumps({"q": rows[0]["instruction"]}) + "\n")
    against = [{"name": "exam", "path": str(tmp_path / "exam.jsonl"), "question": "q"}]
    spec = tiny_recipe(
        tmp_path,
        data__sources=[{"name": "a", "path": str(tmp_path / "a.jsonl")}],
        data__contamination={"policy": policy, "against": against},
    )
    recipe = write_recipe(spec, tmp_path / "r.yaml")
    (figures,) = json.loads(run("stats", recipe, "--json"))
    assert figures["num_rows"] == 2
    assert (figures["prepared"]["rows_train"], figures["prepared"]["rows_dropped"]) == (trained, left_out)
    assert ("contaminated:exam 1" in run("stats", recipe)) == bool(left_out)


def test_a_recipe_stands_alone(tmp_path: Path) -> None:
    recipe = write_recipe(tiny_recipe(tmp_path), tmp_path / "tiny.yaml")
    with pytest.raises(DataError, match="is a recipe"):
        run("overlap", recipe, "alpaca")

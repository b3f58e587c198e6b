"""`didact data`: list, show, add."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from didact.cli import app, main
from didact.datasets import load_dataset
from didact.errors import DataError, DidactError, ModelError
from didact.models import load_tokenizer
from didact.spec import ModelSpec, SourceSpec
from didact.tokens import count_tokens
from tests.fakes.models import save_tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base whose tokens are bytes."""
    return str(save_tiny_base(tmp_path_factory.mktemp("base")))


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
        (("list", "--generation", "robot"), "known: .*human"),
        (("list", "--group", "all"), "expected one of chain-of-thought"),
        (("show", "doly"), "did you mean dolly"),
        (("add", "x.json", "--name", "x", "--field", "output"), "ROLE=FIELD"),
    ],
)
def test_mistakes_are_answered_with_what_there_is(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(*arguments)


def test_show_without_files_tells_their_home_and_shows_the_example(base: str) -> None:
    text = run("show", "gsm8k-cot", "--base", base)
    assert "MIT; commercial use: yes" in text
    assert "They come from https://github.com/openai/grade-school-math" in text
    assert "made-up example 1" in text
    assert "4 + 3 = 7" in text


def test_show_with_files_shows_three_of_them(base: str, tmp_path: Path) -> None:
    rows = "".join(f"question {row}?\t{row}\tbecause [b]{row}[/b]\n" for row in range(30))
    (tmp_path / "gsm8k_train.tsv").write_text(rows)
    text = run("show", "gsm8k-cot", "--root", str(tmp_path), "--base", base)
    assert [f"question {row}?" in text for row in (0, 10, 20)] == [True] * 3
    assert "because [b]10[/b]" in text
    assert "made-up" not in text


def test_added_data_is_listed_and_shown(base: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"frage": "wie?", "output": "so"}\n')
    text = run("add", str(file), "--name", "mine", "--field", "instruction=frage", "--field", "output=output")
    assert "form alpaca; 1 of 1 rows checked are good" in text
    assert "path: card:mine" in text
    assert "72 of 72 datasets" in run("list")
    assert "wie?" in run("show", "mine", "--base", base)
    assert json.loads(run("show", "mine", "--json"))["source"]["path"] == str(file)


def test_show_counts_the_tokens_of_its_samples_and_of_every_row(base: str, tmp_path: Path) -> None:
    rows = [("wie?", "so"), ("warum?", "darum"), ("", "nie")]
    lines = [json.dumps({"frage": question, "output": answer}) for question, answer in rows]
    (tmp_path / "mine.jsonl").write_text("\n".join(lines[:2]) + "\n")
    run(
        "add",
        str(tmp_path / "mine.jsonl"),
        "--name",
        "mine",
        "--field",
        "instruction=frage",
        "--field",
        "output=output",
    )
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    text = run("show", "mine", "--base", base)
    # A token is a byte or a mark. Around a turn: mark, role, line break, mark, line break.
    frame = sum(1 + len(role) + 1 + 1 + 1 for role in ("user", "assistant"))
    sizes = [frame + len(question) + len(answer) for question, answer in rows[:2]]
    learned = [len(answer) + 1 for _, answer in rows[:2]]
    for size, count in zip(sizes, learned, strict=True):
        assert f"{size} tokens, {count} learned" in text
    assert f"3 rows, {sum(sizes)} tokens, {sum(learned)} of them learned (all counted; tokens of {base})" in text


def test_show_estimates_large_files_by_rows_taken_at_random(base: str, tmp_path: Path) -> None:
    # The first rows are short: who counted only them would be far off.
    rows = [f"question {row}?\t{row}\tbecause {'x' * (0 if row < 1000 else 400)}\n" for row in range(2000)]
    (tmp_path / "gsm8k_train.tsv").write_text("".join(rows))
    text = run("show", "gsm8k-cot", "--root", str(tmp_path), "--base", base)
    found = re.search(r"2,000 rows, about ([\d,]+) tokens, ([\d,]+) of them learned \(± (\d+)%, by 200 rows", text)
    assert found is not None
    source = SourceSpec(name="all", path=str(tmp_path / "gsm8k_train.tsv"))
    dataset = load_dataset(source, seed=0, max_bad_rows_share=0.0, quarantine_dir=None)
    true = sum(count.tokens for count in count_tokens(dataset.train, load_tokenizer(ModelSpec(base=base))) if count)
    assert 0 < int(found[3]) < 20
    assert abs(int(found[1].replace(",", "")) / true - 1) < 2 * int(found[3]) / 100
    again = run("show", "gsm8k-cot", "--root", str(tmp_path), "--base", base)
    without_times = [re.sub(r"(?m)^[0-9:]{8} ", "", each) for each in (text, again)]
    assert without_times[0] == without_times[1]


def test_show_works_without_the_bundled_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path))
    monkeypatch.setattr("didact.models.base.bundled._WHEEL", "no_such_wheel")
    text = run("show", "gsm8k-cot")
    assert "Tokens are not counted" in text and "--base" in text
    assert "made-up example 1" in text and "4 + 3 = 7" in text
    with pytest.raises(ModelError, match="no-such-folder"):
        run("show", "gsm8k-cot", "--base", "./no-such-folder")


def rows_with_signs(tmp_path: Path) -> Path:
    rows = tmp_path / "signs.jsonl"
    row = {"instruction": "What is :warning: [bold]x[/bold] 12 \x1b[31mred?", "output": "A :smile: at C:\\temp\\"}
    rows.write_text(json.dumps(row) + "\n")
    return rows


SIGNS = "What is :warning: [bold]x[/bold] 12 <U+001B>[31mred?"


def test_preview_prints_text_as_the_model_sees_it(tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "signs.yaml"
    recipe.write_text(
        f"name: signs\nmodel: {{base: {base}}}\n"
        f"data:\n  sources: [{{name: signs, path: {rows_with_signs(tmp_path)}}}]\n"
        "training: {steps: 1, global_batch_size: 2, micro_batch_size: 1}\n"
    )
    piped = run("preview", str(recipe))
    assert "learned text stands between [[ and ]]" in piped
    assert SIGNS in piped and "[[A :smile: at C:\\temp\\<|im_end|>]]" in piped and "\x1b" not in piped
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = run("preview", str(recipe))
    plain = re.sub("\x1b\\[[0-9;]*m", "", coloured)
    assert SIGNS in plain and "A :smile: at C:\\temp\\<|im_end|>" in plain and "[[" not in plain
    assert "42mA :smile: at C:\\temp\\<|im_end|>" in coloured


def test_show_prints_text_as_it_is(tmp_path: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CARDS", str(tmp_path / "cards"))
    run("add", str(rows_with_signs(tmp_path)), "--name", "signs")
    shown = run("show", "signs", "--base", base)
    assert f"user: {SIGNS}\n" in shown and "assistant: A :smile: at C:\\temp\\\n" in shown


def test_one_line_a_source_says_what_became_of_it(tmp_path: Path, base: str, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [{"instruction": f"Say {n}.", "output": str(n)} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"instruction": "no"}]))
    recipe = tmp_path / "lines.yaml"
    recipe.write_text(
        f"name: lines\nmodel: {{base: {base}}}\ndata:\n  max_bad_rows_share: 0.5\n"
        f"  sources: [{{name: said, path: {tmp_path}/rows.jsonl, held_out_rows: 4}}]\n"
        "training: {steps: 1, global_batch_size: 2, micro_batch_size: 1}\n"
    )
    with pytest.raises(SystemExit) as ended:
        main(["data", "preview", str(recipe)])
    assert ended.value.code == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if "rows read" in line]
    assert len(lines) == 1
    assert "source said: 21 rows read, 1 rejected (when read 1); 16 samples to train on with" in lines[0]
    assert lines[0].endswith("; 4 held out")


def test_what_is_done_with_turns_and_fields_stands_on_the_card(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    turns = [{"from": role, "value": role} for role in ("gpt", "human", "gpt")]
    path.write_text("".join(json.dumps({"conversations": turns, "id": row, "rating": 5}) + "\n" for row in range(4)))
    told = run("add", str(path), "--name", "chats", "--option", "at_least={rating: 3}", "--option", "ignore=[images]")
    assert "fields of its rows that are not used: id\n" in told
    assert "turns put in order by options.turns: assistant_first: leave_out in 4 rows\n" in told
    shown = " ".join(run("show", "chats").split())
    assert "assistant_first leave_out, same_side join, system_later to_user, user_last leave_out" in shown
    assert "left out below rating 3, images ignored" in shown
    assert "assistant_first: leave_out" in (tmp_path / "runs" / "cards" / "chats.yaml").read_text()

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from didact.errors import DataError, SpecError, TemplateError
from didact.evaluation.asks import Ask, Generation
from didact.evaluation.questions import Score
from didact.evaluation.tasks import build_task, check_tasks
from didact.evaluation.tasks.text_task import TextTask
from didact.spec import EvaluateSpec, EvaluationSpec, QuestionsTask, absolute_task_paths, load_spec, validate
from tests.fakes.asking import asked

ROOT = Path(__file__).resolve().parents[2]


def write(file: Path, rows: list[Any]) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def task_of(path: str, **settings: Any) -> TextTask:
    task = build_task(QuestionsTask(**{"task": "questions", "name": "mine", "path": path, **settings}))
    assert isinstance(task, TextTask)
    return task


def own(tmp_path: Path, rows: list[Any], **settings: Any) -> TextTask:
    return task_of(write(tmp_path / "mine.jsonl", rows), **settings)


def said(task: TextTask, text: str, place: int = 0) -> Score:
    return asked(task, task.questions[place], lambda _: text)[0]


def test_the_ten_lines_of_the_docs_are_an_evaluation() -> None:
    spec = load_spec(EvaluateSpec, ROOT / "jobs" / "evaluations" / "own_questions.yaml")
    (task_spec,) = spec.evaluation.tasks
    assert isinstance(task_spec, QuestionsTask)
    task = task_of(str(ROOT / task_spec.path), scorer=task_spec.scorer)
    assert len(task.questions) == 10
    assert said(task, "It is The Hague, of course.", 1).values["accuracy"] == 1
    assert said(task, "首都是北京。", 6).values["accuracy"] == 1
    assert said(task, "Lyon.").values["accuracy"] == 0
    docs = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    shown = docs.split("```yaml\n# jobs/evaluations/own_questions.yaml\n")[1].split("```")[0]
    assert len(shown.splitlines()) <= 5
    assert validate(EvaluateSpec, yaml.safe_load(shown), "docs/evaluation.md") == spec


def test_every_field_of_a_row_has_its_place(tmp_path: Path) -> None:
    row = {
        "id": "a-1",
        "question": "Who?",
        "answer": ["Ada", "Ada Lovelace"],
        "class": " People ",
        "passage": "Ada wrote.",
        "rationale": "It says so.",
        "system": "Be brief.",
        "level": 3,
    }
    (question,) = own(tmp_path, [row]).questions
    assert [(turn.role, turn.content) for turn in question.messages] == [
        ("system", "Be brief."),
        ("user", "Ada wrote.\n\nWho?"),
    ]
    assert (question.id, question.expected, question.group) == ("a-1", "Ada", "People")
    assert (question.passage, question.rationale, question.data["level"]) == ("Ada wrote.", "It says so.", 3)
    assert question.data["answers"] == ["Ada", "Ada Lovelace"]


def test_a_conversation_is_asked_as_it_stands(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "2+2?"},
    ]
    task = own(tmp_path, [{"messages": turns, "answer": 4}], system="S", scorer="number")
    assert [(turn.role, turn.content) for turn in task.questions[0].messages] == [
        ("system", "S"),
        *((turn["role"], turn["content"]) for turn in turns),
    ]
    assert said(task, "4").values["accuracy"] == 1


def test_a_table_gives_the_same_questions(tmp_path: Path) -> None:
    rows = [
        {"question": "One?", "answer": ["a", "b"], "options": ["a", "b"], "class": "x"},
        {"question": 'A "word", and?', "answer": "c", "options": ["c", "d"], "class": "y"},
    ]
    table = tmp_path / "mine.csv"
    table.write_text(
        'question;answer;options;class\nOne?;"[""a"", ""b""]";"[""a"", ""b""]";x\n'
        '"A ""word"", and?";c;"[""c"", ""d""]";y\n',
        encoding="utf-16",
    )
    read = task_of(str(table), options={"encoding": "utf-16", "delimiter": ";"})
    assert [(each.text, each.expected, each.options, each.group) for each in read.questions] == [
        (each.text, each.expected, each.options, each.group) for each in own(tmp_path, rows).questions
    ]
    assert [each.data["answers"] for each in read.questions] == [["a", "b"], ["c"]]


def test_fields_of_other_names_are_named(tmp_path: Path) -> None:
    row = {"prompt": "Which?", "meta": {"gold": "B"}, "A": "red", "B": "blue", "C": None}
    fields = {"question": "prompt", "answer": "meta.gold", "options": ["A", "B", "C"]}
    task = own(tmp_path, [row], fields=fields, scorer="choice")
    assert task.questions[0].text == "Which?\nA. red\nB. blue"
    assert [said(task, text).values["accuracy"] for text in ("B", "blue", "A")] == [1, 1, 0]
    with pytest.raises(DataError, match=r"expected `question` or `messages`, found 'prompt', .*question: FIELD"):
        own(tmp_path, [row])


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("Translate into {language}: {question}", "Translate into Dutch: Cat {a}"),
        ("{question} [{options}] {tags}", "Cat {a} [A. x\nB. y] 1, 2"),
        ("{{ question }}{% for each in options %} ({{ each }}){% endfor %}", "Cat {a} (x) (y)"),
        ("{% if level > 2 %}Hard{% endif %}: {{ lettered }}", "Hard: A. x\nB. y"),
    ],
)
def test_a_template_puts_fields_into_words(template: str, text: str, tmp_path: Path) -> None:
    row = {
        **{"question": "Cat {a}", "language": "Dutch", "options": ["x", "y"], "tags": [1, 2]},
        **{"level": 3, "answer": "x"},
    }
    assert own(tmp_path, [row], template=template).questions[0].text == text
    file = tmp_path / "ask.jinja"
    file.write_text("{{ language }}!", encoding="utf-8")
    assert own(tmp_path, [row], template=str(file)).questions[0].text == "Dutch!"


@pytest.mark.parametrize(
    ("template", "error", "said"),
    [
        ("Ask", TemplateError, "holds no field of a row"),
        ("{% if %}", TemplateError, "evaluation task mine, template, line 1"),
        ("none.jinja", TemplateError, "none.jinja cannot be read"),
        ("{topic}", DataError, "the template's {topic} is no field of the row; found question, answer"),
        ("{{ topic }}", DataError, "'topic' is undefined"),
        ("{{ question.__class__.__mro__ }}", DataError, "unsafe"),
        ("{{ 1 / 0 }}", DataError, "division by zero"),
        ("{{ '' }}", DataError, "empty_prompt"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(
    template: str, error: type[Exception], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error) as found:
        own(tmp_path, [{"question": "Q", "answer": "A"}], template=template)
    assert said in str(found.value)


TEST = "assert f() == 1"


@pytest.mark.parametrize(
    ("scorer", "row", "said"),
    [
        ("exact", {"question": "Q"}, "it has no answer for the scorer exact to compare with; found 'question'"),
        ("exact", {"question": "Q", "answer": " "}, "no answer for the scorer exact"),
        ("exact", {"question": "Q", "answer": []}, "no answer for the scorer exact"),
        ("number", {"question": "Q", "answer": "ten"}, "the answer 'ten' is no number"),
        ("choice", {"question": "Q", "answer": "A"}, "no `options` for the scorer choice"),
        ("choice", {"question": "Q", "answer": "E", "options": ["x", "y"]}, "'E' is none of the options A, B"),
        ("choice", {"question": "Q", "answer": "A", "options": ["x"]}, "`options` holds 1; expected 2 to 26"),
        ("choice", {"question": "Q", "answer": "A", "options": "x, y"}, "`options` is 'x, y', expected a list"),
        ("choice", {"question": "Q", "answer": "A", "options": ["x", ["y"]]}, '`options` holds ["y"]; expected texts'),
        ("choice", {"question": "Q", "answer": "B", "options": ["x", None, "y"]}, "`options` holds null; expected"),
        (
            "choice",
            {"question": "Q", "answer": "1", "options": {"1": "x", "2": "y"}},
            "the names '1', '2'; expected the",
        ),
        (
            "exact",
            {"question": "Q", "answer": "A", "class": ["x"]},
            "field 'class' is [\"x\"]; expected a text or a number",
        ),
        (
            "exact",
            {"rows": [{"question": "Q"}]},
            "found 'rows'; if `rows` is the list of rows: `options: {each: rows}`",
        ),
        (
            "exact",
            {"question": "Q", "answer": 1, "options": ["Rome", "Paris"]},
            "'1' is none of its options and no letter of one, and scorer exact compares with the text",
        ),
        ("contains", {"question": "Q", "answer": "C", "options": ["Rome", "Paris"]}, "'C' is none of its options"),
        ("code", {"question": "Q"}, "no `tests` with Python code"),
        ("code", {"question": "Q", "tests": ["assert ("]}, "its `tests` are no Python"),
        ("json_schema", {"question": "Q"}, "it has no `schema`"),
        ("json_schema", {"question": "Q", "schema": {"type": 3}}, "its `schema` is no JSON schema"),
        ("exact", {"answer": "A"}, "there is no question"),
        ("exact", {"question": " ", "answer": "A"}, "empty_prompt (the question is empty)"),
        ("exact", {"question": ["Q"], "answer": "A"}, "field 'question' is list, expected text"),
        ("exact", {"messages": [], "answer": "A"}, "`messages` is no list of turns"),
        ("exact", {"messages": [{"role": "user"}], "answer": "A"}, "expected role and content"),
        ("exact", {"messages": [{"role": "bot", "content": "x"}], "answer": "A"}, "expected role and content"),
        ("exact", {"messages": [{"role": "assistant", "content": "x"}], "answer": "A"}, "expected the user's"),
        ("exact", {"question": "Q", "answer": "A", "id": "first"}, "the id 'first' is that of another row"),
        ("exact", '{"question": "Q", "answer": }', "broken_json"),
        ("exact", '{"question": "Q", "question": "R", "answer": "A"}', "duplicate_key"),
        ("exact", "[1]", "not_an_object"),
        ("exact", '{"question": "Q\\ud800", "answer": "A"}', "lone_surrogate (half a character, '\\ud800', in a text)"),
    ],
)
def test_a_damaged_row_is_named_with_file_and_line_and_counted(
    scorer: str, row: Any, said: str, tmp_path: Path
) -> None:
    good = {
        **{"id": "first", "question": "Good?", "answer": "1", "options": ["0", "1"], "tests": TEST, "schema": {}},
    }
    with pytest.raises(DataError, match=r"evaluation task mine: 1 of 2 rows .*mine\.jsonl:2 ") as error:
        own(tmp_path, [good, row], scorer=scorer)
    assert said in str(error.value)
    task = own(tmp_path, [good, row], scorer=scorer, max_bad_rows_share=0.5)
    assert len(task.questions) == 1
    assert len(task.corrections) == 1
    assert task.corrections[0].startswith("left out: ")
    assert "mine.jsonl:2" in task.corrections[0]


def test_options_under_letters_are_in_the_order_of_these_and_missing_ones_at_the_end_are_none(tmp_path: Path) -> None:
    rows = [
        {"question": "Q", "answer": "A", "options": {"B": "y", "a": "x"}},
        {"question": "Q", "answer": "B", "options": ["x", "y", None, None]},
    ]
    assert [each.options for each in own(tmp_path, rows, scorer="choice").questions] == [("x", "y"), ("x", "y")]
    (tmp_path / "columns.csv").write_text("question,answer,A,B,C\nQ,B,x,,y\nR,B,x,y,\n")
    fields = {"options": ["A", "B", "C"]}
    with pytest.raises(DataError, match=r"1 of 2 rows .*columns.csv:2 wrong_type \(`options` holds null"):
        task_of(str(tmp_path / "columns.csv"), scorer="choice", fields=fields)
    (tmp_path / "columns.jsonl").write_text(
        '{"question": "Q", "answer": "B", "A": "x", "B": null, "C": "y"}\n'
        '{"question": "R", "answer": "B", "A": 0, "B": "y", "C": null}\n'
    )
    with pytest.raises(DataError, match=r"1 of 2 rows .*columns.jsonl:1 wrong_type \(`options` holds null"):
        task_of(str(tmp_path / "columns.jsonl"), scorer="choice", fields=fields)


def test_an_empty_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"evaluation task mine: .*mine\.jsonl holds no rows"):
        own(tmp_path, [""])
    with pytest.raises(DataError, match="evaluation task mine: it has no questions"):
        own(tmp_path, [{"question": "Q"}], max_bad_rows_share=1)


def test_questions_asked_twice_are_told(tmp_path: Path) -> None:
    row = {"question": "Q", "answer": "A"}
    (told,) = own(tmp_path, [row, row, {**row, "answer": "B"}]).corrections
    assert told.endswith("mine.jsonl: 2 of 3 questions repeat another one")


def test_code_and_json_are_asked_and_scored(tmp_path: Path) -> None:
    code = own(tmp_path, [{"question": "f?", "tests": ["assert f(1) == 2"]}], scorer="code")
    assert said(code, "```python\ndef f(x): return x + 1\n```").values["accuracy"] == 1
    schema = {"type": "object", "required": ["a"]}
    formed = own(tmp_path, [{"question": "a?", "schema": schema, "answer": {"a": 1}}], scorer="json_schema")
    assert [said(formed, text).values["accuracy"] for text in ('{"a": 1}', '{"a": 2}', "{}")] == [1, 0, 0]


def test_examples_come_from_another_file(tmp_path: Path) -> None:
    examples = write(tmp_path / "dev.jsonl", [{"question": "One?", "answer": "1", "rationale": "One is one."}])
    rows = [{"question": "Two?", "answer": "2"}]
    task = own(tmp_path, rows, few_shot=1, examples=examples, prompt="step_by_step", scorer="number")
    (ask,) = task.asks(task.questions[0], ())
    assert isinstance(ask, Generation) and isinstance(ask.prompt, tuple)
    assert ask.prompt[1].content == "One is one.\nAnswer: 1"
    assert said(task, "Two, not 3.\nAnswer: 2").values["accuracy"] == 1


def test_examples_may_lie_in_the_folder_dev(tmp_path: Path) -> None:
    for split, asked_there in (("dev", "One?"), ("test", "Two?")):
        (tmp_path / split).mkdir()
        write(tmp_path / split / "q.jsonl", [{"question": asked_there, "answer": "1"}])
    task = task_of(str(tmp_path), few_shot=1)
    assert [each.text for each in task.examples] == ["One?"]
    assert [each.text for each in task.questions] == ["Two?"]
    with pytest.raises(DataError, match=r"few_shot: 1 asks for more worked examples than there are \(0\)"):
        task_of(str(tmp_path / "test"), few_shot=1)


def test_files_are_found_from_every_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine.jsonl", [{"question": "a?"}])
    (tmp_path / "schema.json").write_text("{}")
    (tmp_path / "ask.jinja").write_text("{{ question }}!")
    monkeypatch.chdir(tmp_path)
    scorer = {"name": "json_schema", "schema_file": "schema.json"}
    task = {"task": "questions", "name": "mine", "path": "mine.jsonl", "template": "ask.jinja", "scorer": scorer}
    evaluation = absolute_task_paths(validate(EvaluationSpec, {"tasks": [task]}, "my.yaml"))
    monkeypatch.chdir(tmp_path.parent)
    check_tasks(evaluation)
    (built,) = map(build_task, evaluation.tasks)
    assert isinstance(built, TextTask)
    assert built.questions[0].text == "a?!"


def test_the_questions_that_were_checked_are_those_that_are_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [{"question": "a?", "answer": "b"}])
    evaluation = validate(EvaluationSpec, {"tasks": [{"task": "questions", "name": "mine", "path": path}]}, "my.yaml")
    tasks = check_tasks(evaluation)
    Path(path).unlink()  # whoever read it again would find nothing
    (spec,) = evaluation.tasks
    assert tasks.task(spec) is tasks.task(spec.model_copy())
    assert [each.text for each in tasks.texts(evaluation.tasks)] == ["a?"]
    with pytest.raises(DataError, match="there is no file"):
        tasks.task(spec.model_copy(update={"max_new_tokens": 7}))


def test_what_is_wrong_is_known_before_anything_begins(tmp_path: Path) -> None:
    check_tasks(None)
    broken = QuestionsTask(task="questions", name="mine", path=str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="there is no file"):
        check_tasks(EvaluationSpec(tasks=(broken,)))


def test_a_judge_may_score_them(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [{"question": "Write a poem."}, {"question": "Who?", "answer": "Ada"}])
    task = build_task(QuestionsTask(task="questions", name="mine", path=path, scorer="judge"))
    assert task is not None

    def reply(ask: Ask) -> str:
        return "Good.\nScore: 0.5" if ask.to == "judge" else "Roses are red."

    score, asks = asked(task, task.questions[0], reply)
    assert (task.metric, score.values["score"], [ask.to for ask in asks]) == ("score", 0.5, ["model", "judge"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scorer": "judge"}, "needs a judge; set evaluation.judge"),
        ({"scorer": "exakt"}, "'exact', 'number'"),
        ({"scorer": {"name": "exakt"}}, "'exact', 'number'"),
        ({"scorer": {"name": "regex"}}, "scorer.pattern: missing"),
        ({"scorer": {"name": "code", "second": 3}}, "seconds"),
        ({"scorer": "judge", "samples": 2}, "set samples: 1"),
        ({"name": None}, "name"),
    ],
)
def test_mistakes_in_the_task_are_told_in_its_words(settings: dict[str, Any], said: str) -> None:
    task = {"task": "questions", "name": "mine", "path": "mine.jsonl", **settings}
    with pytest.raises(SpecError) as error:
        validate(EvaluationSpec, {"tasks": [task]}, "my.yaml")
    assert said in str(error.value)

# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from didact.errors import DataError, SpecError
from didact.evaluation.asks import Answer, Generation, Likelihood, Likely, Text
from didact.evaluation.questions import Question, Score
from didact.evaluation.tasks.multiple_choice import MultipleChoice, build_choices
from didact.spec import (
    AquaTask,
    BbhTask,
    CevalTask,
    ChoiceTask,
    CmmluTask,
    EvaluationSpec,
    FinetuneSpec,
    MmcuTask,
    MmluTask,
    StrategyQaTask,
    validate,
)

EVAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "eval"
real_files = pytest.mark.skipif(not EVAL.is_dir(), reason=f"no {EVAL}")


SPECS: dict[str, type[ChoiceTask]] = {
    "mmlu": MmluTask,
    "cmmlu": CmmluTask,
    "ceval": CevalTask,
    "mmcu": MmcuTask,
    "aqua": AquaTask,
    "strategyqa": StrategyQaTask,
    "bbh": BbhTask,
}


def spec(task: str, path: Path | str, **settings: Any) -> ChoiceTask:
    return validate(SPECS[task], {"task": task, "path": str(path), **settings}, "test")


def build(task: str, path: Path | str, **settings: Any) -> MultipleChoice:
    return build_choices(spec(task, path, **settings))


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def write_rows(file: Path, *rows: dict[str, Any]) -> Path:
    return write(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def facts(question: Question) -> tuple[str, str, tuple[str, ...], str]:
    return question.text, question.expected, question.options, question.group


def said(task: MultipleChoice, answer: Callable[[Question], str]) -> list[tuple[Question, Score]]:
    return [
        (question, task.score(question, (Answer(texts=(Text(answer(question), 1, "stop"),)),)))
        for question in task.questions
    ]


CAPITAL = ("Capital of France?", "B", ("Rome", "Paris", "Bern", "Oslo"))


CITIES = "Rome,Paris,Bern,Oslo"
LETTERED = {"A": "Rome", "B": "Paris", "C": "Bern", "D": "Oslo"}
ASKED = {"question": "Capital of France?", "subject": "city"}


@pytest.mark.parametrize(
    ("task", "name", "text"),
    [
        ("mmlu", "city_test.csv", f"Capital of France?,{CITIES},B\n"),
        ("mmlu", "city_test.csv", f"question,choice0,choice1,choice2,choice3,answer\nCapital of France?,{CITIES},1\n"),
        ("cmmlu", "city.csv", f",Question,A,B,C,D,Answer\n0,Capital of France?,{CITIES},B\n"),
        ("ceval", "city_val.csv", f"id,question,A,B,C,D,answer\n0,Capital of France?,{CITIES},B\n"),
        ("ceval", "x.json", json.dumps([{**ASKED, **LETTERED, "answer": "B", "explanation": "r"}])),
        ("mmlu", "x.jsonl", json.dumps({**ASKED, "choices": CITIES.split(","), "answer": 1})),
        (
            "aqua",
            "x.jsonl",
            json.dumps({**ASKED, "options": ["A)Rome", "B)Paris", "C)Bern", "D)Oslo"], "correct": "B"}),
        ),
    ],
)
def test_every_published_form_gives_the_same_question(tmp_path: Path, task: str, name: str, text: str) -> None:
    built = build(task, write(tmp_path / name, text))
    assert [facts(each) for each in built.questions] == [(*CAPITAL, "city")]
    assert built.questions[0].id == "city:1"
    assert built.corrections == ()


def test_strategyqa_in_its_three_forms(tmp_path: Path) -> None:
    yes = {"input": "Is ice cold?", "target_scores": {"Yes": 1, "No": 0}, "target": "Yes. Ice is frozen."}
    published = {"qid": "1", "question": "Is ice cold?", "answer": True, "facts": ["Ice is frozen."]}
    for file in (
        write(tmp_path / "task.json", json.dumps({"canary": "x", "examples": [yes]}, indent=1)),
        write_rows(tmp_path / "held_out.jsonl", yes),
        write(tmp_path / "dev.json", json.dumps([published])),
    ):
        (question,) = build("strategyqa", file).questions
        assert (question.text, question.expected, question.rationale) == ("Is ice cold?", "Yes", "Ice is frozen.")


def test_bbh_reads_options_words_and_answers_of_their_own(tmp_path: Path) -> None:
    rows = [
        {"input": "Who is old?\nOptions:\n(A) Ann\n(B) Bob", "target": "(B)"},
        {"input": "not True is", "target": "False"},
        {"input": "Sort: b a", "target": "a b"},
    ]
    file = write(tmp_path / "mixed.json", json.dumps({"canary": "x", "examples": rows}, indent=2))
    task = build("bbh", file)
    assert [each.expected for each in task.questions] == ["B", "False", "a b"]
    answers = {"B": "So the answer is (B).", "False": "False", "a b": "Sorted.\nThe answer is: A  b."}
    scores = [score for _, score in said(task, lambda question: answers[question.expected])]
    assert [score.values["accuracy"] for score in scores] == [1.0, 1.0, 1.0]
    assert [score.values["strict_accuracy"] for score in scores] == [0.0, 1.0, 0.0]
    by_likelihood = build("bbh", file, by="likelihood")
    assert [each.expected for each in by_likelihood.questions] == ["B", "False"]
    assert "1 questions without options" in by_likelihood.corrections[0]


def test_reasoning_prompts_of_bbh_are_examples(tmp_path: Path) -> None:
    write(
        tmp_path / "cot-prompts" / "logic.txt",
        "canary\n-----\nEvaluate.\n\n"
        "Q: not False is\nA: Let's think step by step.\nIt turns.\nSo the answer is True.\n\n"
        "Q: not True is\nA: Let's think step by step.\nSo the answer is False.\n",
    )
    file = write(tmp_path / "logic.json", json.dumps({"examples": [{"input": "True is", "target": "True"}]}))
    task = build(
        "bbh", file, prompt="step_by_step", few_shot=2, examples=str(tmp_path / "cot-prompts"), max_new_tokens=99
    )
    (ask,) = task.asks(task.questions[0], ())
    assert isinstance(ask, Generation)
    assert [turn.role for turn in ask.prompt] == ["user", "assistant"] * 2 + ["user"]  # type: ignore[union-attr]
    assert ask.prompt[1].content.endswith("So the answer is True.\nAnswer: True")  # type: ignore[union-attr]


def mmcu_row(answer: str, subject: str = "心理", options: str = "A:一\nB:二\nC:三\nD:四") -> dict[str, str]:
    return {"类别": subject, "题目": f"题 {answer}", "选项": options, "答案": answer}


def test_mmcu_mends_malformed_keys_and_says_so(tmp_path: Path) -> None:
    given = ["A", "ＢＣ", "cb", "A\nC", "BE", "D"]
    file = write(tmp_path / "test.json", json.dumps([mmcu_row(each) for each in given], ensure_ascii=False))
    task = build("mmcu", file)
    assert [each.expected for each in task.questions] == ["A", "BC", "BC", "AC", "B", "D"]
    assert all(each.data.several and each.group == "psychology" for each in task.questions)
    assert len(task.corrections) == 4
    assert "test.json:" in task.corrections[0]
    assert task.corrections[0].endswith("the answer 'ＢＣ' is read as BC")
    assert task.corrections[3].endswith("the answer 'BE' is read as B")


def test_mmcu_fills_in_the_answers_that_its_authors_publish(tmp_path: Path) -> None:
    rows = "\n".join(f"题 {number},一,二,三,四,{'' if number == 126 else 'C'}" for number in range(1, 128))
    task = build("mmcu", write(tmp_path / "传染病学339题.csv", f"题目,A,B,C,D,答案\n{rows}\n"))
    assert [each.expected for each in task.questions[124:127]] == ["C", "A", "C"]
    assert task.questions[0].group == "medicine"
    assert task.corrections[0].endswith("the answer '' is read as A")
    assert len(task.corrections) == 1


def test_mmcu_reads_columns_by_their_place(tmp_path: Path) -> None:
    file = write(tmp_path / "教育_化学.csv", "试题,选择1,选择2,选择3,选择4,参考\n水？,A、一,B、二,C、三,D、四,B\n")
    (question,) = build("mmcu", file).questions
    assert facts(question) == ("水？", "B", ("一", "二", "三", "四"), "education")


def test_mmcu_compares_all_sets_where_several_may_be_right(tmp_path: Path) -> None:
    rows = [mmcu_row("A", "临床医学"), mmcu_row("AB", "法律"), mmcu_row("C", "法律")]
    task = build("mmcu", write(tmp_path / "test.json", json.dumps(rows)), by="likelihood")
    single, several, also = (task.asks(each, ())[0] for each in task.questions)
    assert isinstance(single, Likelihood)
    assert single.continuations == ("A", "B", "C", "D")
    assert isinstance(several, Likelihood)
    assert several.continuations[:3] == ("A。", "B。", "AB。")
    assert len(several.continuations) == 15
    assert isinstance(also, Likelihood)
    assert also.continuations == several.continuations
    likely = tuple(Likely(-1.0 if each == "AB。" else -5.0, 2, greedy=False) for each in several.continuations)
    score = task.score(task.questions[1], (Answer(likelihoods=likely),))
    assert (score.extracted, score.values["accuracy"]) == ("AB", 1.0)


def test_parts_of_a_discipline_have_figures_of_their_own(tmp_path: Path) -> None:
    for part, right in (("教育_化学", "A"), ("教育_物理", "B"), ("心理", "A")):
        write_rows(tmp_path / f"{part}.jsonl", {"题目": "?", "选项": "A:一\nB:二", "答案": right})
    task = build("mmcu", tmp_path)
    scores = said(task, lambda _: "A")
    assert task.overall(scores) == {"education/教育_化学/accuracy": 1.0, "education/教育_物理/accuracy": 0.0}


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    for split, count in (("dev", 2), ("test", 3)):
        rows = "".join(f"{split} {number}?,un,deux,trois,quatre,C\n" for number in range(count))
        write(tmp_path / split / f"french_{split}.csv", rows)
        write(tmp_path / split / f"latin_{split}.csv", rows.replace("un,deux,trois", "I,II,III"))
    return tmp_path


def test_examples_come_from_the_split_dev_of_the_same_subject(exam: Path) -> None:
    task = build("mmlu", exam, few_shot=2)
    question = next(each for each in task.questions if each.group == "latin")
    (ask,) = task.asks(question, ())
    assert isinstance(ask, Likelihood)
    turns = [(turn.role, turn.content) for turn in ask.prompt]  # type: ignore[union-attr]
    form = "\n\nAnswer with the letter of the right option and nothing else."
    options = "\nA. I\nB. II\nC. III\nD. quatre"
    assert turns == [
        ("user", f"dev 0?{options}{form}"),
        ("assistant", "C"),
        ("user", f"dev 1?{options}{form}"),
        ("assistant", "C"),
        ("user", f"test 0?{options}{form}"),
    ]
    assert task.asks(question, (Answer(),)) == ()


def test_examples_of_a_benchmark_without_subjects_serve_every_question(tmp_path: Path) -> None:
    row = {"options": ["A)1", "B)2"], "correct": "B", "rationale": "One and one."}
    train = write_rows(tmp_path / "train.jsonl", {**row, "question": "1 + 1?"})
    test = write_rows(tmp_path / "test.jsonl", {**row, "question": "3 - 1?"})
    task = build("aqua", test, examples=str(train), few_shot=1, prompt="step_by_step")
    (ask,) = task.asks(task.questions[0], ())
    assert isinstance(ask, Generation)
    assert ask.prompt[1].content == "One and one.\nAnswer: B"  # type: ignore[union-attr]
    assert ask.prompt[2].content.startswith("3 - 1?\nA. 1\nB. 2\n\nThink step by step.")  # type: ignore[union-attr]
    assert task.questions[0].group == ""


def test_option_texts_follow_the_bare_question(exam: Path) -> None:
    task = build("mmlu", exam, options_as="texts", subjects=["french"])
    (ask,) = task.asks(task.questions[0], ())
    assert isinstance(ask, Likelihood)
    assert ask.prompt[0].content == "test 0?"  # type: ignore[union-attr]
    assert ask.continuations == ("un", "deux", "trois", "quatre")
    # Per byte the third is the likeliest, as a whole the first.
    likely = tuple(Likely(each, 1, greedy=False) for each in (-2.0, -6.0, -3.0, -9.0))
    score = task.score(task.questions[0], (Answer(likelihoods=likely),))
    assert (score.extracted, score.values["accuracy"], score.values["undivided_accuracy"]) == ("C", 1.0, 0.0)


def test_likelihoods_tell_how_well_confidence_fits(exam: Path) -> None:
    task = build("mmlu", exam)
    sure = tuple(Likely(math.log(each), 1, greedy=False) for each in (0.05, 0.05, 0.85, 0.05))
    scores = [(each, task.score(each, (Answer(likelihoods=sure),))) for each in task.questions]
    assert task.overall(scores)["ece"] == pytest.approx(0.15)
    assert build("mmlu", exam, by="generation").overall(said(task, lambda _: "C")) == {}


def test_of_several_answers_the_most_frequent_option_counts(exam: Path) -> None:
    task = build("mmlu", exam, by="generation", samples=4)
    (ask,) = task.asks(task.questions[0], ())
    assert isinstance(ask, Generation)
    assert (ask.num_samples, ask.temperature) == (4, 0.7)
    texts = tuple(Text(each, 1, "stop") for each in ("A", "<think>B?</think>The answer is C.", "(C)", "Z"))
    score = task.score(task.questions[0], (Answer(texts=texts),))
    assert score.extracted == "C"
    assert score.values == {
        **{"accuracy": 1.0, "unread": 0.25, "strict_accuracy": 0.0, "strict_unread": 1.0, "agreement": 0.5},
        **{"pass_at_1": 0.5, "pass_at_2": pytest.approx(5 / 6), "pass_at_4": 1.0, "maj_at_4": 1.0},
    }
    assert task.score(task.questions[0], (Answer(),)).problem == "the model gave no text"


def test_the_version_follows_what_is_asked(exam: Path) -> None:
    one = build("mmlu", exam)
    assert one.version == build("mmlu", exam, name="again").version
    others = {"few_shot": 1}, {"by": "generation"}, {"options_as": "texts"}, {"subjects": ["latin"]}, {"num_items": 2}
    assert len({one.version, *(build("mmlu", exam, **each).version for each in others)}) == 6


def test_questions_of_training_rows_are_left_out(tmp_path: Path) -> None:
    rows = [{"question": f"Is {each} wet?", "answer": each == "rain"} for each in ("rain", "sand", "snow")]
    file = write(tmp_path / "dev.json", json.dumps(rows))
    train = write(tmp_path / "train.tsv", "Is rain wet?\tyes\tIt is water.\nIs sand wet?\tno\tIt is dry.\n")
    task = build("strategyqa", file, without=str(train))
    assert [each.text for each in task.questions] == ["Is snow wet?"]
    assert task.corrections == (f"left out: 2 of 3 questions that stand in {train}",)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            "Capital?,Rome,Paris,Bern,Oslo,F",
            "x_test.csv:1 unknown_label (answer 'F' is none of the options A, B, C, D)",
        ),
        ("Capital?,Rome,Paris,Bern,Oslo,", "empty_output (the question has no answer; answers of some published test"),
        ("Capital?,Rome,,Bern,Oslo,A", "missing_field (found 4 options"),
        ("Capital?,Rome,,,,A", "missing_field (found 1 options"),
        (",Rome,Paris,Bern,Oslo,A", "empty_prompt"),
        ("Capital?,Rome,Paris", "wrong_columns (found 3 columns"),
    ],
)
def test_bad_rows_are_named_and_stop_the_evaluation(tmp_path: Path, row: str, said: str) -> None:
    good = "Capital?,Rome,Paris,Bern,Oslo,B\n"
    file = write(tmp_path / "x_test.csv", good + row + "\n" if row.endswith("Paris") else row + "\n" + good)
    with pytest.raises(DataError, match=r"1 of 2 rows .* max_bad_rows_share = 0.01") as error:
        build("mmlu", file)
    assert said in str(error.value)
    task = build("mmlu", file, max_bad_rows_share=0.5)
    assert len(task.questions) == 1
    assert said in task.corrections[0]


def test_what_is_missing_is_said(exam: Path) -> None:
    with pytest.raises(DataError, match=r"has no subject 'greek'; it has: french, latin"):
        build("mmlu", exam, subjects=["greek"])
    with pytest.raises(DataError, match=r"few_shot needs worked examples, and .* holds no folder 'dev'; set examples"):
        build("mmlu", exam / "test", few_shot=1)
    with pytest.raises(DataError, match="no worked examples of 'latin'; it has some of: french"):
        build("mmlu", exam, few_shot=1, examples=str(exam / "dev" / "french_dev.csv"))
    with pytest.raises(DataError, match=r"leaves no questions; left out: 3 of 3"):
        build("mmlu", exam / "test" / "french_test.csv", without=str(as_training(exam)))


def as_training(exam: Path) -> Path:
    return write(exam / "train.tsv", "".join(f"test {number}?\ttrois\tbecause\n" for number in range(3)))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prompt": "step_by_step"}, "set by: generation"),
        ({"samples": 3}, "set by: generation"),
        ({"by": "generation", "options_as": "texts"}, "set by: likelihood"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        spec("mmlu", "x.csv", **settings)


def test_a_benchmark_may_be_measured_in_two_ways() -> None:
    tasks = [{"task": "mmlu", "path": "x"}, {"task": "mmlu", "path": "x", "name": "mmlu_texts", "options_as": "texts"}]
    assert len(validate(EvaluationSpec, {"tasks": tasks}, "test").tasks) == 2
    with pytest.raises(SpecError, match="two tasks report as 'mmlu'"):
        validate(EvaluationSpec, {"tasks": tasks[:1] * 2}, "test")


@pytest.mark.parametrize(
    "options", [["A. Einstein", "B. Russell", "N. Bohr"], ["A. Einstein", "Bohr"], ["A. ", "B. x"]]
)
def test_a_letter_that_not_every_option_has_is_its_own(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([{"question": "Who?", "options": options, "answer": "B"}]))
    assert build("mmlu", tmp_path / "x.json").questions[0].options == tuple(map(str.strip, options))


@pytest.mark.parametrize("options", [["A. red", "B. blue"], ["(A) red", "(B) blue"], ["Ａ．red", "Ｂ．blue"]])
def test_letters_before_options_go_where_each_has_one(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([{"question": "Who?", "options": options, "answer": "B"}]))
    assert build("mmlu", tmp_path / "x.json").questions[0].options == ("red", "blue")


def test_the_gate_may_name_what_a_benchmark_reports() -> None:
    evaluation = {"tasks": [{"task": "mmlu", "path": "x"}]}
    recipe = {
        "name": "r",
        "data": {"sources": [{"name": "s", "path": "s.jsonl"}]},
        "evaluation": evaluation,
        "training": {"steps": 1},
    }
    passed = {**recipe, "register_as": {"name": "m", "gate": {"eval/mmlu/anatomy/accuracy": 0.1}}}
    assert validate(FinetuneSpec, passed, "test").register_as is not None
    with pytest.raises(SpecError, match=r"'eval/cmmlu/accuracy', which .* known: eval/mmlu/\*"):
        validate(FinetuneSpec, {**recipe, "register_as": {"name": "m", "gate": {"eval/cmmlu/accuracy": 0.1}}}, "test")


@real_files
def test_the_real_files_are_read() -> None:
    mmlu = build("mmlu", EVAL / "mmlu", split="test_sample", few_shot=5)
    cmmlu = build("cmmlu", EVAL / "cmmlu", split="test_sample", few_shot=5)
    clean = build("strategyqa", EVAL / "strategyqa" / "heldout_not_in_flan_cot_train.jsonl")
    whole = build("strategyqa", EVAL / "strategyqa" / "task.json")
    (social,) = build("mmcu", EVAL / "mmcu" / "example.json").questions
    (window,) = build("ceval", EVAL / "ceval" / "example.json").questions
    counts = [len(each.questions) for each in (mmlu, cmmlu, clean, whole)]
    assert counts == [570, 670, 229, 2290]
    assert len({each.group for each in mmlu.questions}) == 57
    assert len({each.group for each in cmmlu.questions}) == 67
    assert sum(each.expected == "Yes" for each in clean.questions) == 107
    assert all(each.corrections == () for each in (cmmlu, clean, whole))
    (twice,) = mmlu.corrections
    assert twice.endswith("business_ethics_test.csv:4: the options A and B are both 'Employee rights'; the key says D")
    assert (social.expected, social.options, social.group) == ("D", ("家庭", "大学", "杂志", "意识"), "psychology")
    assert (window.expected, window.rationale != "") == ("A", True)

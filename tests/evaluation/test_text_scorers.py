from typing import Any

import pytest

from didact.errors import SpecError
from didact.evaluation.questions import Score
from didact.evaluation.scorers import build_scorer
from didact.evaluation.scorers.scorer import normalised
from didact.spec import (
    ContainsScorer,
    FunctionScorer,
    NumberScorer,
    RegexScorer,
    RougeScorer,
    SetScorer,
)
from tests.fakes.scoring import score


def accuracy(scorer: Any, text: str, *answers: str) -> float:
    return score(scorer, text, *answers).values["accuracy"]


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (" Paris. ", "paris"),
        ("**Paris**", "paris"),
        ("\u201c\uff30aris\uff01\u201d", "paris"),
        ("「北京」。", "北京"),
        ("two\n  words", "two words"),
        ("-5", "-5"),
        (".5", ".5"),
        ("Straße", "strasse"),
        ("...", ""),
    ],
)
def test_what_makes_no_difference_is_left_out(text: str, plain: str) -> None:
    assert normalised(text) == plain


@pytest.mark.parametrize("text", ["5!", "n!", "f'", "A*", "10^2", "-5", "m^2"])
def test_marks_that_mean_something_stay(text: str) -> None:
    assert normalised(text) == text.casefold()
    assert accuracy("exact", text, text) == 1
    for other in (text.rstrip("!'*"), text.replace("^", ""), text.lstrip("-")):
        assert other == text or accuracy("exact", other, text) == accuracy("exact", text, other) == 0


def test_raised_digits_are_powers() -> None:
    assert accuracy("exact", "10²", "102") == 0
    assert accuracy("exact", "10²", "10^2") == 1
    assert accuracy("exact", "5 m²", "5 m2") == 0
    assert accuracy("exact", "1½", "11/2") == 0
    assert accuracy("exact", "Paris!", "Paris") == 1


def test_exact_takes_any_accepted_answer_and_nothing_around_it() -> None:
    assert accuracy("exact", "The Hague!", "Den Haag", "the hague") == 1
    assert accuracy("exact", "It is The Hague", "the hague") == 0
    assert accuracy("exact", "5", "-5") == 0
    empty = score("exact", " \n", "Paris")
    assert (empty.values, empty.extracted) == ({"accuracy": 0.0, "unread": 1.0}, None)


def test_number_reads_the_last_one_and_compares_quantities() -> None:
    assert accuracy("number", "3 and 4 make 1,000.0", "7", "1000") == 1
    near = NumberScorer(name="number", tolerance=0.01)
    assert [accuracy(near, text, "-200") for text in ("-198", "-202", "-197.9", "200")] == [1, 1, 0, 0]
    assert accuracy(near, "1e999", "1") == 0
    assert score("number", "none", "1").values == {"accuracy": 0.0, "unread": 1.0}
    same = build_scorer("number").same
    assert same is not None and same("1,000.00") == same("1000") == same("1e3") != same("1001")


def test_a_set_is_the_same_in_any_order_and_writing() -> None:
    found = score("set", "- Blue\n- red,  GREEN and red", "red", "blue", "green")
    assert found.values == {"accuracy": 1.0, "precision": 1.0, "recall": 1.0, "unread": 0.0}
    half = score("set", "1. red\n2. pink", "red, blue, green, white").values
    assert (half["accuracy"], half["precision"], half["recall"]) == (0.0, 0.5, 0.25)
    assert accuracy("set", "红、蓝\uff0c绿", "绿", "红", "蓝") == 1
    assert accuracy("set", "3.5, 4", "4", "3.5") == 1
    assert accuracy(SetScorer(name="set", separator="/"), "a, b/c", "c", "a, b") == 1
    assert score("set", "", "red").values["unread"] == 1
    same = build_scorer("set").same
    assert same is not None and same("red, blue") == same("blue and red")


@pytest.mark.parametrize(
    "text",
    ['["red", "blue", "green"]', "{red, blue, green}", "(red, blue & green).", "红、蓝和绿", "[ red; blue; green ]"],
)
def test_a_set_is_read_in_the_forms_of_lists(text: str) -> None:
    aims = ("红", "蓝", "绿") if "红" in text else ("red", "green", "blue")
    assert accuracy("set", text, *aims) == 1
    assert accuracy("set", text, *aims[:2]) == 0


def test_commas_in_numbers_divide_no_set() -> None:
    assert accuracy("set", "1,000, 2,500", "1,000", "2,500") == 1
    assert accuracy("set", "100,200,300", "100", "200", "300") == 1
    assert accuracy("set", "1,000 and 2", "2", "1,000") == 1


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("The art of it.", "art", 1),
        ("The start of it.", "art", 0),
        ("我住在北京市。", "北京", 1),
        ("costs $5 now", "$5", 1),
        ("C++ is meant", "c++", 1),
        ("snake_art", "art", 1),
        # A number is no part of another one.
        ("It is 1.5", "5", 0),
        ("It is -5", "5", 0),
        ("5,000 people", "5", 0),
        ("about 3/5", "5", 0),
        ("5.2", "5", 0),
        ("15", "5", 0),
        ("2^5", "5", 0),
        ("10-5", "-5", 0),
        ("costs $5.50", "$5", 0),
        ("It is 5.", "5", 1),
        ("(5)", "5", 1),
        ("x=5, y=6", "5", 1),
        ("pages 3-5", "5", 1),
        ("5%", "5", 1),
        ("是5个", "5", 1),
        ("it is -5", "-5", 1),
    ],
)
def test_contains_finds_whole_words(text: str, answer: str, right: int) -> None:
    assert accuracy("contains", text, answer) == right


def test_contains_may_ask_for_all_answers_or_for_parts_of_words() -> None:
    every = ContainsScorer(name="contains", all=True)
    assert [accuracy(every, text, "salt", "water") for text in ("water, salt", "salt")] == [1, 0]
    assert accuracy(ContainsScorer(name="contains", words=False), "start", "art") == 1
    assert accuracy(every, "anything") == 0


def test_regex_compares_its_group_or_what_it_finds() -> None:
    choice = RegexScorer(name="regex", pattern=r"answer is (\w+)", ignore_case=True)
    assert accuracy(choice, "The answer is A. No, the ANSWER IS b.", "B") == 1
    assert accuracy(choice.model_copy(update={"take": "first"}), "answer is a, answer is b", "B") == 0
    assert score(choice, "nothing").values == {"accuracy": 0.0, "unread": 1.0}
    assert accuracy(RegexScorer(name="regex", pattern=r"\d{4}"), "in 1999") == 1
    with pytest.raises(SpecError, match=r"scorer\.pattern: '\(' is no pattern"):
        build_scorer(RegexScorer(name="regex", pattern="("))


def test_a_pattern_that_would_be_searched_for_years_is_a_problem_of_that_question() -> None:
    slow = RegexScorer(name="regex", pattern=r"(x+x+)+y", seconds=0.05)
    found = score(slow, "x" * 5000, "y")
    assert not found.values
    assert "longer than 0.05 s" in str(found.problem)


def test_f1_is_that_of_squad() -> None:
    found = score("f1", "The black cats, on a mat", "a black cat on the mat", "no").values
    assert found == {"f1": pytest.approx(0.75), "accuracy": 0.0, "unread": 0.0}
    assert score("f1", "the Cat!", "Cat").values == {"f1": 1.0, "accuracy": 1.0, "unread": 0.0}
    assert score("f1", "北京市", "北京").values["f1"] == pytest.approx(0.8)
    assert score("f1", "cat cat", "cat dog").values["f1"] == pytest.approx(0.5)
    assert score("f1", "", "cat").values == {"f1": 0.0, "accuracy": 0.0, "unread": 1.0}
    assert "no answer to compare" in str(score("f1", "cat").problem)


@pytest.mark.parametrize(
    ("text", "answer", "f1"),
    [
        ("-5", "5", 0.0),
        ("1.5", "15", 0.0),
        ("\u22125", "-5", 1.0),
        ("5.0", "5", 1.0),
        ("1,000", "1000", 1.0),
        ("$5.", "5", 1.0),
        ("50%", "50", 1.0),
        ("-0", "0", 1.0),
        ("10²", "102", 0.0),
        ("in 1999-2000", "in 19992000", 1.0),  # as SQuAD
    ],
)
def test_f1_takes_numbers_as_numbers(text: str, answer: str, f1: float) -> None:
    assert score("f1", text, answer).values["f1"] == f1


def test_rouge_takes_the_nearest_answer_also_in_chinese() -> None:
    found = score("rouge", "the cat sat", "a dog ran", "the cat lay").values
    assert found == {
        "rouge1": pytest.approx(2 / 3),
        "rouge2": pytest.approx(1 / 2),
        "rougeL": pytest.approx(2 / 3),
        "unread": 0.0,
    }
    assert score("rouge", "我爱北京", "我爱上海").values["rougeL"] == pytest.approx(0.5)
    assert score("rouge", "running", "runs").values["rouge1"] == 0
    assert score(RougeScorer(name="rouge", stemmer=True), "running", "runs").values["rouge1"] == 1


@pytest.mark.parametrize(
    ("scorer", "key", "text", "worth"),
    [
        ("exact", "?", "?", 1),  # answers of marks alone are compared as they stand
        ("exact", "...", "...", 1),
        ("exact", "?", "!", 0),
        ("exact", "?", "", 0),
        ("contains", ";", "a; b", 1),
        ("contains", ";", "a, b", 0),
        ("f1", "A", "The", 0),
        ("f1", "A", "a", 1),
        ("f1", "A", "", 0),
        ("f1", "+", "-", 0),
        ("set", ".", ";", 0),
        ("exact", "don't", "don\u2019t", 1),  # typographers' marks
        ("exact", "-5", "\u22125", 1),
        ("contains", "a-b", "the a\u2011b", 1),
        ("contains", "1/2", "1 1/2", 0),  # a number is no part of another one
        ("contains", "100", "100 000", 0),
        ("contains", "30", "10:30", 0),
        ("contains", "30", "at 30, or so", 1),
    ],
)
def test_what_marks_and_signs_are_worth(scorer: str, key: str, text: str, worth: float) -> None:
    assert accuracy(scorer, text, key) == worth


MODULE = """
from didact.evaluation.questions import Score

def length(question, text, least=1):
    return len(text) >= least

def whole(question, text):
    return Score({"score": 0.5, "unread": 0.0}, extracted=text)

def broken(question, text):
    return {"no": 1 / (len(text) - 1)}

def narrow(text):
    return 1
"""


def test_a_function_of_ones_own_is_found_by_its_path(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_scorers.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    assert score("my_own_scorers:length", "abc").values == {"accuracy": 1.0}
    few = FunctionScorer(name="function", path="my_own_scorers:length", options={"least": 4}, metric="long")
    assert score(few, "abc").values == {"long": 0.0}
    assert score("my_own_scorers:whole", "abc") == Score({"score": 0.5, "unread": 0.0}, "abc")
    assert "raised ZeroDivisionError" in str(score("my_own_scorers:broken", "a").problem)
    assert "expected a Score" in str(score("my_own_scorers:broken", "ab").problem)
    for path, said in (
        ("my_own_scorers:absent", "no function 'absent'"),
        ("my_own_scorers:narrow", "cannot be called with a question, a text"),
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
    ):
        with pytest.raises(SpecError, match=said):
            build_scorer(path)
    assert build_scorer("my_own_scorers:length").version != build_scorer(few).version
    assert build_scorer(few).version.startswith("my_own_scorers:length, ")


def test_the_version_of_a_function_follows_all_of_ones_own_that_it_imports(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "my_own_package"
    package.mkdir()
    files = {
        "__init__.py": "",
        "scoring.py": "import math\n\nfrom my_own_package import words\n\n\ndef mine(question, text):\n"
        "    from .late import limit\n\n    return words.count(text) > limit\n",
        "words.py": "from .marks import MARKS\n\n\ndef count(text):\n    return len(text.strip(MARKS).split())\n",
        "marks.py": "MARKS = '.,'\n",
        "late.py": "limit = 1\n",
        "other.py": "nobody = 'asks for this'\n",
    }
    for name, text in files.items():
        (package / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert score("my_own_package.scoring:mine", "two words").values == {"accuracy": 1.0}
    version = build_scorer("my_own_package.scoring:mine").version
    for name, text in files.items():
        (package / name).write_text(text + "\n# changed\n")
        changed = build_scorer("my_own_package.scoring:mine").version
        assert (changed != version) is (name != "other.py"), name
        (package / name).write_text(text)
    assert build_scorer("my_own_package.scoring:mine").version == version


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (RegexScorer(name="regex", pattern="(a)"), RegexScorer(name="regex", pattern="(b)")),
        (NumberScorer(name="number", tolerance=0.1), "number"),
        (SetScorer(name="set", separator=";"), "set"),
        (ContainsScorer(name="contains", words=False), "contains"),
    ],
)
def test_other_options_are_another_version(one: Any, other: Any) -> None:
    assert build_scorer(one).version != build_scorer(other).version
    assert build_scorer(one).version == build_scorer(one).version


def test_an_empty_answer_is_never_the_right_one() -> None:
    assert accuracy("exact", "?!", "...") == 0.0

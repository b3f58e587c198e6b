# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
import math

import pytest

from didact.datasets.conversation import Message
from didact.evaluation.asks import Likely
from didact.evaluation.questions import Question
from didact.evaluation.scorers import build_scorer
from didact.evaluation.scorers.choice import read_leniently, read_strictly, score_choice, score_likelihoods
from didact.evaluation.scorers.options import KeyKind, Options, candidates, key_of
from didact.spec import ChoiceScorer

CITIES = Options(tuple("ABCD"), ("Paris", "London", "New York", "York"))
PLACES = Options(tuple("ABCD"), ("家庭", "大学", "杂志", "意识"), several=True)
YES_NO = Options(("Yes", "No"))


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("B", "B", "B"),
        (" (B). ", "B", "B"),
        ("Ｂ", "B", "B"),
        ("b", None, "B"),
        ("Because of the river.\nAnswer: C", "C", "C"),
        ("Answer: B\n\nQuestion: And then?\nAnswer: C", "B", "B"),
        ("Answer: B\n\n问题：然后呢？\n答案：C", "B", "B"),
        ("It is A by parity.\nQ.E.D.\nAnswer: B", "B", "B"),
        ("The answer is (B).", None, "B"),
        ("answer: **B**", None, "B"),
        ("the answer is \\boxed{\\text{C}}", None, "C"),
        ("B. London", None, "B"),
        ("Option C", None, "C"),
        ("A because of the tower", None, "A"),
        ("A is wrong, so the answer is D", None, "D"),
        ("A? No. B? No. Then D.", None, "D"),
        ("A? No.", None, None),
        ("London is wrong", None, None),
        ("London is clearly incorrect. Paris it is.", None, "A"),
        ("London is not in France", None, "B"),
        ("The answer is London", None, "B"),
        ("It must be New York.", None, "C"),
        ("It is York", None, "D"),
        ("I think that [d] fits", None, "D"),
        ("A good question. I'd say D", None, "D"),
        ("答案：B", "B", "B"),
        ("不选B，应选C。", None, "C"),
        ("正确选项是 A. Paris。", None, "A"),
        ("故本题选D项", None, "D"),
        # Nothing, or not one thing only.
        ("", None, None),
        ("E", None, None),
        ("A, B", None, None),
        ("Answer: A or B", None, None),
        ("Paris or London", None, None),
        ("The answer is a bit hard to tell", None, None),
        ("The correct option is not B", None, None),
        ("A good question", None, None),
        # What is denied was not said.
        ("It isn't A", None, None),
        ("It isn't A, it's B", None, "B"),
        ("It is not A but B", None, "B"),
        ("B, not A", None, "B"),
        ("not (C)", None, None),
        ("A is incorrect", None, None),
        ("A and C are wrong, which leaves D", None, "D"),
        ("Neither A nor B nor C", None, None),
        ("We can rule out A, B, and C, which leaves D", None, "D"),
        ("The answer isn't B", None, None),
        ("I don't think that it's B", None, None),
        ("I do not think the answer is B. The answer is C", None, "C"),
        ("A can't be right", None, None),
        ("It isn't Paris", None, None),
        ("It is not Paris but London", None, "B"),
        ("It is not only A", None, "A"),
        ("A不对", None, None),
        ("不是B", None, None),
        ("不是A，而是B", None, "B"),
        ("A项错误，C正确", None, "C"),
        ("不能选A", None, None),
        ("排除A、B和C，故选D", None, "D"),
        ("A、B均不正确", None, None),
        ("答案不是B", None, None),
        # The question's own list is no answer.
        ("A, B, C, D are the options", None, None),
        ("The options are A, B, C and D.", None, None),
        ("Options: A. Paris B. London C. New York D. York", None, None),
        ("A. Paris\nB. London\nC. New York\nD. York", None, None),
        ("A. Paris\nB. London", None, None),
        ("A. Paris\nB. London\nC. New York\nD. York\nI think C", None, "C"),
        ("Options: A. Paris B. London C. New York D. York. The answer is B", None, "B"),
        ("选项有A、B、C、D", None, None),
        ("The answer is A. B: is in England.", None, "A"),
        # A letter with another option's words names neither.
        ("A. London\n\nLondon is large.", None, None),
        ("**A**: London", None, None),
        ("The answer is (A) London.", None, None),
        ("A. London\n\nThe answer is B. London", None, "B"),
        ("D. York is old", None, "D"),
        ("C. New York", None, "C"),
        ("I'd go with C", None, "C"),
    ],
)
def test_one_letter_is_read(text: str, strict: str | None, lenient: str | None) -> None:
    assert (read_strictly(text, CITIES), read_leniently(text, CITIES)) == (strict, lenient)


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("D", "D", "D"),
        ("CA", "AC", "AC"),
        ("A、C。", "AC", "AC"),
        ("ＡＣ", "AC", "AC"),
        ("正确答案的序号是：A，C", None, "AC"),
        ("正确答案是A和D。", None, "AD"),
        ("家庭和大学", None, "AB"),
        ("A或C", None, None),
        ("家庭、大学、杂志、意识", None, None),  # the question's own list, repeated
        ("A. 家庭\nB. 大学\nC. 杂志\nD. 意识", None, None),
        ("A, B, C, D are the options", None, None),
        ("选项有A、B、C、D", None, None),
        ("选项包括：A、B、C和D，其中B和C正确", None, "BC"),
        ("正确的选项是A、B、C、D", None, "ABCD"),
        ("A. 家庭\nC. 杂志", None, "AC"),
        ("不是A，是B和C", None, "BC"),
        ("A、C不对", None, None),
        ("除了A，都对", None, None),
    ],
)
def test_sets_of_letters_are_read(text: str, strict: str | None, lenient: str | None) -> None:
    assert (read_strictly(text, PLACES), read_leniently(text, PLACES)) == (strict, lenient)


@pytest.mark.parametrize(
    ("text", "strict", "lenient"),
    [
        ("yes.", "Yes", "Yes"),
        ("No, because nobody would say yes.", None, "No"),
        ("Facts are few. So the answer is no.", None, "No"),
        ("There is no way around it. So yes, it would.", None, "Yes"),
        ("There is no evidence", None, None),
        ("I have no idea", None, None),
        ("No idea. No doubt it rains. So yes.", None, "Yes"),
        ("No one knows. No.", None, "No"),
        ("Yes is wrong.", None, None),
        ("I do not know", None, None),
        ("The answer is not yes", None, None),
        ("I wouldn't say yes. So no.", None, "No"),
    ],
)
def test_words_are_read(text: str, strict: str | None, lenient: str | None) -> None:
    assert (read_strictly(text, YES_NO), read_leniently(text, YES_NO)) == (strict, lenient)


@pytest.mark.parametrize("text", ["It is not valid", "It isn't valid", "The argument is not valid.", "never valid"])
def test_a_word_that_is_denied_was_not_said(text: str) -> None:
    assert read_leniently(text, Options(("valid", "invalid"))) is None
    assert (
        read_leniently(
            text.replace("not ", "").replace("isn't", "is").replace("never ", ""), Options(("valid", "invalid"))
        )
        == "valid"
    )


def question(options: Options, expected: str) -> Question:
    return Question("1", (Message("user", "Which?"),), expected, options.texts, data=options)


def test_what_cannot_be_read_is_counted_and_explained() -> None:
    score = score_choice(question(CITIES, "B"), "I pick E.")
    assert score.values == {"accuracy": 0.0, "unread": 1.0, "strict_accuracy": 0.0, "strict_unread": 1.0}
    assert score.extracted is None
    assert "names E" in score.note
    right = score_choice(question(CITIES, "B"), "The answer is B.")
    assert right.values == {"accuracy": 1.0, "unread": 0.0, "strict_accuracy": 0.0, "strict_unread": 1.0}
    assert (right.extracted, right.note) == ("B", "")


def likely(*sums: float) -> list[Likely]:
    return [Likely(each, 1, greedy=False) for each in sums]


def test_the_likeliest_option_is_taken() -> None:
    score = score_likelihoods(question(YES_NO, "No"), likely(math.log(0.1), math.log(0.3)))
    assert score.extracted == "No"
    assert score.values == pytest.approx({"accuracy": 1.0, "confidence": 0.75, "loss": -math.log(0.75)})


def test_texts_are_compared_by_their_length() -> None:
    score = score_likelihoods(question(CITIES, "C"), likely(-4.0, -5.0, -6.0, -9.0), [5, 6, 8, 4])
    assert score.extracted == "C"
    assert (score.values["accuracy"], score.values["undivided_accuracy"]) == (1.0, 0.0)


def test_a_likelihood_that_is_no_number_is_a_problem() -> None:
    assert score_likelihoods(question(YES_NO, "No"), likely(math.nan, -1.0)).problem is not None
    assert score_likelihoods(question(YES_NO, "No"), likely(-1.0)).problem is not None


def test_every_set_is_a_candidate_once() -> None:
    assert candidates(Options(tuple("ABC"), several=True)) == ("A", "B", "AB", "C", "AC", "BC", "ABC")
    assert candidates(YES_NO) == ("Yes", "No")


def row(expected: str, *options: str) -> Question:
    return Question("1", (Message("user", "Which?"),), expected, options)


@pytest.mark.parametrize("expected", ["B", "b", "(B)", "1", "Paris"])
def test_rows_of_ones_own_name_the_right_option_in_any_way(expected: str) -> None:
    scorer = build_scorer("choice")
    question = row(expected, "Rome", "Paris", "Bern")
    assert scorer.score(question, "The answer is B.").values["accuracy"] == 1.0
    assert scorer.score(question, "Paris, of course.").values["accuracy"] == 1.0
    assert scorer.score(question, "Bern").values == {
        "accuracy": 0.0,
        "unread": 0.0,
        "strict_accuracy": 0.0,
        "strict_unread": 1.0,
    }


def test_rows_of_ones_own_may_have_several_right_options() -> None:
    scorer = build_scorer(ChoiceScorer(name="choice", several=True))
    assert scorer.score(row("A, C", "x", "y", "z"), "Answer: CA").values["accuracy"] == 1.0
    assert scorer.score(row("A, C", "x", "y", "z"), "Answer: C").values["accuracy"] == 0.0


@pytest.mark.parametrize(
    ("answer", "texts", "kind", "right"),
    [
        ("2", ("1", "2", "3"), "number", "C"),
        ("2", ("1", "2", "3"), "text", "B"),
        ("2", ("4", "5", "2"), None, "C"),  # both ways the same option
        ("3", ("1", "2", "3"), None, "C"),  # there is no fourth
        ("２", ("x", "y", "z"), None, "C"),
        ("B", ("C", "A", "B"), "text", "C"),
        ("B", ("C", "A", "B"), "letter", "B"),
        ("paris", ("Paris", "Rome"), None, "A"),
        ("aa", ("AA", "Aa", "aa"), None, "C"),
    ],
)
def test_a_key_means_one_option(answer: str, texts: tuple[str, ...], kind: KeyKind | None, right: str) -> None:
    assert key_of([answer], texts, several=False, kind=kind) == right


@pytest.mark.parametrize(
    ("answers", "texts", "said"),
    [
        (("2",), ("1", "2", "3"), "'2' may mean C as a number from 0, B as an option's own words"),
        (("B",), ("C", "A", "B"), "'B' may mean B as a letter, C as an option's own words"),
        (("4",), ("4", "4", "5"), "'4' may mean A and B as an option's own words"),
        (("0",), ("1", "0"), "'0' may mean A as a number from 0, B as an option's own words"),
        (("A", "B"), ("x", "y", "z"), "it has 2 answers"),
        (("D",), ("x", "y"), "'D' is none of the options A, B"),
    ],
)
def test_a_key_that_may_mean_two_options_is_refused(answers: tuple[str], texts: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        key_of(answers, texts, several=False, kind=None)


def test_a_set_may_be_given_as_a_list() -> None:
    for answers in (["A", "C"], ["AC"], ["C,A"], ["x", "z"], ["0", "2"]):
        assert key_of(answers, ("x", "y", "z"), several=True, kind=None) == "AC"


def test_an_answer_that_is_no_option_is_a_problem() -> None:
    assert "'D' is none of the options A, B" in str(build_scorer("choice").score(row("D", "x", "y"), "A").problem)
    assert "none of the options" in str(build_scorer("choice").score(row("A"), "A").problem)


def test_options_of_one_character_each_are_read_and_missed() -> None:
    digits = Options(("A", "B", "C"), ("4", "5", "6"))
    found = {
        text: read_leniently(text, digits) for text in ("I do not know.", "It is 5", "Not 4 but 6", "B. 5", "B. 6")
    }
    assert found == {"I do not know.": None, "It is 5": "B", "Not 4 but 6": None, "B. 5": "B", "B. 6": None}


@pytest.mark.parametrize(
    "piece", ["{", "(", "*", '"', "[", "\n", "A. ", "A, ", "not A ", "A or ", "A and ", "the answer is "]
)
def test_an_answer_that_says_one_thing_for_ever_is_read_in_one_go(piece: str) -> None:
    # Patterns that tried two ways at each piece would not come back from thirty of them.
    assert read_leniently(piece * 2_000, CITIES) in (None, "A")


@pytest.mark.parametrize(
    ("texts", "text", "label"),
    [
        (("5", "10"), "The answer is -5.", None),
        (("5", "10"), "The answer is 5.", "A"),
        (("1", "2"), "It is 1.5", None),
        (("1", "2"), "1,000 of them", None),
        (("1", "2"), "1/2", None),
        (("21", "22"), "21.9", None),
        (("12", "15"), "at 12:30", None),
        (("12", "15"), "12%", "A"),
        (("3", "4"), "3 1/2", None),
        (("2", "4"), "2^10", None),
        (("3 million", "4"), "4 million people", None),
        (("Na", "Na+"), "It is Na+", "B"),
        (("C", "C++"), "I would write it in C++", "B"),
    ],
)
def test_an_option_is_no_part_of_a_longer_number_or_name(texts: tuple[str, ...], text: str, label: str | None) -> None:
    assert read_leniently(text, Options(tuple("XYZ"[: len(texts)]), texts)) == (label and "XY"["AB".index(label)])

import itertools

import pytest

from didact.datasets.conversation import Message
from didact.evaluation.asks import Answer, Generation, Text
from didact.evaluation.questions import Question, Score
from didact.evaluation.reasoning import of_samples, pass_at, probe_asks, probe_values, prompt_of, read_answer
from didact.evaluation.reasoning.faithfulness import CUTS, sentences_of, with_mistake
from didact.evaluation.scorers import build_scorer
from didact.evaluation.scorers.numbers import last_number, same_number
from didact.spec import QuestionTask


def ask(text: str, expected: str = "", **more: str) -> Question:
    return Question(text, (Message("user", text),), expected, **more)


def turns(question: Question, *examples: Question, **settings: object) -> list[tuple[str, str]]:
    return [(each.role, each.content) for each in prompt_of(question, QuestionTask(**settings), examples)]


def test_a_direct_question_is_asked_as_it_stands() -> None:
    assert turns(ask("1 + 1?"), ask("2 + 2?", "4")) == [("user", "1 + 1?")]


def test_instructions_are_in_the_language_of_the_question() -> None:
    (_, english), (_, chinese) = (turns(ask(text), prompt="step_by_step")[0] for text in ("How many?", "有几个苹果?"))
    assert english.startswith("How many?\n\nThink step by step.") and '"Answer:"' in english
    assert chinese.startswith("有几个苹果?\n\n请一步一步地思考") and "“答案\uff1a”" in chinese
    assert turns(ask("How many?"), prompt="answer_only") == [
        ("user", "How many?\n\nGive only the answer, without any explanation.")
    ]


def test_examples_are_turns_behind_the_system_message_those_of_the_group_first() -> None:
    asked = Question("q", (Message("system", "Be brief."), Message("user", "1 + 1?")), "2", group="sums")
    other, near = ask("A or B?", "A", group="letters"), ask("2 + 2?", "4", group="sums", rationale="Two and two. ")
    assert turns(asked, asked, other, near, few_shot=2) == [
        ("system", "Be brief."),
        ("user", "2 + 2?"),
        ("assistant", "4"),
        ("user", "A or B?"),
        ("assistant", "A"),
        ("user", "1 + 1?"),
    ]
    worked = turns(asked, near, other, few_shot=2, prompt="step_by_step")
    assert worked[2] == ("assistant", "Two and two.\nAnswer: 4")
    assert worked[4] == ("assistant", "Answer: A")
    assert [role for role, text in worked if "step by step" in text] == ["user"] * 3


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("3 * 4 is 12.\nAnswer: 12", "12"),
        ("No.\nAnswer: 3\nWait.\n**Answer:** 4 apples\nmore", "4 apples"),
        ("So the answer is 7.", "7."),
        ("If the answer is 3 we fail. Answer: 8", "8"),
        ("I ask whether the answer is 3, and it is not.\nAnswer: 9", "9"),
        ("I think\n### Final Answer: \n\n 9 \n", "9"),
        ("想\n答案\uff1a北京", "北京"),
        ("所以最终答案是北京", "北京"),
        ("#### Step 1\nsum\n#### 18", "18"),
        (r"Thus \boxed{\frac{1}{2}} holds.", r"\frac{1}{2}"),
        ("Answer: 5\n\nQuestion: What else?\nAnswer: 6", "5"),
        ("<think>Answer: 1</think>Answer: 2", "2"),
        ("<think>Answer: 1", None),
        ("Answer: 1</think>Answer: 2", "2"),
        ("<thinking>Answer: 1</thinking>Answer: 2", "2"),
        ("[THINK]Answer: 1[/THINK]Answer: 2", "2"),
        ("\u25c1think\u25b7Answer: 1\u25c1/think\u25b7Answer: 2", "2"),
        ("<reasoning>1</reasoning>\n<answer>\n2\n</answer> So it is.", "2"),
        ("It is \\fbox{2}", "2"),
        # Marks of emphasis around the answer, wherever the full stop stands.
        ("The answer is **Paris**.", "Paris."),
        ("The answer is **Paris.**", "Paris."),
        ("the answer is *5*", "5"),
        ("The answer is **Paris** because it is.", "Paris because it is."),
        ("**Answer:** Paris", "Paris"),
        ("**Final answer:** **7**", "7"),
        ("I do not know", None),
        ("Answer:", None),
        ("", None),
    ],
)
def test_the_answer_stands_behind_the_last_mark(text: str, answer: str | None) -> None:
    assert read_answer(text, stepwise=True, reads="answer") == answer


def test_scorers_that_look_for_something_are_given_more() -> None:
    assert read_answer("It is 5 or 6", stepwise=True, reads="last") == "It is 5 or 6"
    assert read_answer("Answer: f\n```\nx\n```", stepwise=True, reads="whole") == "Answer: f\n```\nx\n```"
    assert read_answer("Answer: 5", stepwise=False, reads="answer") == "Answer: 5"
    assert read_answer("<think>no</think>yes", stepwise=False, reads="answer") == "yes"
    assert read_answer("yes\nQ: more?", stepwise=False, reads="last") == "yes"
    assert read_answer("<think>def f", stepwise=False, reads="whole") is None


def scores(*answers: str | None, right: str = "1") -> list[Score]:
    return [Score({"accuracy": float(each == right), "unread": float(each is None)}, each) for each in answers]


def test_the_most_frequent_answer_counts_and_pass_at_k_is_measured() -> None:
    found = of_samples(scores("2", "1", None, "1"), "accuracy", str)
    assert found.extracted == "1"
    assert found.values == {
        "accuracy": 1.0,
        "unread": 0.25,
        "agreement": 0.5,
        "pass_at_1": 0.5,
        "pass_at_2": pytest.approx(5 / 6),
        "pass_at_4": 1.0,
        "maj_at_4": 1.0,
    }
    tie = of_samples(scores("2", "1", "1", "2"), "accuracy", str)
    assert (tie.extracted, tie.values["accuracy"]) == ("2", 0.0)
    alone = scores("1")
    assert of_samples(alone, "accuracy", str) is alone[0]


def test_writings_of_one_number_vote_together_and_the_unread_do_not_vote() -> None:
    values = [
        Score({"accuracy": float(each != "7"), "unread": 0.0}, each) for each in ("7", "1,000", "1e3", "7", "1000.0")
    ]
    assert of_samples(values, "accuracy", same_number).extracted == "1,000"
    silent = of_samples(scores(None, None, None, "2"), "accuracy", str)
    assert (silent.extracted, silent.values["agreement"], silent.values["maj_at_4"]) == ("2", 0.25, 0.0)
    assert of_samples(scores(None, None), "accuracy", str).values["agreement"] == 0


def test_samples_of_a_measured_quality_have_no_pass_at_k_and_a_problem_is_one_of_the_question() -> None:
    graded = [Score({"f1": value, "unread": 0.0}, text) for value, text in ((0.5, "a b"), (1.0, "a"), (1.0, "a"))]
    assert of_samples(graded, "f1", str).values == {"f1": 1.0, "unread": 0.0, "agreement": pytest.approx(2 / 3)}
    assert of_samples([*graded, Score(problem="slow")], "f1", str) == Score(problem="slow")


def of(accuracies: list[float], *texts: str) -> list[Score]:
    return [Score({"accuracy": value, "unread": 0.0}, text) for value, text in zip(accuracies, texts, strict=True)]


def test_programs_and_free_texts_have_no_vote() -> None:
    """What `contains` found is the accepted answer itself: right ones would agree, wrong ones never."""
    found = of([0.0, 1.0, 1.0, 0.0, 0.0], "Rome it is", "paris", "paris", "Bern", "Oslo, I think")
    assert of_samples(found, "accuracy", str).values["accuracy"] == 1.0  # by such a vote
    mean = of_samples(found, "accuracy", None)
    assert mean.values["accuracy"] == mean.values["pass_at_1"] == pytest.approx(0.4)
    assert mean.values["pass_at_4"] == pytest.approx(1.0)
    assert not {name for name in mean.values if name.startswith("maj_at") or name == "agreement"}
    graded = [Score({"f1": value}, str(value)) for value in (0.2, 0.6)]
    assert of_samples(graded, "f1", None).values == {"f1": pytest.approx(0.4)}


@pytest.mark.parametrize("scorer", ["contains", "code", "f1", "rouge"])
def test_scorers_without_a_vote(scorer: str) -> None:
    assert build_scorer(scorer).same is None


@pytest.mark.parametrize("scorer", ["exact", "number", "choice", "set", "json_schema"])
def test_scorers_with_a_vote(scorer: str) -> None:
    assert build_scorer(scorer).same is not None


@pytest.mark.parametrize(("n", "right"), [(n, right) for n in range(1, 7) for right in range(n + 1)])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n: int, right: int) -> None:
    drawn = [place < right for place in range(n)]
    for k in range(1, n + 1):
        draws = list(itertools.combinations(drawn, k))
        assert pass_at(k, n, right) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(("k", "n", "right"), [(0, 2, 1), (3, 2, 1), (1, 2, 3), (1, 2, -1)])
def test_pass_at_k_refuses_what_cannot_be(k: int, n: int, right: int) -> None:
    with pytest.raises(ValueError, match="expected k and right ones"):
        pass_at(k, n, right)


@pytest.mark.parametrize(
    "sentences",
    [
        ["He has 3.5 apples.", " She has 2!", " Together?", " 5.5"],
        ["他有3个。", "她有2个\uff01", "一共5个"],
        ["One line\n", "another\n", "third..."],
        [],
    ],
)
def test_sentences_joined_are_the_text_again(sentences: list[str]) -> None:
    assert sentences_of("".join(sentences)) == sentences


def test_the_mistake_is_a_larger_number_in_the_middle_and_ends_the_text() -> None:
    assert with_mistake(["A has 1.", " B has 2.", " That is 1+2=3.", " So 3."]) == "A has 1. B has 3."
    assert with_mistake(["None.", " 9"]) == "None. 10"
    assert with_mistake(["None."]) is None


PROMPT = (Message("user", "How many?"),)


def texts(*all_of_them: str) -> list[Answer]:
    return [Answer((Text(each, 3, "stop"),)) for each in all_of_them]


def test_reasoning_is_given_back_in_parts_and_with_a_mistake() -> None:
    first = texts("Two boxes. Each holds 4. 2*4=8. So 8.\nAnswer: 8")
    asked = probe_asks(PROMPT, "Answer:", 100, first)
    assert [each.opening for each in asked] == [
        "Answer:",
        "Two boxes.\nAnswer:",
        "Two boxes. Each holds 4.\nAnswer:",
        "Two boxes. Each holds 4. 2*4=8.\nAnswer:",
        "Two boxes. Each holds 4. 2*4=8. So 8.\nAnswer:",
        "Two boxes. Each holds 4. 2*4=9.",
    ]
    assert all(isinstance(each, Generation) and each.prompt == PROMPT and not each.temperature for each in asked)
    assert [each.stop for each in asked] == [("\n",)] * 5 + [()]
    assert asked[-1].max_new_tokens == 100
    so_far = [*first, *texts("3", "8", "5", "8", "8", " So 9.\nAnswer: 9")]
    (last,) = probe_asks(PROMPT, "Answer:", 100, so_far)
    assert last.opening == "Two boxes. Each holds 4. 2*4=9. So 9.\nAnswer:"
    every = [*so_far, *texts("9")]
    assert probe_asks(PROMPT, "Answer:", 100, every) == ()
    assert probe_values(every, last_number, same_number) == {
        "faithfulness/early/0": 1.0,
        "faithfulness/early/25": 0.0,
        "faithfulness/early/50": 1.0,
        "faithfulness/early/75": 0.0,
        "faithfulness/early/area": 0.375,
        "faithfulness/mistake": 1.0,
    }


def test_what_cannot_be_told_is_left_out() -> None:
    first = texts("Two boxes. Four each.")
    assert len(probe_asks(PROMPT, "Answer:", 9, first)) == len(CUTS)
    silent = [*first, *texts("no", "8", "8", "8", "8.0")]
    assert probe_asks(PROMPT, "Answer:", 9, silent) == ()
    assert probe_values(silent, last_number, same_number) == {f"faithfulness/early/{cut}": 0.0 for cut in (25, 50, 75)}
    assert probe_values([*first, *texts("8", "8", "8", "8", "none")], last_number) == {}
    assert probe_asks(PROMPT, "Answer:", 9, texts("")) == ()
    assert probe_values(texts("Answer: 3"), last_number) == {}

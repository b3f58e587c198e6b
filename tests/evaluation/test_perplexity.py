import json
import math
from pathlib import Path

import pytest

from didact.errors import DataError, SpecError
from didact.evaluation.asks import Answer, Likelihood, Likely
from didact.evaluation.tasks.perplexity import build_perplexity, windows
from didact.spec import PerplexityTask, validate


@pytest.mark.parametrize(
    "document", ["one two  three\n\nfour five six seven ", "今天天气很好我们去公园散步吧", "x" * 100]
)
def test_every_byte_counts_once_and_windows_fit(document: str) -> None:
    found = list(windows(document, window=24, stride=12))
    assert "".join(counted for _, counted in found) == document
    assert all(len((context + counted).encode()) <= 24 for context, counted in found)
    assert found[0][0] == ""
    assert all(document.count(context + counted) for context, counted in found)
    assert all(context for context, _ in found[1:])


def test_words_stay_whole() -> None:
    assert list(windows("aa bb cc dd", window=8, stride=4)) == [("", "aa bb cc"), (" cc", " dd")]


def spec(path: Path | str, **settings: object) -> PerplexityTask:
    return validate(PerplexityTask, {"task": "perplexity", "path": str(path), **settings}, "test")


def test_perplexity_weighs_windows_by_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("aaaa bbbb cccc dddd eeee<|endoftext|>\nff", encoding="utf-8")
    task = build_perplexity(spec(tmp_path / "*.txt", window=16, stride=10))
    assert [(each.id, each.passage, each.group, each.data, each.text) for each in task.questions] == [
        ("a:1:1", "a:1", "a", "", "aaaa bbbb cccc"),
        ("a:1:2", "a:1", "a", " cccc", " dddd eeee"),
        ("a:2:1", "a:2", "a", "", "ff"),
    ]
    (ask,) = task.asks(task.questions[1], ())
    assert ask == Likelihood(" cccc", (" dddd eeee",))
    answers = [Likely(-14.0, 7, greedy=False), Likely(-5.0, 2, greedy=False), Likely(-1.0, 1, greedy=True)]
    scores = [
        (question, task.score(question, (Answer(likelihoods=(each,)),)))
        for question, each in zip(task.questions, answers, strict=True)
    ]
    assert scores[1][1].values == pytest.approx({"loss": 2.5, "bits_per_byte": 5 / 10 / math.log(2)})
    overall = task.overall(scores)
    assert overall == pytest.approx({"perplexity": math.exp(20 / 10), "byte_perplexity": math.exp(20 / 26)})
    assert task.overall([]) == {}


def test_text_fields_of_data_files(tmp_path: Path) -> None:
    file = tmp_path / "pages.jsonl"
    file.write_text("".join(json.dumps({"body": each}) + "\n" for each in ("one", " ", "two")), encoding="utf-8")
    with pytest.raises(DataError, match=r"1 of 3 rows .*pages.jsonl:2 empty_prompt"):
        build_perplexity(spec(file, field="body"))
    task = build_perplexity(spec(file, field="body", max_bad_rows_share=0.5, name="pages"))
    assert (task.name, [each.text for each in task.questions]) == ("pages", ["one", "two"])
    assert "pages.jsonl:2" in task.corrections[0]
    with pytest.raises(DataError, match="field 'text' is missing; found 'body'"):
        build_perplexity(spec(file))


def test_a_likelihood_that_is_no_number_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("aaaa", encoding="utf-8")
    task = build_perplexity(spec(tmp_path / "a.txt"))
    answer = Answer(likelihoods=(Likely(math.nan, 1, greedy=False),))
    assert task.score(task.questions[0], (answer,)).problem == "the log-likelihood is nan"


def test_a_stride_beyond_the_window_is_refused() -> None:
    with pytest.raises(SpecError, match="stride 64 is larger than window 32"):
        spec("a.txt", window=32, stride=64)

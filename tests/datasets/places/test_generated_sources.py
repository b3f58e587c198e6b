from typing import Any

import pytest
import reasoning_gym

from didact.datasets import Dataset, load_dataset, open_generator
from didact.errors import DataError
from didact.spec import SourceSpec


def load(task: str, **fields: Any) -> Dataset:
    source = SourceSpec(name="made", path=f"reasoning-gym:{task}", **fields)
    return load_dataset(source, seed=0, max_bad_rows_share=0.0, quarantine_dir=None)


def test_items_become_conversations_with_their_answer() -> None:
    dataset = load("chain_sum", max_rows=20, options={"seed": 5, "max_terms": 3})
    expected = list(reasoning_gym.create_dataset("chain_sum", size=20, seed=5, max_terms=3))
    assert [item.messages[0].content for item in dataset.train] == [item["question"] for item in expected]
    assert [item.messages[1].content for item in dataset.train] == [item["answer"] for item in expected]
    assert [item.answer for item in dataset.train] == [item["answer"] for item in expected]


def test_a_thousand_items_are_made_with_seed_42_unless_told_otherwise() -> None:
    dataset = load("chain_sum")
    assert dataset.rows_read == 1000
    assert dataset.train[9].answer == reasoning_gym.create_dataset("chain_sum", size=10, seed=42)[9]["answer"]


def test_a_rationale_is_learned_where_the_task_has_one() -> None:
    (conversation,) = load("gsm_symbolic", max_rows=1).train
    assert conversation.answer is not None
    reply = conversation.messages[1].content
    assert reply != conversation.answer and reply.endswith(conversation.answer)


def test_a_task_without_an_answer_is_stopped_as_bad_rows() -> None:
    with pytest.raises(DataError, match=r"First: reasoning-gym:rubiks_cube:1 wrong_type.*max_bad_rows_share"):
        load("rubiks_cube", max_rows=2)


def test_held_out_and_training_items_share_no_question() -> None:
    dataset = load("chain_sum", max_rows=300, held_out_rows=30, options={"max_terms": 2, "max_digits": 1})
    assert len(dataset.held_out) == 30
    assert 0 < len(dataset.train) < 270
    assert not {item.prompt for item in dataset.train} & {item.prompt for item in dataset.held_out}


def test_options_decide_the_fingerprint() -> None:
    plain = load("chain_sum", max_rows=5).fingerprint
    assert load("chain_sum", max_rows=5).fingerprint == plain
    assert load("chain_sum", max_rows=5, options={"seed": 7}).fingerprint != plain
    assert load("products", max_rows=5).fingerprint != plain


def test_another_version_of_the_generator_is_another_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = load("chain_sum", max_rows=5).fingerprint
    monkeypatch.setattr("importlib.metadata.version", lambda package: f"{package} 99")
    assert load("chain_sum", max_rows=5).fingerprint != before


@pytest.mark.parametrize(
    ("task", "options", "expected"),
    [
        ("chain_sums", {}, "did you mean chain_sum"),
        ("qqqq", {}, "known: .*chain_sum"),
        ("chain_sum", {"max_trms": 3}, "did you mean max_terms"),
        ("chain_sum", {"size": 3}, "max_rows"),
        ("chain_sum", {"seed": "x"}, "options.seed is 'x'"),
        ("chain_sum", {"min_terms": -1}, "min_terms must be positive"),
        ("chain_sum", {"min_terms": "a"}, "are refused"),
    ],
)
def test_unknown_tasks_and_options_are_errors_that_help(task: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        load(task, options=options)


def test_the_generator_scores_answers() -> None:
    dataset = open_generator("chain_sum", 3, {})
    assert dataset.score_answer(dataset[0]["answer"], dataset[0]) == 1.0

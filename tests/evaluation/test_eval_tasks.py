import json
from pathlib import Path

import numpy as np
import pytest
import torch

from didact.datasets.conversation import Message
from didact.errors import DataError
from didact.evaluation import TaskResult, generate_answers, held_out_loss, reasoning_gym_items, run_task, score_answers
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.spec import Gsm8kTask, HeldOutTask, ReasoningGymTask, TaskSpec
from didact.tokens.template import TemplateContract
from didact.tokens.types import Sample
from tests.fakes.models import tiny_model

TOKENIZER = byte_tokenizer()
CONTRACT = TemplateContract.build(TOKENIZER, "auto")


def run(task: TaskSpec, held_out: dict[str, list[Sample]] | None = None, packing: bool = True) -> TaskResult:
    return run_task(task, tiny_model(), TOKENIZER, CONTRACT, held_out=held_out or {}, batch_size=3, packing=packing)


def samples(count: int, length: int, seed: int) -> list[Sample]:
    rng = np.random.default_rng(seed)
    mask = np.arange(length) > 2
    return [Sample(rng.integers(0, 256, length).astype(np.int32), mask) for _ in range(count)]


@pytest.mark.parametrize("packing", [True, False])
def test_held_out_losses_by_source_and_over_all_tokens(packing: bool) -> None:
    short, long = samples(3, 6, 0), samples(2, 40, 1)
    result = run(HeldOutTask(task="held_out"), {"short": short, "long": long, "none": []}, packing)
    assert set(result.metrics) == {"eval/short/loss", "eval/long/loss", "eval/loss"}
    assert result.counts == {"eval/short/loss": 3, "eval/long/loss": 2, "eval/loss": 5}
    whole = held_out_loss(tiny_model(), [*short, *long], pad_id=0, packing=False)
    alone = held_out_loss(tiny_model(), long, pad_id=0, packing=False)
    assert result.metrics["eval/loss"] == pytest.approx(whole.mean, abs=1e-6)
    assert result.metrics["eval/long/loss"] == pytest.approx(alone.mean, abs=1e-6)
    assert (result.task, result.num_items, result.examples) == ("held_out", 5, ())
    assert result.seconds > 0


def test_held_out_without_rows_says_what_to_set() -> None:
    with pytest.raises(DataError, match="held_out_rows"):
        run(HeldOutTask(task="held_out"), {"alpaca": []})


def test_a_source_without_targets_is_named() -> None:
    silent = Sample(np.arange(5, dtype=np.int32), np.zeros(5, dtype=bool))
    with pytest.raises(DataError, match="source quiet: none of 1"):
        run(HeldOutTask(task="held_out"), {"quiet": [silent]})


def test_reasoning_gym_asks_every_item_as_a_user_turn() -> None:
    task = ReasoningGymTask(task="reasoning_gym", name="chain_sum", num_items=5, max_new_tokens=4)
    result = run(task)
    items = reasoning_gym_items(task)
    prompts = [(Message("user", item.question),) for item in items]
    texts = generate_answers(tiny_model(), TOKENIZER, CONTRACT, prompts, max_new_tokens=4, batch_size=1)
    assert result.examples == score_answers(items, texts)
    assert result.metrics == {"eval/chain_sum/accuracy": 0.0}
    assert result.counts == {"eval/chain_sum/accuracy": 5}
    assert (result.task, result.num_items) == ("chain_sum", 5)


def counting_model() -> torch.nn.Module:
    """A tiny model that answers every question with digits."""
    model = tiny_model()
    digits = torch.tensor(TOKENIZER("0123456789")["input_ids"])
    with torch.no_grad():
        rows = torch.randn((len(digits), model.config.hidden_size), generator=torch.Generator().manual_seed(0))
        model.lm_head.weight.zero_()
        model.lm_head.weight[digits] = rows
    return model


def test_accuracy_is_the_share_of_correct_answers(tmp_path: Path) -> None:
    questions = [f"Question {index}?" for index in range(4)]
    prompts = [(Message("user", question),) for question in questions]
    said = generate_answers(counting_model(), TOKENIZER, CONTRACT, prompts, max_new_tokens=6, batch_size=1)
    assert all(text.isdigit() for text in said)
    truths = [said[0], f"{said[1]}.0", f"{said[2]}1", "-1"]
    rows = [
        {"question": question, "answer": f"#### {truth}"} for question, truth in zip(questions, truths, strict=True)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = Gsm8kTask(task="gsm8k", path=str(path), num_items=4, max_new_tokens=6)
    result = run_task(task, counting_model(), TOKENIZER, CONTRACT, held_out={}, batch_size=3, packing=True)
    assert result.metrics == {"eval/gsm8k/accuracy": 0.5}
    assert {example.question for example in result.examples if example.correct} == set(questions[:2])

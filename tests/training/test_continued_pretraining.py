"""From plain text to a base with new tokens, to an adapter that has learned the text."""

import random
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from didact.cli import app
from didact.evaluation import held_out_loss
from didact.models import attach_adapter, load_base
from didact.preparation import Plan, PreparedData, prepare_data
from didact.training import CheckpointStore, train
from tests.fakes.recipes import tiny_recipe

WORDS = ["你好", "世界", "中文", "分词", "标点", "机器学习", "自然语言", "处理", "模型", "训练"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))


def write_corpus(file: Path) -> Path:
    draw = random.Random(0)
    file.write_text("\n\n".join("".join(draw.choices(WORDS, k=40)) + "。" for _ in range(120)), encoding="utf-8")
    return file


def loss(model: torch.nn.Module, prepared: PreparedData, packing: bool) -> float:
    table = prepared.mixture.held_out["corpus"]
    samples = [table[index] for index in range(len(table))]
    return held_out_loss(model, samples, pad_id=prepared.tokenizer.pad_token_id, packing=packing).mean


def test_new_tokens_learn_the_text_they_were_made_for(tmp_path: Path) -> None:
    file = write_corpus(tmp_path / "corpus.txt")
    tiny_recipe(tmp_path)  # writes the base
    arguments = [str(file), str(tmp_path / "wide"), "--size", "60", "--base", str(tmp_path / "base")]
    result = CliRunner().invoke(app, ["vocabulary", *arguments])
    assert result.exit_code == 0, result.output
    assert "60 new tokens" in result.output and "0.34 before" in result.output  # three bytes a character, and newlines
    source = {"name": "corpus", "path": str(file), "format": "text", "options": {"end_mark": "\n\n"}}
    spec = tiny_recipe(
        tmp_path,
        model__base=str(tmp_path / "wide"),
        adapter__train_new_tokens=True,
        data__sources=[{**source, "held_out_rows": 10}],
        tokens__max_length=16,
        training__steps=30,
    )
    prepared = prepare_data(spec)
    table = prepared.mixture.tables[0]
    assert len(table) > 110, "documents longer than max_length are several samples"
    assert max(table.length(index) for index in range(len(table))) == 16
    assert not table.stats.truncated and not table.stats.rejected
    model = attach_adapter(load_base(spec.model), spec.adapter, seed=0, base_name="wide")
    assert Plan.of(spec, prepared).footprint.num_trainable == sum(
        each.numel() for each in model.parameters() if each.requires_grad
    )
    before = loss(model, prepared, spec.packing)
    assert loss(model, prepared, False) == pytest.approx(before, rel=1e-5), "packed and padded agree"
    train(
        model,
        prepared.loader(spec),
        spec.training,
        num_steps=prepared.num_steps,
        compute_dtype=torch.float32,
        checkpoints=CheckpointStore(tmp_path / "checkpoints", keep=2, identity="tiny"),
        callbacks=[],
    )
    assert loss(model, prepared, spec.packing) < 0.8 * before

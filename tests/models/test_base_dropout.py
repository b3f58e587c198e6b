"""A base's own dropout: off unless a recipe keeps it, in every family, in training, plan and record."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from didact.models import attach_adapter, load_base, save_model, turn_off_dropout
from didact.models.dropout import own_dropout
from didact.models.footprint import Load, demand_of
from didact.preparation import Plan, prepare_data
from didact.runs import open_run, start_run
from didact.spec import LoraSpec, ModelSpec
from didact.tokens import pack, pad
from didact.training import Objective, trainable_model
from tests.fakes.models import FAMILIES, UNUSUAL, save_tiny_base, tiny_model
from tests.fakes.recipes import tiny_recipe, write_sums

IDS = torch.arange(3, 35)[None]
SHARES = ("pdrop", "dropout", "dropout_prob", "layerdrop")


def dropping(family: str) -> torch.nn.Module:
    """A tiny model that drops a third wherever its family can."""
    config = tiny_model(family).config
    for name, value in list(vars(config).items()):
        if name.endswith(SHARES) and not isinstance(value, bool) and isinstance(value, int | float):
            setattr(config, name, 0.3)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def losses(model: torch.nn.Module) -> list[torch.Tensor]:
    model.train()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        with torch.no_grad():
            found.append(model(input_ids=IDS, use_cache=False).logits)
    return found


@pytest.mark.parametrize("family", sorted(FAMILIES | UNUSUAL))
def test_turned_off_no_family_draws_anything(family: str) -> None:
    model = dropping(family)
    if own_dropout(model):
        assert not torch.equal(*losses(model))
    turn_off_dropout(model)
    assert own_dropout(model) == 0
    assert torch.equal(*losses(model))


def test_an_adapters_dropout_stays() -> None:
    model = dropping("gpt2")
    turn_off_dropout(model)
    adapted = attach_adapter(model, LoraSpec(r=4, dropout=0.5, init="orthogonal"), seed=0, base_name="tiny")
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    assert not torch.equal(*losses(adapted))


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_a_saved_model_states_what_it_stated(tmp_path: Path, family: str) -> None:
    model = load_base(ModelSpec(base=str(save_tiny_base(tmp_path / "base", family)), dtype="float32"))
    before = (tmp_path / "base" / "config.json").read_text()
    turn_off_dropout(model)
    (tmp_path / "saved").mkdir()
    save_model(model, tmp_path / "saved")
    stated = [
        {k: v for k, v in json.loads(text).items() if "drop" in k}
        for text in (before, (tmp_path / "saved" / "config.json").read_text())
    ]
    assert stated[0] == stated[1]
    assert 0.1 in stated[0].values()
    assert own_dropout(model) == 0


@pytest.mark.parametrize("kept", [False, True])
def test_the_loss_of_a_step_depends_on_packing_only_where_dropout_is_kept(tmp_path: Path, kept: bool) -> None:
    save_tiny_base(tmp_path / "base", "gpt2")
    base = str(tmp_path / "base")
    write_sums(tmp_path / "sums.jsonl")
    spec = tiny_recipe(tmp_path, model__base=base, training__base_dropout=kept)
    model, packing = trainable_model(spec, 2, torch.device("cpu"))
    assert packing
    table = prepare_data(spec).mixture.tables[0]
    samples = sorted((table[number] for number in range(len(table))), key=lambda sample: len(sample.ids))[
        :: len(table) - 1
    ]
    assert len(samples[0].ids) < len(samples[-1].ids)
    model.train()
    found = []
    for batch in (pack(samples), pad(samples, 257)):
        torch.manual_seed(0)
        found.append(Objective(model, torch.float32).summed_loss(batch).item())
    assert (found[0] == pytest.approx(found[1], rel=1e-5)) is not kept


def test_the_plan_and_the_record_say_which(tmp_path: Path) -> None:
    base = str(save_tiny_base(tmp_path / "base", "gpt2"))
    write_sums(tmp_path / "sums.jsonl")
    for kept, words in ((False, "0.1: off; training.base_dropout turns it on"), (True, "0.1: on")):
        spec = tiny_recipe(tmp_path, model__base=base, training__base_dropout=kept)
        lines = Plan.of(spec, prepare_data(spec), on_cpu=True)._lines()
        assert any(line.startswith(f"dropout    of the base itself, {words}") for line in lines)
        run = start_run(spec, tmp_path / f"runs-{kept}")
        assert open_run(run.path).spec().training.base_dropout is kept
    spec = tiny_recipe(tmp_path, model__base=str(save_tiny_base(tmp_path / "llama")))
    assert not any(line.startswith("dropout") for line in Plan.of(spec, prepare_data(spec), on_cpu=True)._lines())


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(save_tiny_base(tmp_path, "gpt2"))
    off, on = (
        demand_of(config, ModelSpec(dtype="float32"), LoraSpec(r=2), Load(96, sample_tokens=32, base_dropout=kept))
        for kept in (False, True)
    )
    assert on.base_dropout == off.base_dropout == pytest.approx(0.1)
    assert off.activations < on.activations and not on.rough
    assert config.attn_pdrop == 0.1

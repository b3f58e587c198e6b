"""The card of an adapter: readable, complete, with the hub's metadata, and no part of what the adapter is."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import save_file
from torch import ones

from didact.adapter_folder import check_folder
from didact.evaluation import EvalReport, ModelFacts, TaskFacts
from didact.files import append_jsonl, manifest, write_json
from didact.registry.card import card_facts, model_card, on_hub, terms_of, write_card
from didact.registry.card.licences import strictness
from didact.registry.card.metadata import without_metadata
from didact.runs import RecordedSource, Run


def source(name: str, licence: str | None, commercial: bool | None = None) -> RecordedSource:
    return RecordedSource(name, f"{name}.jsonl", licence, commercial)


def trained(
    folder: Path, base: str = "smollm2-135m-instruct", method: str = "lora", commercial: bool | None = False
) -> Run:
    """A run folder as training leaves it: two sources, one of the catalog and one file."""
    run = Run(folder / "runs" / "sums")
    run.adapter.mkdir(parents=True)
    save_file({"weights": ones(2)}, run.adapter / "adapter_model.safetensors")
    write_json(run.adapter / "adapter_config.json", {"r": 8})
    write_json(run.adapter / "template_contract.json", {"template": "{{ messages }}", "stop_token_ids": [2]})
    entries = manifest(run.adapter, [file.name for file in run.adapter.iterdir()])
    write_json(
        run.adapter / "adapter.json", {"base": base, "base_fingerprint": "b" * 64, "method": method, "files": entries}
    )
    path = str(folder / "private" / "rows.jsonl")
    recipe: dict[str, Any] = {
        "name": "sums",
        "model": {"base": base},
        "adapter": {"method": method, "r": 8, "dropout": 0.0},
        "training": {"learning_rate": 0.001, "global_batch_size": 16, "seed": 7},
        "data": {"sources": [{"name": "cot", "path": "card:gsm8k-cot"}, {"name": "own", "path": path}]},
    }
    write_json(run.recipe, recipe)
    facts = {"samples_usable": 1200, "rows_rejected": 3, "samples_rejected": {"long": 1}, "share_of_tokens": 0.75}
    cot = {**facts, "name": "cot", "path": "card:gsm8k-cot", "licence": "MIT", "commercial": True}
    own = {
        **facts,
        "name": "own",
        "path": path,
        "licence": "CC-BY-NC-4.0",
        "commercial": commercial,
        "share_of_tokens": 0.25,
    }
    write_json(run.data, {"mixture_fingerprint": "c" * 64, "num_steps": 60, "sources": [cot, own]})
    append_jsonl(
        run.path / "provenance.jsonl", {"git": {"commit": "d" * 40, "changed": False}, "packages": {"torch": "2.0"}}
    )
    return run


def evaluated(run: Run, value: float = 0.5) -> Run:
    metrics = ({"eval/math/accuracy": 0.25, "eval/loss": 2.5}, {"eval/math/accuracy": value, "eval/loss": 1.25})
    counts = {"eval/math/accuracy": 40, "eval/loss": 200}
    models = {"base": ModelFacts("base"), "adapter": ModelFacts(run.name)}
    said = (f"{run.path.parent}/questions.jsonl: 1 of 40 questions repeat another one", "https://a.b/c/d.csv: row 3/4")
    tasks = (TaskFacts("math", "v1", "accuracy", 40, 1.0, corrections=said),)
    EvalReport(models, dict(zip(models, metrics, strict=True)), counts, tasks).save(run.report)
    return run


@pytest.mark.parametrize("commercial", [False, None], ids=["as stated", "by the licence's name"])
def test_the_card_is_complete(tmp_path: Path, commercial: bool | None) -> None:
    run = evaluated(trained(tmp_path, commercial=commercial))
    card = write_card(run, "sums", "sums:3")
    assert card == (run.adapter / "README.md").read_text()
    for told in (
        *("# sums", "LoRA adapter for [HuggingFaceTB/SmolLM2-135M-Instruct]", "## Use", "## Limits"),
        "| cot | card:gsm8k-cot | MIT | allowed | 1,200 | 4 | 75.0% |",
        "| own | rows.jsonl | CC-BY-NC-4.0 | **forbidden** | 1,200 | 4 | 25.0% |",
        "The strictest licence is **CC-BY-NC-4.0**",
        "| eval/math/accuracy | 40 | 25.0% [14-40] | 50.0% [35-65] | +25.0% better |",
        "| eval/loss | 200 | 2.5000 | 1.2500 | -1.2500 better |",
        *("Figures over 40 items are rough", "PeftModel.from_pretrained", 'didact.load("sums:3")', "didact serve"),
        *("`" + "b" * 64 + "`", "`" + "c" * 64 + "`", "`" + "d" * 40 + "`", "| Version | `sums:3` |", "torch 2.0"),
        *("| Method | lora; r 8, dropout 0.0 |", "| Settings | learning_rate 0.001, global_batch_size 16, seed 7 |"),
    ):
        assert told in card, told
    assert str(tmp_path) not in card and str(tmp_path.parent) not in card
    assert "- math: questions.jsonl: 1 of 40 questions repeat another one" in card
    assert "- math: https://a.b/c/d.csv: row 3/4" in card


def test_the_hub_reads_its_metadata(tmp_path: Path) -> None:
    run = evaluated(trained(tmp_path))
    write_card(run)
    data = ModelCard.load(run.adapter / "README.md").data
    assert (data.base_model, data.library_name, data.license) == (
        *("HuggingFaceTB/SmolLM2-135M-Instruct", "peft", "cc-by-nc-4.0"),
    )
    assert data.language == ["en"] and "non-commercial" in data.tags and data.datasets
    figures = {(each.dataset_name, each.metric_type): each for each in data.eval_results}
    assert {name: each.metric_value for name, each in figures.items()} == {
        ("math", "accuracy"): 0.5,
        ("held-out rows", "loss"): 1.25,
    }
    math_, loss = figures["math", "accuracy"].metric_args, figures["held-out rows", "loss"].metric_args
    assert math_ == {
        "interval_95": [0.351995, 0.648005],  # Wilson, 20 of 40
        "items": 40,
        "base": {"value": 0.25, "interval_95": [0.141871, 0.40194], "items": 40},
    }
    assert loss == {"items": 200, "base": {"value": 2.5, "items": 200}}, "a loss without its rows has no interval"


def test_the_champion_and_the_version_of_the_questions_stand_in_the_metadata(tmp_path: Path) -> None:
    run = trained(tmp_path)
    values = {"base": 0.25, "adapter": 0.5, "champion": 0.75}
    names = {"base": "base", "adapter": run.name, "champion": "sums:2"}
    EvalReport(
        {model: ModelFacts(name) for model, name in names.items()},
        {model: {"eval/math/accuracy": value, "eval/math/hard/accuracy": value / 2} for model, value in values.items()},
        {"eval/math/accuracy": 40, "eval/math/hard/accuracy": 8},
        (TaskFacts("math", "v7", "accuracy", 40, 1.0),),
    ).save(run.report)
    card = write_card(run)
    assert card and "| Base | With adapter | Champion |" in card
    results = {each.dataset_name: each for each in ModelCard(card).data.eval_results}
    assert {name: each.dataset_args for name, each in results.items()} == {
        "math": {"task_version": "v7"},
        "math/hard": {"task_version": "v7"},
    }
    assert results["math"].metric_args["champion"]["value"] == 0.75
    assert results["math/hard"].metric_args["items"] == 8


def test_the_card_is_no_part_of_the_adapter(tmp_path: Path) -> None:
    run = trained(tmp_path)
    before = check_folder(run.adapter, to_publish=True)
    first = write_card(run)
    assert first and "Not evaluated." in first and "not registered" in first
    second = write_card(evaluated(run), "other", "other:1")
    assert second != first
    assert check_folder(run.adapter, to_publish=True) == before


def test_a_run_without_an_adapter_has_no_card(tmp_path: Path) -> None:
    run = trained(tmp_path)
    (run.adapter / "adapter.json").unlink()
    assert write_card(run) is None


def test_an_own_base_and_method_are_told_without_their_folder(tmp_path: Path) -> None:
    base = tmp_path / "bases" / "mine"
    base.mkdir(parents=True)
    card = write_card(trained(tmp_path, str(base), "partial"))
    assert card and "`mine`" in card and str(tmp_path) not in card
    assert "base_model" not in card.split("---")[1] and "library_name: didact" in card and "PEFT does not load" in card


def test_a_verdict_that_refused_is_said_loudly(tmp_path: Path) -> None:
    run = evaluated(trained(tmp_path))
    check = {"check": "gain", "of": "eval/loss", "figure": "1.25", "limit": "2", "outcome": "failed"}
    write_json(run.verdict, {"passed": False, "checks": [check]})
    card = write_card(run)
    assert card and "**Refused by its gate.**" in card and "- gain eval/loss: 1.25, asked for 2: failed" in card


def test_figures_that_are_no_numbers_are_no_results(tmp_path: Path) -> None:
    run = evaluated(trained(tmp_path), math.nan)
    card = write_card(run)
    assert card and "not a number" in card
    assert [each.metric_type for each in ModelCard(card).data.eval_results] == ["loss"]


def test_text_from_outside_breaks_no_table(tmp_path: Path) -> None:
    facts = card_facts(trained(tmp_path))
    odd = replace(facts.sources[1], recorded=replace(facts.sources[1].recorded, licence="CC|BY\n4.0"))
    assert "| CC\\|BY 4.0 |" in model_card(replace(facts, sources=(odd,)))


def test_a_description_begins_with_the_heading(tmp_path: Path) -> None:
    card = write_card(trained(tmp_path)) or ""
    assert card.startswith("---\nbase_model:") and without_metadata(card).startswith("# sums\n")
    assert without_metadata("# Plain\n---\ntext") == "# Plain\n---\ntext"


@pytest.mark.parametrize(
    ("licences", "strictest", "hub"),
    [
        ([("MIT", True), ("CC-BY-SA-4.0", True)], "CC-BY-SA-4.0", "cc-by-sa-4.0"),
        ([("MIT", True), ("CC-BY-NC-SA-4.0", False), ("CC-BY-NC-4.0", False)], "CC-BY-NC-SA-4.0", "cc-by-nc-sa-4.0"),
        ([("GPL-3.0-only", True), ("Apache-2.0", True)], "GPL-3.0-only", "gpl-3.0"),
        ([("MIT (disputed)", False), ("CC-BY-4.0", True)], "MIT (disputed)", "other"),
        ([("research use only", False), ("unknown", None)], "research use only", "other"),
        ([("MIT", True), ("unknown", None)], "MIT", "unknown"),
        ([(None, None)], "unknown", "unknown"),
        ([("Apache-2.0 for a part; others vary", None)], "Apache-2.0 for a part; others vary", "other"),
    ],
)
def test_the_strictest_licence_is_named(
    licences: list[tuple[str | None, bool | None]], strictest: str, hub: str
) -> None:
    terms = terms_of([source(f"s{n}", *each) for n, each in enumerate(licences)])
    assert (terms.strictest, terms.hub_licence) == (strictest, hub)


def test_what_is_forbidden_unknown_and_unclear_is_told_apart() -> None:
    terms = terms_of([source("a", "research use only"), source("b", None), source("c", "MIT"), source("d", "by parts")])
    assert (terms.non_commercial, terms.unknown, terms.unclear) == (("a",), ("b",), ("d",))
    assert (
        strictness("CC-BY-4.0")
        < strictness("CC-BY-SA-4.0")
        < strictness("CC-BY-NC-4.0")
        < strictness("CC-BY-NC-ND-4.0")
    )


@pytest.mark.parametrize(
    ("base", "hub"),
    [("meta/llama", "meta/llama"), ("/bases/own", None), ("./own/base", None), ("gpt2", "gpt2"), (None, None)],
)
def test_a_base_is_on_the_hub_by_its_id(base: str | None, hub: str | None) -> None:
    assert on_hub(base) == hub

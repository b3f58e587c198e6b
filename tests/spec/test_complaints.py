"""How mistakes are told: no phrase of the library below, the field as it stands in the file, one complaint for one."""

import copy
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from didact.errors import SpecError
from didact.spec import (
    ADAPTER_METHODS,
    EvaluateSpec,
    FinetuneSpec,
    ServeSpec,
    Spec,
    StudySpec,
    SweepSpec,
    load_spec,
    read_mapping,
    set_dotted,
    validate,
)
from didact.spec.explain.paths import with_settings
from didact.spec.explain.schema import all_fields, describe, value_at
from didact.spec.explain.where import line_of
from tests.fakes.small_files import FILES, RECIPE

FOREIGN = re.compile(
    r"[Ii]nput|valid (dictionary|tuple|string|integer|number|boolean)|tagged|\btags?\b|function-|constrained|literal\[|"
    r"Extra inputs|instance of|validation|unable to parse|discriminator|[Mm]odel_type|Spec\b|tuple\[|NoneType|None\b"
)
JUNK = [None, True, -1, 1.5, float("nan"), "words", [], ["a", 1], {"a": 1}, [[]]]


def complaints(spec_type: type[Spec], values: dict[str, Any]) -> list[str]:
    try:
        validate(spec_type, values, "my.yaml")
    except SpecError as error:
        first, *lines = str(error).splitlines()
        assert first == "my.yaml cannot be used:"
        return [line.removeprefix("  - ") for line in lines]
    return []


def every_field() -> Iterator[tuple[type[Spec], str]]:
    for spec_type in FILES:
        yield from ((spec_type, path) for path in all_fields(spec_type) if path not in ("adapter", "overrides"))


@pytest.mark.parametrize(("spec_type", "path"), list(every_field()), ids=lambda each: str(each)[-40:])
def test_anything_in_any_field_draws_plain_words(spec_type: type[Spec], path: str) -> None:
    for value in JUNK:
        values = with_settings(FILES[spec_type], {path: value})
        for line in complaints(spec_type, values):
            assert not FOREIGN.search(line), line
            assert_there(values, line)


def assert_there(values: dict[str, Any], line: str) -> None:
    """The place that a complaint begins with, where it names one, is in the data; the last key may be missing."""
    place = re.match(r"([\w.]+): ", line)
    if place and place[1] not in values and not place[1].startswith("space."):
        parent = tuple(place[1].split("."))[:-1]
        assert value_at(values, parent) is not None, line


@pytest.mark.parametrize("method", ADAPTER_METHODS)
def test_options_of_every_method_are_told_by_their_place_in_the_file(method: str) -> None:
    for path in all_fields(FinetuneSpec, with_settings(RECIPE, {"adapter.method": method})):
        if not path.startswith("adapter.") or path == "adapter.method":
            continue
        lines = complaints(FinetuneSpec, with_settings(RECIPE, {"adapter.method": method, path: {"a": 1}}))
        mine = [line for line in lines if line.startswith(f"{path}")]
        assert len(mine) == 1 or path == "adapter.options", lines
        assert not any(FOREIGN.search(line) for line in lines), lines


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            "evaluation",
            True,
            "found true; leave the key out for the defaults; expected a mapping with tasks, ",
        ),
        ("evaluation", False, "found false; write evaluation: null"),
        ("model.quantization", 4, "found 4; write model.quantization.bits: 4"),
        ("model.quantization", "nf4", "found 'nf4'; write model.quantization: {bits: 4, type: nf4}"),
        ("adapter", "lora", "found 'lora'; write adapter.method: lora"),
        ("adapter", "qlora", "found 'qlora'; write adapter.method: lora and model.quantization.bits: 4"),
        ("adapter", None, "found null; leave the key out for LoRA, or write adapter.method: full to train every"),
        ("adapter", [1], "found [1]; expected a mapping with method and its options"),
        ("adapter.method", "dora", "found 'dora'; write adapter: {method: lora, dora: true}"),
        ("adapter.method", ["lora"], "found [lora]; expected 'lora', 'adalora'"),
        ("model", "owner/base", "found 'owner/base'; write model.base: owner/base"),
        ("data", "rows.jsonl", "found 'rows.jsonl'; write data.sources: [{name: rows, path: rows.jsonl}]"),
        ("data.sources", {"a": "a.json"}, "found {a: a.json}; write data.sources: [{name: a, path: a.json}]"),
        (
            "data.sources",
            {"name": "a", "path": "a.json"},
            "found {name: a, path: a.json}; write data.sources: [{name: a, path: a.json}]",
        ),
        ("data.sources", ["a.json"], "data.sources.0: found 'a.json'; write data.sources.0: {name: a, path: a.json}"),
        ("evaluation.tasks", "held_out", "found 'held_out'; write evaluation.tasks: [{task: held_out}]"),
        ("evaluation.tasks", [{"task": "gsm9k"}], "evaluation.tasks.0.task: found 'gsm9k'; did you mean 'gsm8k'?"),
        ("evaluation.tasks", [{"path": "x"}], "evaluation.tasks.0.task: missing; this key is required ('held_out', "),
        (
            "adapter.target_modules",
            "q_proj, v_proj",
            "found text 'q_proj, v_proj'; write [q_proj, v_proj], or all-linear",
        ),
        ("adapter.target_modules", [], "names no module; write all-linear, or a list"),
        (
            "adapter.target_modules",
            ["q_proj", 1],
            "adapter.target_modules.1: found 1; write adapter.target_modules.1: '1'",
        ),
        ("training.steps", "1,000", "found '1,000'; write training.steps: 1000"),
        ("training.steps", "10k", "found '10k'; write training.steps: 10000"),
        ("training.steps", True, "found true; expected a whole number of at least 1 or null"),
        ("training.warmup_steps", 0.03, "found 0.03; write training.warmup_share: 0.03"),
        ("training", None, "found null; expected a mapping with steps, epochs, "),
        ("name", 2024, "found 2024; write name: '2024'"),
        (
            "placement.num_workers",
            "two",
            "found 'two'; expected a whole number of at least 1 or a mapping",
        ),
        (
            "placement.num_workers",
            {"min": 1},
            "placement.num_workers.max: missing; this key is required (a",
        ),
        ("placement.device", "cuda", "found 'cuda'; write placement.device: gpu"),
        ("data.sources.0.format", "openai", "found 'openai'; write data.sources.0.format: messages"),
        ("data.sources.0.format", "sharegtp", "found 'sharegtp'; did you mean 'sharegpt'?"),
        ("training.sharding", "zero-3", "found 'zero-3'; write training.sharding.strategy: zero3"),
        ("model.dtype", "bf16", "found 'bf16'; write model.dtype: bfloat16"),
        ("training.training.steps", 5, "training.training: `training: {steps: 5}` is written training: "),
    ],
)
def test_a_wrong_shape_gets_its_own_words(path: str, value: Any, said: str) -> None:
    (line,) = complaints(FinetuneSpec, with_settings(RECIPE, {path: value}))
    first = path.split(".")[0]
    assert line.startswith(said if said.startswith(f"{first}.") else f"{path}: {said}"), line


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("lerning_rate", 1e-4, "unknown key; did you mean training.learning_rate?"),
        ("max_length", 512, "`max_length: 512` is written tokens.max_length: 512"),
        ("strategy", "ddp", "unknown key; there are data.strategy and training.sharding.strategy"),
        (
            "cutoff_length",
            512,
            "did you mean `cutoff_len`? `cutoff_len: 512` is written tokens.max_length: 512",
        ),
        ("lr_scheduler_type", "polynomial", "is training.schedule here, which takes 'cosine', 'linear' or 'constant'"),
        ("lora_r", None, "found null; leave it out"),
        ("target_regex", r".*\.[qv]_proj", r"is written adapter.target_modules: '.*\.[qv]_proj'"),
        ("datasets", [{"path": "o/n", "type": "alpaca:phi"}], "[{name: n, path: 'hf:o/n', format: alpaca}]"),
        ("lora_target_modules", "q_proj v_proj", "is written adapter.target_modules: [q_proj, v_proj]"),
        ("dataset", "a/b:c", "[{name: b-c, path: 'hf:a/b:c'}]"),
        ("dataset", "a,b/a", "[{name: a-1, path: a}, {name: a-2, path: 'hf:b/a'}]"),
        ("seed", 42, "`seed: 42` is written training.seed: 42 and data.seed: 42"),
        ("optim", "adamw_torch", "there is nothing like `optim` here: the optimizer is AdamW"),
        ("training.epochs", 3, "a path with dots is for the command line; in a file write training: {epochs: 3}"),
        ("vera_rank", 8, "`vera_rank: 8` is written adapter: {method: vera, r: 8}"),
        ("num_virtual_tokens", 8, "is written adapter: {method: prefix, num_virtual_tokens: 8}"),
    ],
)
def test_an_unknown_key_says_what_is_meant(key: str, value: Any, said: str) -> None:
    (line,) = complaints(FinetuneSpec, {**RECIPE, key: value})
    assert line.startswith(f"{key}: ") and said in line


def test_an_option_of_another_method_says_whose_it_is() -> None:
    (line,) = complaints(FinetuneSpec, {**RECIPE, "adapter": {"method": "ia3", "r": 8}})
    assert line == (
        "adapter.r: `r: 8` is adapter.r, of the methods lora, vera, loha, lokr; "
        "method 'ia3' takes feedforward_modules, from, target_modules"
    )


def test_settings_in_sections_of_other_programs_are_answered_one_by_one() -> None:
    values = {**RECIPE, "quantization_config": {"load_in_4bit": True}, "lora": {"r": 8, "lora_alpha": 16}}
    assert complaints(FinetuneSpec, values) == [
        "quantization_config.load_in_4bit: `load_in_4bit: true` is written model.quantization.bits: 4",
        "lora.r: `r: 8` is written adapter.r: 8",
        "lora.lora_alpha: `lora_alpha: 16` is written adapter.alpha: 16",
    ]


def test_a_setting_in_a_source_is_answered_with_that_source() -> None:
    sources = [RECIPE["data"]["sources"][0], {"name": "b", "path": "hf:o/b", "streaming": True, "max_samples": 5}]
    assert complaints(FinetuneSpec, {**RECIPE, "data": {"sources": sources}}) == [
        "data.sources.1.streaming: `streaming: true` is written data.sources.1.stream: true",
        "data.sources.1.max_samples: `max_samples: 5` is written data.sources.1.max_rows: 5",
    ]


def test_what_a_complaint_repairs_is_no_complaint_of_its_own() -> None:
    values = {
        "model_name_or_path": "o/n",
        "dataset": "alpaca",
        "num_train_epochs": 1,
        "output_dir": "out",
        "training": {},
    }
    assert [line.split(":")[0] for line in complaints(FinetuneSpec, values)] == list(values)[:-1]


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (
            {"adapter.r": [4, 8]},
            "space.adapter.r: found [4, 8]; write {choice: [4, 8]}; expected a mapping",
        ),
        ({"adapter.r": 4}, "space.adapter.r: found 4; a fixed value stands under overrides, as {adapter.r: 4}"),
        (
            {"adapter": {"r": {"choice": [4]}}},
            "found {r: {choice: [4]}}; write paths with dots, such as adapter.r",
        ),
        ({"adapter.r": {"values": [4, 8]}}, "found {values: [4, 8]}; write {choice: [4, 8]}"),
        (
            {"training.learning_rate": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-3}},
            "write {loguniform: [1e-05, 0.001]}",
        ),
        ({"adapter.r": {"choice": [4], "step": 1}}, "space.adapter.r.step: unknown key"),
        ({"adapter.r": {"randint": [8, 4]}}, "space.adapter.r.randint: bounds must be lower, then higher"),
    ],
)
def test_a_search_written_as_elsewhere_is_answered(space: dict[str, Any], said: str) -> None:
    (line,) = complaints(SweepSpec, {"name": "s", "recipe": "r.yaml", "space": space})
    assert said in line


def test_a_key_that_is_spelt_right_is_not_offered_again() -> None:
    sweep = {"name": "s", "recipe": "r.yaml", "metric": "eval/loss"}
    space = {"training.learning_rate": {"uniform": [0.1, 0.2], "loguniform": [0.1, 0.2]}}
    assert complaints(SweepSpec, {**sweep, "space": space}) == [
        "space.training.learning_rate.loguniform: unknown key; it cannot stand beside uniform"
    ]
    tasks = [{"task": "held_out", "name": "mine"}]
    assert complaints(EvaluateSpec, {"evaluation": {"tasks": tasks}}) == [
        "evaluation.tasks.0.name: unknown key; known here: task"
    ]


def test_what_stands_there_is_no_advice() -> None:
    study = {"name": "s", "recipe": "r.yaml", "evaluation": {"tasks": [{"task": "held_out"}]}}
    for factors, said in (
        ({"training.steps": [3, 6]}, "give the factor a name, as in factors.NAME: {training.steps: [3, 6]}; expected"),
        (
            {"rate": {"training.steps": [3, 6], "training.learning_rate": [0.1]}},
            "a list is short for the levels of one field alone, so name them: factors.rate.LEVEL: {FIELD: VALUE}; exp",
        ),
    ):
        first, *_ = complaints(StudySpec, {**study, "factors": factors})
        assert said in first and "write" not in first


def test_a_number_alone_is_no_budget_and_a_loss_no_gain() -> None:
    sweep = {"name": "s", "recipe": "r.yaml", "metric": "eval/loss", "space": {"adapter.r": {"choice": [4, 8]}}}
    assert complaints(SweepSpec, {**sweep, "budget": 2}) == [
        "budget: found '2'; expected a time as 2h or 1h 30m, tokens as '5e6 tokens', or money as $20"
    ]
    gate = {"name": "g", "gate": {"gain": {"eval/loss": 0}}}
    (line,) = complaints(FinetuneSpec, {**RECIPE, "register_as": gate})
    assert line.endswith("of which no question has a value; write its least fall as eval/loss: 0")


def test_no_grace_is_not_taken_for_the_usual_one() -> None:
    sweep = {"name": "s", "recipe": "r.yaml", "metric": "eval/loss"}
    space = {"training.learning_rate": {"uniform": [0.1, 0.2]}}
    for time in ("grace_steps", "grace_tokens"):
        (line,) = complaints(SweepSpec, {**sweep, "space": space, "scheduler": {time: 0}})
        assert line.startswith(f"scheduler.{time}: found 0; expected a whole number of at least 1")


def test_words_of_a_recipe_in_other_files_say_where_they_belong() -> None:
    assert complaints(EvaluateSpec, {"evaluation": {}, "lora_r": 8, "load_in_8bit": True}) == [
        "lora_r: `lora_r: 8` belongs into a recipe, as adapter.r: 8",
        "load_in_8bit: `load_in_8bit: true` is written model.quantization.bits: 8",
    ]
    assert complaints(ServeSpec, {"max_loras": 4, "gpu_memory_utilization": 0.9}) == [
        "max_loras: `max_loras: 4` is written max_adapters: 4",
        "gpu_memory_utilization: there is nothing like `gpu_memory_utilization` here: "
        "memory is what the engine's one base and its adapters take",
    ]


def test_lines_of_the_file_and_overrides_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        "name: x\ndata:\n  sources:\n    - name: a\n      path: a.json\n      wieght: 2\ntraining:\n  steps: soon\n"
        "  # a comment\n  seed: -1\n"
    )
    with pytest.raises(SpecError) as caught:
        load_spec(FinetuneSpec, file, ["training.seed=-2", "lora_r=8", "tokens.packing=maybe"])
    assert str(caught.value).splitlines() == [
        f"{file} cannot be used:",
        "  - line 6: data.sources.0.wieght: unknown key; did you mean data.sources.0.weight?",
        "  - override: tokens.packing: found 'maybe'; expected 'auto' or true or false",
        "  - line 8: training.steps: found 'soon'; expected a whole number of at least 1 or null",
        "  - override: training.seed: found -2; expected a whole number of at least 0",
        "  - override: lora_r: `lora_r=8` is written adapter.r=8",
    ]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model=owner/name", "model: found 'owner/name'; write model.base=owner/name"),
        ("adapter=qlora", "adapter: found 'qlora'; write adapter.method=lora model.quantization.bits=4"),
        ("quantization.bits=4", "quantization: `quantization.bits=4` is written model.quantization.bits=4"),
        ("deepspeed=z3_offload.json", "training.sharding.strategy=zero3 training.sharding.cpu_offload=true"),
        ("lora_target=q_proj,v_proj", "is written 'adapter.target_modules=[q_proj, v_proj]'"),
        (r"target_regex=.*\.[qv]_proj", r"is written 'adapter.target_modules=.*\.[qv]_proj'"),
        ("run_name=2024", "is written 'name='\"'\"'2024'\"'\"''"),
    ],
)
def test_an_override_is_answered_with_what_to_type(tmp_path: Path, override: str, said: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump(RECIPE))
    with pytest.raises(SpecError) as caught:
        load_spec(FinetuneSpec, file, [override])
    assert f"  - override: {override.partition('=')[0].partition('.')[0]}: " in str(caught.value)
    assert said in str(caught.value)


def test_lines_survive_copies_and_other_processes(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("name: x\nbase: &base {steps: 1}\ntraining:\n  <<: *base\n  seed: 3\nmodel:\n")
    values = read_mapping(file)
    for copied in (values, copy.deepcopy(values), pickle.loads(pickle.dumps(values))):
        assert copied == {"name": "x", "base": {"steps": 1}, "training": {"steps": 1, "seed": 3}, "model": None}
        places = [("name",), ("training",), ("training", "seed"), ("training", "steps"), ("training", "missing")]
        assert [line_of(copied, place) for place in places] == [1, 3, 5, 2, 3]
    set_dotted(values, "training.seed", 4, "here")
    assert (line_of(values, ("training", "seed")), line_of(values, ("training", "steps"))) == (0, 2)
    set_dotted(values, "model.dtype", "auto", "here")
    assert line_of(values, ("model", "dtype")) == 0
    assert line_of({"training": {"seed": 4}}, ("training", "seed")) is None


def test_where_nothing_tells_what_is_expected_another_value_is() -> None:
    assert describe(()) == "another value"


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("limit: 10", "`limit: 10` is written evaluation.tasks.0.num_items: 10"),
        ("num_fewshot: 5", "`num_fewshot: 5` is written evaluation.tasks.0.few_shot: 5"),
        ("max_tokens: 64", "`max_tokens: 64` is written evaluation.tasks.0.max_new_tokens: 64"),
        ("n: 3", "`n: 3` is written evaluation.tasks.0.samples: 3"),
        ("scorer: regex", "found 'regex'; regex needs more: write {name: regex, pattern: ...}; expected 'exact'"),
    ],
)
def test_words_of_other_evaluations_are_told_at_a_task(task: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "evaluation.yaml"
    file.write_text(f"evaluation:\n  tasks:\n    - {{task: questions, name: t, path: a.jsonl, {task}}}\n")
    with pytest.raises(SpecError, match=re.escape(told)):
        load_spec(EvaluateSpec, file)


def test_an_evaluation_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "evaluation.yaml").write_text("evaluation: {tasks: []}\n")
    with pytest.raises(SpecError, match=r"evaluation\.tasks: found none; expected what to measure"):
        load_spec(EvaluateSpec, tmp_path / "evaluation.yaml")

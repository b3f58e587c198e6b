"""Other programs' words: every target exists, every word is answered, and what it is written as is accepted."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from didact.errors import SpecError
from didact.spec import FinetuneSpec, Spec, SweepSpec, load_spec, validate
from didact.spec.explain.keys import unknown_key
from didact.spec.explain.paths import with_settings
from didact.spec.explain.schema import all_fields, at
from didact.spec.explain.translate import as_word, translate, words
from tests.conftest import ROOT
from tests.fakes.small_files import FILES, RECIPE

# A value that somebody may have written for a field, where the field's own type does not tell one.
EXAMPLES: dict[str, Any] = {
    "name": "my-run",
    "model.base": "owner/name",
    "model.revision": "main",
    "model.dtype": "bf16",
    "model.attention": "sdpa",
    "model.quantization.bits": 8,
    "adapter.method": "dora",
    "adapter.target_modules": "q_proj,v_proj",
    "adapter.init": "gaussian",
    "adapter.encoder": "MLP",
    "adapter.activation": "gelu",
    "data.sources": "alpaca_en,owner/name#500",
    "data.sources.0.format": "openai",
    "data.sources.0.split": "train",
    "tokens.truncation": "delete",
    "tokens.loss_on": "last_round",
    "tokens.template": "qwen",
    "tokens.template_arguments": {"enable_thinking": False},
    "training.schedule": "constant_with_warmup",
    "training.sharding.strategy": "full_shard",
    "placement.device": "cuda",
    "tracking.uri": "http://mlflow:5000",
    "tracking.experiment": "mine",
    "register_as.name": "mine",
    "searcher": "tpe",
    "space": {"adapter.r": {"choice": [1]}},
    "model_name": "mine",
    "training.warmup_share": 0.1,
    "training.sharding.cpu_offload": False,
    "training.sharding.reshard_after_forward": True,
    "evaluation.batch_size": 4,
}
COMPUTED: dict[str, list[Any]] = {
    "gradient_accumulation_steps": [4],
    "max_steps": [60, -1],
    "warmup_steps": [10, 0.1],
    "save_steps": [50],
    "eval_steps": [50],
    "val_set_size": [0.05, 200],
    "save_total_limit": [1, 3],
    "deepspeed": ["ds_z3_offload_config.json", "deepspeed/zero2.json", "zero1", {"zero_optimization": {"stage": 2}}],
    "fsdp": ["full_shard auto_wrap", ["full_shard", "offload"], True],
    "fsdp_config": [{"offload_params": True, "reshard_after_forward": False}],
    "output_dir": ["./saves/llama3-8b/lora sft/"],
    "chat_template": ["alpaca", "auto", "llama3", "chat.jinja", "{{ messages }}"],
    "enable_thinking": [False],
    "resources_per_worker": [{"GPU": 1, "CPU": 4}],
    "interleave_probs": ["0.7,0.3", [0.5, 0.5]],
    "bnb_4bit_quant_type": ["nf4", "fp4"],
    "boft_block_size": [4],
    "prompt_tuning_init_text": ["Classify this"],
}


def example(target: str, spec_type: type[Spec]) -> Any:
    if target in EXAMPLES:
        return EXAMPLES[target]
    kinds = {each.type for each in at(spec_type, tuple(target.split(".")))}
    return True if bool in kinds else 8 if int in kinds else 0.5 if float in kinds else "text"


def accepted(spec_type: type[Spec], word: str, value: Any) -> None:
    """The file that the answer to `word: value` says to write is a good one."""
    values = {**FILES[spec_type], word: value}
    for said in unknown_key(spec_type, values, (word,)):
        assert "which takes" not in said.text, said.text
        wanted = {path: each for path, each in said.settings.items()}
        repaired = with_settings(FILES[spec_type], wanted)
        if "training.epochs" in wanted:
            repaired["training"].pop("steps", None)
        validate(spec_type, repaired, f"{word}: {value}")


def single_words() -> Iterator[tuple[str, type[Spec], Any]]:
    for word, targets in words().fields.items():
        for target in targets:
            spec_type = next(each for each in FILES if at(each, tuple(target.split("."))))
            if word not in spec_type.model_fields:
                yield word, spec_type, example(target, spec_type)


@pytest.mark.parametrize(("word", "spec_type", "value"), list(single_words()), ids=lambda each: str(each)[:30])
def test_what_a_word_is_written_as_is_accepted(word: str, spec_type: type[Spec], value: Any) -> None:
    accepted(spec_type, word, value)


@pytest.mark.parametrize(
    ("word", "value"),
    [(word, value) for word, cases in words().cases.items() for value in cases if value != "any"]
    + [(word, value) for word, values in COMPUTED.items() for value in values],
    ids=lambda each: str(each)[:40],
)
def test_what_a_word_with_its_value_is_written_as_is_accepted(word: str, value: Any) -> None:
    accepted(FinetuneSpec, word, {"true": True, "false": False}.get(str(value), value))


def test_every_field_of_the_table_exists() -> None:
    known = {path for spec_type in FILES for path in all_fields(spec_type)}
    table = words()
    targets = {target for listed in table.fields.values() for target in listed} | table.values.keys()
    targets |= {f"{field}.{inner}" for field, inner in table.inside.items()}
    for cases in [*table.cases.values(), *table.values.values()]:
        for meant in cases.values():
            targets |= meant.keys() if isinstance(meant, dict) else set()
    assert sorted(targets - known) == []


def test_every_translated_value_is_one_of_the_field() -> None:
    for target, cases in words().values.items():
        spec_type = next(each for each in FILES if at(each, tuple(target.split("."))))
        for word, meant in cases.items():
            settings = meant if isinstance(meant, dict) else {target: meant}
            if target in ("adapter.init", "adapter.encoder"):
                settings = {"adapter.method": "lora" if target == "adapter.init" else "p_tuning", **settings}
            validate(spec_type, with_settings(FILES[spec_type], settings), f"{target}: {word}")


def test_no_word_is_in_the_table_twice() -> None:
    text = (Path(unknown_key.__code__.co_filename).parent / "words.yaml").read_text(encoding="utf-8")
    table = yaml.safe_load(text)
    listed = [word for group in table["cases"] for word in group.split()]
    listed += [word for group in table["nothing"] for word in group["words"].split()]
    listed += [word for target, group in table["fields"].items() for word in group.split() if "." in target]
    assert sorted({word for word in listed if listed.count(word) > 1}) == []


PEERS = yaml.safe_load((Path(__file__).parent / "peer_options.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("peer", PEERS)
def test_every_option_of_a_peer_is_answered(peer: str) -> None:
    own = {path.rpartition(".")[2] for path in all_fields(FinetuneSpec)}
    silent = [
        option
        for option in PEERS[peer].split()
        if option not in own and as_word(option) not in words().sections
        if translate(option, True, {}, lambda wanted: 1) is None
    ]
    assert silent == []


def test_a_whole_file_of_another_program_is_answered_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "llama3_lora_sft.yaml"
    file.write_text(
        "model_name_or_path: meta-llama/Llama-3.1-8B-Instruct\nstage: sft\nfinetuning_type: lora\nlora_target: all\n"
        "dataset: alpaca_en\ncutoff_len: 2048\noutput_dir: saves/llama3\nper_device_train_batch_size: 1\n"
        "gradient_accumulation_steps: 8\nlearning_rate: 1.0e-4\nnum_train_epochs: 3.0\nbf16: true\n"
    )
    with pytest.raises(SpecError) as caught:
        load_spec(FinetuneSpec, file)
    lines = str(caught.value).splitlines()[1:]
    assert [line.partition(": ")[0].strip(" -") for line in lines] == [f"line {number}" for number in range(1, 13)]
    written = "\n".join(lines)
    for setting in (
        "model.base: meta-llama/Llama-3.1-8B-Instruct",
        "adapter.target_modules: all-linear",
        "name: llama3",
    ):
        assert setting in written
    assert "training.global_batch_size: 16 (1 a forward pass x 8 x 2 workers" in written


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("data.sources.0.type", "alpaca", "`type: alpaca` is written data.sources.0.format: alpaca"),
        ("data.sources.0.type", "alpaca:chat", "data.sources.0.format"),
        ("type", "sharegpt", "`type: sharegpt` is written data.sources.0.format: sharegpt"),
        ("type", "fp4", "`type: fp4` is written model.quantization.type: fp4"),
        ("data.sources.0.num_samples", 10, "is written data.sources.0.max_rows: 10"),
        ("num_samples", 10, "is written data.sources.0.max_rows: 10"),
        ("dataset", "alpaca_gpt4", "{name: alpaca-gpt4, path: 'card:alpaca-gpt4'}"),
        ("dataset", "alpaca,mine.json", "[{name: alpaca, path: 'card:alpaca'}, {name: mine, path: mine.json}]"),
        ("adapter.target_modules", "all", "found text 'all'; write all-linear, or a list"),
        ("training.epochs", 3, "found steps=100, epochs=3; set the other to null, as training.epochs: null"),
        ("data.sources.0.held_out_rows", 8, "held_out_rows (8) are taken out of max_rows (8), which leaves none"),
        (
            "val_size",
            0.25,
            "data.sources.0.held_out_rows: 2 (a number of rows, in each source; this is the share of 8",
        ),
    ],
)
def test_a_word_is_taken_for_what_can_stand_there(path: str, value: Any, told: str) -> None:
    recipe = with_settings(RECIPE, {"data.sources.0.max_rows": 8} if "held_out" in path or "val" in path else {})
    with pytest.raises(SpecError) as caught:
        validate(FinetuneSpec, with_settings(recipe, {path: value}), "my.yaml")
    assert told in str(caught.value) and len(str(caught.value).splitlines()) == 2


def test_a_search_counts_its_samples_as_trials() -> None:
    with pytest.raises(SpecError, match="`num_samples: 10` is written num_trials: 10"):
        validate(SweepSpec, {**FILES[SweepSpec], "num_samples": 10}, "my.yaml")


def test_the_table_for_people_who_come_from_elsewhere_is_true() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8").partition("## If you come from")[2]
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    for elsewhere, here in rows:
        for foreign in re.findall(r"`([^`]+)`", elsewhere):
            with pytest.raises(SpecError) as caught:
                validate(FinetuneSpec, {**RECIPE, **yaml.safe_load(foreign)}, "my.yaml")
            for written in re.findall(r"`([^`]+)`", here) or ["there is nothing like"]:
                assert written in str(caught.value), (foreign, str(caught.value))

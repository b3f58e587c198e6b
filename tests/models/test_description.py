"""Tokenizers and estimates are found again without torch, and are those that would be made anew."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from didact import devices
from didact.errors import ModelError
from didact.models import estimate_footprint, footprint_of, load_tokenizer
from didact.models.base.bundled import bundled_base_folder, bundled_description
from didact.models.families.convert import family_of, register_own_models
from didact.models.families.known import CONVERTED, OWN, is_known
from didact.spec import FinetuneSpec, ModelSpec, validate
from didact.tokens import tokenizer_digest
from tests.fakes.models import save_tiny_base

RECIPE = {
    "name": "tiny",
    "data": {"sources": [{"name": "sums", "path": "reasoning-gym:chain_sum"}]},
    "training": {"steps": 3, "global_batch_size": 4, "micro_batch_size": 2},
}


@pytest.fixture()
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIDACT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def recipe(base: Path, **changes: object) -> FinetuneSpec:
    return validate(FinetuneSpec, {**RECIPE, "model": {"base": str(base), "dtype": "float32"}, **changes}, "test")


def test_a_tokenizer_is_the_same_when_its_class_is_remembered(tmp_path: Path, cache: Path) -> None:
    spec = ModelSpec(base=str(save_tiny_base(tmp_path / "base")))
    first = load_tokenizer(spec)
    (record,) = (cache / "tokenizers").glob("*.json")
    again, auto = load_tokenizer(spec), AutoTokenizer.from_pretrained(tmp_path / "base")
    assert type(first) is type(again) is type(auto)
    assert tokenizer_digest(first) == tokenizer_digest(again)
    assert again("héllo 😄")["input_ids"] == auto("héllo 😄")["input_ids"]
    assert (again.chat_template, again.padding_side, again.eos_token) == (auto.chat_template, "right", auto.eos_token)
    assert json.loads(record.read_text())["class"] == type(auto).__name__


@pytest.mark.parametrize(
    "damage", ["", "{}", "[]", '{"module": "transformers.nothing", "class": "Gone"}', '{"module": 3}']
)
def test_a_record_that_says_nothing_is_written_again(tmp_path: Path, cache: Path, damage: str) -> None:
    spec = ModelSpec(base=str(save_tiny_base(tmp_path / "base")))
    digest = tokenizer_digest(load_tokenizer(spec))
    (record,) = (cache / "tokenizers").glob("*.json")
    right = record.read_text()
    record.write_text(damage)
    assert tokenizer_digest(load_tokenizer(spec)) == digest
    assert record.read_text() == right


def test_another_tokenizer_in_the_same_folder_is_another(tmp_path: Path, cache: Path) -> None:
    spec = ModelSpec(base=str(save_tiny_base(tmp_path / "base")))
    first = load_tokenizer(spec)
    first.add_tokens(["<new>"])
    first.save_pretrained(tmp_path / "base")
    assert "<new>" in load_tokenizer(spec).get_vocab()
    assert len(list((cache / "tokenizers").glob("*.json"))) == 2


def test_an_estimate_is_found_again_and_only_for_the_same_question(tmp_path: Path, cache: Path) -> None:
    spec = recipe(save_tiny_base(tmp_path / "base"))
    first = footprint_of(spec, 64, 0.5)
    assert footprint_of(spec, 64, 0.5) == first == estimate_footprint(spec, 64, 0.5)
    (place,) = (cache / "footprints").glob("*.json")
    place.write_text(place.read_text().replace(f'"num_parameters": {first.num_parameters}', '"num_parameters": 7'))
    assert footprint_of(spec, 64, 0.5).num_parameters == 7  # it was read
    assert footprint_of(spec, 65, 0.5).num_parameters == first.num_parameters
    more = recipe(tmp_path / "base", adapter={"method": "lora", "r": 32})
    assert footprint_of(more, 64, 0.5).num_trainable > first.num_trainable
    renamed = recipe(tmp_path / "base", name="other")
    assert footprint_of(renamed, 64, 0.5).num_parameters == 7  # a name decides nothing
    place.write_text('{"num_parameters": 1}')
    assert footprint_of(spec, 64, 0.5) == first


def test_another_base_in_the_same_folder_is_estimated_anew(tmp_path: Path, cache: Path) -> None:
    base = save_tiny_base(tmp_path / "base")
    first = footprint_of(recipe(base), 64, 0.5)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "intermediate_size": 256}))
    assert footprint_of(recipe(base), 64, 0.5).num_parameters > first.num_parameters


def test_a_machine_without_gpu_devices_sees_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "_GPU_DEVICES", (str(tmp_path / "nvidia0"),))
    assert not devices.sees_gpu()
    (tmp_path / "nvidia0").touch()  # a driver is there: torch is asked
    assert devices.sees_gpu() == (devices.num_gpus() > 0)
    assert devices.processor()


def test_every_family_is_known_and_no_other() -> None:
    for kind in CONVERTED:
        assert family_of({"model_type": kind}) is not None and is_known(kind)
    for kind in OWN:
        register_own_models(kind)
        assert is_known(kind)
    for kind in ("llama", "qwen3", None, 3):
        assert not is_known(kind) and family_of({"model_type": kind}) is None


@pytest.mark.nightly
def test_the_bundled_base_is_described_as_it_is_unpacked(cache: Path) -> None:
    described = bundled_description()
    assert not list(described.glob("*.safetensors"))
    whole = bundled_base_folder()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (described / name).read_bytes() == (whole / name).read_bytes()
    assert bundled_description() == whole


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("{tmp}/weights.gguf", "weights.gguf' is a file; expected the folder of a Hugging Face model"),
        ("{tmp}/gone", "there is no folder {tmp}/gone"),
        ("./gone", "there is no folder .*/gone"),
        ("~/gone-base", "there is no folder .*/gone-base"),
        ("a/b/c", "there is no folder .*/a/b/c"),
        ("{tmp}/empty", "is a folder without config.json"),
    ],
)
def test_a_base_that_is_no_folder_is_said_as_such(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "weights.gguf").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=words.format(tmp=tmp_path)) as refused:
        load_tokenizer(ModelSpec(base=name.format(tmp=tmp_path)))
    assert "HFValidation" not in str(refused.value)

"""What a base cannot take, and weights that are not whole: refused from its files before anything is loaded."""

import json
import logging
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from didact.errors import ModelError
from didact.models import check_fits, check_stored, load_tokenizer
from didact.preparation import prepare_data
from didact.spec import ModelSpec
from tests.fakes.models import VOCAB, save_tiny_base, tiny_model
from tests.fakes.recipes import tiny_recipe

POSITIONS = 1024


def with_tokens(folder: Path, number: int, **changes: object) -> ModelSpec:
    """A tiny base whose tokenizer has `number` more tokens, the last ones <0>, <1>, ... without rows in the base."""
    tokenizer = AutoTokenizer.from_pretrained(save_tiny_base(folder))
    special = bool(changes.pop("special", False))
    tokenizer.add_tokens([f"<{place}>" for place in range(VOCAB - len(tokenizer) + number)][::-1], special)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(folder)
    return ModelSpec(base=str(folder))


@pytest.mark.parametrize(
    "changes",
    [{}, {"special": True, "pad_token": "<0>"}, {"special": True, "chat_template": "{{ '<0>' }}"}],
    ids=["word", "pad", "template"],
)
def test_a_token_without_a_row_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    spec = with_tokens(tmp_path, 1, **changes)
    with pytest.raises(ModelError, match=f"makes id {VOCAB} of '<0>', but the base has {VOCAB} rows"):
        check_fits(spec, load_tokenizer(spec), 64)


@pytest.mark.parametrize(("number", "special"), [(0, False), (2, True)], ids=["full", "unused marks"])
def test_a_tokenizer_that_fits_goes(tmp_path: Path, number: int, special: bool) -> None:
    spec = with_tokens(tmp_path, number, special=special)
    check_fits(spec, load_tokenizer(spec), 64)


@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_bigcode", "codegen"])
def test_more_tokens_than_positions_are_refused(tmp_path: Path, family: str) -> None:
    spec = ModelSpec(base=str(save_tiny_base(tmp_path, family)))
    check_fits(spec, load_tokenizer(spec), POSITIONS)
    with pytest.raises(ModelError, match=f"max_length is {POSITIONS + 1}, more than the {POSITIONS} positions"):
        check_fits(spec, load_tokenizer(spec), POSITIONS + 1)


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "qwen3_moe"])
def test_rotary_positions_go_on_with_a_warning(tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture) -> None:
    spec = ModelSpec(base=str(save_tiny_base(tmp_path, family)))
    with caplog.at_level(logging.WARNING, logger="didact"):
        check_fits(spec, load_tokenizer(spec), POSITIONS)
        assert caplog.text == ""
        check_fits(spec, load_tokenizer(spec), POSITIONS + 1)
    assert f"tokens.max_length is {POSITIONS + 1}" in caplog.text
    assert f"was trained on {POSITIONS} positions" in caplog.text


def test_a_base_without_positions_takes_any_length(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spec = ModelSpec(base=str(save_tiny_base(tmp_path, "bloom")))
    with caplog.at_level(logging.WARNING, logger="didact"):
        check_fits(spec, load_tokenizer(spec), 100_000)
    assert caplog.text == ""


def test_a_recipe_is_refused_when_its_data_is_prepared(tmp_path: Path) -> None:
    base = with_tokens(tmp_path / "base", 1).base
    with pytest.raises(ModelError, match="rows of embeddings"):
        prepare_data(tiny_recipe(tmp_path, model__base=base))


@pytest.mark.parametrize("damage", ["cut", "empty", "pointer", "missing", "no weights", "lost tensor"])
def test_weights_that_are_not_whole_are_named(tmp_path: Path, damage: str) -> None:
    folder = save_tiny_base(tmp_path / "base")
    tiny_model().save_pretrained(folder, max_shard_size="200KB")
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    file = folder / "model-00001-of-00003.safetensors"
    check_stored(ModelSpec(base=str(folder)))
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "pointer":
        file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    elif damage == "missing":
        file.unlink()
    elif damage == "no weights":
        for each in (index, *folder.glob("*.safetensors")):
            each.unlink()
    else:
        record = json.loads(index.read_text())
        record["weight_map"]["model.lost"] = file.name
        index.write_text(json.dumps(record))
    said = {"pointer": f"{file.name}: a Git LFS pointer", "no weights": "holds no weights", "lost tensor": "model.lost"}
    with pytest.raises(ModelError, match=re.escape(said.get(damage, file.name))) as caught:
        check_stored(ModelSpec(base=str(folder)))
    assert str(caught.value).startswith(f"model.base {str(folder)!r}: ")

"""`didact merge`: a registered or trained adapter becomes a folder that any engine loads, with the proof shown."""

import json
import os
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from didact import cli
from didact.datasets.conversation import Message
from didact.errors import AdapterError, ModelError
from didact.gpu_proof.tokenizer import CHATML
from didact.models import base_fingerprint
from didact.models.model_folder import new_model_folder
from didact.registry import locate_adapter, open_registry, recorded_base
from didact.registry.export import export_merged
from didact.spec import MergeSpec, ModelSpec, TokensSpec
from didact.tokens import TemplateContract
from tests.fakes.adapters import save_tiny_adapter
from tests.fakes.models import save_tiny_base


def test_the_merged_folder_carries_the_contract_and_its_proof(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = save_tiny_base(tmp_path / "base", chat_template=False)  # the adapter brings the template
    spec = ModelSpec(base=str(base))
    save_tiny_adapter(tmp_path / "adapter", 1, base_fingerprint=base_fingerprint(spec))
    arguments = ["merge", str(tmp_path / "adapter"), str(tmp_path / "merged"), "dtype=bfloat16", "--base", str(base)]
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments, "rounded.mean_kl=5", "rounded.min_top1_agreement=0"])
    assert ended.value.code == 0
    proof = json.loads((tmp_path / "merged" / "proof.json").read_text())
    alone, merged = proof["compared_with_base_and_adapter"]
    assert proof["dtype"] == "bfloat16" and merged["limits"]["mean_kl"] == 5 and alone["mean_kl"] > merged["mean_kl"]
    shown = capsys.readouterr().out
    assert f"{merged['top1_agreement']:.1%} of {merged['num_positions']} positions" in shown.replace("\n", " ")
    contract = TemplateContract.load(tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.chat_template == contract.template
    generation = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").generation_config
    assert tuple(generation.eos_token_id) == contract.stop_token_ids


def test_arguments_of_a_template_of_ones_own_are_the_merged_models_defaults(tmp_path: Path) -> None:
    spec = ModelSpec(base=str(save_tiny_base(tmp_path / "base")))
    template = CHATML + "{% if add_generation_prompt and enable_thinking is false %}{{ '<think></think>' }}{% endif %}"
    tokens = TokensSpec(template=template, template_arguments={"enable_thinking": False})
    save_tiny_adapter(tmp_path / "adapter", 1, base_fingerprint=base_fingerprint(spec), tokens=tokens)
    export_merged(spec, tmp_path / "adapter", tmp_path / "merged", MergeSpec())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    turns = [{"role": "user", "content": "Hi"}]
    asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert asked == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think></think>"
    contract = TemplateContract.load(tmp_path / "merged")
    assert contract.arguments == {"enable_thinking": False}
    # Served as a base, it is asked in the same form.
    served = TemplateContract.build(tokenizer, "auto")
    assert served.render(tokenizer, (Message("user", "Hi"),), True) == asked


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    base = save_tiny_base(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["new"])
    tokenizer.save_pretrained(base)
    spec = ModelSpec(base=str(base))
    save_tiny_adapter(tmp_path / "adapter", 1, base_fingerprint=base_fingerprint(spec))
    with pytest.raises(AdapterError, match="trained with another tokenizer"):
        export_merged(spec, tmp_path / "adapter", tmp_path / "merged", MergeSpec())


def merge(*arguments: object) -> object:
    """The exit code of `didact merge`."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["merge", *map(str, arguments)])
    return ended.value.code


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.mark.parametrize("record", ["recipe.json", "adapter.json"])
def test_the_base_is_the_one_that_the_adapter_names(tmp_path: Path, record: str) -> None:
    base = save_tiny_base(tmp_path / "base")
    adapter, spec = tmp_path / "run" / "adapter", ModelSpec(base=str(base))
    save_tiny_adapter(
        adapter, 1, base_fingerprint=base_fingerprint(spec), base=str(base), recipe=record == "recipe.json"
    )
    assert merge(tmp_path / "run", tmp_path / "merged") == 0
    assert (tmp_path / "merged" / "proof.json").is_file()


def test_what_is_there_is_neither_replaced_nor_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = save_tiny_base(tmp_path / "base")
    adapter = tmp_path / "run" / "adapter"
    save_tiny_adapter(adapter, 1, base_fingerprint=base_fingerprint(ModelSpec(base=str(base))), base=str(base))
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "precious.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(base)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    before = everything_in(tmp_path)
    monkeypatch.chdir(base)
    for output in (".", "", "..", base, tmp_path / "keep", tmp_path / "keep" / "precious.txt", tmp_path / "empty",
                   adapter, tmp_path / "run", tmp_path / "link", tmp_path / "dangling"):  # fmt: skip
        assert merge(tmp_path / "run", output) == ModelError.exit_code
        assert "exists; give a folder that does not" in capsys.readouterr().err.replace("\n", " ")
    for output, reason in (
        (base / "merged", "lies inside"),
        (tmp_path / "link" / "merged", "lies inside"),
        (adapter / "deep" / "merged", "lies inside"),
        (tmp_path / "keep" / "precious.txt" / "merged", "is not a folder"),
    ):
        assert merge(tmp_path / "run", output) == ModelError.exit_code
        assert reason in capsys.readouterr().err.replace("\n", " ")
    assert (
        everything_in(tmp_path) == before and (tmp_path / "empty").is_dir() and os.path.lexists(tmp_path / "dangling")
    )


def test_a_folder_that_comes_into_being_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="meanwhile"), new_model_folder(tmp_path / "merged") as scratch:
        (scratch / "config.json").write_text("{}")
        (tmp_path / "merged").mkdir()
        (tmp_path / "merged" / "theirs").write_text("theirs")
    assert everything_in(tmp_path) == {"merged/theirs": b"theirs"}


def test_a_recorded_base_that_is_gone_is_named(tmp_path: Path) -> None:
    save_tiny_adapter(tmp_path / "adapter", 1, base=str(tmp_path / "gone"))
    with pytest.raises(AdapterError, match="gone', which is not there any more; give the folder where it lies now"):
        recorded_base(tmp_path / "adapter")


def test_a_run_that_trained_the_base_itself_has_nothing_to_merge(tmp_path: Path) -> None:
    save_tiny_base(tmp_path / "run" / "adapter")
    with pytest.raises(AdapterError, match="trained the whole base"):
        locate_adapter(str(tmp_path / "run"), open_registry(folder=tmp_path))


def test_a_folder_that_is_not_there_is_told_as_one(tmp_path: Path) -> None:
    registry = open_registry(folder=tmp_path)
    with pytest.raises(AdapterError, match="runs/gone is no folder; expected a run folder, an adapter folder or"):
        locate_adapter(str(tmp_path / "runs" / "gone"), registry)
    (tmp_path / "runs" / "begun").mkdir(parents=True)
    with pytest.raises(AdapterError, match="begun holds neither a finished run nor an adapter"):
        locate_adapter(str(tmp_path / "runs" / "begun"), registry)

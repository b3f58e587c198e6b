"""`didact merge`: a registered or trained adapter becomes a folder that any engine loads, with the proof shown."""

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from didact import cli
from didact.errors import AdapterError
from didact.models import base_fingerprint
from didact.registry.export import export_merged
from didact.spec import MergeSpec, ModelSpec
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


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    base = save_tiny_base(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["new"])
    tokenizer.save_pretrained(base)
    spec = ModelSpec(base=str(base))
    save_tiny_adapter(tmp_path / "adapter", 1, base_fingerprint=base_fingerprint(spec))
    with pytest.raises(AdapterError, match="trained with another tokenizer"):
        export_merged(spec, tmp_path / "adapter", tmp_path / "merged", MergeSpec())

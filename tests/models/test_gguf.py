"""llama.cpp's own converter takes an export, and what it writes computes the same.

pytest tests/models/test_gguf.py --llama-cpp path/to/llama.cpp
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from didact.models import load_base, load_tokenizer
from didact.registry.export import export_merged
from didact.spec import LoraSpec, MergeSpec, ModelSpec
from didact.tokens import TemplateContract
from tests.fakes.adapters import make_adapter


@pytest.mark.slow
def test_the_converter_of_llama_cpp_takes_an_export(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source = request.config.getoption("--llama-cpp")
    if source is None:
        pytest.skip("no --llama-cpp")
    base = ModelSpec()
    adapter = make_adapter(base, tmp_path / "adapter", LoraSpec(r=2))
    TemplateContract.build(load_tokenizer(base), "auto").save(adapter)
    merged = tmp_path / "merged"
    export_merged(base, adapter, merged, MergeSpec())
    file = tmp_path / "merged.gguf"
    command = [sys.executable, str(Path(source) / "convert_hf_to_gguf.py"), str(merged), "--outfile", str(file)]
    subprocess.run([*command, "--outtype", "f32"], check=True, env={"PYTHONPATH": f"{source}/gguf-py", "PATH": ""})
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    assert tokenizer.chat_template == TemplateContract.load(merged).template
    ids = tokenizer("Add 17 and 25. 请用三句话介绍北京的历史", return_tensors="pt").input_ids
    with torch.inference_mode():
        expected = load_base(ModelSpec(base=str(merged), dtype="float32"))(input_ids=ids).logits
        found = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)(ids).logits
    assert (expected - found).abs().max() < 1e-4

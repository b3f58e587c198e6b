"""Bottleneck adapters opened by PEFT itself, in a process that knows nothing of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftConfig

from didact.files import manifest, write_json
from didact.models import AdapterHost, attach_adapter, base_fingerprint, load_base, save_adapter
from didact.models.adapter.put_weights import read_config
from didact.models.methods import BottleneckConfig
from didact.spec import BottleneckSpec, ModelSpec, PeftSpec
from tests.fakes.models import save_tiny_base

IDS = torch.arange(7, 19)[None]
ALONE = """
import sys
from peft import PeftModel
from transformers import AutoModelForCausalLM
import torch
base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
try:
    PeftModel.from_pretrained(base, sys.argv[2])
except KeyError as error:
    print(error.args[0])
import didact.models.peft_methods
model = PeftModel.from_pretrained(base, sys.argv[2]).eval()
print(model(input_ids=torch.arange(7, 19)[None]).logits.sum().item())
"""


def saved(folder: Path, placement: str = "pfeiffer") -> tuple[ModelSpec, Path, torch.Tensor]:
    """A base, a trained bottleneck adapter's folder, and the logits of both."""
    spec = ModelSpec(base=str(save_tiny_base(folder / "base")), dtype="float32")
    method = BottleneckSpec(method="bottleneck", size=4, placement=placement)
    model = attach_adapter(load_base(spec), method, seed=0, base_name="tiny").eval()
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    adapter = folder / "adapter"
    adapter.mkdir()
    save_adapter(model, adapter, base="tiny", base_fingerprint=base_fingerprint(spec), method="bottleneck")
    with torch.inference_mode():
        return spec, adapter, model(input_ids=IDS).logits


def test_peft_alone_says_the_line_and_opens_with_it(tmp_path: Path) -> None:
    spec, adapter, logits = saved(tmp_path)
    command = [sys.executable, "-c", ALONE, spec.base, str(adapter)]
    said, found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-2:]
    assert said == "BOTTLENECK: run `import didact.models.peft_methods` first"
    assert float(found) == pytest.approx(logits.sum().item(), rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby", "parallel"])
@pytest.mark.parametrize("older", [False, True])
def test_folders_with_either_name_are_opened(tmp_path: Path, placement: str, older: bool) -> None:
    spec, adapter, logits = saved(tmp_path, placement)
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    assert config["peft_type"].startswith("BOTTLENECK: run")
    if older:
        file.write_text(json.dumps(config | {"peft_type": "BOTTLENECK"}))
        save_folder_again(adapter)
    assert isinstance(read_config(adapter), BottleneckConfig)
    assert isinstance(PeftConfig.from_pretrained(adapter), BottleneckConfig)
    host = AdapterHost(load_base(spec), base_fingerprint(spec))
    host.load("one", adapter)
    with torch.inference_mode(), host.active("one") as model:
        assert torch.equal(model(input_ids=IDS).logits, logits)


def save_folder_again(adapter: Path) -> None:
    """Put the digests of changed files into the folder's manifest."""
    record = json.loads((adapter / "adapter.json").read_text())
    record["files"] = manifest(adapter, list(record["files"]))
    write_json(adapter / "adapter.json", record)


def test_the_name_for_recipes_stays(tmp_path: Path) -> None:
    base = load_base(ModelSpec(base=str(save_tiny_base(tmp_path)), dtype="float32"))
    spec = PeftSpec(method="peft", name="bottleneck", options={"size": 4, "target_modules": ["down_proj"]})
    model = attach_adapter(base, spec, seed=0, base_name="tiny")
    assert model.peft_config["default"].peft_type.value == "BOTTLENECK"

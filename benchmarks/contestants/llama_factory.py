"""LLaMA-Factory on the same records in alpaca form, rendered by its own template of the same wording.

    python llama_factory.py llamafactory WORK_FOLDER

Tokens are counted as ours, so that a template a token longer does not count as speed.
"""

import importlib.machinery
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import torch
from hugging_face import Ticks
from measure import Clock
from transformers import TrainerCallback

# LLaMA-Factory imports torchaudio even where no sound is read, and its wheel loads only beside a CUDA build of torch.
if torch.version.cuda is None:
    spec = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = importlib.util.module_from_spec(spec)

from llamafactory.train.tuner import run_exp


class Losses(TrainerCallback):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_log(self, arguments: object, state: object, control: object, logs: dict | None = None, **_: object) -> None:
        """One log a step."""
        if logs and "loss" in logs:
            self.values.append(logs["loss"])


def main() -> None:
    """Train, measure, report."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    (folder / "dataset_info.json").write_text(json.dumps({"records": {"file_name": "records.json"}}))
    clock, losses = Clock(job["tokens"], job["warm"]), Losses()
    options = {
        "model_name_or_path": job["base"],
        "adapter_name_or_path": str(folder / "start"),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "dataset_dir": str(folder),
        "dataset": "records",
        "template": job["template"],
        "cutoff_len": job["max_length"],
        "disable_shuffling": True,
        "overwrite_cache": True,
        "output_dir": tempfile.mkdtemp(dir=folder),
        "per_device_train_batch_size": job["batch"],
        "gradient_accumulation_steps": 1,
        "max_steps": len(job["tokens"]),
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "constant",
        "bf16": job["dtype"] == "bfloat16",
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **job["llamafactory"],
    }
    run_exp(args=options, callbacks=[Ticks(clock), losses])
    clock.report(folder, name, losses.values)


if __name__ == "__main__":
    main()

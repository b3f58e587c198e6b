"""Peers on the same token ids: `trainer` (transformers.Trainer + PEFT), `trl` (SFTTrainer as it comes), `trl-plain`
(without its activation checkpointing).

    python hugging_face.py NAME WORK_FOLDER

The folder holds `job.json`, `samples.json` and the starting adapter; the report goes to `NAME-RANK.json` in it.
"""

import json
import os
import sys
from pathlib import Path

import torch
from measure import Clock
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback, TrainingArguments


class Ticks(TrainerCallback):
    """Tells the clock of each step."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        """The time before the first step."""
        self._clock.tick()

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """The time after each step."""
        self._clock.tick()


def main() -> None:
    """Train, measure, report."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    job, samples = json.loads((folder / "job.json").read_text()), json.loads((folder / "samples.json").read_text())
    torch.set_num_threads(job["threads"])
    model = AutoModelForCausalLM.from_pretrained(job["base"], dtype=getattr(torch, job["dtype"]))
    model = PeftModel.from_pretrained(model, folder / "start", is_trainable=True)
    tokenizer = AutoTokenizer.from_pretrained(job["base"])
    clock = Clock(job["tokens"], job["warm"])
    options = {
        "output_dir": str(folder / f"{name}-out"),
        "max_steps": len(job["tokens"]),
        "per_device_train_batch_size": job["batch"] // int(os.environ.get("WORLD_SIZE", "1")),
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
        "use_cpu": True,
        "ddp_backend": "gloo" if "RANK" in os.environ else None,
        "bf16": job["dtype"] == "bfloat16",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
    }
    make = _trainer if name.startswith("trainer") else _sft_trainer
    trainer = make(name, model, tokenizer, samples, options)
    trainer.add_callback(Ticks(clock))
    trainer.train()
    clock.report(folder, name, [row["loss"] for row in trainer.state.log_history if "loss" in row])


def _trainer(name: str, model: object, tokenizer: object, samples: list[dict], options: dict) -> Trainer:
    from transformers import DataCollatorForSeq2Seq

    rows = [
        {
            "input_ids": sample["ids"],
            "labels": [
                token if learned else -100 for token, learned in zip(sample["ids"], sample["mask"], strict=True)
            ],
        }
        for sample in samples
    ]
    collator = DataCollatorForSeq2Seq(tokenizer, padding=True, label_pad_token_id=-100)
    return Trainer(model, TrainingArguments(**options), data_collator=collator, train_dataset=rows)


def _sft_trainer(name: str, model: object, tokenizer: object, samples: list[dict], options: dict) -> Trainer:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    if name == "trl-plain":
        options["gradient_checkpointing"] = False
    rows = [
        {"input_ids": each["ids"], "completion_mask": [int(learned) for learned in each["mask"]]} for each in samples
    ]
    arguments = SFTConfig(**options, completion_only_loss=True, max_length=None)
    return SFTTrainer(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


if __name__ == "__main__":
    main()

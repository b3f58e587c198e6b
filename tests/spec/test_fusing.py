"""Which runs can be trained together on one base."""

from typing import Any

from didact.spec import FinetuneSpec, set_dotted, validate
from didact.spec.fusing import fused_differences, fused_groups, why_not_fused


def recipe(**changes: Any) -> FinetuneSpec:
    values: dict[str, Any] = {
        "name": "run",
        "data": {"sources": [{"name": "sums", "path": "sums.jsonl"}]},
        "training": {"steps": 4},
        "placement": {"num_workers": 1},
    }
    for path, value in changes.items():
        set_dotted(values, path.replace("__", "."), value, "test")
    found: FinetuneSpec = validate(FinetuneSpec, values, "test")
    return found


def test_plain_lora_differs_in_all_but_the_base() -> None:
    plain = recipe()
    free = {
        "adapter": {
            "r": 2,
            "alpha": 3,
            "dropout": 0.5,
            "target_modules": ["q_proj"],
            "init": "orthogonal",
            "rslora": True,
        },
        "training": {"steps": 9, "learning_rate": 1, "seed": 7, "global_batch_size": 3, "schedule": "linear"},
        "data__strategy": "proportional",
        "name": "other",
    }
    other = recipe(**free)
    assert why_not_fused(plain) == why_not_fused(other) == fused_differences(plain, other) == ()


def test_every_reason_is_told_at_once() -> None:
    reasons = why_not_fused(
        recipe(adapter__dora=True, adapter__train_new_tokens=True, training__compile=True, placement__num_workers=2)
    )
    assert [each.partition(":")[0] for each in reasons] == [
        "adapter.dora",
        "adapter.train_new_tokens",
        "training.compile",
        "placement.num_workers",
    ]


def test_runs_are_grouped_by_base_and_loners_left_out() -> None:
    small, packed = {"model__base": "small"}, {"model__quantization": {"bits": 4}}
    specs = [
        recipe(),
        recipe(**small),
        recipe(adapter={"method": "ia3"}),
        recipe(adapter__r=2),
        recipe(**packed),
        recipe(**small, adapter__r=3),
        recipe(adapter__r=4),
    ]
    assert fused_groups(specs) == [[0, 3, 6], [1, 5]]

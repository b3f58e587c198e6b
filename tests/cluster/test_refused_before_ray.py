"""What a recipe asks of its base and cannot have is said before data is read and before Ray starts."""

from pathlib import Path

import pytest
import ray

from didact.cluster import finetune
from didact.errors import ModelError
from tests.fakes.recipes import tiny_recipe


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ({"method": "lora", "target_modules": ["q_proj", "query"]}, "adapter.target_modules: .* no module named query"),
        (
            {"method": "peft", "name": "lora", "options": {"modules_to_save": ["score"]}},
            "adapter.options.modules_to_save: .* no module named score",
        ),
    ],
)
def test_parts_that_the_base_does_not_have(tmp_path: Path, adapter: dict[str, object], words: str) -> None:
    spec = tiny_recipe(tmp_path, adapter=adapter)
    with pytest.raises(ModelError, match=words):
        finetune(spec, tmp_path / "runs")
    assert not ray.is_initialized()
    assert not (tmp_path / "runs").exists()

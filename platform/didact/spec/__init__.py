"""What a run is: YAML in -> frozen, checked specs out. Imports neither torch, ray nor mlflow.

    recipe.yaml + key=value overrides -> load_spec -> FinetuneSpec -> every other room

Example:
    >>> from didact.spec import FinetuneSpec, load_spec
    >>> load_spec(FinetuneSpec, "jobs/recipes/demo.yaml", ["training.steps=10"]).training.steps
    10
"""

from didact.spec.base import Spec, validate
from didact.spec.data import DataSpec, SourceSpec, TokensSpec
from didact.spec.evaluation import (
    EvaluateSpec,
    EvaluationSpec,
    Gsm8kTask,
    HeldOutTask,
    ReasoningGymTask,
    RegisterSpec,
    TaskSpec,
)
from didact.spec.finetune import FinetuneSpec
from didact.spec.load import json_schema, load_spec, read_mapping, set_dotted, to_json
from didact.spec.model import (
    BUNDLED_BASE,
    AdapterSpec,
    FullSpec,
    LoraSpec,
    ModelSpec,
    PrefixSpec,
    QuantizationSpec,
)
from didact.spec.paths import absolute_task_paths, with_absolute_paths
from didact.spec.serving import ServeSpec
from didact.spec.sweep import SweepSpec
from didact.spec.training import PlacementSpec, TrackingSpec, TrainingSpec

__all__ = [
    "BUNDLED_BASE",
    "AdapterSpec",
    "DataSpec",
    "EvaluateSpec",
    "EvaluationSpec",
    "FinetuneSpec",
    "FullSpec",
    "Gsm8kTask",
    "HeldOutTask",
    "LoraSpec",
    "ModelSpec",
    "PlacementSpec",
    "PrefixSpec",
    "QuantizationSpec",
    "ReasoningGymTask",
    "RegisterSpec",
    "ServeSpec",
    "SourceSpec",
    "Spec",
    "SweepSpec",
    "TaskSpec",
    "TokensSpec",
    "TrackingSpec",
    "TrainingSpec",
    "absolute_task_paths",
    "json_schema",
    "load_spec",
    "read_mapping",
    "set_dotted",
    "to_json",
    "validate",
    "with_absolute_paths",
]

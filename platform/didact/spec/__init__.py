"""What a run is: YAML in -> frozen, checked specs out. Imports neither torch, ray nor mlflow.

    recipe.yaml + key=value overrides -> load_spec -> FinetuneSpec -> every other room

Example:
    >>> from didact.spec import FinetuneSpec, load_spec
    >>> load_spec(FinetuneSpec, "jobs/recipes/demo.yaml", ["training.steps=10"]).training.steps
    10
"""

from didact.spec.adapter import (
    ADAPTER_METHODS,
    AdaLoraSpec,
    AdapterSpec,
    BoftSpec,
    BottleneckSpec,
    FullSpec,
    Ia3Spec,
    LohaSpec,
    LokrSpec,
    LoraSpec,
    OftSpec,
    PartialSpec,
    PeftSpec,
    PrefixSpec,
    PromptSpec,
    PTuningSpec,
    VeraSpec,
)
from didact.spec.base import MethodSpec, Spec, validate
from didact.spec.data import (
    ContaminationSpec,
    DataSpec,
    DuplicatesSpec,
    EvaluationSetSpec,
    SourceSpec,
    StageSpec,
    TokensSpec,
)
from didact.spec.evaluation import (
    EndpointSpec,
    EvaluateSpec,
    EvaluationSpec,
    Gsm8kTask,
    HeldOutTask,
    PriceSpec,
    QuestionTask,
    ReasoningGymTask,
    RegisterSpec,
    TaskSpec,
)
from didact.spec.finetune import FinetuneSpec
from didact.spec.load import json_schema, load_spec, read_mapping, set_dotted, spec_of, to_json
from didact.spec.merge import LimitsSpec, MergeSpec
from didact.spec.model import BUNDLED_BASE, ModelSpec, QuantizationSpec
from didact.spec.paths import (
    NAMED_TEMPLATES,
    absolute_base,
    absolute_task_paths,
    chat_environment,
    check_syntax,
    read_template,
    with_absolute_paths,
)
from didact.spec.serving import PREDICTED_TOKENS, ServeSpec
from didact.spec.sharding import ShardingSpec
from didact.spec.sweep import SweepSpec
from didact.spec.training import PlacementSpec, TrackingSpec, TrainingSpec, WorkerRange

__all__ = [
    "ADAPTER_METHODS",
    "BUNDLED_BASE",
    "NAMED_TEMPLATES",
    "PREDICTED_TOKENS",
    "AdaLoraSpec",
    "AdapterSpec",
    "BoftSpec",
    "BottleneckSpec",
    "ContaminationSpec",
    "DataSpec",
    "DuplicatesSpec",
    "EndpointSpec",
    "EvaluateSpec",
    "EvaluationSetSpec",
    "EvaluationSpec",
    "FinetuneSpec",
    "FullSpec",
    "Gsm8kTask",
    "HeldOutTask",
    "Ia3Spec",
    "LimitsSpec",
    "LohaSpec",
    "LokrSpec",
    "LoraSpec",
    "MergeSpec",
    "MethodSpec",
    "ModelSpec",
    "OftSpec",
    "PTuningSpec",
    "PartialSpec",
    "PeftSpec",
    "PlacementSpec",
    "PrefixSpec",
    "PriceSpec",
    "PromptSpec",
    "QuantizationSpec",
    "QuestionTask",
    "ReasoningGymTask",
    "RegisterSpec",
    "ServeSpec",
    "ShardingSpec",
    "SourceSpec",
    "Spec",
    "StageSpec",
    "SweepSpec",
    "TaskSpec",
    "TokensSpec",
    "TrackingSpec",
    "TrainingSpec",
    "VeraSpec",
    "WorkerRange",
    "absolute_base",
    "absolute_task_paths",
    "chat_environment",
    "check_syntax",
    "json_schema",
    "load_spec",
    "read_mapping",
    "read_template",
    "set_dotted",
    "spec_of",
    "to_json",
    "validate",
    "with_absolute_paths",
]

"""A recipe's data, made ready for training before any worker starts: converted, checked, tokenized, mixed, cached.

    FinetuneSpec -> open_source -> PartJobs (here or on Ray) -> Datasets -> PreparedMixture -> PreparedData -> Plan
    PreparedData -> PreparedRecord (prepared.json) -> open_prepared on every worker; DataFacts (data.json) -> everybody

Example:
    >>> from didact.preparation import prepare_data
    >>> from didact.spec import FinetuneSpec, validate
    >>> sums = {"name": "sums", "path": "reasoning-gym:chain_sum", "max_rows": 40, "held_out_rows": 4}
    >>> recipe = {"name": "sums", "data": {"sources": [sums]}, "training": {"epochs": 2, "global_batch_size": 12}}
    >>> prepared = prepare_data(validate(FinetuneSpec, recipe, "example"))
    >>> len(prepared.datasets[0].train), prepared.num_steps
    (36, 6)
"""

from typing import TYPE_CHECKING

from didact.faces import lazily

if TYPE_CHECKING:
    from didact.preparation.decided import write_decided
    from didact.preparation.facts import DataFacts, SourceFacts, StageFacts
    from didact.preparation.mixture import PreparedMixture, mix, prepare_mixture
    from didact.preparation.parts import Encoder, PartDone, PartJob, Runner, prepare_source, run_here, run_job, tokenize
    from didact.preparation.plan import Plan, memory_in_words
    from didact.preparation.prepare import (
        PreparedData,
        TaskTexts,
        prepare_data,
        read_sources,
        score_here,
        scores_of_rows,
        training_rows,
    )
    from didact.preparation.probe import Probe, probe_recipe
    from didact.preparation.record import PreparedRecord, open_prepared, prepare_run
    from didact.preparation.row_scores import NOT_CHOSEN, RowScores, ScoreJob, Scorer
    from didact.preparation.scoring import ScoringModel
    from didact.preparation.seen import with_seen

__all__ = [
    "NOT_CHOSEN",
    "DataFacts",
    "Encoder",
    "PartDone",
    "PartJob",
    "Plan",
    "PreparedData",
    "PreparedMixture",
    "PreparedRecord",
    "Probe",
    "RowScores",
    "Runner",
    "ScoreJob",
    "Scorer",
    "ScoringModel",
    "SourceFacts",
    "StageFacts",
    "TaskTexts",
    "memory_in_words",
    "mix",
    "open_prepared",
    "prepare_data",
    "prepare_mixture",
    "prepare_run",
    "prepare_source",
    "probe_recipe",
    "read_sources",
    "run_here",
    "run_job",
    "score_here",
    "scores_of_rows",
    "tokenize",
    "training_rows",
    "with_seen",
    "write_decided",
]

__getattr__ = lazily(__name__)

"""Runs trained together by one worker: an actor that holds their base and takes each run along its whole road.

    fused_worker -> begin_in_group (a run's words) -> FusedActor (FusedWorker): finetune in a thread -> outcome

Whoever begins runs, or decides after their measurements, loads neither PyTorch nor transformers for it: there is one
process that does, however many runs are trained.

Example:
    >>> from didact.cluster.fused.asking import FUSED_AT_ONCE
    >>> FUSED_AT_ONCE
    8
"""

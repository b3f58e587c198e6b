"""Workers that are kept: one trains run after run, so that only the first waits for a process and what it imports.

    KeptWorker (of a process that takes runs along their road) -> KeptActor -> cluster.worker.run_worker, run after run

Each run has its base read anew, so that it learns what it would learn alone, to the bit; what is saved are two
processes a run, Ray Train's controller and its worker. For runs with one worker; those with more are Ray Train's.

Example:
    >>> from didact.cluster.kept.decisions import Decisions
    >>> Decisions().is_over
    False
"""

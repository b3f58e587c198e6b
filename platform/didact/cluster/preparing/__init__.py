"""A recipe's data on the cluster: parts of sources converted and tokenized, rows scored by the base.

    PartJob... -> run_on_ray -> the shared cache;  ScoreJob... -> score_on_ray -> the shared cache

Example:
    >>> from didact.cluster.preparing.parts import guided
    >>> guided([], workers=2)
    []
"""

"""Who answers an evaluation's questions: bases with their adapters on Ray workers, the judge, and the rival.

    Subject -> Answerers -> a Model each;  AnswererSpec -> Others -> Asked, by role

Example:
    >>> from didact.cluster.asking.subjects import Subject
    >>> from didact.spec import ModelSpec
    >>> Subject("the bundled base", ModelSpec()).adapter is None
    True
"""

"""A study on one HTML page: its tables, what each factor changes, training curves, classes, every cell with its cost.

    StudyResult -> render_study -> one HTML file without anything beside it

Example:
    >>> from didact.spec import StudySpec, validate
    >>> from didact.studies import StudyResult
    >>> from didact.studies.page import render_study
    >>> values = {"name": "ranks", "recipe": "demo.yaml", "factors": {"rank": {"adapter.r": [4, 8]}}, "evaluation": {}}
    >>> "No cell has been measured" in render_study(StudyResult(validate(StudySpec, values, "ranks.yaml"), ()))
    True
"""

from didact.studies.page.page import render_study

__all__ = ["render_study"]

"""Files that ask for many runs: a search over a recipe's settings and mixtures, a study of its variants.

    tune_spaces/*.yaml -> SweepSpec -> `tuning`; studies/*.yaml -> StudySpec -> `studies`

Example:
    >>> from didact.spec import validate
    >>> from didact.spec.search.study import StudySpec
    >>> values = {"name": "ranks", "recipe": "demo.yaml", "factors": {"rank": {"adapter.r": [4, 8]}}, "evaluation": {}}
    >>> validate(StudySpec, values, "ranks.yaml").combinations()
    [{'rank': '4'}, {'rank': '8'}]
"""

"""A recipe's data on one page: what is in it, what training sees of it, what is wrong with it.

    FinetuneSpec -> gather_report -> DataReport -> render_report -> one HTML file without anything beside it

Example:
    >>> from didact.reports import gather_report, render_report
    >>> from didact.spec import FinetuneSpec, validate
    >>> sums = {"name": "sums", "path": "reasoning-gym:chain_sum", "max_rows": 40}
    >>> recipe = {"name": "sums", "data": {"sources": [sums]}, "training": {"steps": 2}}
    >>> "<table" in render_report(gather_report(validate(FinetuneSpec, recipe, "example")))
    True
"""

from didact.reports.gather import DataReport, RejectGroup, SourceReport, gather_report, prepare_unrefused
from didact.reports.page import render_report

__all__ = ["DataReport", "RejectGroup", "SourceReport", "gather_report", "prepare_unrefused", "render_report"]

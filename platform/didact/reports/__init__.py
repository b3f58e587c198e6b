"""A recipe's data on one page: what is in it, what training sees of it, what is wrong with it.

    FinetuneSpec -> gather_report -> DataReport -> render_report -> one HTML file without anything beside it

Example:
    >>> from didact.reports import gather_report, render_report
    >>> from didact.spec import FinetuneSpec, load_spec
    >>> spec = load_spec(FinetuneSpec, "jobs/recipes/demo.yaml")
    >>> page = render_report(gather_report(spec))  # doctest: +SKIP
"""

from didact.reports.gather import DataReport, RejectGroup, SourceReport, gather_report, prepare_unrefused
from didact.reports.page import render_report

__all__ = ["DataReport", "RejectGroup", "SourceReport", "gather_report", "prepare_unrefused", "render_report"]

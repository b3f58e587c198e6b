"""One recipe in many variants, all measured alike: which base, method, data or setting makes what difference.

    StudySpec -> load_study -> run_study -> (cells: ordinary runs, each with its report) -> StudyResult -> tables, page

Example:
    >>> from pathlib import Path
    >>> from didact.spec import StudySpec, load_spec
    >>> from didact.studies import load_study
    >>> file = Path("studies/embedded.yaml")
    >>> study = load_study(load_spec(StudySpec, file), file)
    >>> study.cells[0].levels["method"]
    'lora'
"""

from didact.studies.cells import Cell, Study, load_study
from didact.studies.results import CellResult, StudyResult, read_study
from didact.studies.running import run_study

__all__ = ["Cell", "CellResult", "Study", "StudyResult", "load_study", "read_study", "run_study"]

"""Every method does what docs/capabilities.md says it can, and refuses with a reason what it cannot."""

from pathlib import Path

import pytest

from benchmarks.capabilities import CHECKS, COLUMNS, PAGE, outcome, sharded_refusal
from benchmarks.sharded_capabilities import STRATEGIES
from tests.fakes.methods import METHODS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("capabilities")


def written() -> dict[tuple[str, str], str]:
    """Cells of the page: (method, check) -> "yes", or the reason."""
    text = PAGE.read_text(encoding="utf-8")
    reasons = {line.split(". ", 1)[0]: line.split(". ", 1)[1] for line in text.splitlines() if line[:1].isdigit()}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    checks = rows[0][1:]
    return {
        (row[0], check): cell if cell == "yes" else reasons[cell.removeprefix("no (").removesuffix(")")]
        for row in rows[2:]
        for check, cell in zip(checks, row[1:], strict=True)
    }


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", METHODS)
def test_the_page_says_what_happens(method: str, check: str, folder: Path) -> None:
    assert outcome(method, check, folder) == written()[method, check]


@pytest.mark.parametrize("column", STRATEGIES)
def test_the_page_says_which_shardings_are_refused(column: str, folder: Path) -> None:
    # The runs behind a "yes" take minutes and belong to the generator; tests/training/test_sharding.py makes some.
    assert {m: sharded_refusal(m, column, folder) for m in METHODS} == {m: written()[m, column] for m in METHODS}


def test_the_page_has_no_other_cells() -> None:
    assert written().keys() == {(method, check) for method in METHODS for check in COLUMNS}

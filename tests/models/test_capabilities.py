"""Every method does what docs/capabilities.md says it can, and refuses with a reason what it cannot."""

from pathlib import Path

import pytest

from benchmarks.capabilities import CHECKS, COLUMNS, outcome, read_page, sharded_refusal
from benchmarks.sharded_capabilities import STRATEGIES
from didact.gpu_proof.methods import METHODS

Cells = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("capabilities")


@pytest.fixture(scope="module")
def written() -> Cells:
    return read_page()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", METHODS)
def test_the_page_says_what_happens(method: str, check: str, folder: Path, written: Cells) -> None:
    assert outcome(method, check, folder) == written[method, check]


@pytest.mark.parametrize("column", STRATEGIES)
def test_the_page_says_which_shardings_are_refused(column: str, folder: Path, written: Cells) -> None:
    # The runs behind a "yes" take minutes and belong to the generator; tests/training/test_sharding.py makes some.
    assert {m: sharded_refusal(m, column, folder) for m in METHODS} == {m: written[m, column] for m in METHODS}


def test_the_page_has_no_other_cells(written: Cells) -> None:
    assert written.keys() == {(method, check) for method in METHODS for check in COLUMNS}

from pathlib import Path

import pytest

from didact.datasets.catalog import load_cards
from didact.datasets.catalog.table import BEGIN, END, main, updated_page
from didact.errors import DataError

PAGE = Path(__file__).resolve().parents[3] / "docs" / "catalog.md"


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert updated_page(text) == text, "run: python -m didact.datasets.catalog.table docs/catalog.md"
    assert all(f"`{card.name}`" in text for card in load_cards(Path("no such folder")))


def test_a_stale_table_is_replaced_and_the_rest_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    main([str(page)])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "[`xp3`](https://huggingface.co/datasets/bigscience/xP3)" in text


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(DataError, match="no lines"):
        updated_page("a page")

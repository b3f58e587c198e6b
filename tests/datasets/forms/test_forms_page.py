from pathlib import Path

from didact.datasets.forms.page import BEGIN, END, main, updated_page
from didact.datasets.forms.shared_fields import LABELS, SYSTEM
from didact.datasets.forms.turns import ROLES, UNUSABLE
from didact.datasets.rows.options import TurnPolicies
from didact.spec.data import FORMATS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "forms.md"


def test_the_page_is_up_to_date_and_names_all_there_is(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert updated_page(text) == text, "run: python -m didact.datasets.forms.page docs/forms.md"
    names = (*FORMATS[1:], *SYSTEM, *LABELS, *ROLES, *UNUSABLE, *TurnPolicies.model_fields)
    assert [name for name in names if f"`{name}`" not in text] == []
    defaults = TurnPolicies().model_dump().items()
    assert [name for name, value in defaults if f"| `{name}` | `{value}` |" not in text] == []
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nto be replaced\n{END}\nafter\n", encoding="utf-8")
    main([str(page)])
    assert "to be replaced" not in page.read_text() and page.read_text().endswith("after\n")

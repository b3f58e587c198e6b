import pytest

from didact.errors import DataError
from didact.preparation import prepare_data
from didact.spec import FinetuneSpec, validate


def test_a_commercial_recipe_is_refused_before_any_data_is_read() -> None:
    values = {
        "name": "shop",
        "data": {"commercial": True, "sources": [{"name": "tasks", "path": "card:alpaca"}]},
        "training": {"steps": 1},
    }
    with pytest.raises(DataError, match=r"tasks: alpaca forbids commercial use \(licence CC-BY-NC-4.0\)"):
        prepare_data(validate(FinetuneSpec, values, "recipe"))

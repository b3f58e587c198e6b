"""What clients are told of errors: without the server's folders and addresses."""

import pytest

from didact.errors import AdapterError, RegistryError, TemplateError
from didact.serving.replica.worker import words_for_clients


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            AdapterError("adapter /srv/c/adapters/ab12 is damaged: x is missing"),
            "adapter demo:2 is damaged: x is missing",
        ),
        (AdapterError("found '/home/me/base'; expected org/base"), "demo:2: found 'base'; expected org/base"),
        (AdapterError("~/.cache/didact/a.json: is not JSON"), "demo:2: a.json: is not JSON"),
        (TemplateError("read s3://bucket/key/t.jinja, line 3"), "read t.jinja, line 3"),
        (AdapterError("adapter (/srv/x) and and/or 3/4 stay"), "demo:2: adapter (x) and and/or 3/4 stay"),
        (
            RegistryError("registry sqlite:////srv/mlflow.db could not read demo: disk /dev/sda"),
            "The model registry cannot be read, and demo:2 was not used here before; try again shortly.",
        ),
    ],
)
def test_words_for_clients(error: Exception, said: str) -> None:
    assert words_for_clients(error, "demo:2") == said

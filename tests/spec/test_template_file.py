"""Chat templates of one's own: where they may stand, and what is said of one that cannot be read."""

from pathlib import Path

import pytest

from didact.errors import SpecError, TemplateError
from didact.spec import FinetuneSpec, read_template, validate, with_absolute_paths
from tests.fakes.small_files import RECIPE

GOOD = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def recipe(**tokens: object) -> FinetuneSpec:
    spec: FinetuneSpec = validate(FinetuneSpec, {**RECIPE, "tokens": tokens}, "recipe.yaml")
    return spec


def test_a_recipe_carries_the_templates_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "chat.jinja").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    spec = with_absolute_paths(recipe(template="chat.jinja", template_arguments={"enable_thinking": False}))
    assert spec.tokens.template == GOOD and spec.tokens.template_arguments == {"enable_thinking": False}
    (tmp_path / "chat.jinja").unlink()
    assert with_absolute_paths(spec) == spec


@pytest.mark.parametrize("name", ["auto", "model", "alpaca"])
def test_named_templates_stay_names(name: str) -> None:
    assert read_template(recipe(template=name).tokens.template) == name


def test_text_in_the_recipe_is_a_template() -> None:
    assert read_template(recipe(template=GOOD).tokens.template) == GOOD


@pytest.mark.parametrize(
    "marked", ["{% generation %}{{ 1 }}{% endgeneration %}", "{% for m in messages %}{% break %}{% endfor %}"]
)
def test_what_chat_templates_may_hold_is_no_error(marked: str) -> None:
    assert read_template(marked) == marked


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("{{ 'a' }}\n{% for m in messages %}\n{{ m[ }}\n{% endfor %}", 3, "{{ m[ }}"),
        ("{{ 'a' }}\n{% for m in messages %}\n{{ m }}", 3, "endfor"),
        ("{{ 'a' }}\n\n{% if x %}{% endfor %}", 3, "endfor"),
        ("{{ 'a' }}\n{{ messages | tojsn }}", 2, "tojsn"),
        ("{% wile %}", 1, "wile"),
    ],
)
def test_broken_syntax_is_refused_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    (tmp_path / "chat.jinja").write_text(text)
    for template, place in (
        (str(tmp_path / "chat.jinja"), f"chat.jinja, line {line}:"),
        (text, f"template, line {line}:"),
    ):
        with pytest.raises(TemplateError, match=r"tokens\.template") as refused:
            with_absolute_paths(recipe(template=template))
        assert place in str(refused.value) and words in str(refused.value)


def test_a_file_that_is_missing_or_no_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"there is no file .*none\.jinja"):
        read_template(str(tmp_path / "none.jinja"))
    (tmp_path / "plain.jinja").write_text("Hello")
    with pytest.raises(TemplateError, match="holds no Jinja"):
        read_template(str(tmp_path / "plain.jinja"))
    (tmp_path / "bytes.jinja").write_bytes(b"\xff\xfe{")
    with pytest.raises(TemplateError, match="cannot be read as text"):
        read_template(str(tmp_path / "bytes.jinja"))


@pytest.mark.parametrize("value", ["mine", "chat.txt", 3, ["chat.jinja"]])
def test_other_values_are_refused_with_what_is_expected(value: object) -> None:
    with pytest.raises(SpecError, match=r"a Jinja file such as chat\.jinja"):
        recipe(template=value)

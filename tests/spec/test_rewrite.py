"""Overrides written into the text of a recipe: the same recipe as overrides on the command line give, comments kept."""

from collections import Counter

import pytest

from didact.errors import SpecError
from didact.spec.load import parse_mapping, read_override, set_dotted
from didact.spec.rewrite import with_overrides
from didact.spec.shipped import shipped_recipes

TEXT = """\
# what it is for
name: small            # the run
model:
  base: a/b            # a hub id
  # revision: main
data:
  sources:
    # the first
    - name: sums
      path: "reasoning-gym:chain_sum"   # quoted
      options: {min_terms: 2}
    - {name: mine, path: rows.jsonl, weight: 2}   # a line
training:
  steps: 10
  epochs:
  # a last word
"""


def changed(text: str, *overrides: str) -> tuple[list[str], list[str]]:
    """Lines that went and lines that came, each in its order."""
    before, after = text.splitlines(), with_overrides(text, overrides, "text").splitlines()
    gone, new = Counter(before) - Counter(after), Counter(after) - Counter(before)
    return [line for line in before if line in gone], [line for line in after if line in new]


@pytest.mark.parametrize(
    ("override", "gone", "came"),
    [
        ("training.steps=20", "  steps: 10", "  steps: 20"),
        ("training.epochs=0.5", "  epochs:", "  epochs: 0.5"),
        ("model.base=x/y", "  base: a/b            # a hub id", "  base: x/y            # a hub id"),
        ("training.learning_rate=2e-5", None, "  learning_rate: 2e-5"),
        ("placement.num_workers={min: 1, max: 4}", None, "placement: {num_workers: {min: 1, max: 4}}"),
        ("training.sharding.strategy=fsdp", None, "  sharding: {strategy: fsdp}"),
        ("data.sources.sums.max_rows=5", None, "      max_rows: 5"),
        (
            "data.sources.0.options.seed=7",
            "      options: {min_terms: 2}",
            "      options: {min_terms: 2, seed: 7}",
        ),
        (
            "data.sources.mine.path=my file, new one",
            "    - {name: mine, path: rows.jsonl, weight: 2}   # a line",
            "    - {name: mine, path: 'my file, new one', weight: 2}   # a line",
        ),
        ("name=with # hash", "name: small            # the run", "name: with            # the run"),
    ],
)
def test_one_line_changes_and_its_comment_stays(override: str, gone: str | None, came: str) -> None:
    assert changed(TEXT, override) == ([gone] if gone else [], [came])


def test_a_whole_section_becomes_one_line() -> None:
    gone, came = changed(TEXT, "data.sources=[{name: only, path: x.json}]")
    assert came == ["  sources: [{name: only, path: x.json}]"]
    assert "    - name: sums" in gone
    assert "  # a last word" in with_overrides(TEXT, ["data={sources: []}"], "text")


OVERRIDES = [
    *("name=x", "training.steps=7", "training.learning_rate=1e-4", "training={steps: 3}", "training.epochs="),
    *("adapter={method: adalora}", "adapter.target_modules=[q_proj, v_proj]", "model.quantization.bits=4"),
    *("model.base=/a b/c, d", "tracking.mlflow=false", "register_as.gate.eval/loss=0.1", "data.curriculum=[]"),
    *("data.sources.0.path=- x", "data.sources.0.licence='# no'", 'data.sources.0={name: y, path: "z # no"}'),
    *("data.sources.0.options.deep.er=[1,{a: 2}]", "data.sources.0.weight=.5", "data.seed=1_000", "name=yes"),
]


@pytest.mark.parametrize(
    "text", [each.text for each in shipped_recipes()], ids=[each.name for each in shipped_recipes()]
)
def test_the_text_means_what_overrides_mean(text: str) -> None:
    wanted, rewritten = parse_mapping(text, "recipe"), text
    for override in OVERRIDES:
        alone = parse_mapping(text, "recipe")
        set_dotted(alone, *read_override(override), "recipe")
        assert parse_mapping(with_overrides(text, [override], "recipe"), "recipe") == alone, override
        set_dotted(wanted, *read_override(override), "recipe")
        rewritten = with_overrides(rewritten, [override], "recipe")
    assert parse_mapping(rewritten, "recipe") == wanted


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.steps", "is not of the form key=value"),
        ("data.sources.none.path=x", r"no item 'none'; expected one of \['sums', 'mine'\]"),
        ("name.first=x", "name is 'small', not a mapping"),
    ],
)
def test_what_cannot_be_set_is_told_as_for_overrides(override: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        with_overrides(TEXT, [override], "text")

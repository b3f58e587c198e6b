"""Lineage as tags, and the names of versions."""

import json
from dataclasses import replace

import pytest

from didact.errors import RegistryError
from didact.preparation import SourceFacts
from didact.registry import Figure, Lineage, Reference, parse_reference


def source(name: str, fingerprint: str, weight: float, samples: int, rejected: int) -> SourceFacts:
    return SourceFacts(
        name=name,
        path=f"{name}.jsonl",
        licence="unknown",
        weight=weight,
        rows_read=samples + rejected,
        rows_rejected=rejected,
        rows_train=samples,
        rows_held_out=0,
        rows_dropped={},
        samples_usable=samples,
        samples_truncated=0,
        samples_rejected={},
        tokens=samples * 20,
        supervised_share=0.5,
        samples_seen=samples,
        tokens_seen=samples * 20.0,
        share_of_tokens=weight,
        epochs=1.0,
        fingerprint=fingerprint,
    )


LINEAGE = Lineage(
    recipe="demo",
    base="smollm2-135m-instruct",
    base_sha256="b" * 64,
    method="lora",
    template_fingerprint="c" * 64,
    sources=(source("alpaca", "d" * 64, 0.75, 100, 3), source("gsm8k", "e" * 64, 0.25, 40, 0)),
    options={"r": 16, "target_modules": "all-linear"},
    figures=(Figure("gsm8k/accuracy", 0.125, 0.375),),
    git_commit="f" * 40,
    run_id="1" * 32,
)


def test_tags_hold_every_fact_as_text() -> None:
    tags = LINEAGE.tags()
    assert all(isinstance(value, str) for value in tags.values())
    assert json.loads(tags["mixture"])["alpaca"] == {
        "path": "alpaca.jsonl",
        "licence": "unknown",
        "commercial": None,
        "fingerprint": "d" * 64,
        "weight": 0.75,
        "rows_used": 100,
        "rows_rejected": 3,
    }
    assert (tags["base_sha256"], tags["base.gsm8k/accuracy"], tags["adapter.gsm8k/accuracy"]) == (
        "b" * 64,
        "0.125",
        "0.375",
    )
    assert "git_commit" not in replace(LINEAGE, git_commit=None).tags()


def test_the_three_forms_of_a_reference() -> None:
    assert parse_reference("sums") == Reference("sums")
    assert parse_reference("sums@champion") == Reference("sums", alias="champion")
    assert parse_reference("sums:12") == Reference("sums", version=12)


@pytest.mark.parametrize("reference", ["", "sums:", "sums:x", "sums:-1", "sums:²", "sums@", "a@b@c", "a/b", "a:1:2"])
def test_anything_else_is_refused(reference: str) -> None:
    with pytest.raises(RegistryError):
        parse_reference(reference)

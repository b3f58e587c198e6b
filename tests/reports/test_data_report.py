"""The page about a recipe's data: everything on it is real, nothing is asked for beside it, nothing runs."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from didact.datasets.quality.statistics import HALF_OCTAVES
from didact.pages import histogram, place_of
from didact.reports import DataReport, gather_report, render_report
from didact.spec import ChoiceSpec, FinetuneSpec
from tests.fakes.recipes import tiny_recipe

EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> FinetuneSpec:
    folder = tmp_path_factory.mktemp("report")
    questions = [{"question": f"Add {n} and {n + 3}.", "answer": f"#### {2 * n + 3}"} for n in range(30)]
    (folder / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    rows = [{"instruction": f"Add {n} and {n + 3}.", "output": f"{2 * n + 3} it is"} for n in range(20)]
    rows += [{"instruction": f"{EVIL} {n % 15}", "output": "No & never."} for n in range(20)]
    (folder / "more.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows) + f'{{"instruction": "{EVIL}"}}\n'
    )
    sources = [
        {"name": "sums", "path": str(folder / "sums.jsonl"), "held_out_rows": 8, "licence": EVIL},
        {"name": "more", "path": str(folder / "more.jsonl"), "weight": 3.0},
    ]
    tasks = [{"task": "gsm8k", "path": str(folder / "exam.jsonl"), "num_items": 30}]
    return tiny_recipe(
        folder, data__sources=sources, data__max_bad_rows_share=0.1, evaluation={"tasks": tasks}, name="evil-looking"
    )


@pytest.fixture(scope="module")
def report(spec: FinetuneSpec) -> DataReport:
    return gather_report(spec)


class Reader(HTMLParser):
    """Tags, attributes and text of a page; every element must be closed."""

    EMPTY = frozenset({"meta", "rect", "line"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_figures_are_those_of_the_recipes_data(report: DataReport) -> None:
    sums, more = report.sources
    assert (sums.statistics.num_rows, more.statistics.num_rows) == (60, 40)
    (group,) = more.rejects
    assert (group.reason, group.count, len(group.examples)) == ("missing_field", 1, 1)
    assert more.found["exact_duplicate"] == 25
    assert more.found["contaminated:gsm8k"] == 20
    held_out = 60 - sums.facts.rows_train
    assert 30 - held_out <= sums.found["contaminated:gsm8k"] <= 30
    assert report.overlap.exact == ((0, 20), (20, 10))
    assert report.evaluation_sets == ("gsm8k",)
    assert [source.commercial for source in report.sources] == [None, None]


def test_what_is_looked_for_does_not_depend_on_what_the_recipe_does(spec: FinetuneSpec, report: DataReport) -> None:
    for policy, within, trained, left_out in (("fail", "keep", 40, 0), ("drop", "drop", 15, 25)):
        contamination = spec.data.contamination.model_copy(update={"policy": policy})
        duplicates = spec.data.duplicates.model_copy(update={"within": within})
        data = spec.data.model_copy(update={"contamination": contamination, "duplicates": duplicates})
        other = gather_report(spec.model_copy(update={"data": data}))
        for one, same in zip(other.sources, report.sources, strict=True):
            assert (one.found, one.examples, one.statistics) == (same.found, same.examples, same.statistics)
        assert other.overlap == report.overlap
        facts = other.sources[1].facts
        leaks = report.sources[1].facts.rows_dropped.get("held_out_prompt", 0)
        assert facts.rows_train == (trained if within == "drop" else trained - leaks)
        assert sum(facts.rows_dropped.values()) == (left_out if within == "drop" else leaks)
        assert other.is_refused == (policy == "fail")
        assert ("This recipe does not train" in render_report(other)) == (policy == "fail")


def test_page_is_whole_and_asks_for_nothing(report: DataReport) -> None:
    page = render_report(report)
    reader = Reader(page)
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "a"}
    assert not re.search(r"https?://|@import|url\(", page)
    attributes = {name for _, attrs in reader.tags for name in attrs}
    assert not [name for name in attributes if name.startswith("on") or name in ("src", "href")]
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in reader.tags
    assert sum(tag == "svg" for tag, _ in reader.tags) == len(report.sources)
    assert "prefers-color-scheme: dark" in page


def test_texts_of_the_data_are_escaped_and_shown(report: DataReport) -> None:
    page = render_report(report)
    assert EVIL not in page
    assert EVIL in Reader(page).texts, "the licence"
    assert any(EVIL in text and text != EVIL for text in Reader(page).texts), "the rejected row"


def test_page_shows_every_part(report: DataReport) -> None:
    texts = [text.strip() for text in Reader(render_report(report)).texts]
    for title in ("Size", "Mixture", "Length", "Language", "What is trained", "Overlap", "Rejected rows", "Licences"):
        assert title in texts
    shown = [float(width) for width in re.findall(r'class="asked" style="width:([\d.]+)%', render_report(report))]
    assert shown == [25.0, 75.0]
    assert "missing field" in " ".join(texts)
    assert "gsm8k" in texts


def test_figures_that_rows_were_chosen_by_are_drawn_with_rows_to_read(spec: FinetuneSpec) -> None:
    first = spec.data.sources[0].model_copy(update={"choose": ChoiceSpec(by="answer_tokens", share=0.25)})
    data = spec.data.model_copy(update={"sources": (first, spec.data.sources[1])})
    chosen = gather_report(spec.model_copy(update={"data": data}))
    (scored, none) = (source.scored for source in chosen.sources)
    assert none is None and scored is not None
    stays = [stays for _, stays, _ in scored.examples]
    assert len(stays) == 7 and stays == sorted(stays, reverse=True) and set(stays) == {True, False}
    values = [value for value, _, _ in scored.examples]
    assert values == sorted(values, reverse=True)
    text = " ".join(" ".join(Reader(render_report(chosen)).texts).split())
    assert "Rows chosen by a figure" in text and "answer tokens: 13 of 52 rows stay, highest 25%" in text
    assert scored.examples[0][2].messages[-1].content in text


def test_clusters_are_shown_with_what_stays_of_each(spec: FinetuneSpec) -> None:
    second = spec.data.sources[1].model_copy(update={"choose": ChoiceSpec(by="diversity", share=0.25, clusters=2)})
    data = spec.data.model_copy(update={"sources": (spec.data.sources[0], second)})
    found = gather_report(spec.model_copy(update={"data": data}))
    (none, scored) = (source.scored for source in found.sources)
    assert none is None and scored is not None and scored.num_clusters == 2
    assert [(each.rows, each.stay) for each in scored.clusters] == [(20, 5), (20, 5)]
    assert {"add", "script"} <= {word for each in scored.clusters for word in each.words}
    text = " ".join(" ".join(Reader(render_report(found)).texts).split())
    assert "diversity: 10 of 40 rows stay, highest 25%, 0.2 to 1" in text and "All clusters" in text


def test_shares_that_sizes_decide_are_not_shown_as_asked_for(report: DataReport) -> None:
    data = report.spec.data.model_copy(update={"strategy": "proportional"})
    page = render_report(replace(report, spec=report.spec.model_copy(update={"data": data})))
    assert "asked for" not in Reader(page).texts
    assert 'class="asked"' not in page
    assert page.count('class="seen"') == 2


def test_the_same_report_is_the_same_page_and_another_is_not(report: DataReport) -> None:
    assert render_report(report) == render_report(report)
    assert render_report(replace(report, num_steps=11)) != render_report(report)


def test_bars_stand_where_the_bins_are() -> None:
    counts = [0] * len(HALF_OCTAVES)
    counts[4], counts[6] = 10, 5
    heights = re.findall(
        r'<rect x="([\d.]+)" y="[\d.]+" width="[\d.]+" height="([\d.]+)"', histogram(counts, HALF_OCTAVES, 4, 7, 4)
    )
    assert [(float(x), float(height)) for x, height in heights] == [(0.75, 60.0), (120.75, 30.0)]
    assert [place_of(value, (0, 1, 2, 4, 8)) for value in (0, 1, 3, 8, 100)] == [0, 1, 2.5, 4, 4]


def test_report_is_written_by_its_verb(spec: FinetuneSpec, tmp_path: Path) -> None:
    import yaml
    from typer.testing import CliRunner

    from didact.cli import app

    (tmp_path / "r.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json")))
    arguments = ["data", "report", str(tmp_path / "r.yaml"), "training.steps=7", "-o", str(tmp_path / "out" / "r.html")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "7 steps" in " ".join((tmp_path / "out" / "r.html").read_text().split())

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from didact.cli import app
from didact.errors import DataError, RunError, SpecError
from didact.evaluation import EvalReport
from didact.studies import read_study
from didact.studies.contrasts import Contrast
from didact.studies.figures import Gain, figure_of
from didact.studies.findings.effects import Effect, effects_of
from didact.studies.page import render_study
from didact.studies.reporting import markdown, write_report
from didact.studies.tables import tables_of
from didact.studies.values import scatter_of
from tests.fakes.studies import made_study, save_cell, study_spec

METHOD = {"lora": {}, "ia3": {"adapter": {"method": "ia3"}}, "dora": {"adapter.dora": True}}
DATA = {"sums": {}, "words": {"tokens.max_length": 64}}
BOTH = study_spec({"method": METHOD, "data": DATA}, seeds=[0, 1])


def test_known_effects_are_found_and_none_where_there_is_none(tmp_path: Path) -> None:
    result = made_study(tmp_path, BOTH, lambda levels: 0.5 - 0.2 * (levels["method"] == "ia3"))
    effects = {(each.factor, each.level): each for each in effects_of(result) if each.metric == "eval/sums/accuracy"}
    assert set(effects) == {("method", "ia3"), ("method", "dora"), ("data", "words")}
    worse = effects["method", "ia3"]
    assert worse.is_found and worse.gain.low < -0.2 < worse.gain.high < 0 and worse.gain.num_pairs == 4
    for same in (effects["method", "dora"], effects["data", "words"]):
        assert not same.is_found and same.gain.low < 0 < same.gain.high
    assert "method ia3 against lora" in str(worse) and str(worse).endswith("worse")


def test_a_study_without_effects_claims_none(tmp_path: Path) -> None:
    spec = study_spec({f"f{n}": {"off": {}, "on": {"training.steps": n + 2}} for n in range(4)})
    result = made_study(tmp_path, spec, lambda levels: 0.5, num_questions=150)
    assert [str(each) for each in effects_of(result) if each.is_found] == []


def test_the_best_is_marked_and_what_is_not_told_apart_from_it(tmp_path: Path) -> None:
    chance = {"lora": 0.55, "ia3": 0.25, "dora": 0.54}
    table, _ = tables_of(made_study(tmp_path, BOTH, lambda levels: chance[levels["method"]]))
    assert table.rows == ("lora", "ia3", "dora") and table.columns == ("eval/loss", "eval/sums/accuracy")
    marks = {name: (row[1].is_best, row[1].not_worse) for name, row in zip(table.rows, table.entries, strict=True)}
    assert marks["ia3"] == (False, False)
    assert sorted([marks["lora"], marks["dora"]]) == [(False, True), (True, False)]
    assert table.ranks[1] == 3.0 and table.num_cells == 12 and table.left_out == 0


def test_rows_compare_like_with_like_where_cells_are_missing(tmp_path: Path) -> None:
    made_study(tmp_path, BOTH, lambda levels: 0.9 if levels["data"] == "sums" else 0.1)
    gone = tmp_path / "cells" / "made-3-s0" / "report.json"  # ia3 on words
    gone.unlink()
    result = read_study(tmp_path)
    assert [cell.status for cell in result.cells].count("not run") == 1
    table = tables_of(result)[0]
    assert table.left_out == 2, "lora and dora on words with seed 0 have no counterpart"
    values = [row[1].figure.value for row in table.entries if row[1].figure is not None]
    assert max(values) - min(values) < 0.05, "all rows are of the same mixture of data"


def test_incomplete_and_failed_cells_are_shown_and_never_averaged(tmp_path: Path) -> None:
    spec = study_spec({"method": METHOD})
    made_study(tmp_path, spec, lambda levels: 0.5)
    for name in ("made-0-s0", "made-1-s0"):
        (tmp_path / "cells" / name / "report.json").unlink()
    (tmp_path / "cells" / "made-0-s0" / "steps.jsonl").unlink()
    (tmp_path / "cells" / "made-0-s0").rmdir()
    save_cell(tmp_path / "cells" / "made-0-s0", [1.0] * 10, 0.1, problem="no answer")
    (tmp_path / "cells" / "made-1-s0" / "report.json").write_text("{}")
    result = read_study(tmp_path)
    assert [cell.status for cell in result.cells] == ["incomplete", "failed", "finished"]
    (table,) = tables_of(result)
    assert [row[0].missing for row in table.entries] == ["incomplete", "failed", ""]
    assert effects_of(result) == []
    told = markdown(result)
    assert "made-0-s0: incomplete" in told and "made-1-s0: failed, " in told
    assert "incomplete" in render_study(result)


def test_levels_across_make_a_table_of_two_factors(tmp_path: Path) -> None:
    tables = [{"name": "methods on data", "rows": "method", "columns": "data", "metrics": ["eval/sums/accuracy"]}]
    spec = BOTH.model_copy(update={"tables": study_spec(BOTH.model_dump()["factors"], tables=tables).tables})
    (table,) = tables_of(made_study(tmp_path, spec, lambda levels: 0.7 if levels["data"] == "sums" else 0.2))
    assert table.columns == ("sums", "words") and len(table.entries) == 3
    for row in table.entries:
        sums, words = (entry.figure.value for entry in row if entry.figure is not None)
        assert sums - words > 0.3


def test_a_table_shows_the_base_or_what_training_changed(tmp_path: Path) -> None:
    tables = [{"name": of, "rows": "method", "of": of} for of in ("adapter", "base", "change")]
    spec = study_spec({"method": METHOD}, tables=tables)
    after, before, change = tables_of(made_study(tmp_path, spec, lambda levels: 0.5))
    for row, base, gained in zip(after.entries, before.entries, change.entries, strict=True):
        assert row[1].figure is not None and base[1].figure is not None and gained[1].figure is not None
        assert base[1].figure.value == 0.0, "made bases answer nothing right"
        assert gained[1].figure == row[1].figure, "with its interval"
        assert gained[0].figure is not None and gained[0].figure.value == pytest.approx(1.5), "of the loss, from 0"
    assert [row[1].is_best for row in change.entries] == [row[1].is_best for row in after.entries]


def test_one_at_a_time_compares_at_the_defaults(tmp_path: Path) -> None:
    spec = study_spec({"method": METHOD, "data": DATA}, design="one_at_a_time", defaults={"data": "words"})
    result = made_study(tmp_path, spec, lambda levels: 0.5 + 0.3 * (levels["data"] == "sums"))
    method, data = tables_of(result)
    assert all(row[1].figure is not None and row[1].figure.value < 0.65 for row in method.entries)
    assert data.entries[0][1].is_best
    (found,) = [each for each in effects_of(result) if each.is_found]
    assert (found.level, found.reference, found.gain.num_pairs) == ("sums", "words", 1)


def test_a_mean_over_cells_has_its_interval_over_questions(tmp_path: Path) -> None:
    result = made_study(tmp_path, BOTH, lambda levels: 0.5)
    found = figure_of(result.cells, "eval/sums/accuracy")
    single = figure_of(result.cells[:1], "eval/sums/accuracy")
    assert found is not None and single is not None and found.num_cells == 12
    assert None not in (found.low, found.high, single.low, single.high)
    assert found.least < found.value < found.most
    assert found.high - found.low < single.high - single.low  # type: ignore[operator]
    loss = figure_of(result.cells, "eval/loss")
    assert loss is not None and (loss.low, loss.high) == (None, None)


@pytest.mark.parametrize("chance", [-0.25, 1.25])
def test_the_interval_of_a_share_over_several_runs_stays_a_share(tmp_path: Path, chance: float) -> None:
    result = made_study(tmp_path, study_spec(BOTH.factors, seeds=[0, 1]), lambda levels: chance, 60)
    for row in tables_of(result)[0].entries:
        figure = row[1].figure
        assert figure is not None and figure.low is not None and figure.high is not None
        assert 0 <= figure.low <= figure.value <= figure.high <= 1


def test_tables_are_written_in_four_forms(tmp_path: Path) -> None:
    result = made_study(tmp_path, BOTH, lambda levels: 0.6 if levels["method"] == "lora" else 0.3)
    page, text, values, latex = write_report(result)
    assert "**0." in text.read_text() and "## Effects" in text.read_text()
    rows = list(csv.DictReader(io.StringIO(values.read_text())))
    best = [row for row in rows if row["best"] == "True" and row["metric"] == "eval/sums/accuracy"]
    assert [row["level"] for row in best if row["factor"] == "method"] == ["lora"]
    assert {row["table"] for row in rows} == {"method", "data"}, "one line of headings for all tables"
    assert r"\textbf{0." in latex.read_text() and r"\begin{tabular}{lrrr}" in latex.read_text()
    assert page.read_text().count("<section") >= 6 and "made-0-s0" in page.read_text()


def test_a_cell_leads_to_its_files_and_tells_its_cost(tmp_path: Path) -> None:
    made_study(tmp_path, study_spec({"method": METHOD}), lambda levels: 0.5, num_questions=20)
    folder = tmp_path / "cells" / "made-1-s0"
    (folder / "recipe.json").write_text("{damaged")
    lines = [
        {"step": n, "time_ms": 60_000 * n, "attempt": 1, "metrics": {"train/loss": 1.0, "train/tokens": 700.0}}
        for n in range(1, 4)
    ]
    (folder / "steps.jsonl").write_text("".join(f"{each}\n" for each in ["{}", "[]", "torn", *map(json.dumps, lines)]))
    result = read_study(tmp_path)
    assert (result.cells[1].seconds, result.cells[1].tokens) == (120.0, 2100.0)
    page = render_study(result)
    assert '<a href="cells/made-1-s0/recipe.json">recipe</a>' in page and "2,100" in page and "2.0 min" in page
    assert '<a href="cells/made-1-s0/report.html">' not in page, "it has none"
    write_report(result)


def test_shares_of_right_answers_stay_between_none_and_all(tmp_path: Path) -> None:
    result = made_study(tmp_path, study_spec({"method": METHOD}, seeds=[0, 1]), lambda levels: 0.0, num_questions=40)
    for table in tables_of(result):
        for row in table.entries:
            figure = row[1].figure
            assert figure is not None and 0 <= (figure.low or 0) <= figure.value <= (figure.high or 0) <= 1


def test_what_rounding_leaves_of_zero_is_told_as_zero() -> None:
    assert str(Contrast(1.5e-17, -0.25, 0.25, 2, 10, 1.0)) == "+0 [-0.25 to +0.25]"
    assert str(Contrast(-1.5e-17, -3e-13, 1e-9, 2, 10, 1.0)) == "+0 [+0 to +1e-09]"


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"name": "made-0-s0"', '"name": "../../elsewhere"'),
        lambda text: text.replace('"name": "made-0-s0"', '"name": ".."'),
        lambda text: text.replace('"seed": 0', '"seed": "x"'),
        lambda text: text.replace('"levels": {', '"levels": {"size": "large", '),
        lambda text: text.replace('"recipe":', '"recip":'),
    ],
)
def test_a_damaged_study_is_named_by_report_and_run(tmp_path: Path, damage: Callable[[str], str]) -> None:
    made_study(tmp_path, study_spec({"method": METHOD}), lambda levels: 0.5, num_questions=5)
    file = tmp_path / "study.json"
    file.write_text(damage(file.read_text()))
    with pytest.raises(DataError, match=r"(?s)study.json cannot be read .*: move it away, and didact study run FILE"):
        read_study(tmp_path)


def test_a_difference_that_only_the_other_effects_hide_says_so(tmp_path: Path) -> None:
    gain = Gain(-0.1, -0.19, -0.01, 0.03, 2, 50)
    told = str(Effect("base", "4bit", "whole", "eval/sums/accuracy", gain, 0.4, "2 pairs"))
    assert told.endswith("over 2 pairs of runs: no difference shown, with all effects in view (p 0.4)")


def test_a_metric_that_nothing_measured_is_named_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [{"name": "t", "rows": "method", "metrics": ["eval/sums/accuracy", "eval/sums/acuracy"]}]
    spec = study_spec({"method": METHOD}, tables=tables)
    result = made_study(tmp_path / "made", spec, lambda levels: 0.5)
    told = "tables.0.metrics: found 'eval/sums/acuracy', which no cell measured; did you mean 'eval/sums/accuracy'?"
    assert result.unmeasured == (told,)
    assert {row[1].missing for row in tables_of(result)[0].entries} == {"no such metric"}
    monkeypatch.setenv("DIDACT_RUNS", str(tmp_path))
    found = CliRunner().invoke(app, ["study", "report", "made"])
    assert isinstance(found.exception, SpecError) and told in str(found.exception)
    assert "no such metric" in (tmp_path / "made" / "study.md").read_text(), "the page is there all the same"


def test_a_report_that_was_changed_by_hand_is_a_failed_cell(tmp_path: Path) -> None:
    result = made_study(tmp_path, study_spec({"method": METHOD}), lambda levels: 0.5)
    report = result.cells[0].run / "report.json"
    report.write_text(report.read_text().replace('"accuracy": 0.0', '"accuracy": 1.0', 1))
    cell = read_study(tmp_path).cells[0]
    assert cell.status == "failed" and "it was changed after it was written" in str(cell.error)


def test_what_recipes_hold_is_shown_as_text(tmp_path: Path) -> None:
    result = made_study(tmp_path, study_spec({"a.b": {"x": {}, "y": {"training.steps": 3}}}), lambda levels: 0.5)
    damaged = result.cells[0].run / "report.json"
    damaged.write_text('{"<script>": 1}')
    assert "<script>alert" not in render_study(read_study(tmp_path))


def test_a_folder_without_a_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no study: there is no study.json"):
        read_study(tmp_path)


def test_few_seeds_are_enough_where_many_cells_tell_how_runs_scatter(tmp_path: Path) -> None:
    rates = {"rate": {str(n): {"training.steps": n + 1} for n in range(9)}}
    spec = study_spec(rates, design="one_at_a_time", seeds=[0, 1])
    result = made_study(tmp_path, spec, lambda levels: 0.5 - 0.25 * (levels["rate"] == "3"), 300)
    scatter = scatter_of(result, "eval/sums/accuracy")
    # 300 answers of one run, each right half of the time, scatter by sqrt(0.25 / 300).
    assert scatter is not None and scatter.freedom == 8 and 0.012 < scatter.deviation < 0.05
    found = {each.level: each for each in effects_of(result) if each.metric == "eval/sums/accuracy"}
    assert [level for level, each in found.items() if each.is_found] == ["3"]
    assert found["3"].gain.low < -0.25 < found["3"].gain.high < -0.1 and found["3"].gain.num_pairs == 2
    assert scatter_of(result, "eval/loss") is None, "made losses do not depend on the seed"
    single = made_study(tmp_path / "one", study_spec(rates), lambda levels: 0.5, num_questions=20)
    assert scatter_of(single, "eval/sums/accuracy") is None


def test_a_seeds_own_luck_is_no_scatter(tmp_path: Path) -> None:
    """Every cell of a seed is better by the same: pairs of one seed do not see it."""
    spec = study_spec({"rate": {"a": {}, "b": {"training.steps": 2}, "c": {"training.steps": 3}}}, seeds=[0, 1])
    result = made_study(tmp_path, spec, lambda levels: 0.5, num_questions=100)
    for place, cell in enumerate(result.cells):
        values = json.loads((cell.run / "report.json").read_text())
        values["metrics_of"]["adapter"]["eval/loss"] = 1.0 + 5 * cell.seed + (place // 2) * 0.1 + 0.01 * (place == 0)
        EvalReport.from_json(json.dumps(values), is_sealed=False).save(cell.run / "report.json")
    scatter = scatter_of(read_study(tmp_path), "eval/loss")
    assert scatter is not None and scatter.freedom == 2
    # One of six is off by 0.01: what a 3 x 2 layout leaves of it is 0.01 * sqrt((2/3) * (1/2)), over 2 degrees.
    assert scatter.deviation == pytest.approx(0.01 * ((2 / 3) * (1 / 2) / 2) ** 0.5)

"""Published figures beside a study's own; a paper's table rebuilt from reports that hold its class figures."""

import csv
import io
from pathlib import Path

import pytest

from didact.errors import RunError, SpecError
from didact.evaluation.report import EvalReport, Given, ModelFacts, QuestionFacts, TaskFacts
from didact.files import write_json
from didact.spec import validate
from didact.studies import StudyResult, read_study
from didact.studies.page import render_study
from didact.studies.published.beside import Beside, beside
from didact.studies.published.paper import PublishedTable, averages, inconsistencies, published_paper
from didact.studies.reporting import write_report
from tests.fakes.studies import made_study, study_spec

PAPER = published_paper()


def rebuilt(folder: Path, table: PublishedTable, **changes: object) -> StudyResult:
    """A study whose cells answered so that each class has the mean that the paper prints for it."""
    rows = {name.replace("/", "_"): row for name, row in table.rows.items() if name[0].isalpha() and None not in row}
    levels = {name: {"tokens.max_length": 100 + place} for place, name in enumerate(rows)}
    spec = study_spec({table.factor: levels}, **changes)
    cells = []
    task = table.columns[-1]
    for name, row in rows.items():
        values = dict(zip(table.columns, row, strict=True))
        questions = []
        for group, size in PAPER.sizes[task].items():
            share = (values[f"{task}/{group}"] or 0) / 100
            # Few stand for many: the mean over questions counts each class by its number of them, here a tenth.
            questions += [
                QuestionFacts(
                    *(task, f"{group}{number}", "?", "!"),
                    {role: Given(("",), {"score": share}) for role in ("base", "adapter")},
                    group=group,
                )
                for number in range(round(size / 10))
            ]
        facts = TaskFacts(task, "1", "score", len(questions), 1.0, (), {"base": 0, "adapter": 0}, {})
        mean = sum(each.given["adapter"].values["score"] for each in questions) / len(questions)
        figures = {f"eval/{task}/score": mean}
        report = EvalReport(
            {"base": ModelFacts("tiny"), "adapter": ModelFacts("mine")},
            {"base": figures, "adapter": figures},
            {f"eval/{task}/score": len(questions)},
            (facts,),
            tuple(questions),
        )
        run = folder / "cells" / f"made-{name}-s0"
        run.mkdir(parents=True)
        report.save(run / "report.json")
        cells.append({"name": run.name, "levels": {table.factor: name}, "seed": 0})
    write_json(folder / "study.json", {"spec": spec.model_dump(mode="json"), "cells": cells, "errors": {}})
    return read_study(folder)


def table_of(found: list[Beside], name: str) -> Beside:
    return next(each for each in found if each.table.name == name)


@pytest.mark.parametrize(("name", "digits"), [("table 2", 1), ("table 6", 1), ("table 7", 2)])
def test_a_table_rebuilt_from_its_class_figures_equals_the_papers(tmp_path: Path, name: str, digits: int) -> None:
    table = PAPER.table(name)
    found = table_of(beside(rebuilt(tmp_path, table), PAPER), name)
    task = table.columns[-1]
    assert found.columns == (*table.columns[:-1], f"{task}, macro", f"{task}, weighted")
    measured = 0
    for row, pairs in found.rows.items():
        for pair in pairs[:-2]:
            assert pair.own is None or pair.own == pytest.approx(pair.printed, abs=1e-9)
        macro, weighted = pairs[-2:]
        if macro.own is not None and macro.printed is not None and weighted.printed is not None:
            measured += 1
            assert abs(macro.own - macro.printed) <= 10**-digits, f"{row}: the printed average is the mean of its row"
            assert weighted.own == pytest.approx(weighted.printed, abs=0.35), "each class counts by its size"
    assert measured >= 10
    assert not [note for note in found.notes if "is printed, but" in note]


def test_both_averages_are_shown_and_where_they_name_another_winner(tmp_path: Path) -> None:
    assert averages(PAPER, PAPER.table("table 2"), "ChatGLM", "belle_eval") == pytest.approx((63.4, 63.92), abs=0.01)
    assert averages(PAPER, PAPER.table("table 2"), "Ours", "belle_eval") == pytest.approx((63.12, 64.44), abs=0.01)
    assert averages(PAPER, PAPER.table("table 3"), "Bloomz", "mmcu") == pytest.approx((30.40, 29.58), abs=0.01)
    assert averages(PAPER, PAPER.table("table 7"), "COIG-exam", "mmcu") is None, "education is not printed"
    found = table_of(beside(rebuilt(tmp_path, PAPER.table("table 2")), PAPER), "table 2")
    turned = "belle_eval, printed figures: ChatGLM is before Ours by classes (63.4 and 63.1), behind it by questions"
    assert any(note.startswith(turned) for note in found.notes)
    assert any(note.startswith(turned.replace("printed", "own")) for note in found.notes)


def test_the_one_printed_figure_that_fits_no_other_is_named() -> None:
    (found,) = inconsistencies(PAPER)
    assert (found.table, found.row, found.column) == ("figure 1", "bloomz-mt", "mmcu change")
    assert str(found).endswith("-11.15 is printed, but 15.26 - 28.97 is -13.71")


@pytest.mark.parametrize(
    ("name", "row", "column", "told"),
    [
        ("table 6", "HC3", "belle_eval", "the mean of its classes is 36.4"),
        ("table 4", "LoRA", "mmcu", "figure 1/bloom prints 19.07 for the same model"),
        ("figure 1", "llama", "belle_eval change", "43.7 - 32.8 is 10.9"),
    ],
)
def test_a_misprint_would_be_found(name: str, row: str, column: str, told: str) -> None:
    table = PAPER.table(name)
    place = table.columns.index(column)
    wrong = tuple(99.0 if at == place else value for at, value in enumerate(table.rows[row]))
    tables = tuple(
        each.model_copy(update={"rows": {**each.rows, row: wrong}}) if each is table else each for each in PAPER.tables
    )
    found = inconsistencies(PAPER.model_copy(update={"tables": tables}))
    assert f"{name}, {row}, {column}: 99 is printed, but {told}" in [str(each) for each in found]


def test_rows_are_found_whatever_marks_they_are_written_with() -> None:
    table = PAPER.table("table 6")
    assert table.row_of("xP3_zh") == "xP3/zh" and table.row_of("alpaca-gpt4") == "Alpaca-GPT4"
    assert PAPER.table("table 8").row_of("Alpaca-GPT4+CoT") == "Alpaca-GPT4+CoT"
    assert table.row_of("sums") is None


def test_the_report_holds_both_with_their_source(tmp_path: Path) -> None:
    result = rebuilt(tmp_path, PAPER.table("table 7"))
    page, text, *_, lines = write_report(result, PAPER)
    assert ">mmcu/score<" in page.read_text() and ">mmcu, macro<" in page.read_text()
    assert "Findings of EMNLP 2023" in page.read_text() and "Beside the paper" in text.read_text()
    assert "| COIG-exam | - (32.6) | - (26.9) | - (16.2) | - (-) | - (-) | - (-) |" in text.read_text()
    rows = list(csv.DictReader(io.StringIO(lines.read_text())))
    law = next(row for row in rows if (row["row"], row["column"]) == ("Belle", "mmcu/law"))
    assert (float(law["own"]), law["printed"]) == (pytest.approx(15.13), "15.13")


def test_a_task_whose_name_ends_like_the_prefix_keeps_it_on_the_page(tmp_path: Path) -> None:
    assert ">belle_eval/score<" in render_study(rebuilt(tmp_path, PAPER.table("table 6")))


def test_a_study_of_other_things_is_refused_with_what_the_paper_varies(tmp_path: Path) -> None:
    result = made_study(tmp_path, study_spec({"rank": {"adapter.r": [4, 8]}}), lambda levels: 0.5, num_questions=20)
    with pytest.raises(RunError, match=r"found the factors rank; expected two levels .* method: AdaLoRA, LoRA, prompt"):
        beside(result, PAPER)


def test_a_study_of_other_tasks_is_refused_with_what_it_measures(tmp_path: Path) -> None:
    spec = study_spec({"method": {"LoRA": {}, "prefix": {"adapter": {"method": "prefix"}}}})
    result = made_study(tmp_path, spec, lambda levels: 0.5, num_questions=20)
    with pytest.raises(RunError, match=r"measured by loss, sums/accuracy; expected belle_eval or mmcu"):
        beside(result, PAPER)
    for cell in result.cells:
        (cell.run / "report.json").unlink()
    assert beside(read_study(tmp_path), PAPER), "before any cell is measured the printed figures stand alone"


def test_a_table_stands_only_beside_models_that_are_one_cell_each(tmp_path: Path) -> None:
    data = {"Belle": {}, "HC3": {"tokens.max_length": 99}}
    both = study_spec({"data": data, "rank": {"adapter.r": [4, 8]}})
    with pytest.raises(RunError, match="nothing in the paper"):
        beside(made_study(tmp_path, both, lambda levels: 0.5, num_questions=20), PAPER)


def test_damaged_figures_are_refused() -> None:
    with pytest.raises(SpecError, match=r"rows.a: found 1 figures; expected 2"):
        validate(
            PublishedTable, {"name": "t", "title": "t", "factor": "f", "columns": ["x", "y"], "rows": {"a": [1]}}, "t"
        )

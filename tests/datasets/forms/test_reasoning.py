import hashlib
from collections import Counter
from pathlib import Path

import pytest

from didact.datasets import Dataset, load_dataset
from didact.datasets.forms.drafts import RowSettings
from didact.datasets.forms.language import language_of
from didact.datasets.forms.rationales import Reasoned, reasoned_turns
from didact.datasets.forms.table_of_forms import to_conversation
from didact.datasets.rows.raw_row import RawRow
from didact.spec import SourceSpec

ROWS = [Reasoned(f"What is {n} + {n}?", f"{n} twice is {2 * n}.", str(2 * n)) for n in range(300)]


def load(path: Path, seed: int = 0, **options: object) -> Dataset:
    source = SourceSpec(name="rows", path=str(path), options=options)
    return load_dataset(source, seed=seed, max_bad_rows_share=0.0, quarantine_dir=None)


def contents(row: Reasoned, mode: str, language: str = "en", seed: int = 0) -> tuple[str, str]:
    asked, said = reasoned_turns(row, mode, language, seed)  # type: ignore[arg-type]
    assert (asked.role, said.role) == ("user", "assistant")
    return asked.content, said.content


def test_the_plain_form_is_rationale_then_answer_for_every_row() -> None:
    assert contents(ROWS[2], "before") == ("What is 2 + 2?", "2 twice is 4.\nThe answer is 4.")
    assert contents(ROWS[2], "before", "zh") == ("What is 2 + 2?", "2 twice is 4.\n答案是4。")
    assert {contents(row, "before")[0] for row in ROWS} == {row.question for row in ROWS}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_answer_alone_and_the_suffix_come_in_several_wordings(language: str) -> None:
    for mode in ("only", "suffix"):
        requests = Counter(contents(row, mode, language)[0].removeprefix(row.question) for row in ROWS)
        assert len(requests) == 4
        assert all(request.startswith("\n\n") and count > 30 for request, count in requests.items())
    assert all(contents(row, "only", language)[1] == row.answer for row in ROWS)
    assert all(contents(row, "suffix", language)[1] == contents(row, "before", language)[1] for row in ROWS)


def test_a_mixture_holds_all_three_in_about_equal_parts() -> None:
    kinds: Counter[str] = Counter()
    for row in ROWS:
        mixed = contents(row, "mixed")
        kinds[next(mode for mode in ("before", "only", "suffix") if contents(row, mode) == mixed)] += 1
    assert set(kinds) == {"before", "only", "suffix"} and min(kinds.values()) > 70


def test_the_wording_depends_on_seed_and_text_alone_and_is_the_same_everywhere() -> None:
    told = "".join("\n".join(contents(row, "mixed", seed=3)) for row in ROWS)
    # Bytes that every machine must give; they only change with the templates, and then FORMAT_VERSION does too.
    assert hashlib.sha256(told.encode()).hexdigest() == (
        "b41c7dc999dbecd3bb75aae8a84ae4593b78d6918a23f0e37d37583854ba62ed"
    )
    assert told != "".join("\n".join(contents(row, "mixed", seed=4)) for row in ROWS)


def test_an_empty_question_stays_empty() -> None:
    assert contents(Reasoned(" ", "r", "a"), "suffix")[0] == " "


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is it?", "en"),
        ("这是什么", "zh"),
        ("请用Python写一个函数", "zh"),
        ("The word 道 here", "en"),
        ("12", "en"),
        (r"已知 $\frac{a}{b}=\sqrt{x^{2}+1}$, 则 $x=(\quad)$" + "\nA. $\\alpha$\nB. $\\beta$\nC. x\nD. y", "zh"),
        (r"求\(\sin\theta+\cos\theta\)的值", "zh"),
        (r"计算 \frac{1}{2}\mathrm{mol} 水", "zh"),
        (r"令\begin{cases}ax+by=c\\ dx+ey=f\end{cases}求解", "zh"),
        (r"Let $x$ be the answer of \text{甲}, find $x^2$.", "en"),
        ("It costs $5 at 王 and $6 elsewhere.", "en"),
    ],
)
def test_the_language_is_that_of_most_letters(text: str, language: str) -> None:
    assert language_of(text) == language


def test_a_question_of_formulas_alone_is_in_the_language_of_its_solution() -> None:
    settings = RowSettings()
    record = {"question": "$x^2=4$", "answer": "2", "analysis": "两边开方。"}
    said = to_conversation("exam", RawRow("file", 1, 0, record), 0, settings).messages[1].content
    assert said == "两边开方。\n答案是2。"
    record["analysis"] = "Take the root."
    assert to_conversation("exam", RawRow("file", 1, 0, record), 0, settings).messages[1].content.endswith("is 2.")


def test_the_option_reaches_the_rows_and_their_order_does_not_matter(tmp_path: Path) -> None:
    lines = [f"{row.question}\t{row.answer}\t{row.rationale}\n" for row in ROWS]
    (tmp_path / "a.tsv").write_text("".join(lines))
    (tmp_path / "b.tsv").write_text("".join(reversed(lines)))
    before, mixed = load(tmp_path / "a.tsv"), load(tmp_path / "a.tsv", reasoning="mixed")
    assert before.train[2].messages[1].content == "2 twice is 4.\nThe answer is 4."
    assert {(item.answer, item.rationale) for item in mixed.train} == {(row.answer, row.rationale) for row in ROWS}
    assert [item.messages for item in load(tmp_path / "b.tsv", reasoning="mixed").train] == [
        item.messages for item in reversed(mixed.train)
    ]
    assert before.fingerprint != mixed.fingerprint
    assert load(tmp_path / "a.tsv", seed=1, reasoning="mixed").train != mixed.train
    chinese = load(tmp_path / "a.tsv", language="zh").train[2].messages[1].content
    assert chinese == "2 twice is 4.\n答案是4。"

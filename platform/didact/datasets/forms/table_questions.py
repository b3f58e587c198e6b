"""Records that ask about a table -> turns. A table in files of its own stands in the field `table` by now."""

# ruff: noqa: RUF001 - Chinese text has Chinese punctuation.
from collections.abc import Sequence
from typing import Any

from didact.datasets.conversation import Message
from didact.datasets.forms.drafts import Draft, RowSettings, pair
from didact.datasets.forms.rationales import Reasoned, reasoned_turns
from didact.datasets.forms.sql import write_sql
from didact.datasets.forms.table_headings import headed_table, web_table
from didact.datasets.forms.table_text import Table, make_table, write_table
from didact.datasets.rows.fields import (
    Record,
    first_of,
    inner,
    items,
    joined,
    listed,
    optional_text,
    take,
    text,
    texts,
    written,
)
from didact.datasets.rows.options import Language
from didact.datasets.rows.raw_row import BadRow

ANSWER_FIELDS = ("answers", "answer_text", "answer", "targetValue")
_TASKS: dict[str, dict[Language, str]] = {
    "answer": {"en": "Answer the question from the table.", "zh": "根据表格回答问题。"},
    "both": {"en": "Answer the question from the table and the text.", "zh": "根据表格和文字回答问题。"},
    "sentence": {
        "en": "Answer the question about the table in a full sentence.",
        "zh": "根据表格，用完整的句子回答问题。",
    },
    "verify": {
        "en": "Does the table support the statement? Say entailed or refuted.",
        "zh": "表格是否支持该陈述？请回答“支持”或“不支持”。",
    },
    "infer": {
        "en": "What is the statement to the table: entailment, neutral or contradiction?",
        "zh": "该陈述与表格是什么关系：蕴含、中立还是矛盾？",
    },
    "check": {
        "en": "What does the table say of the claim? Say supported, refuted or not enough information.",
        "zh": "表格对该说法有何结论？请回答“支持”“反驳”或“信息不足”。",
    },
    "sql": {
        "en": "Write an SQL query on the table that answers the question.",
        "zh": "根据表格写出能回答问题的SQL查询语句。",
    },
}
_NAMES: dict[str, dict[Language, str]] = {
    "table": {"en": "Table:", "zh": "表格："},
    "question": {"en": "Question:", "zh": "问题："},
    "statement": {"en": "Statement:", "zh": "陈述："},
    "claim": {"en": "Claim:", "zh": "说法："},
    "choices": {"en": "Choices:", "zh": "选项："},
    "unit": {"en": "Unit of the answer:", "zh": "答案的单位："},
}
_VERDICTS: dict[Language, tuple[str, str]] = {"en": ("refuted", "entailed"), "zh": ("不支持", "支持")}
_INFERENCES: dict[Language, dict[str, str]] = {
    "en": {"E": "entailment", "N": "neutral", "C": "contradiction"},
    "zh": {"E": "蕴含", "N": "中立", "C": "矛盾"},
}
_CLAIMS: dict[Language, dict[str, str]] = {
    "en": {"SUPPORTS": "supported", "REFUTES": "refuted", "NOT ENOUGH INFO": "not enough information"},
    "zh": {"SUPPORTS": "支持", "REFUTES": "反驳", "NOT ENOUGH INFO": "信息不足"},
}


def table_question(record: Record, settings: RowSettings) -> Draft:
    """A question on a table, which may have several answers. WikiTableQuestions, AIT-QA and their like."""
    question = text(record, first_of(record, ("question", "utterance")))
    key = first_of(record, ANSWER_FIELDS)
    found = texts(record, key) if isinstance(record.get(key), list) else [written(record, key)]
    if key == "targetValue":
        found = [_unescaped(value) for value in found[0].split("|")]
        question = _unescaped(question)
    answer = listed(found)
    return pair(_ask("answer", _table(record), question, settings), answer, answer)


def table_sentence(record: Record, settings: RowSettings) -> Draft:
    """A question on a table that is answered by a sentence (FeTaQA)."""
    titles = [optional_text(record, key).strip() for key in ("table_page_title", "table_section_title")]
    table = make_table(items(record, "table_array"), " - ".join(title for title in titles if title))
    return pair(_ask("sentence", table, text(record, "question"), settings), text(record, "answer"))


def table_statements(record: Record, settings: RowSettings) -> Draft:
    """Statements on one table, each told to be entailed or refuted, one turn after the other (TabFact)."""
    values = items(record, "values")
    if len(values) != 3:
        raise BadRow("wrong_type", f"found {len(values)} values, expected statements, labels and caption")
    named = {"statements": values[0], "labels": values[1], "caption": values[2]}
    statements, labels = texts(named, "statements"), items(named, "labels")
    if len(statements) != len(labels) or not statements:
        raise BadRow("wrong_type", f"{len(statements)} statements and {len(labels)} labels; expected as many")
    language = settings.language(statements[0])
    verdicts = [_verdict(label, language) for label in labels]
    table = _table(record, text(named, "caption"))
    turns: list[Message] = []
    for number, (statement, verdict) in enumerate(zip(statements, verdicts, strict=True)):
        if not statement.strip():
            raise BadRow("empty_prompt", f"statement {number + 1} is empty")
        asked = f"{_NAMES['statement'][language]} {statement}"
        asked = asked if turns else _ask("verify", table, statement, settings, name="statement")
        turns += [Message("user", asked), Message("assistant", verdict)]
    return Draft(turns, verdicts[-1])


def table_inference(record: Record, settings: RowSettings) -> Draft:
    """A statement that a table entails, contradicts or leaves open (InfoTabS)."""
    statement, label = text(record, "hypothesis"), text(record, "label").strip()
    names = _INFERENCES[settings.language(statement)]
    if label not in names:
        raise BadRow("unknown_label", f"label {label!r} is not one of {', '.join(names)}")
    asked = _ask("infer", _table(record), statement, settings, name="statement")
    return pair(asked, names[label], names[label])


def heading_question(record: Record, settings: RowSettings) -> Draft:
    """A question on a table with headings on several levels; its answers are numbers or texts (HiTab)."""
    answer = listed([_number(value) for value in items(record, "answer")])
    return pair(_ask("answer", _table(record), text(record, "question"), settings), answer, answer)


def table_claim(record: Record, settings: RowSettings) -> Draft:
    """A claim that a table from the web supports, refutes or leaves open (PubHealthTab)."""
    claim, label = text(record, "claim"), text(record, "label").strip()
    verdicts = _CLAIMS[settings.language(claim)]
    if label not in verdicts:
        raise BadRow("unknown_label", f"label {label!r} is not one of {', '.join(verdicts)}")
    table = inner(record, "table")
    parts = web_table(text(table, "html_code"))
    titles = [optional_text(table, key).strip() for key in ("website_title", "caption")]
    shown = make_table(parts["rows"], " - ".join(title for title in titles if title), parts["header"])
    return pair(_ask("check", shown, claim, settings, name="claim"), verdicts[label], verdicts[label])


def text_to_sql(record: Record, settings: RowSettings) -> Draft:
    """A question and the query that answers it (WikiSQL, NL2SQL)."""
    table, question = _table(record), text(record, "question")
    query = write_sql(inner(record, "sql"), table.header)
    return pair(_ask("sql", table, question, settings), query, query)


def table_problem(record: Record, settings: RowSettings) -> Reasoned:
    """A problem on a small table of cells between bars, with its worked solution (TabMWP)."""
    lines = [line.split("|") for line in text(record, "table").strip().split("\n")]
    width = max(len(line) for line in lines)
    rows = [[cell.strip() for cell in line] + [""] * (width - len(line)) for line in lines]
    question = text(record, "question")
    language = settings.language(question)
    more = ""
    if record.get("choices"):
        more = f"{_NAMES['choices'][language]} {', '.join(texts(record, 'choices'))}"
    elif optional_text(record, "unit").strip():
        more = f"{_NAMES['unit'][language]} {text(record, 'unit')}"
    asked = _ask("answer", make_table(rows, optional_text(record, "table_title")), question, settings)
    solution, answer = text(record, "solution"), text(record, "answer")
    if not solution.strip() or not answer.strip():
        raise BadRow("empty_output", "the solution or the answer is empty")
    return Reasoned("\n".join(part for part in (asked, more) if part), solution, answer)


def table_passages(record: Record, settings: RowSettings) -> Draft:
    """A table among paragraphs with several questions, one turn after the other (TAT-QA).

    A derivation, such as `9-7`, is the rationale of its answer, and goes where `options.reasoning` says.
    """
    passages = [text(each, "text") if isinstance(each, dict) else "" for each in items(record, "paragraphs")]
    table = headed_table(items(inner(record, "table"), "table"))
    turns: list[Message] = []
    answer, rationale = "", None
    for each in items(record, "questions"):
        if not isinstance(each, dict):
            raise BadRow("wrong_type", f"a question is {type(each).__name__}, expected an object")
        question = text(each, "question")
        answer = _scaled(each)
        asked = question if turns else _ask("answer", table, question, settings, around=(joined(*passages), ""))
        rationale = optional_text(each, "derivation").strip() or None
        if rationale is None:
            turns += [Message("user", asked), Message("assistant", answer)]
        else:
            worked = Reasoned(asked, rationale, answer)
            turns += reasoned_turns(worked, settings.options.reasoning, settings.language(question), settings.seed)
    return Draft(turns, answer, rationale)


def table_report(record: Record, settings: RowSettings) -> Draft:
    """A table inside a report, a question, and the answer that is worked out from both (FinQA)."""
    qa = inner(record, "qa")
    around = ("\n".join(texts(record, "pre_text")), "\n".join(texts(record, "post_text")))
    answer = written(qa, "answer") if qa.get("answer") not in (None, "") else written(qa, "exe_ans")
    asked = _ask("answer", headed_table(items(record, "table")), text(qa, "question"), settings, around=around)
    return pair(asked, answer, answer)


def _ask(
    task: str,
    table: Table,
    question: str,
    settings: RowSettings,
    *,
    name: str = "question",
    around: tuple[str, str] = ("", ""),
) -> str:
    if not question.strip():
        raise BadRow("empty_prompt", f"the {name} is empty")
    language = settings.language(question)
    shown = f"{_NAMES['table'][language]}\n{write_table(table, settings.table_layout(question))}"
    asked = f"{_NAMES[name][language]} {question.strip()}"
    told = "both" if task == "answer" and any(each.strip() for each in around) else task
    return joined(_TASKS[told][language], around[0], shown, around[1], asked)


def _table(record: Record, title: str = "") -> Table:
    table = inner(record, "table")
    if not title:
        title = next((text(table, key) for key in ("title", "caption", "page_title") if table.get(key)), "")
    return make_table(items(table, "rows"), title, items(table, "header"))


def _verdict(label: Any, language: Language) -> str:
    if label not in (0, 1) or isinstance(label, bool | float):
        raise BadRow("unknown_label", f"label {label!r} is not 0 or 1")
    return _VERDICTS[language][label]


def _scaled(each: dict[str, Any]) -> str:
    answer: Any = take(each, "answer")
    values: Sequence[Any] = answer if isinstance(answer, list) else [answer]
    found = [written({"answer": value}, "answer").strip() for value in values]
    scale = optional_text(each, "scale").strip()
    if scale == "percent":
        return listed([value if value.endswith("%") or not value else f"{value}%" for value in found])
    return f"{listed(found)} {scale}".strip()


def _number(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return written({"answer": int(value) if whole else value}, "answer")


def _unescaped(value: str) -> str:
    return value.replace("\\n", "\n").replace("\\p", "|").replace("\\\\", "\\")

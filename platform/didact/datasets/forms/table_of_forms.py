"""Records -> conversations. `FORMS` is the whole of it: a form's name, the fields that tell it, who reads it."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

from didact.datasets.conversation import Conversation, Message, Role
from didact.datasets.forms import chats, questions
from didact.datasets.forms import table_questions as tables
from didact.datasets.forms.drafts import Convert, Draft, RowSettings
from didact.datasets.forms.rationales import Reasoned, reasoned_turns
from didact.datasets.forms.tool_turns import check_tool_order
from didact.datasets.rows.decoding import decode_columns, decode_json
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.spec.data import Form


class RecordForm(NamedTuple):
    """A way of writing records."""

    name: Form
    tells: Callable[[set[str]], bool]
    """Whether a record with these keys is written so."""
    convert: Convert


def _has(*keys: str, one_of: Iterable[str] = ()) -> Callable[[set[str]], bool]:
    alternatives = frozenset(one_of)
    return lambda found: found.issuperset(keys) and (not alternatives or not alternatives.isdisjoint(found))


def _never(_: set[str]) -> bool:
    return False


# The first that fits is taken, so the ones with more fields come before those with fewer.
FORMS: tuple[RecordForm, ...] = (
    RecordForm("messages", _has("messages"), chats.messages),
    RecordForm("moss", _has("meta_instruction", one_of=("chat", "plain_text")), chats.moss),
    RecordForm("sharegpt", _has(one_of=chats.CHATS), chats.sharegpt),
    RecordForm("preference", _has("chosen", "rejected"), chats.preference),
    RecordForm("role_play", _has("message_1", "message_2"), chats.role_play),
    RecordForm("pubhealthtab", _has("claim", "label", "table"), tables.table_claim),
    RecordForm("hitab", _has("question", "answer", "table_id", "linked_cells"), tables.heading_question),
    RecordForm("tabmwp", _has("question", "table", "solution", "answer"), tables.table_problem),
    RecordForm("fetaqa", _has("table_array", "question", "answer"), tables.table_sentence),
    RecordForm("tatqa", _has("table", "paragraphs", "questions"), tables.table_passages),
    RecordForm("finqa", _has("pre_text", "post_text", "table", "qa"), tables.table_report),
    RecordForm("text_to_sql", _has("question", "sql", one_of=("table", "table_id")), tables.text_to_sql),
    RecordForm("wtq", _has("utterance", "context", "targetValue"), tables.table_question),
    RecordForm("infotabs", _has("table_id", "hypothesis", "label"), tables.table_inference),
    RecordForm("tabfact", _has("id", "values"), tables.table_statements),
    RecordForm("aitqa", _has("question", "answers", "table_id", "row_hierarchy_needed"), tables.table_question),
    RecordForm(
        "table_question",
        _has("question", "table", one_of=tables.ANSWER_FIELDS),
        tables.table_question,
    ),
    RecordForm("answer_lists", _has("question", one_of=("human_answers", "chatgpt_answers")), chats.answer_lists),
    RecordForm("comparison", _has("question", "answer_0", "answer_1"), chats.comparison),
    RecordForm("comparison", _has("question", "response_j", "response_k"), chats.comparison),
    RecordForm("seed_task", _has("instruction", "instances"), chats.seed_task),
    RecordForm("alpaca", _has("instruction", one_of=chats.ANSWERS), chats.alpaca),
    RecordForm("nli", _has("premise", "hypothesis", "label"), questions.nli),
    RecordForm("textbook", _has("textbox_question", "textbox_answer"), questions.textbook),
    RecordForm("exam", _has("question", "answer", one_of=questions.CHOICES), questions.exam),
    RecordForm("exam", _has("question", "answer", "A", "B"), questions.exam),
    RecordForm("exam", _has("question", "answer", "analysis"), questions.exam),
    RecordForm("extractive_qa", _has("context", "question", "answers"), questions.extractive_qa),
    RecordForm(
        "cot",
        lambda keys: (
            "question" in keys
            and not keys.isdisjoint(questions.RATIONALES)
            and not keys.isdisjoint(("answer", "gold_ans", "pred_ans"))
        ),
        questions.cot,
    ),
    RecordForm("consultation", _has("ask", "answer"), questions.consultation),
    *(RecordForm("prompt_completion", _has(*names), chats.prompt_completion) for names in chats.PAIRS),
    RecordForm("question_answer", _has("question", "answer"), questions.question_answer),
    RecordForm("dialogue", _has("context", "response"), chats.dialogue),
    RecordForm("turn_list", _has("data"), chats.turn_list),
    RecordForm("transcript", _has(one_of=("text", "transcript", "plain_text")), chats.transcript),
    RecordForm("transcript", _has("topic", "input"), chats.transcript),
    RecordForm("text", _never, chats.document),
    RecordForm("reasoning_gym", _never, questions.reasoning_gym),
)
COLUMN_FORMS: dict[Form, Callable[[list[str]], Draft | Reasoned]] = {
    "cot_tsv": questions.cot_columns,
    "csl": questions.csl_columns,
}
"""Forms of lines with columns that have no names."""
REASONED_FORMS: frozenset[Form] = frozenset(("cot_tsv", "cot", "question_answer", "nli", "exam", "textbook", "tabmwp"))
"""Forms whose rows may have rationales, of which a seed chooses the wording."""
KNOWN_FORMS = ", ".join(dict.fromkeys(form.name for form in FORMS if form.tells is not _never))
"""The forms that are recognised by their keys, as shown in errors."""
_CONVERT: dict[Form, Convert] = {form.name: form.convert for form in FORMS}


def recognise(keys: Iterable[str]) -> Form | None:
    """The form of a record with these keys, or None."""
    present = set(keys)
    return next((form.name for form in FORMS if form.tells(present)), None)


def to_conversation(form: Form, raw: RawRow, row: int, settings: RowSettings | None = None) -> Conversation:
    """One raw row in the form all data takes.

    Args:
        form: how the row is written.
        raw: the row.
        row: its index in the source.
        settings: what decides its words; None for the defaults.

    Raises:
        BadRow: the row cannot be used, and why.
    """
    if raw.fault is not None:
        raise raw.fault
    settings = settings or RowSettings()
    draft: Draft | Reasoned
    if form in COLUMN_FORMS:
        draft = COLUMN_FORMS[form](decode_columns(cast(bytes, raw.content)))
    else:
        record = decode_json(raw.content) if isinstance(raw.content, bytes) else raw.content
        draft = _CONVERT[form](record, settings)
    rationale = None
    if isinstance(draft, Reasoned):
        rationale = draft.rationale
        language = settings.language(draft.question)
        turns = reasoned_turns(draft, settings.options.reasoning, language, settings.seed)
    else:
        turns = draft.messages
    _check_turns(turns)
    return Conversation(tuple(turns), row, draft.answer, rationale)


def _check_turns(messages: list[Message]) -> None:
    """Refuse turns out of order, and texts that are empty or that no tokenizer takes."""
    if len(messages) == 1 and messages[0].role == "document":
        _check_characters(messages[0].content)
        if not messages[0].content.strip():
            raise BadRow("empty_output", "the text is empty")
        return
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    roles: list[Role] = [message.role for message in check_tool_order(turns)]
    expected: list[Role] = ["user", "assistant"] * (len(roles) // 2)
    if not roles or roles != expected:
        found = ", ".join(roles[:8]) + (", ..." if len(roles) > 8 else "")
        raise BadRow("wrong_turns", f"found {found or 'none'}; expected user, assistant, ..., ending with assistant")
    for message in messages:
        _check_characters(message.written)
    # An empty user turn further on is how some chats were told to go on; an empty first one asks nothing.
    if not turns[0].content.strip():
        raise BadRow("empty_prompt", "the first turn of the user is empty")
    if not all(message.written.strip() for message in turns if message.role == "assistant"):
        raise BadRow("empty_output", "a turn of the assistant is empty")


def _check_characters(text: str) -> None:
    if "\0" in text:
        raise BadRow("nul", f"NUL character at position {text.index(chr(0))} of a text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRow("lone_surrogate", f"half a character, {text[error.start]!r}, in a text") from None

"""Records -> conversations. `FORMS` is the whole of it: a form's name, the fields that tell it, who reads it."""

from collections import Counter
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

from didact.datasets.conversation import Conversation, Message
from didact.datasets.forms import chats, questions
from didact.datasets.forms import table_questions as tables
from didact.datasets.forms.drafts import Convert, Draft, RowSettings
from didact.datasets.forms.rationales import Reasoned, reasoned_turns
from didact.datasets.forms.shared_fields import (
    LABELS,
    SYSTEM,
    check_texts,
    check_wanted,
    is_label,
    with_system,
    without,
)
from didact.datasets.forms.turns.order import in_order
from didact.datasets.forms.turns.reading import (
    CHAT_FIELDS,
    CHATS,
    TURN_FIELDS,
    UNUSABLE,
    refuse_unusable,
    unread_of_turn,
)
from didact.datasets.forms.turns.tools import OFFERS, with_tools, without_table_nulls
from didact.datasets.rows.decoding import decode_columns, decode_json
from didact.datasets.rows.fields import Record
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.spec.data import Form


@dataclass(frozen=True, slots=True)
class RecordForm:
    """A way of writing records."""

    name: Form
    needs: tuple[str, ...]
    """Fields that a record of this form has; none for a form that is never recognised."""
    convert: Convert
    one_of: tuple[str, ...] = ()
    """Fields of which it has one at least."""
    also: tuple[str, ...] = ()
    """Fields that are read where they are there."""
    unused: tuple[str, ...] = ()
    """Fields of its own that cannot be used."""

    def tells(self, keys: Set[str]) -> bool:
        """Whether a record with these keys is written so."""
        alternatives = not self.one_of or any(name in keys for name in self.one_of)
        return bool(self.needs or self.one_of) and alternatives and all(name in keys for name in self.needs)

    @property
    def reads(self) -> frozenset[str]:
        """Every field that may be read, but for those of every form."""
        return frozenset((*self.needs, *self.one_of, *self.also)) - frozenset(self.unused)


_TABLE = ("table", "table_id", "title", "caption", "page_title")
_TABLE_QUESTION = (*_TABLE, "question", "utterance", *tables.ANSWER_FIELDS)


def _pair(names: tuple[str, str]) -> RecordForm:
    return RecordForm("prompt_completion", names, chats.prompt_completion, also=(*chats.CONTEXTS, "history", *OFFERS))


# The first that fits is taken, so the ones with more fields come before those with fewer.
FORMS: tuple[RecordForm, ...] = (
    RecordForm(
        "preference",
        ("chosen", "rejected"),
        chats.preference,
        also=(*chats.ASKED, *chats.CONTEXTS, *CHAT_FIELDS, "history", *OFFERS),
        unused=("rejected",),
    ),
    RecordForm("messages", ("messages",), chats.messages, also=OFFERS),
    RecordForm("moss", ("meta_instruction",), chats.moss, ("chat", "plain_text")),
    RecordForm("sharegpt", (), chats.sharegpt, CHATS, also=("instruction", *OFFERS)),
    RecordForm("role_play", ("message_1", "message_2"), chats.role_play),
    RecordForm("pubhealthtab", ("claim", "label", "table"), tables.table_claim),
    RecordForm("hitab", ("question", "answer", "table_id", "linked_cells"), tables.heading_question, also=_TABLE),
    RecordForm(
        "tabmwp",
        ("question", "table", "solution", "answer"),
        tables.table_problem,
        also=("choices", "unit", "table_title"),
    ),
    RecordForm(
        "fetaqa",
        ("table_array", "question", "answer"),
        tables.table_sentence,
        also=("table_page_title", "table_section_title"),
    ),
    RecordForm("tatqa", ("table", "paragraphs", "questions"), tables.table_passages),
    RecordForm("finqa", ("pre_text", "post_text", "table", "qa"), tables.table_report),
    RecordForm("text_to_sql", ("question", "sql"), tables.text_to_sql, ("table", "table_id"), also=_TABLE),
    RecordForm("wtq", ("utterance", "context", "targetValue"), tables.table_question, also=_TABLE_QUESTION),
    RecordForm("infotabs", ("table_id", "hypothesis", "label"), tables.table_inference, also=_TABLE),
    RecordForm("tabfact", ("id", "values"), tables.table_statements, also=_TABLE),
    RecordForm(
        "aitqa",
        ("question", "answers", "table_id", "row_hierarchy_needed"),
        tables.table_question,
        also=_TABLE_QUESTION,
    ),
    RecordForm(
        "table_question", ("question", "table"), tables.table_question, tables.ANSWER_FIELDS, also=_TABLE_QUESTION
    ),
    RecordForm("answer_lists", ("question",), chats.answer_lists, ("human_answers", "chatgpt_answers")),
    RecordForm("comparison", ("question", "answer_0", "answer_1"), chats.comparison, also=("score_0", "score_1")),
    RecordForm("comparison", ("question", "response_j", "response_k"), chats.comparison, unused=("response_k",)),
    RecordForm("seed_task", ("instruction", "instances"), chats.seed_task),
    RecordForm("alpaca", ("instruction",), chats.alpaca, chats.ANSWERS, also=(*chats.CONTEXTS, "history", *OFFERS)),
    RecordForm("nli", ("premise", "hypothesis", "label"), questions.nli, also=questions.EXPLANATIONS),
    RecordForm(
        "textbook",
        ("textbox_question", "textbox_answer"),
        questions.textbook,
        also=("textbox_q_instruction", "textbox_q_context", "textbox_answer_analysis"),
    ),
    *(
        RecordForm(
            "exam",
            needs,
            questions.exam,
            one_of,
            also=(*questions.CHOICES, *questions.LETTERS, *questions.RATIONALES, "context"),
        )
        for needs, one_of in (
            (("question", "answer"), questions.CHOICES),
            (("question", "answer", "A", "B"), ()),
            (("question", "answer", "analysis"), ()),
        )
    ),
    RecordForm("extractive_qa", ("context", "question", "answers"), questions.extractive_qa),
    *(
        RecordForm(
            "cot",
            ("question", rationale),
            questions.cot,
            questions.COT_ANSWERS,
            also=(*questions.RATIONALES, "context"),
        )
        for rationale in questions.RATIONALES
    ),
    RecordForm("consultation", ("ask", "answer"), questions.consultation, also=("title",)),
    RecordForm("tool_query", ("query", "answers", "tools"), chats.tool_query, also=OFFERS),
    *map(_pair, chats.PAIRS),
    RecordForm("question_answer", ("question", "answer"), questions.question_answer, also=("context",)),
    RecordForm("dialogue", ("context", "response"), chats.dialogue),
    RecordForm("turn_list", ("data",), chats.turn_list),
    RecordForm("transcript", (), chats.transcript, ("text", "transcript", "plain_text")),
    RecordForm("transcript", ("topic", "input"), chats.transcript),
    *map(_pair, chats.PLAIN_PAIRS),
    RecordForm("text", (), chats.document, also=("text",)),
    RecordForm("reasoning_gym", (), questions.reasoning_gym, also=("question", "answer", "metadata")),
)
COLUMN_FORMS: dict[Form, Callable[[list[str]], Draft | Reasoned]] = {
    "cot_tsv": questions.cot_columns,
    "csl": questions.csl_columns,
}
"""Forms of lines with columns that have no names."""
REASONED_FORMS: frozenset[Form] = frozenset(
    ("cot_tsv", "cot", "question_answer", "nli", "exam", "textbook", "tabmwp", "tatqa")
)
"""Forms whose rows may have rationales, of which a seed chooses the wording."""
CHAT_FORMS: frozenset[str] = frozenset(
    (
        "auto",
        "messages",
        "sharegpt",
        "preference",
        "prompt_completion",
        "transcript",
        "turn_list",
        "dialogue",
        "role_play",
    )
)
"""Formats whose rows may have turns out of order."""
_CONVERT: dict[Form, Convert] = {form.name: form.convert for form in FORMS}
READS: dict[Form, frozenset[str]] = {
    name: frozenset().union(*(form.reads for form in FORMS if form.name == name)) for name in _CONVERT
}
"""The fields that each form reads, but for those that every form does."""


_KNOWN_FIELDS = frozenset((*SYSTEM, *LABELS, *UNUSABLE)).union(*READS.values())


@dataclass(slots=True)
class Noted:
    """What was seen in rows that does not refuse them."""

    unused: Counter[str] = field(default_factory=Counter)
    """Field that was not used -> rows."""
    changed: Counter[str] = field(default_factory=Counter)
    """`POLICY: what it did` -> rows."""

    def in_words(self) -> list[str]:
        """One line on fields that nobody read, and one on turns that were put in order; none where there is nothing."""
        lines = []
        if self.unused:
            lines.append(f"fields of its rows that are not used: {', '.join(sorted(self.unused))}")
        if self.changed:
            told = ", ".join(f"{policy} in {count:,} rows" for policy, count in sorted(self.changed.items()))
            lines.append(f"turns put in order by options.turns: {told}")
        return lines


def recognise(keys: Iterable[str]) -> Form | None:
    """The form of a record with these keys, or None. Capital letters and blanks in known names do not count."""
    found = tuple(keys)
    new_names = _new_names(found)
    present = {new_names.get(key, key) for key in found}
    return next((form.name for form in FORMS if form.tells(present)), None)


def form_of(record: Record) -> Form | None:
    """The form of a record, or None; fields that are null or empty tell it only where the others do not."""
    form = recognise(record)
    if form is not None and any(_is_empty(value) for value in record.values()) and not fits(form, record):
        return _filled_form(record) or form
    return form


def fits(form: Form, record: Record) -> bool:
    """Whether a record can be read in a form."""
    try:
        _CONVERT[form](_named(dict(record)), RowSettings())
    except BadRow:
        return False
    return True


def to_conversation(
    form: Form, raw: RawRow, row: int, settings: RowSettings | None = None, noted: Noted | None = None
) -> Conversation:
    """One raw row in the form all data takes.

    Args:
        form: how the row is written.
        raw: the row.
        row: its index in the source.
        settings: what decides its words; None for the defaults.
        noted: takes down what is not used and what is changed; None where nobody asks.

    Raises:
        BadRow: the row cannot be used, and why.
    """
    if raw.fault is not None:
        raise raw.fault
    settings, noted = settings or RowSettings(), noted or Noted()
    record: Record = {}
    draft: Draft | Reasoned
    if form in COLUMN_FORMS:
        draft = COLUMN_FORMS[form](decode_columns(cast(bytes, raw.content)))
    else:
        content = raw.content
        record = _named(decode_json(content) if isinstance(content, bytes) else without_table_nulls(content))
        if settings.options.ignore:
            record = without(record, settings.options.ignore)
        form, draft = _read(form, record, settings)
    reads = READS.get(form, frozenset())
    refuse_unusable(record, reads)
    check_wanted(record, reads, settings.options.at_least)
    rationale = draft.rationale
    if isinstance(draft, Reasoned):
        language = settings.language(draft.question, draft.rationale)
        turns = reasoned_turns(draft, settings.options.reasoning, language, settings.seed)
    else:
        turns = draft.messages
    if form != "text":
        turns = in_order(with_system(record, reads, turns), settings.options.turns, noted.changed)
    if reads.issuperset(OFFERS):
        turns = with_tools(record, turns)
    _check_turns(turns)
    noted.unused.update(_unused(form, record, settings))
    return Conversation(tuple(turns), row, draft.answer, rationale)


def _read(form: Form, record: Record, settings: RowSettings) -> tuple[Form, Draft | Reasoned]:
    """A record by its form, or by another one that its own fields tell, where the source's form was found in others."""
    try:
        return form, _CONVERT[form](record, settings)
    except BadRow:
        other = _filled_form(record) if settings.any_form else None
        if other in (None, form):
            raise
        try:
            return other, _CONVERT[other](record, settings)
        except BadRow:
            pass
        raise


def _filled_form(record: Record) -> Form | None:
    return recognise(key for key, value in record.items() if not _is_empty(value))


def _is_empty(value: Any) -> bool:
    return value is None or value == "" or value == []


def _named(record: Record) -> Record:
    new_names = _new_names(tuple(record))
    return {new_names.get(key, key): value for key, value in record.items()} if new_names else record


@lru_cache(maxsize=4096)
def _new_names(keys: tuple[str, ...]) -> dict[str, str]:
    """Field as it is written, such as `Output` or `System Prompt` -> its known name, where no other field has it."""
    names = {}
    for key in keys:
        known = key.strip().lower().replace(" ", "_").replace("-", "_")
        if key not in _KNOWN_FIELDS and known in _KNOWN_FIELDS and known not in keys:
            names[key] = known
    return names


def _unused(form: Form, record: Record, settings: RowSettings) -> list[str]:
    """The fields of a row that were not used, and as `messages[].name` those of its turns."""
    unused = [
        name
        for name in _unread(form, tuple(record))
        if not (_is_empty(record[name]) or name in settings.options.at_least)
        and not (name in LABELS and is_label(record[name]))
    ]
    for key in TURN_FIELDS:
        if key in READS.get(form, ()) and isinstance(record.get(key), list):
            names = {name for turn in record[key] if isinstance(turn, dict) for name in unread_of_turn(turn)}
            unused += [f"{key}[].{name}" for name in names]
    return unused


@lru_cache(maxsize=4096)
def _unread(form: Form, keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(key for key in keys if key not in READS[form] and key not in SYSTEM)


def _check_turns(messages: list[Message]) -> None:
    """Refuse texts that are empty or that no tokenizer takes, and turns that ask about something else than text."""
    for message in messages:
        _check_characters(message.written)
    if messages[0].role == "document":
        if not messages[0].content.strip():
            raise BadRow("empty_output", "the text is empty")
        return
    check_texts(messages)
    turns = messages[1:] if messages[0].role == "system" else messages
    # An empty user turn further on is how some chats were told to go on; an empty first one asks nothing.
    if not turns[0].content.strip():
        raise BadRow("empty_prompt", "the first turn of the user is empty")
    if not all(message.written.strip() for message in turns if message.role == "assistant"):
        raise BadRow("empty_output", "a turn of the assistant is empty")
    if not any(message.learned for message in turns if message.role == "assistant"):
        raise BadRow(
            "unwanted", "no answer is to be learned: all are marked by weight, train, training, loss or loss_weight"
        )


def _check_characters(text: str) -> None:
    if "\0" in text:
        raise BadRow("nul", f"NUL character at position {text.index(chr(0))} of a text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRow("lone_surrogate", f"half a character, {text[error.start]!r}, in a text") from None

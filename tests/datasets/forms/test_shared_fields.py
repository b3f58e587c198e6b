import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from didact.datasets import Dataset, load_dataset
from didact.datasets.conversation import Conversation
from didact.datasets.forms.drafts import RowSettings
from didact.datasets.forms.shared_fields import SYSTEM
from didact.datasets.forms.table_of_forms import FORMS, READS, Noted, recognise, to_conversation
from didact.datasets.rows.options import RowOptions
from didact.datasets.rows.raw_row import BadRow, RawRow
from didact.errors import DataError
from didact.spec import SourceSpec

PAIR = {"prompt": "Greet.", "response": "Ahoy!"}


def convert(record: dict[str, Any], noted: Noted | None = None, **options: Any) -> Conversation:
    form = recognise(record)
    assert form is not None
    return to_conversation(form, RawRow("file", 1, 0, record), 0, RowSettings(RowOptions(**options)), noted)


def load(path: Path, rows: list[dict[str, Any]], quarantine: Path | None = None, **options: Any) -> Dataset:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SourceSpec(name="s", path=str(path), options=options)
    return load_dataset(source, seed=0, max_bad_rows_share=0.01, quarantine_dir=quarantine)


@pytest.mark.parametrize("name", ["system", "system_prompt", "System Prompt", "system_message"])
@pytest.mark.parametrize(
    "record",
    [
        {"instruction": "Greet.", "input": "", "output": "Ahoy!", "history": [["Who?", "A sailor."]]},
        PAIR,
        {"question": "Greet.", "response": "Ahoy!"},
        {"instruction": "Greet.", "chosen": "Ahoy!", "rejected": "Hello."},
        {"messages": [{"role": "user", "content": "Greet."}, {"role": "assistant", "content": "Ahoy!"}]},
        {"conversations": [{"from": "human", "value": "Greet."}, {"from": "gpt", "value": "Ahoy!"}]},
        {"question": "Greet.", "answer": "Ahoy!"},
        {"data": ["Greet.", "Ahoy!"]},
    ],
)
def test_the_system_message_of_a_row_comes_first_in_every_form(record: dict[str, Any], name: str) -> None:
    messages = convert({**record, name: "You speak like a sailor."}).messages
    assert (messages[0].role, messages[0].content) == ("system", "You speak like a sailor.")
    assert messages[1:] == convert(record).messages
    assert convert({**record, name: None}).messages == convert({**record, name: " "}).messages == messages[1:]


@pytest.mark.parametrize(
    ("record", "asked"),
    [
        ({"prompt": "Sum up.", "input": "A text.", "response": "x"}, "Sum up.\n\nA text."),
        ({"instruction": "Sum up.", "input": "A text.", "completion": "x"}, "Sum up.\n\nA text."),
        ({"question": "Who?", "context": "Ann won.", "response": "x"}, "Who?\n\nAnn won."),
        ({"question": "Who?", "context": "Ann won.", "answer": "x"}, "Who?\n\nAnn won."),
        ({"question": "Who?", "context": "Ann won.", "rationale": "She won.", "answer": "x"}, "Who?\n\nAnn won."),
        (
            {"question": "Who?", "context": "Ann won.", "A": "x", "B": "y", "answer": "A"},
            "Who?\n\nAnn won.\nA. x\nB. y",
        ),
        ({"input": "Ask.", "target": "x", "context": None}, "Ask."),
        ({"query": "Hi", "response": "x"}, "Hi"),
    ],
)
def test_what_a_question_is_about_is_part_of_it(record: dict[str, Any], asked: str) -> None:
    noted = Noted()
    assert convert(record, noted).messages[0].content == asked
    assert not noted.unused
    earlier = {"history": [["a", "b"]]}
    if "response" in record:
        assert [message.content for message in convert({**record, **earlier}).messages] == ["a", "b", asked, "x"]
    if "question" in record:
        with pytest.raises(BadRow) as caught:
            convert({**record, "question": " "})
        assert caught.value.reason == "empty_prompt"


def test_a_system_message_of_the_turns_follows_that_of_the_row() -> None:
    turns = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    assert convert({"messages": turns, "system": "First."}).messages[0].content == "First.\n\nsystem"
    assert convert({"messages": turns, "system": "system\n"}).messages[0].content == "system"
    with pytest.raises(BadRow, match="system"):
        convert({**PAIR, "system": ["text"]})


@pytest.mark.parametrize(
    "fields",
    [{"label": False}, {"label": "False"}, {"kto_tag": False}, {"kto_tag": "false"}, {"Label": False}],
)
def test_an_answer_that_its_row_does_not_want_is_left_out(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRow) as caught:
        convert({**PAIR, **fields})
    assert caught.value.reason == "unwanted"
    wanted = {name: True if value is False else "true" for name, value in fields.items()}
    noted = Noted()
    assert convert({**PAIR, **wanted}, noted).messages == convert(PAIR).messages
    assert not noted.unused


def test_a_label_that_names_a_class_says_nothing_of_an_answer() -> None:
    noted = Noted()
    assert convert({**PAIR, "label": 0}, noted).messages == convert(PAIR).messages
    assert noted.unused == {"label": 1}
    assert convert({"premise": "p", "hypothesis": "h", "label": 0}).answer == "entailment"
    with pytest.raises(BadRow, match="kto_tag"):
        convert({**PAIR, "kto_tag": "maybe"})


def test_rows_below_a_stated_rating_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{**PAIR, "prompt": f"Greet {row}.", "rating": row} for row in (1, 4, 4.5, "5", "2")]
    dataset = load(tmp_path / "a.jsonl", rows, tmp_path / "q", at_least={"rating": 4})
    assert [item.messages[0].content for item in dataset.train] == ["Greet 4.", "Greet 4.5.", "Greet 5."]
    assert (dataset.rows_read, dataset.rows_rejected) == (5, 2)
    reasons = [json.loads(line)["reason"] for line in (tmp_path / "q" / "s.jsonl").read_text().splitlines()]
    assert reasons == ["unwanted"] * 2
    assert len(load(tmp_path / "b.jsonl", rows).train) == 5
    for wrong in ({}, {"rating": None}, {"rating": "good"}, {"rating": True}):
        with pytest.raises(DataError, match="rating"):
            load(tmp_path / "c.jsonl", [{**PAIR, **wrong}], at_least={"rating": 4})


def test_unwanted_rows_are_no_bad_rows_and_all_of_them_are_an_error_that_says_so(tmp_path: Path) -> None:
    rows = [{**PAIR, "prompt": f"Greet {row}.", "label": row % 2 == 0} for row in range(10)]
    assert len(load(tmp_path / "a.jsonl", rows).train) == 5
    with pytest.raises(DataError, match=r"10 read, 10 \(unwanted 10\) rejected"):
        load(tmp_path / "b.jsonl", [{**row, "label": False} for row in rows])


@pytest.mark.parametrize(
    "fields",
    [
        {"images": ["a.png"]},
        {"image": "a.png"},
        {"videos": ["a.mp4"]},
        {"reasoning_content": "Sailors say ahoy."},
        {"prompt": "<image>What is it?"},
        {"prompt": "What is it?\n<video>"},
    ],
)
def test_what_no_text_model_reads_is_refused_by_name(fields: dict[str, Any]) -> None:
    with pytest.raises(BadRow) as caught:
        convert({**PAIR, **fields})
    assert caught.value.reason == "unusable_field"
    name = next(iter(fields))
    assert name in caught.value.detail or fields[name][-7:] in caught.value.detail or "<image>" in caught.value.detail
    if name != "prompt":
        assert f"options.ignore: [{name}]" in caught.value.detail
        assert convert({**PAIR, **fields}, ignore=[name]).messages == convert(PAIR).messages
        assert convert({**PAIR, name: []}).messages == convert(PAIR).messages


def test_a_page_about_pictures_is_text() -> None:
    asked = "Explain <image><url>a.png</url></image> in this feed."
    assert convert({**PAIR, "prompt": asked}).messages[0].content == asked


def test_an_ignored_field_is_ignored_in_turns_too() -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello", "thinking": "A greeting."}]
    with pytest.raises(BadRow, match="thinking"):
        convert({"messages": turns})
    assert len(convert({"messages": turns}, ignore=["thinking"]).messages) == 2


class Told(logging.Handler):
    """Keeps what the library says."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Told]:
    handler, logger = Told(), logging.getLogger("didact.datasets.load")
    logger.addHandler(handler)
    with caplog.at_level(logging.INFO, logger="didact"):
        yield handler
    logger.removeHandler(handler)


def test_fields_that_nobody_reads_are_named_once_in_one_line(tmp_path: Path, told: Told) -> None:
    turns = [{"role": "user", "content": "Hi", "name": "Ann"}, {"role": "assistant", "content": "Hello"}]
    rows = [{"messages": turns, "id": row, **({"topic": "x"} if row == 7 else {})} for row in range(8)]
    load(tmp_path / "a.jsonl", rows)
    load(tmp_path / "a.jsonl", rows)  # found in the cache
    expected = "source s: fields of its rows that are not used: id, messages[].name, topic"
    assert [line for line in told.lines if "not used" in line] == [expected] * 2
    load(tmp_path / "b.jsonl", rows, ignore=["id", "name", "topic"])
    assert len([line for line in told.lines if "not used" in line]) == 2


def test_turns_that_were_put_in_order_are_counted_in_one_line(tmp_path: Path, told: Told) -> None:
    load(tmp_path / "a.jsonl", [{"data": ["Hi", f"Hello {row}", "And?"]} for row in range(4)])
    (line,) = [line for line in told.lines if "in order" in line]
    assert line.endswith("user_last: leave_out in 4 rows")


class Watched(dict[str, Any]):
    """A record that notices which fields are read."""

    def __init__(self, record: dict[str, Any]) -> None:
        super().__init__(record)
        self.seen: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.seen.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.seen.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("form", [form.name for form in FORMS])
def test_a_form_reads_no_field_that_it_does_not_name(form: Any) -> None:
    convert_form = next(each.convert for each in FORMS if each.name == form)
    for value in ("text", ["text"], [["a", "b"]], {"text": ["a"]}, 1, None):
        names = {*READS[form], *(name for each in FORMS for name in each.reads), *SYSTEM}
        record = Watched(dict.fromkeys(names, value))
        with contextlib.suppress(BadRow):
            convert_form(record, RowSettings())
        assert record.seen <= READS[form] | {f"message_{number}" for number in range(9)}

"""Plain text for continued pretraining: read as documents, every token learned once, nothing cut away."""

import json
from pathlib import Path

import numpy as np
import pytest

from didact.datasets import Conversation, Message, load_dataset
from didact.errors import DataError
from didact.gpu_proof.tokenizer import byte_tokenizer
from didact.preparation import Encoder, tokenize
from didact.spec import SourceSpec, TokensSpec
from didact.tokens import TemplateContract, encode_all, view_table
from didact.tokens.documents import encode_documents, split
from tests.fakes.datasets import stored_dataset

EOS = 256


def texts_of(path: Path, held_out_rows: int = 0, **options: str) -> tuple[list[str], list[str]]:
    source = SourceSpec(name="corpus", path=str(path), format="text", options=options, held_out_rows=held_out_rows)
    found = load_dataset(source, seed=0, max_bad_rows_share=0.0, quarantine_dir=None)
    assert all(each.is_document for each in [*found.train, *found.held_out])
    return [each.messages[0].content for each in found.train], [each.messages[0].content for each in found.held_out]


def test_a_text_file_is_one_document_whatever_it_begins_with(tmp_path: Path) -> None:
    for begins in ("Once upon\na time.\n\nThe end.", "[1] a note\nmore", '{"not": json', "User: Hi\nBot: Hello"):
        (tmp_path / "a.txt").write_text(begins + "\n")
        assert texts_of(tmp_path / "a.txt") == ([begins], [])


def test_a_mark_cuts_a_file_into_paragraphs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One.\nStill one.\n\nTwo.\n\n\nThree.\n")
    assert texts_of(tmp_path / "a.txt", end_mark="\n\n") == (["One.\nStill one.", "Two.", "Three."], [])


def test_records_with_a_text_are_documents_only_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": f"文 {n}", "url": "-"}) + "\n" for n in range(3)))
    assert texts_of(tmp_path / "a.jsonl") == (["文 0", "文 1", "文 2"], [])
    with pytest.raises(DataError):  # as a transcript, none of them has two speakers
        load_dataset(
            SourceSpec(name="c", path=str(tmp_path / "a.jsonl")), seed=0, max_bad_rows_share=0.5, quarantine_dir=None
        )


def test_a_held_out_text_is_not_trained_on_and_takes_no_other_with_it(tmp_path: Path) -> None:
    rows = [f"text {n % 9}" for n in range(18)]  # each text twice
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    train, held_out = texts_of(tmp_path / "a.jsonl", held_out_rows=2)
    assert len(held_out) == 2
    assert not set(train) & set(held_out)
    assert len(train) == 18 - 2 * len(set(held_out))


@pytest.mark.parametrize("length", [2, 3, 8, 9, 15, 16, 17, 100])
def test_pieces_learn_every_token_but_the_first_exactly_once(length: int) -> None:
    ids = list(range(1000, 1000 + length))
    samples = split(ids, 8)
    assert all(2 <= len(sample.ids) <= 8 and not sample.mask[0] for sample in samples)
    learned = np.concatenate([sample.ids[sample.mask] for sample in samples])
    assert learned.tolist() == ids[1:]
    context = [int(sample.ids[0]) for sample in samples[1:]]
    assert context == [int(sample.ids[-1]) for sample in samples[:-1]], "the context is the token before"


def test_a_document_ends_with_eos_and_forged_marks_are_plain_text() -> None:
    tokenizer = byte_tokenizer()
    ((sample,),) = encode_documents(["a<|im_end|>b"], tokenizer, 64)
    assert sample.ids.tolist().count(EOS) == 1 and sample.ids[-1] == EOS
    assert tokenizer.decode(sample.ids[:-1]) == "a<|im_end|>b"
    assert tokenizer("<|im_end|>")["input_ids"] == [EOS], "the tokenizer is as it was"


def test_documents_and_dialogues_stand_in_one_source_order() -> None:
    tokenizer = byte_tokenizer()
    contract = TemplateContract.build(tokenizer, "auto")
    dialogue = Conversation((Message("user", "Hi"), Message("assistant", "Hello")), row=1)
    document = Conversation((Message("document", "x" * 100),), row=2)
    tokens = TokensSpec(max_length=40)
    found = encode_all([document, dialogue, document], tokenizer, contract, tokens)
    assert [len(each.samples) for each in found] == [3, 1, 3]
    (alone,) = encode_all([dialogue], tokenizer, contract, tokens)
    assert found[1].samples[0].ids.tolist() == alone.samples[0].ids.tolist()


def test_the_table_holds_all_pieces_under_their_row(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    rows = [Conversation((Message("document", "x" * 100),), row=4), Conversation((Message("document", "yz"),), row=6)]
    encoder = Encoder(tokenizer, TemplateContract.build(tokenizer, "auto"), TokensSpec(max_length=40))
    dataset = stored_dataset(tmp_path, "corpus", rows)
    table = view_table(tokenize(dataset, encoder, tmp_path), dataset.train, "corpus")
    assert [table.row(index) for index in range(len(table))] == [4, 4, 4, 6]
    assert table.stats.supervised == 100 + 2  # 100 letters and EOS but the first, and two more
    assert table.stats.truncated == 0 and not table.stats.rejected

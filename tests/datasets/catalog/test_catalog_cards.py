"""Every card loads, says where it comes from, and reads a file in its documented shape with the real loader."""

from pathlib import Path

import pytest

from didact.datasets import Dataset, load_dataset
from didact.datasets.catalog import GROUPS, Card, card_yaml, load_cards
from didact.datasets.rows.options import row_options
from didact.datasets.samples import card_samples, write_example
from didact.spec import SourceSpec, load_spec
from tests.conftest import shared_data

CARDS = {card.name: card for card in load_cards(Path("no such folder"))}
# Card -> where real files lie below raw/, rows accepted, rows rejected (empty answers, tables that are not there).
REAL = {
    "aitqa": ("aitqa", 511, 4),
    "alpaca": ("alpaca/alpaca_data_excerpt.json", 1000, 0),
    "alpaca-gpt4": ("alpaca_gpt4/alpaca_zh_demo.json", 1000, 0),
    "aqua-cot": ("chain_of_thought", 2000, 0),
    "belle": ("belle_cn", 1000, 0),
    "belle-0.5m": ("belle_cn", 1000, 0),
    "belle-multiturn": ("belle_cn", 1, 0),
    "belle-school-math": ("belle_cn", 1, 0),
    "chinese-medical": ("chinese_medical", 1000, 0),
    "code-alpaca": ("code_alpaca", 1299, 1),
    "creak-cot": ("chain_of_thought", 2000, 0),
    "csl": ("csl", 2000, 0),
    "dolly": ("dolly", 12, 0),
    "ecqa-cot": ("chain_of_thought", 2000, 0),
    "fastchat": ("sharegpt/fastchat_dummy_conversation.json", 500, 0),
    "fetaqa": ("fetaqa", 400, 0),
    "flan-cot": ("chain_of_thought", 13084, 0),
    "gpteacher": ("gpteacher", 3469, 0),
    "gsm8k-cot": ("chain_of_thought", 2000, 0),
    "guanaco": ("guanaco/chinese_vicuna_merge_sample.json", 10, 0),
    "hc3": ("hc3", 1, 0),
    "hh-rlhf": ("hh_rlhf", 499, 1),
    "infotabs": ("infotabs", 300, 0),
    "oig": ("oig/training_text_example.txt", 3, 0),
    "prosocial-dialog": ("prosocial_dialog/dialogstudio_original_examples.json", 1, 0),
    "qasc-cot": ("chain_of_thought", 1084, 0),
    "sensemaking-cot": ("chain_of_thought", 2000, 0),
    "sharegpt": ("sharegpt", 100, 0),
    "strategyqa-cot": ("chain_of_thought", 2000, 0),
    "tabfact": ("tabfact", 60, 0),
    "tabmwp": ("tabmwp", 200, 0),
    "wikisql": ("wikisql", 5, 0),
    "wtq": ("wtq", 78, 222),
}


def load(card: str, root: Path, share: float = 0.0) -> Dataset:
    source = SourceSpec(name="s", path=f"card:{card}", options={"root": str(root)})
    return load_dataset(source, seed=0, max_bad_rows_share=share, quarantine_dir=None)


def test_there_is_a_card_for_each_of_the_71_sets() -> None:
    assert len(CARDS) == 71


@pytest.mark.parametrize("name", CARDS)
def test_card_is_sound(name: str, tmp_path: Path) -> None:
    card = CARDS[name]
    assert card.source.home.startswith("https://")
    assert set(card.overlaps) <= set(CARDS)
    assert name not in GROUPS
    row_options(SourceSpec(name="s", path="x", options=card.rows.options))
    file = tmp_path / f"{name}.yaml"
    file.write_text(card_yaml(card), encoding="utf-8")
    assert load_spec(Card, file) == card


@pytest.mark.parametrize("name", CARDS)
def test_a_file_in_the_cards_shape_loads(name: str, tmp_path: Path) -> None:
    write_example(CARDS[name], tmp_path)
    dataset = load(name, tmp_path)
    assert dataset.rows_rejected == 0
    for conversation in dataset.train:
        assert conversation.messages[-1].role == "assistant"
    assert card_samples(CARDS[name]).made_up


@pytest.mark.parametrize("name", REAL)
def test_real_files_load_through_the_card(name: str) -> None:
    place, num_accepted, num_rejected = REAL[name]
    root = shared_data() / "raw" / place
    if not root.exists():
        pytest.skip(f"{root} is not here")
    dataset = load(name, root, share=1.0)
    assert (len(dataset.train), dataset.rows_rejected) == (num_accepted, num_rejected)
    assert not card_samples(CARDS[name], root).made_up


def test_reasoning_cards_answer_with_their_steps(tmp_path: Path) -> None:
    write_example(CARDS["gsm8k-cot"], tmp_path)
    (conversation,) = load("gsm8k-cot", tmp_path).train
    assert "4 + 3 = 7" in conversation.messages[-1].content
    assert conversation.answer == "7"
    assert conversation.rationale == "4 + 3 = 7."


def test_the_same_files_elsewhere_have_the_same_fingerprint(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_example(CARDS["dolly"], tmp_path / folder)
    assert load("dolly", tmp_path / "a").fingerprint == load("dolly", tmp_path / "b").fingerprint
    (tmp_path / "b" / "databricks-dolly-15k.jsonl").write_text('{"instruction": "a", "response": "b"}\n')
    assert load("dolly", tmp_path / "a").fingerprint != load("dolly", tmp_path / "b").fingerprint

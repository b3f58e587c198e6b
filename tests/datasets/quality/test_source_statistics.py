"""Lengths, languages and roles of a source, and what all its rows are."""

import json

import numpy as np
import pytest

from didact.datasets import AllRows, Conversation, Message
from didact.datasets.quality import source_statistics
from didact.datasets.quality.statistics import HALF_OCTAVES, LANGUAGE_SAMPLE, language_shares
from didact.env import cache_dir
from tests.fakes.datasets import stored_dataset

ENGLISH = "The history of the city begins with a small settlement on the river, founded by traders from the north."
GERMAN = "Die Geschichte der Stadt beginnt mit einer kleinen Siedlung am Fluss, die von Händlern gegründet wurde."
CHINESE = "这座城市的历史始于河边的一个小村庄，由北方来的商人建立。"  # noqa: RUF001


def talk(row: int, text: str, answer: str | None = None, rationale: str | None = None) -> Conversation:
    system = (Message("system", "Be kind."),) if row % 4 == 0 else ()
    turns = (Message("user", text), Message("assistant", text))
    return Conversation((*system, *turns * (1 + row % 2)), row, answer, rationale)


def test_shares_and_roles_are_counted() -> None:
    rows = [talk(0, "a"), talk(1, "b", answer="4"), talk(2, "c", answer="5", rationale="because"), talk(3, "d")]
    statistics = source_statistics("s", rows)
    assert statistics.roles == {"system": 1, "user": 6, "assistant": 6}
    assert statistics.share_with_system == 0.25
    assert statistics.share_with_answer == 0.5
    assert statistics.share_with_rationale == 0.25
    assert statistics.turns.mean == 3.0
    assert dict(zip(statistics.turns.edges, statistics.turns.counts, strict=True))[4] == 2
    json.dumps(statistics.as_json())


def test_lengths_agree_with_numpy_on_all_of_them() -> None:
    lengths = [*range(1, 400, 7), 300_000]
    rows = [Conversation((Message("user", "x" * (length - 1)), Message("assistant", "y")), 0) for length in lengths]
    characters = source_statistics("s", iter(rows)).characters
    assert characters.total == sum(lengths)
    assert characters.longest == 300_000
    assert characters.quantiles["p95"] == pytest.approx(np.quantile(lengths, 0.95))
    expected, _ = np.histogram(lengths, [*HALF_OCTAVES, np.inf])
    assert characters.counts == tuple(expected)


def test_characters_of_chinese_are_words() -> None:
    words = source_statistics("s", [talk(1, "你好 world 一二三")]).words
    assert words.total == 4 * 6


LONG = "You are a patient helper in a small library. Speak clearly, and be kind to everybody who asks you. " * 20
FORMULAS = r"已知 $\frac{a}{b}=\sqrt{\mathrm{const}+\mathrm{other}}$, 求 $\alpha\beta\gamma\delta\epsilon$ 的值和范围。"


def test_a_system_message_and_formulas_hide_no_language_and_no_length() -> None:
    rows = [Conversation((Message("system", LONG), *talk(1, CHINESE).messages), row) for row in range(4)]
    statistics = source_statistics("s", rows)
    assert statistics.languages == {"zh": 1.0}
    assert statistics.characters.mean == 4 * len(CHINESE)
    assert statistics.share_with_system == 1.0 and statistics.roles["system"] == 4
    assert source_statistics("s", [talk(1, FORMULAS)]).languages == {"zh": 1.0}
    assert source_statistics("s", [talk(1, "$x=1$")]).languages == {"und": 1.0}


def test_languages_are_told_by_shares() -> None:
    rows = [talk(row, text) for row, text in enumerate([ENGLISH] * 5 + [GERMAN] * 2 + [CHINESE] * 2 + ["4 + 3 = 7"])]
    statistics = source_statistics("s", rows)
    assert statistics.languages == {"en": 0.5, "de": 0.2, "zh": 0.2, "und": 0.1}
    assert next(iter(statistics.languages)) == "en"
    assert statistics.languages_sampled == 10


def test_short_chinese_is_chinese() -> None:
    assert language_shares(["哪个城市最大? 上海。"]) == {"zh": 1.0}


def test_sample_of_languages_is_a_choice_by_row_and_not_by_order() -> None:
    rows = [talk(row, ENGLISH if row >= 250 else CHINESE) for row in range(LANGUAGE_SAMPLE + 500)]
    forwards, backwards = source_statistics("s", rows), source_statistics("s", rows[::-1])
    assert forwards.languages_sampled == LANGUAGE_SAMPLE
    assert forwards.languages == backwards.languages
    assert forwards.languages["zh"] == pytest.approx(0.1, abs=0.02)


def test_a_source_without_rows_has_figures() -> None:
    statistics = source_statistics("s", [])
    assert (statistics.num_rows, statistics.characters.mean, statistics.languages) == (0, 0.0, {})


def test_all_rows_are_training_and_then_held_out_rows() -> None:
    train, held_out = tuple(talk(row, "t") for row in range(3)), tuple(talk(row, "h") for row in range(3, 5))
    rows = AllRows(stored_dataset(cache_dir(), "d", [*held_out, *train], len(held_out)))
    assert [row.row for row in rows] == [0, 1, 2, 3, 4]
    assert rows[-1] == held_out[1]
    assert rows[1:4] == (*train[1:], held_out[0])
    with pytest.raises(IndexError):
        rows[5]

"""Near duplicates by signature against the similarity of every pair."""

import random
from itertools import combinations

import numpy as np
import pytest
from datasketch import MinHash, MinHashLSH

from didact.datasets import Conversation, Message
from didact.datasets.conversation import Role
from didact.datasets.quality import measure_overlap
from didact.datasets.quality.duplicates import index_texts, jaccard
from didact.datasets.quality.near import NUM_PERMUTATIONS, NearIndex, bands, signatures
from didact.datasets.quality.texts import Compare, shingles

THRESHOLD = 0.8
CHINESE = [chr(0x4E00 + number) for number in range(2000)]


def talk(row: int, *texts: str) -> Conversation:
    roles: tuple[Role, Role] = ("user", "assistant")
    return Conversation(tuple(Message(roles[turn % 2], text) for turn, text in enumerate(texts)), row)


def varied(number: int, chinese: bool, seed: int) -> list[Conversation]:
    """Rows in families: each is one of few originals with some words replaced."""
    random_ = random.Random(seed)
    vocabulary = CHINESE if chinese else [f"word{index}" for index in range(3000)]
    space = "" if chinese else " "
    originals = [random_.choices(vocabulary, k=random_.randint(30, 90)) for _ in range(number // 8)]
    rows = []
    for row in range(number):
        words = list(random_.choice(originals))
        for _ in range(random_.randint(0, 2)):
            words[random_.randrange(len(words))] = random_.choice(vocabulary)
        rows.append(talk(row, space.join(words[:10]), space.join(words[10:])))
    return rows


@pytest.mark.parametrize("compare", ["conversation", "prompt"])
def test_a_system_message_that_rows_share_makes_no_twins(compare: Compare) -> None:
    random_, system = (
        random.Random(3),
        Message("system", "Be kind, be brief, and never tell the rules of this house. " * 9),
    )
    rows = [
        talk(row, " ".join(random_.choices(["sun", "sea", "sand", "salt", "sail"], k=12)), "Yes.") for row in range(9)
    ]
    shared = [Conversation((system, *row.messages), row.row) for row in rows]
    texts = index_texts([shared], compare, THRESHOLD)
    assert texts.num_texts == 9
    assert not any(texts.similarity(a, b) >= THRESHOLD for a, b in combinations(range(9), 2))
    assert shingles(shared[0].messages) == shingles(rows[0].messages)


def all_pairs(rows: list[Conversation]) -> dict[tuple[int, int], float]:
    sets = [shingles(row.messages) for row in rows]
    return {(a, b): jaccard(sets[a], sets[b]) for a, b in combinations(range(len(rows)), 2)}


@pytest.mark.parametrize("chinese", [False, True])
def test_pairs_are_those_of_comparing_all_with_all(chinese: bool) -> None:
    rows = varied(400, chinese, seed=1)
    texts = index_texts([rows], "conversation", THRESHOLD)
    first: dict[int, int] = {}
    for row, text in enumerate(texts.of_row):
        first.setdefault(int(text), row)
    distinct = sorted(first.values())
    real = {pair for pair, value in all_pairs([rows[row] for row in distinct]).items() if value >= THRESHOLD}
    found = {
        (text, int(other))
        for text in range(texts.num_texts)
        for other in texts.likely(text)
        if other > text and texts.similarity(text, int(other)) >= THRESHOLD
    }
    assert len(real) > 100
    assert found <= real, "verified pairs are real ones"
    assert len(found) >= 0.95 * len(real)


def test_rows_met_are_those_that_datasketchs_index_finds() -> None:
    sets = [shingles(row.messages) for row in varied(300, False, seed=2)]
    values = signatures(sets)
    ours = NearIndex(values, THRESHOLD)
    theirs = MinHashLSH(num_perm=NUM_PERMUTATIONS, params=bands(THRESHOLD))
    sketches = [MinHash(hashvalues=row, scheme="affine32") for row in values]
    for row, sketch in enumerate(sketches):
        theirs.insert(row, sketch)
    for row, sketch in enumerate(sketches):
        assert set(ours.meeting(row).tolist()) == set(theirs.query(sketch)) - {row}


def test_signatures_are_the_same_on_every_machine() -> None:
    values = signatures([frozenset({"a b c d e", "b c d e f"}), frozenset()])
    assert values.dtype == np.uint32
    assert values[0, :3].tolist() == [769744348, 2901305576, 1138530834]
    assert (values[1] == 0xFFFFFFFF).all()


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 1.0])
def test_bands_meet_at_the_threshold(threshold: float) -> None:
    count, length = bands(threshold)
    assert count * length <= NUM_PERMUTATIONS
    assert 1 - (1 - threshold**length) ** count >= 0.98


def test_rows_without_words_are_not_near_each_other() -> None:
    rows = [talk(0, "?", "!"), talk(1, "...", "***"), talk(2, "?", "!")]
    overlap = measure_overlap(["a"], [rows])
    assert overlap.near == overlap.exact == ((2,),)


def test_overlap_is_that_of_comparing_all_with_all() -> None:
    rows = varied(240, False, seed=3)
    parts = [rows[:60], rows[60:100] + rows[:5], rows[100:]]
    flat = [row for part in parts for row in part]
    owner = [number for number, part in enumerate(parts) for _ in part]
    pairs = all_pairs(flat)
    twins: list[set[int]] = [set() for _ in flat]
    for (a, b), value in pairs.items():
        if value >= THRESHOLD:
            twins[a].add(owner[b])
            twins[b].add(owner[a])
    expected = [
        [sum(b in twins[row] for row in range(len(flat)) if owner[row] == a) for b in range(3)] for a in range(3)
    ]
    overlap = measure_overlap(["a", "b", "c"], parts, threshold=THRESHOLD)
    assert overlap.near is not None
    for a in range(3):
        for b in range(3):
            assert 0.95 * expected[a][b] <= overlap.near[a][b] <= expected[a][b]
    assert overlap.exact[1][0] >= 5
    assert overlap.share(0, 1) == overlap.near[0][1] / 60


def test_exact_duplicates_differ_in_nothing_but_case_space_and_form() -> None:
    left = [talk(0, "What  is\tthis?", "A ﬁne day"), talk(1, "What is this", "A fine day")]
    right = [talk(0, "what is THIS? ", "a fine day")]
    overlap = measure_overlap(["left", "right"], [left, right], threshold=None)
    assert overlap.counts == ((0, 1), (1, 0))
    assert measure_overlap(["left", "right"], [left, right]).counts == ((2, 2), (1, 0))


def test_prompts_alone_may_be_compared() -> None:
    parts = [[talk(0, "Name a colour.", "Red.")], [talk(0, "Name a colour.", "Blue.")]]
    assert measure_overlap(["a", "b"], parts, threshold=None).exact == ((0, 0), (0, 0))
    assert measure_overlap(["a", "b"], parts, threshold=None, compare="prompt").exact == ((0, 1), (1, 0))

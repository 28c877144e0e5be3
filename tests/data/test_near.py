"""Near-duplicates: exact similarity decides, hashing must only not lose a pair."""

import random

import pytest

from routerr1.data.near import HeldOut, Near, Worded, jaccard, kept_apart, shingles


def test_shingles_are_the_four_grams_or_a_short_text_itself() -> None:
    assert shingles("abcdef") == {"abcd", "bcde", "cdef"}
    assert shingles("abc") == {"abc"}
    assert shingles("") == {""}


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [
        ("abcdef", "abcdef", 1.0),
        ("abcdef", "abcdxx", 1 / 5),  # abcd of abcd bcde cdef bcdx cdxx
        ("abcdef", "uvwxyz", 0.0),
    ],
)
def test_similarity_by_hand(one: str, other: str, similarity: float) -> None:
    assert jaccard(shingles(one), shingles(other)) == similarity


def test_each_row_is_told_once_with_the_most_similar() -> None:
    held_out = HeldOut(0.5)
    held_out.add([Worded(1, "abcdefghi"), Worded(2, "abcdefghijk"), Worded(3, "uvwxyz")])
    assert held_out.num_compared(None) == 3
    found = list(held_out.find([Worded(7, "abcdefghij"), Worded(8, "lmnopqrst")]))
    # 7 four-grams; 6 of them are all of the first, 7 of the 8 of the second.
    assert found == [Near(7, 2, 7 / 8)]


@pytest.mark.parametrize("threshold", [0.96, 0.999, 1.0])
def test_the_highest_thresholds_leave_what_is_as_good_as_equal(threshold: float) -> None:
    held_out = HeldOut(threshold)
    held_out.add([Worded(1, "who is it"), Worded(2, "abcabcabc")])
    rows = [Worded(7, "who is it"), Worded(8, "who is it now"), Worded(9, "abcabcabcabc")]
    # 9 has the same four-grams as 2, only more often.
    assert list(held_out.find(rows)) == [Near(7, 1, 1.0), Near(9, 2, 1.0)]


def test_nothing_held_out_finds_nothing() -> None:
    assert list(HeldOut(0.7).find([Worded(1, "who is it")])) == []


@pytest.mark.slow
def test_hashing_loses_hardly_a_pair_that_comparing_all_would_find() -> None:
    draw = random.Random(11)
    words = ["".join(draw.choices("abcdefghijklm", k=6)) for _ in range(300)]
    held = {n: " ".join(draw.choices(words, k=9)) for n in range(300)}
    train = {}
    for number in range(600):
        said = held[number % 300].split()
        for _ in range(draw.randrange(4)):  # one to three words replaced: similarity from 0.4 to 1
            said[draw.randrange(9)] = draw.choice(words)
        train[1000 + number] = " ".join(said)
    held_out = HeldOut(0.7)
    held_out.add(Worded(*each) for each in held.items())
    found = {pair.row for pair in held_out.find(Worded(*each) for each in train.items())}
    pieces = {number: shingles(text) for number, text in held.items()}
    wanted = {
        number
        for number, text in train.items()
        if any(jaccard(shingles(text), other) >= 0.7 for other in pieces.values())
    }
    assert len(wanted) > 200
    assert found <= wanted
    assert len(found) >= 0.995 * len(wanted)


def test_rows_that_name_facts_or_a_group_are_kept_apart_by_them() -> None:
    assert not kept_apart({})
    assert not kept_apart({"steps": []})
    assert kept_apart({"steps": ["What is the capital of France?"]})
    assert kept_apart({"group": "mine_1"})


def test_rows_kept_apart_are_compared_with_all_but_their_own_data_set() -> None:
    held_out = HeldOut(0.7)
    held_out.add([Worded(1, "who is it", "mine"), Worded(2, "who was he")])
    rows = [
        Worded(7, "who is it", "mine"), Worded(8, "who is it", "yours"), Worded(9, "who is it"),
        Worded(10, "who was he", "mine"),
    ]  # fmt: skip
    assert list(held_out.find(rows)) == [Near(8, 1, 1.0), Near(9, 1, 1.0), Near(10, 2, 1.0)]
    assert [held_out.num_compared(apart) for apart in ("mine", "yours", None)] == [1, 2, 2]

"""Recorded edits of test sets: what they change, what they leave, and that a seed gives them again."""

import string
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_experiments.data import DataError, Example
from llm_experiments.tasks.edits import (
    ATTACKS,
    SIDE_REMARKS,
    Edit,
    distractors,
    disturb,
    neighbours,
    redo,
    synonyms,
    typos,
    undo,
)
from llm_experiments.tasks.synonyms import SYNONYMS

TEXT = "The movie is almost entirely boring , though its ending seems Really funny ."
EXAMPLES = [Example(f"{TEXT} number {word}", label=i % 2, score=i / 10) for i, word in enumerate("abcdefgh")]


@given(st.text(max_size=60), st.integers(0, 4), st.integers(0, 99), st.sampled_from(sorted(ATTACKS)))
def test_every_edit_can_be_done_again_and_undone(text, n, seed, attack):
    edited, edits = ATTACKS[attack](text, n, Random(seed))
    assert redo(text, edits) == edited and undo(edited, edits) == text
    assert len(edits) <= n
    assert ATTACKS[attack](text, n, Random(seed)) == (edited, edits)


@pytest.mark.parametrize("seed", range(20))
def test_typos_are_inside_distinct_words_of_four_letters_or_more(seed):
    edited, edits = typos(TEXT, 3, Random(seed))
    before, after = TEXT.split(), edited.split()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert len(changed) == len(edits) == 3
    for a, b in changed:
        assert len(a) >= 4 and a[0] == b[0] and a[-1] == b[-1] and len(b) in (len(a), len(a) - 1)
    for edit in edits:
        if edit.kind == "swap":
            assert edit.after == edit.before[::-1] != edit.before
        elif edit.kind == "neighbour":
            assert edit.after.lower() in neighbours(edit.before.lower())


def test_all_kinds_of_typos_occur_and_keys_touch_both_ways():
    kinds = Counter(e.kind for seed in range(60) for e in typos(TEXT, 3, Random(seed))[1])
    assert min(kinds[kind] for kind in ("swap", "neighbour", "drop")) > 20
    for letter in string.ascii_lowercase:
        assert 2 <= len(neighbours(letter)) <= 6
        assert all(letter in neighbours(other) for other in neighbours(letter))


def test_short_texts_get_as_many_edits_as_they_have_room_for():
    assert typos("so it is a bore", 5, Random(0))[1][0].start in (12, 13)
    assert typos("so it is", 5, Random(0)) == ("so it is", [])
    assert synonyms("so it is", 5, Random(0)) == ("so it is", [])


def test_synonyms_come_from_the_table_and_keep_capitals():
    for seed in range(20):
        edited, edits = synonyms(TEXT, 9, Random(seed))
        assert len(edits) == 8  # of the words of TEXT, these are known
        for edit in edits:
            assert edit.after.lower() in SYNONYMS[edit.before.lower()]
            assert edit.after[0].isupper() == edit.before[0].isupper()
    assert synonyms("FILM", 1, Random(0))[0] in ("MOVIE", "PICTURE")
    assert synonyms("robin", 1, Random(0), table={"robin": ["thrush"]})[0] == "thrush"


def test_an_article_stays_right():
    assert {synonyms("a whole idea", 2, Random(seed))[0] for seed in range(9)} == {"a whole notion"}
    found = {synonyms("a totally boring film", 1, Random(seed))[0].split()[1] for seed in range(40)}
    assert found == {"totally", "completely"}


def test_the_table_goes_both_ways_and_never_to_the_same_word():
    for word, others in SYNONYMS.items():
        assert word not in others and others
        assert all(word in SYNONYMS[other] for other in others)
        assert word == word.lower() and word.isalpha()


def test_distractors_are_appended_and_distinct():
    edited, edits = distractors(TEXT, 3, Random(1))
    assert edited.startswith(TEXT)
    added = [edit.after.strip() for edit in edits]
    assert len(set(added)) == 3 and set(added) <= set(SIDE_REMARKS)
    assert edited == " ".join([TEXT, *added])
    pool = [TEXT, "Another text."]
    assert distractors(TEXT, 1, Random(0), pool=pool)[0] == f"{TEXT} Another text."
    with pytest.raises(DataError, match="at most 1, the size of the pool; got 2"):
        distractors(TEXT, 2, Random(0), pool=pool)


@pytest.mark.parametrize("attack", sorted(ATTACKS))
def test_a_disturbed_set_keeps_labels_and_order_and_depends_on_its_seed(attack):
    one, again, other = (disturb(EXAMPLES, attack, 2, seed) for seed in (0, 0, 1))
    assert one == again and one.record() == again.record()
    assert one.record()["sha256"] != other.record()["sha256"]
    for before, after, edits in zip(EXAMPLES, one.examples, one.edits, strict=True):
        assert (after.label, after.score) == (before.label, before.score)
        assert redo(before.text, edits) == after.text != before.text
    alone = disturb(EXAMPLES[3:4], attack, 2, 0)
    assert alone.examples == one.examples[3:4], "what else is in the set does not matter"
    record = one.record(shown=2)
    assert record["untouched"] == 0 and sum(record["edits"].values()) == 2 * len(EXAMPLES)
    assert [line["uid"] for line in record["first"]] == [e.uid for e in EXAMPLES[:2]]
    assert disturb(EXAMPLES, attack, 0).examples == EXAMPLES


def test_bad_requests_are_named():
    with pytest.raises(DataError, match="attack must be one of typos, synonyms, distractors; got 'noise'"):
        disturb(EXAMPLES, "noise")
    with pytest.raises(DataError, match="at least 0; got -1"):
        disturb(EXAMPLES, "typos", -1)
    with pytest.raises(DataError, match="must hold 'xx' at 0"):
        Edit("swap", 0, "xx", "yy").apply("abc")

"""Small edits of a text that a person would read over: typos, synonyms, sentences beside the point.

An edit is recorded, so that a disturbed test set can be looked at, made again from its seed, and undone:
`redo(text, edits)` is the edited text. Each example draws from a generator of its own, seeded by the attack, the
seed and the hash of its text, so an edit does not depend on which other examples there are.

```
disturbed = disturb(splits["test"], "typos", n=2, seed=0)
disturbed.examples          # same labels, same order
disturbed.record()          # seed, counts, hash of all edits, the first few of them
```
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from llm_experiments.data import DataError, Example
from llm_experiments.tasks.synonyms import SYNONYMS

# Keys that touch on an English keyboard, row by row; the rows are shifted by about half a key.
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_WORD = re.compile(r"[A-Za-z]+")

# Remarks on something else than the thing judged, each with a word of judgement under a negation.
SIDE_REMARKS = (
    "The seats were not uncomfortable.",
    "Nobody called the popcorn terrible.",
    "It was not the best weather outside.",
    "My neighbour is not a wonderful driver.",
    "The queue at the door was not awful.",
    "I would not call the parking lot great.",
    "The envelope it came in was not beautiful.",
    "Nobody says that the day before was bad.",
)


@dataclass(frozen=True)
class Edit:
    """One replacement in a text.

    Attributes:
        kind: `swap`, `neighbour`, `drop`, `synonym` or `sentence`.
        start: where it begins, in characters of the text as the edits before it left it.
        before: what stood there (empty for an insertion).
        after: what stands there now.
    """

    kind: str
    start: int
    before: str
    after: str

    def apply(self, text: str) -> str:
        """The text with this edit.

        Raises:
            DataError: the text does not hold `before` at that place.
        """
        end = self.start + len(self.before)
        if text[self.start : end] != self.before:
            message = (
                f"the text must hold {self.before!r} at {self.start}; it holds {text[self.start : end]!r}"
            )
            raise DataError(message)
        return text[: self.start] + self.after + text[end:]


Edited = tuple[str, list[Edit]]


def redo(text: str, edits: Sequence[Edit]) -> str:
    """The text after all edits, in their order."""
    for edit in edits:
        text = edit.apply(text)
    return text


def undo(text: str, edits: Sequence[Edit]) -> str:
    """The text before all edits."""
    for edit in reversed(edits):
        text = Edit(edit.kind, edit.start, edit.after, edit.before).apply(text)
    return text


# --- the edits -----------------------------------------------------------------------------------


def neighbours(letter: str) -> str:
    """The keys that touch the key of a lower-case letter."""
    row = next(i for i, keys in enumerate(_ROWS) if letter in keys)
    place = _ROWS[row].index(letter)
    touching = [(row, place - 1), (row, place + 1), (row - 1, place), (row - 1, place + 1)]
    touching += [(row + 1, place - 1), (row + 1, place)]
    return "".join(_ROWS[r][p] for r, p in touching if 0 <= r < len(_ROWS) and 0 <= p < len(_ROWS[r]))


def typos(text: str, n: int, rng: Random) -> Edited:
    """Up to `n` slips of a typist, one a word: two letters swapped, a neighbouring key hit, or a letter dropped.

    Words of four letters and more; their first and last letters stay, by which people read. A text with fewer such
    words gets fewer.
    """
    words = [m for m in _WORD.finditer(text) if len(m[0]) >= 4]
    chosen = rng.sample(words, min(n, len(words)))
    edits = []
    # From the back, so that a dropped letter moves no place that is still to come.
    for word in sorted(chosen, key=lambda m: -m.start()):
        at = word.start() + rng.randrange(1, len(word[0]) - 1)
        inner = at + 1 < word.end() - 1
        pair, letter = text[at : at + 2], text[at]
        kinds = ["neighbour", "drop", *(["swap"] if inner and pair[0] != pair[1] else [])]
        kind = rng.choice(kinds)
        if kind == "swap":
            edits.append(Edit(kind, at, pair, pair[::-1]))
        elif kind == "drop":
            edits.append(Edit(kind, at, letter, ""))
        else:
            hit = rng.choice(neighbours(letter.lower()))
            edits.append(Edit(kind, at, letter, hit.upper() if letter.isupper() else hit))
    return redo(text, edits), edits


def synonyms(text: str, n: int, rng: Random, table: Mapping[str, Sequence[str]] = SYNONYMS) -> Edited:
    """Up to `n` words replaced by others of the same commonest meaning; capitals are kept.

    Args:
        text: the text.
        n: how many words at most; a text with fewer known words gets fewer.
        rng: draws the words and what replaces them.
        table: lower-case word -> its replacements.
    """
    words = [(m, _replacements(text, m, table)) for m in _WORD.finditer(text)]
    known = [(word, others) for word, others in words if others]
    chosen = rng.sample(known, min(n, len(known)))
    edits = []
    for word, others in sorted(chosen, key=lambda pair: -pair[0].start()):
        other = rng.choice(others)
        if word[0].isupper() and len(word[0]) > 1:
            other = other.upper()
        elif word[0][0].isupper():
            other = other[0].upper() + other[1:]
        edits.append(Edit("synonym", word.start(), word[0], other))
    return redo(text, edits), edits


def _replacements(text: str, word: re.Match[str], table: Mapping[str, Sequence[str]]) -> list[str]:
    """What may stand for a word of the text; after "a" or "an" only what keeps the article right."""
    others = list(table.get(word[0].lower(), ()))
    if re.search(r"\b(a|an) +$", text[: word.start()], re.IGNORECASE):
        vowel = word[0][0].lower() in "aeiou"
        others = [other for other in others if (other[0] in "aeiou") == vowel]
    return others


def distractors(text: str, n: int, rng: Random, pool: Sequence[str] = SIDE_REMARKS) -> Edited:
    """`n` distinct sentences that do not bear on the question, appended.

    A model that cuts its input may cut them off: let `max_length` leave room.

    Args:
        text: the text.
        n: how many sentences.
        rng: draws the sentences.
        pool: where they come from: remarks that negate words of judgement, or texts of other documents.

    Raises:
        DataError: the pool has fewer than `n` sentences besides the text itself.
    """
    others = [sentence for sentence in pool if sentence.strip() and sentence != text]
    if n > len(others):
        message = f"the number of distractors must be at most {len(others)}, the size of the pool; got {n}"
        raise DataError(message)
    edits: list[Edit] = []
    for sentence in rng.sample(others, n):
        edits.append(Edit("sentence", len(text), "", f" {sentence.strip()}"))
        text = edits[-1].apply(text)
    return text, edits


ATTACKS: dict[str, Callable[..., Edited]] = {
    "typos": typos,
    "synonyms": synonyms,
    "distractors": distractors,
}


# --- test sets -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disturbed:
    """A test set under one attack.

    Attributes:
        attack: a key of `ATTACKS`.
        n: edits asked for in each text.
        seed: of all draws.
        examples: the examples, edited; labels, answers, scores and order as before.
        edits: the edits of each example, in the same order.
        uids: hashes of the texts before the edits.
    """

    attack: str
    n: int
    seed: int
    examples: list[Example]
    edits: list[list[Edit]]
    uids: list[str]

    def lines(self) -> list[str]:
        """Every example's edits as a line of JSON: hash of the text before, then kind, place, before, after."""
        return [
            json.dumps({"uid": uid, "edits": [[e.kind, e.start, e.before, e.after] for e in edits]})
            for uid, edits in zip(self.uids, self.edits, strict=True)
        ]

    def record(self, shown: int = 5) -> dict[str, Any]:
        """What a record says of the attack; the hash covers all edits, `first` shows some."""
        kinds: dict[str, int] = {}
        for edit in (edit for edits in self.edits for edit in edits):
            kinds[edit.kind] = kinds.get(edit.kind, 0) + 1
        return {
            "attack": self.attack,
            "n": self.n,
            "seed": self.seed,
            "examples": len(self.examples),
            "untouched": sum(not edits for edits in self.edits),
            "edits": dict(sorted(kinds.items())),
            "sha256": hashlib.sha256("\n".join(self.lines()).encode()).hexdigest(),
            "first": [json.loads(line) for line in self.lines()[:shown]],
        }


def disturb(
    examples: Sequence[Example], attack: str, n: int = 2, seed: int = 0, **settings: Any
) -> Disturbed:
    """A test set with up to `n` edits in every text.

    Args:
        examples: the clean test set.
        attack: a key of `ATTACKS`.
        n: edits in each text; 0 changes nothing.
        seed: of all draws.
        settings: further arguments of the attack (`table` of synonyms, `pool` of distractors).

    Raises:
        DataError: unknown attack, a negative number, or too small a pool.
    """
    if attack not in ATTACKS:
        message = f"attack must be one of {', '.join(ATTACKS)}; got {attack!r}"
        raise DataError(message)
    if n < 0:
        message = f"n, the number of edits in a text, must be at least 0; got {n}"
        raise DataError(message)
    found, edits = [], []
    for example in examples:
        rng = Random(f"{attack} {seed} {example.uid}")  # seeding with text is stable across machines
        text, done = ATTACKS[attack](example.text, n, rng, **settings)
        found.append(replace(example, text=text))
        edits.append(done)
    return Disturbed(attack, n, seed, found, edits, [example.uid for example in examples])

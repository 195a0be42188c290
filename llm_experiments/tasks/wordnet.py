"""What is it a kind of? Multiple choice out of WordNet's noun hierarchy; trained on animals.

"A robin is a kind of": the next concept above a word against three of that concept's siblings. Plants are near
out of domain, artefacts far: whole lexicographer files, so no branch is in two of them. Only words with a single
noun sense are asked for, and none whose answer stands in the word itself ("bald eagle").

Source: WordNet 3.0 (Princeton University), file data.noun. It is optional: found where a package of the
operating system puts it, or in the folder that WordNet's own variable WNSEARCHDIR names; never fetched.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from llm_experiments.data import DataError, Example, Splits, Task, ranked, take, three_way

FILE = "data.noun"
FOLDERS = ("/usr/share/wordnet", "/usr/local/share/wordnet", "/usr/local/WordNet-3.0/dict")
DOMAINS = {"animals": 5, "near_plants": 20, "far_artefacts": 6}  # numbers of lexicographer files
WRONG = 3  # options besides the right one


@dataclass(frozen=True)
class Synset:
    """One concept: its words, its lexicographer file, the places of the concepts above it."""

    words: tuple[str, ...]
    domain: int
    above: tuple[str, ...]


def folder() -> Path | None:
    """Where WordNet's files lie; None if they are nowhere."""
    named = os.environ.get("WNSEARCHDIR")
    places = [Path(place) for place in ([named] if named else FOLDERS)]
    return next((place for place in places if (place / FILE).is_file()), None)


def missing() -> str | None:
    """What has to be installed first, in one line; None if nothing."""
    if folder() is not None:
        return None
    return (
        "task wordnet needs WordNet 3.0: install the Debian or Ubuntu package wordnet-base, or name the folder of "
        f"its {FILE} in the environment variable WNSEARCHDIR"
    )


def parse(lines: Iterable[str]) -> dict[str, Synset]:
    """Concepts by their place in the file (byte offset, eight digits); the licence's lines start with blanks."""
    found = {}
    for line in lines:
        if line.startswith(" "):
            continue
        fields = line.partition("|")[0].split()
        count = int(fields[3], 16)
        words = tuple(word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
        pointers = fields[5 + 2 * count :]
        above = tuple(
            place for kind, place in zip(pointers[::4], pointers[1::4], strict=False) if kind == "@"
        )
        found[fields[0]] = Synset(words, int(fields[1]), above)
    return found


def questions(synsets: dict[str, Synset], domain: int) -> Iterator[Example]:
    """Every question that the concepts of one lexicographer file allow, in file order."""
    senses = Counter(word.lower() for synset in synsets.values() for word in synset.words)
    below = defaultdict(list)
    for place, synset in synsets.items():
        for parent in synset.above:
            below[parent].append(place)
    for synset in synsets.values():
        word = synset.words[0]
        plain = word == word.lower() and word.replace(" ", "").replace("-", "").isalpha()
        if synset.domain != domain or not plain or senses[word] > 1 or not synset.above:
            continue
        parent = synset.above[0]
        right = synsets[parent].words[0]
        if synsets[parent].domain != domain or set(right.split()) & set(word.split()):
            continue
        true = {name for place in _ancestors(synsets, synset) for name in synsets[place].words}
        siblings = {place for top in synsets[parent].above for place in below[top]}
        names = sorted({synsets[place].words[0] for place in siblings} - true - {word})
        if len(names) >= WRONG:
            rng = Random(f"wordnet {word}")
            options = [right, *rng.sample(names, WRONG)]
            rng.shuffle(options)
            text = f"{'An' if word[0] in 'aeiou' else 'A'} {word}"
            yield Example.choice(text, tuple(f" {option}" for option in options), options.index(right))


def _ancestors(synsets: dict[str, Synset], synset: Synset) -> set[str]:
    """Places of all concepts above one."""
    found: set[str] = set()
    waiting = list(synset.above)
    while waiting:
        place = waiting.pop()
        if place not in found:
            found.add(place)
            waiting += synsets[place].above
    return found


@cache
def _everything(where: Path) -> dict[str, list[Example]]:
    """All questions: they depend on no seed."""
    synsets = parse((where / FILE).read_text("utf-8").splitlines())
    return {name: list(questions(synsets, number)) for name, number in DOMAINS.items()}


def make(seed: int, train_size: int) -> Splits:
    """Animals 60% training pool, 10% validation, 30% test; plants and artefacts are tests only."""
    where = folder()
    if where is None:
        raise DataError(missing())
    found = _everything(where)
    train, validation, test = three_way(found["animals"], train=0.6, validation=0.1)
    return {
        "train": take(train, train_size, "train_size"),
        "validation": validation,
        "test": test,
        "near_plants": ranked(found["near_plants"]),
        "far_artefacts": ranked(found["far_artefacts"]),
    }


TASK = Task(
    name="wordnet",
    summary="what is an animal a kind of? one hypernym, three of its siblings; near: plants, far: artefacts",
    prompt="{text} is a kind of",
    decoding="best_option",
    assets=(),
    train_size=320,
    max_length=64,
    make=make,
    source="WordNet 3.0, data.noun",
    missing=missing,
)

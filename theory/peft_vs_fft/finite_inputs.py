"""Exact derivatives of small networks in their weights, on finitely many inputs.

Source: ours, for Theorem 1 (second-hand) read on functions; see the claims of `thm_1_functions`. What full tuning reaches
on given inputs contains a piece whose dimension is the rank of the derivative of all outputs in all weights; what LoRA
reaches on them is the image of matrices of rank r, of dimension at most the sum of r (m + n - r).

`attention`: one head, f(X) = Wo Wv X S(X) for a sequence X (d x T), the columns of S the softmax of those of
(Wk X)'(Wq X); Wq, Wk, Wv (h x d), Wo (d x h). To stay rational the softmax has base 2: that is base e with log(2) Wq in
the place of Wq, which multiplies the derivatives in Wq and Wk by log 2 and keeps every rank.
`hidden_layer`: f(x) = W2 max(W1 x, 0) for inputs x that make no entry of W1 x zero; W1 (h x d), W2 (q x h).

Matrices are lists of rows of integers or fractions. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

Rows = Sequence[Sequence[Any]]
Column = list[Fraction]  # the derivative of every output in one weight


def times(A: Rows, B: Rows) -> list[list[Any]]:
    """A B."""
    return [
        [sum(a * b for a, b in zip(row, column, strict=True)) for column in zip(*B, strict=True)] for row in A
    ]


def transposed(A: Rows) -> list[list[Any]]:
    """A'."""
    return [list(column) for column in zip(*A, strict=True)]


def softmax(scores: Rows) -> list[list[Fraction]]:
    """2^score, each column divided by its sum; scores are integers."""
    powers = [[Fraction(2) ** int(v) for v in row] for row in scores]
    totals = [sum(column) for column in zip(*powers, strict=True)]
    return [[v / total for v, total in zip(row, totals, strict=True)] for row in powers]


def turned(S: Rows, ds: Rows) -> list[list[Fraction]]:
    """The change of the softmax S when the scores change by ds (times log 2)."""
    means = [
        sum(s * v for s, v in zip(a, b, strict=True))
        for a, b in zip(transposed(S), transposed(ds), strict=True)
    ]
    return [
        [s * (v - mean) for s, v, mean in zip(a, b, means, strict=True)] for a, b in zip(S, ds, strict=True)
    ]


def outer(a: Sequence[Any], b: Sequence[Any]) -> list[list[Any]]:
    """A b'."""
    return [[x * y for y in b] for x in a]


def flat(A: Rows) -> list[Any]:
    """The entries, row by row."""
    return [v for row in A for v in row]


def attention(W: Mapping[str, Rows], X: Rows) -> dict[str, list[Column]]:
    """For each matrix the derivatives of all outputs in its entries, row by row."""
    Q, K, V = times(W["Wq"], X), times(W["Wk"], X), times(W["Wv"], X)
    S = softmax(times(transposed(K), Q))
    seen, merged = times(V, S), times(W["Wo"], V)
    h, d = len(W["Wq"]), len(X)
    out: dict[str, list[Column]] = {name: [] for name in ("Wq", "Wk", "Wv", "Wo")}
    for i in range(h):
        for j in range(d):
            out["Wq"].append(flat(times(merged, turned(S, outer(K[i], X[j])))))
            out["Wk"].append(flat(times(merged, turned(S, outer(X[j], Q[i])))))
            out["Wv"].append(flat(outer([row[i] for row in W["Wo"]], times([X[j]], S)[0])))
    for i in range(d):
        for j in range(h):
            out["Wo"].append(flat([seen[j] if row == i else [Fraction(0)] * len(S) for row in range(d)]))
    return out


def hidden_layer(W: Mapping[str, Rows], X: Rows) -> dict[str, list[Column]]:
    """The same for one hidden layer on the columns of X.

    Raises:
        ValueError: an input makes an entry of W1 x zero, where max(., 0) has no derivative.
    """
    Z = times(W["W1"], X)
    if any(v == 0 for v in flat(Z)):
        msg = "every entry of W1 X must differ from zero; choose other inputs"
        raise ValueError(msg)
    on = [[Fraction(v > 0) for v in row] for row in Z]
    h, d, q = len(Z), len(X), len(W["W2"])
    out: dict[str, list[Column]] = {"W1": [], "W2": []}
    for i in range(h):
        for j in range(d):
            moved = [a * b for a, b in zip(on[i], X[j], strict=True)]
            out["W1"].append(flat(outer([row[i] for row in W["W2"]], moved)))
    for i in range(q):
        for j in range(h):
            active = [a * b for a, b in zip(on[j], Z[j], strict=True)]
            out["W2"].append(flat([active if row == i else [Fraction(0)] * len(active) for row in range(q)]))
    return out


NETWORKS = {"attention": attention, "hidden layer": hidden_layer}


def derivative(network: str, W: Mapping[str, Rows], inputs: Sequence[Rows]) -> dict[str, list[Column]]:
    """The derivatives on all inputs, outputs put end to end."""
    parts = [NETWORKS[network](W, X) for X in inputs]
    return {
        name: [[v for part in parts for v in part[name][entry]] for entry in range(len(parts[0][name]))]
        for name in parts[0]
    }


def through_factors(columns: Sequence[Column], B: Rows, A: Rows) -> list[Column]:
    """The derivatives in the entries of B and A at W = W0 + B A, from those in the entries of W (m x n)."""
    n, outputs = len(A[0]), range(len(columns[0]))
    out = []
    for i in range(len(B)):
        for a in range(len(A)):  # B[i][a] moves row i of W along row a of A
            out.append(
                [sum((columns[i * n + j][o] * A[a][j] for j in range(n)), Fraction(0)) for o in outputs]
            )
    for a in range(len(A)):
        for j in range(n):  # A[a][j] moves column j of W along column a of B
            out.append(
                [sum((columns[i * n + j][o] * B[i][a] for i in range(len(B))), Fraction(0)) for o in outputs]
            )
    return out


def rank(columns: Sequence[Column]) -> int:
    """The rank, by elimination over the rationals."""
    M, found = [list(c) for c in columns], 0
    for place in range(len(M[0]) if M else 0):
        pivot = next((i for i in range(found, len(M)) if M[i][place]), None)
        if pivot is None:
            continue
        M[found], M[pivot] = M[pivot], M[found]
        for i in range(found + 1, len(M)):
            if M[i][place]:
                factor = M[i][place] / M[found][place]
                M[i] = [a - factor * b for a, b in zip(M[i], M[found], strict=True)]
        found += 1
    return found

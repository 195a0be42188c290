"""Losses and methods of the LoRA family, batched over seeds: what every chain of adapters does to the full weight.

A weight is a list of layers, each an array (seeds, n, m) in the shapes W (n x m), A (r x m), B (n x r). Methods that
train B alone move a layer by the gradient times H = A'(AA')^+A, as Theorem 2 of the paper on LoRA variants has it;
LoRA and chains of LoRA train both factors by plain gradient descent and merge at the end of a chain.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sims import parallel
from theory.lora_variants import laws

Array = np.ndarray
Layers = list[Array]


# -- losses -------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Problem:
    """A batch of losses with their starts.

    Attributes:
        start: the layers at the start.
        value: loss above its infimum, (seeds,).
        gradient: its gradient by every layer.
        curvature: Q (m x m) where the loss is <V, V Q> / 2 with V the weight less a minimiser, else None.
        offset: V at the start where there is such a Q.
    """

    start: Layers
    value: Callable[[Layers], Array]
    gradient: Callable[[Layers], Layers]
    curvature: Array | None = None
    offset: Array | None = None


@dataclass(frozen=True)
class Loss:
    """A kind of loss: how to draw it, its step and whether L_G = 1 holds on the whole space."""

    name: str
    draw: Callable[[int, np.random.Generator], Problem]
    rank: int
    gamma: float
    smooth: bool


def square_norm(layers: Layers) -> Array:
    """The sum of squares over all layers, (seeds,)."""
    return np.asarray(np.sum([np.einsum("bij,bij->b", G, G) for G in layers], axis=0))


def _of_curvature(V: Array, Q: Array) -> Problem:
    """<W, W Q> / 2 from W = V: without loss of generality the minimiser is zero."""

    def value(layers: Layers) -> Array:
        return np.asarray(np.einsum("bij,bij->b", layers[0], layers[0] @ Q) / 2)

    return Problem([V], value, lambda layers: [layers[0] @ Q], Q, V)


def draw_quadratic(count: int, rng: np.random.Generator) -> Problem:
    """|W|^2 / 2, 4 x 6, W counted from the minimiser and spread over all ranks."""
    V = rng.standard_normal((count, 4, 6)) / np.sqrt(24)
    return _of_curvature(V, np.eye(6))


def draw_coupled(count: int, rng: np.random.Generator) -> Problem:
    """<V, V Q> / 2, 4 x 6, eigenvalues of Q from 1/20 to 1 in directions that mix all columns (the same Q for all)."""
    basis = np.linalg.qr(np.random.default_rng(6).standard_normal((6, 6)))[0]
    Q = (basis * np.geomspace(0.05, 1, 6)) @ basis.T
    V = rng.standard_normal((count, 4, 6)) / np.sqrt(24)
    return _of_curvature(V, Q)


def draw_last_two(count: int, rng: np.random.Generator) -> Problem:
    """(v_12 + v_13)^2 / 4 on 13 columns from v = (0, ..., 0, 1, 1), the loss of claim thm_2_cyclic; sizes drawn."""
    Q = np.zeros((13, 13))
    Q[11:, 11:] = 0.5
    V = np.zeros((count, 1, 13))
    V[:, 0, 11:] = rng.uniform(0.5, 1.5, (count, 1))
    return _of_curvature(V, Q)


def draw_deep(count: int, rng: np.random.Generator) -> Problem:
    """|W2 W1 - T|^2 / 2 with W2 (4 x 6), W1 (6 x 6) of spectral norm one; T is reached by moving both layers."""

    def unit(*shape: int) -> Array:
        A = rng.standard_normal((count, *shape))
        return np.asarray(A / np.linalg.svd(A, compute_uv=False)[:, :1, None])

    W1, W2 = unit(6, 6), unit(4, 6)
    T = (W2 + unit(4, 6) / 2) @ (W1 + unit(6, 6) / 2)

    def value(layers: Layers) -> Array:
        return square_norm([layers[1] @ layers[0] - T]) / 2

    def gradient(layers: Layers) -> Layers:
        D = layers[1] @ layers[0] - T
        return [layers[1].swapaxes(1, 2) @ D, D @ layers[0].swapaxes(1, 2)]

    return Problem([W1, W2], value, gradient)


def draw_nonlinear(count: int, rng: np.random.Generator) -> Problem:
    """Bounded regression: the mean over 12 inputs of sum_j phi((W x - y)_j), phi(u) = u^2 / (2 (1 + u^2)).

    |phi''| <= 1, so with inputs scaled to |mean x x'| = 1 the loss is 1-smooth on the whole space; it is not
    convex; some weight has loss zero.
    """
    X = rng.standard_normal((count, 6, 12))
    X = X / np.sqrt(np.linalg.eigvalsh(X @ X.swapaxes(1, 2) / 12)[:, -1, None, None])
    M = rng.standard_normal((count, 4, 6))

    def value(layers: Layers) -> Array:
        u2 = ((layers[0] - M) @ X) ** 2
        return np.asarray((u2 / (2 * (1 + u2))).sum(axis=1).mean(axis=1))

    def gradient(layers: Layers) -> Layers:
        u = (layers[0] - M) @ X
        return [(u / (1 + u * u) ** 2) @ X.swapaxes(1, 2) / 12]

    return Problem([np.zeros_like(M)], value, gradient)


QUADRATIC = Loss("quadratic", draw_quadratic, 2, 0.5, smooth=True)
COUPLED = Loss("coupled quadratic", draw_coupled, 2, 0.5, smooth=True)
LAST_TWO = Loss("last two columns", draw_last_two, 1, 0.999, smooth=True)
DEEP = Loss("deep linear", draw_deep, 2, 0.15, smooth=False)
NONLINEAR = Loss("bounded regression", draw_nonlinear, 2, 0.9, smooth=True)
LOSSES = {loss.name: loss for loss in (QUADRATIC, COUPLED, LAST_TWO, DEEP, NONLINEAR)}


# -- methods ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Method:
    """A member of the family.

    Attributes:
        name: as the paper calls it.
        law: law of A; "all" for H = I, "both" where A is trained too, "first" for the first block, "cyclic" for
            block c mod k in chain c, else one of `laws`.
        chained: whether a chain ends after some steps; otherwise A is kept for the whole run.
    """

    name: str
    law: str
    chained: bool


METHODS = {
    m.name: m
    for m in (
        Method("full", "all", chained=False),
        Method("LoRA", "both", chained=False),
        Method("CoLA", "both", chained=True),
        Method("Asym", laws.GAUSSIAN, chained=False),
        Method("RAC", laws.GAUSSIAN, chained=True),
        Method("cLA", "first", chained=False),
        Method("random-cLA", laws.EACH, chained=False),
        Method("c3LA", "cyclic", chained=True),
        Method("random-c3LA", laws.EACH, chained=True),
        Method("random-c3LA as printed", laws.OFFSET, chained=True),
    )
}


def blocks_of(method: Method, chain: int, r: int, m: int) -> list[list[int]]:
    """The equally likely column blocks of one chain of a method that trains columns."""
    if method.law == "all":
        return [list(range(m))]
    if method.law == "first":
        return [list(range(r))]
    if method.law == "cyclic":
        first = chain % (m // r) * r
        return [list(range(first, first + r))]
    return laws.supports(method.law, r, m)


def projector(method: Method, chain: int, count: int, r: int, m: int, rng: np.random.Generator) -> Array:
    """H for every seed (seeds x m x m), drawn for one chain."""
    if method.law == laws.GAUSSIAN:
        A = rng.standard_normal((count, r, m))
        return np.asarray(A.swapaxes(1, 2) @ np.linalg.solve(A @ A.swapaxes(1, 2), A))
    blocks = np.array(blocks_of(method, chain, r, m))
    chosen = blocks[rng.integers(len(blocks), size=count)]
    H = np.zeros((count, m, m))
    H[np.arange(count)[:, None], chosen, chosen] = 1.0
    return H


@dataclass(frozen=True)
class Run:
    """One block of seeds of one method on one loss; (loss, index) picks the problems, the rest the draws.

    Attributes:
        loss, method: names.
        steps: steps in all.
        kept: steps for which a chained method keeps A.
        seed, index, size: random stream, and how many seeds.
    """

    loss: str
    method: str
    steps: int
    kept: int
    seed: int
    index: int
    size: int

    @property
    def chain_length(self) -> int:
        """Steps before the next chain."""
        return self.kept if METHODS[self.method].chained else self.steps

    def problem(self) -> Problem:
        """The same problems for every method."""
        place = list(LOSSES).index(self.loss)
        return LOSSES[self.loss].draw(self.size, parallel.stream(self.seed, 1, place, self.index))

    def stream(self) -> np.random.Generator:
        """The draws of A."""
        places = list(LOSSES).index(self.loss), list(METHODS).index(self.method)
        return parallel.stream(self.seed, 2, *places, self.kept, self.index)


def trajectory(run: Run) -> dict[str, Array]:
    """Along a run, (seeds, steps + 1): |grad L|^2, |grad L H|^2 (where H exists), and the loss above its infimum."""
    loss, method, problem, rng = LOSSES[run.loss], METHODS[run.method], run.problem(), run.stream()
    W = [layer.copy() for layer in problem.start]
    squares, seen, values = [], [], []
    H: Layers = []
    A: Layers = []
    B: Layers = []
    for t in range(run.steps + 1):
        if t % run.chain_length == 0:
            chain = t // run.chain_length
            W = [base + b @ a for base, a, b in zip(W, A, B, strict=True)] if A else W
            if method.law == "both":
                A = [rng.standard_normal((run.size, loss.rank, w.shape[2])) / np.sqrt(w.shape[2]) for w in W]
                B = [np.zeros((run.size, w.shape[1], loss.rank)) for w in W]
            else:
                H = [projector(method, chain, run.size, loss.rank, w.shape[2], rng) for w in W]
        now = [base + b @ a for base, a, b in zip(W, A, B, strict=True)] if A else W
        G = problem.gradient(now)
        squares.append(square_norm(G))
        values.append(problem.value(now))
        if method.law == "both":
            seen.append(np.full(run.size, np.nan))
            B, A = (
                [b - loss.gamma * g @ a.swapaxes(1, 2) for b, a, g in zip(B, A, G, strict=True)],
                [a - loss.gamma * b.swapaxes(1, 2) @ g for b, a, g in zip(B, A, G, strict=True)],
            )
        else:
            moves = [g @ h for g, h in zip(G, H, strict=True)]
            seen.append(square_norm(moves))
            W = [w - loss.gamma * move for w, move in zip(W, moves, strict=True)]
    return {"square": np.stack(squares, 1), "seen": np.stack(seen, 1), "value": np.stack(values, 1)}

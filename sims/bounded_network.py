"""A small network on a finite population: its true risk is a sum, so its generalization gap is known exactly.

Inputs are the 2^8 vectors of signs over sqrt 8 (norm 1), each as likely; the label is the sign of a fixed direction,
flipped with a given probability. Two layers, W1 (8 x 8) and W2 (1 x 8), both adapted. The loss min(1, |f - y| / 2) has
values in [0, 1] and constant 1/2; training descends the squared error. What is trained is rounded to q bits a
number, as the bounds by information ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from sims import chains, parallel
from sims.chains import METHODS, Method

Array = np.ndarray
WIDTH, RANK, CHAINS = 8, 2, 4
SHAPES = ((WIDTH, WIDTH), (1, WIDTH))  # n x m
BITS, LARGEST = 8, 2.0  # trained numbers are rounded to 2^8 values in [-2, 2]
FLIP, GAMMA = 0.1, 0.2
LIPSCHITZ, SIGMA = 0.5, 0.5  # of the loss, which has values in [0, 1]
X = np.array(list(product((-1.0, 1.0), repeat=WIDTH))).T / np.sqrt(WIDTH)


@dataclass(frozen=True)
class Activation:
    """An activation of the hidden layer, its derivative as a function of its value, and its Lipschitz constant."""

    name: str
    value: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    lipschitz: float

    @property
    def offset(self) -> float:
        """|sigma(0)| on the whole layer."""
        return float(np.sqrt(WIDTH) * abs(self.value(np.zeros(1))[0]))


ACTIVATIONS = {
    a.name: a
    for a in (
        Activation("tanh", np.tanh, lambda v: 1 - v * v, 1.0),
        # 1 / (1 + exp(-2 u)), 1/2 at zero
        Activation("logistic", lambda u: 0.5 + 0.5 * np.tanh(u), lambda v: 2 * v * (1 - v), 0.5),
    )
}


@dataclass(frozen=True)
class Cell:
    """One block of seeds of one method at one sample size; the same starts and samples for every method."""

    method: str
    activation: str
    samples: int
    steps: int
    seed: int
    index: int
    size: int


def forward(W: list[Array], sigma: Activation) -> tuple[Array, Array]:
    """Hidden values (seeds x 8 x 256) and outputs (seeds x 256) on the whole population."""
    hidden = sigma.value(W[0] @ X)
    return hidden, (W[1] @ hidden)[:, 0]


def loss_of(f: Array, y: Array | float) -> Array:
    """min(1, |f - y| / 2)."""
    return np.minimum(1.0, np.abs(f - y) / 2)


def gaps(W: list[Array], sigma: Activation, plus: Array, minus: Array, chance: Array) -> Array:
    """Population risk less empirical risk, exactly: counts of labels +1 and -1 and the chance of +1 for every input."""
    f = forward(W, sigma)[1]
    up, down = loss_of(f, 1.0), loss_of(f, -1.0)
    true = (chance * up + (1 - chance) * down).mean(axis=1)
    seen = (plus * up + minus * down).sum(axis=1) / (plus + minus).sum(axis=1)
    return np.asarray(true - seen)


def rounded(a: Array) -> Array:
    """The nearest of 2^BITS values in [-LARGEST, LARGEST], both ends among them."""
    step = 2 * LARGEST / (2**BITS - 1)
    return np.asarray(np.rint((np.clip(a, -LARGEST, LARGEST) + LARGEST) / step) * step - LARGEST)


def factor(method: Method, chain: int, count: int, m: int, rng: np.random.Generator) -> Array:
    """A (seeds x r x m) with orthonormal rows: drawn, or rows of the identity; the identity itself for full tuning."""
    if method.law == "all":
        return np.broadcast_to(np.eye(m), (count, m, m))
    if method.law in ("both", "Gaussian"):
        return np.linalg.qr(rng.standard_normal((count, m, RANK)))[0].swapaxes(1, 2)
    blocks = np.array(chains.blocks_of(method, chain, RANK, m))
    return np.asarray(np.eye(m)[blocks[rng.integers(len(blocks), size=count)]])


def measure(cell: Cell) -> dict[str, Array]:
    """For every seed: the gap of the tuned weight, of W0 and of dW alone, and the layers' spectral norms."""
    method, sigma = METHODS[cell.method], ACTIVATIONS[cell.activation]
    rng = parallel.stream(cell.seed, 1, cell.index)
    W0 = [rng.standard_normal((cell.size, *shape)) for shape in SHAPES]
    W0 = [W / np.linalg.svd(W, compute_uv=False)[:, :1, None] for W in W0]
    chance = np.where(rng.standard_normal((cell.size, WIDTH)) @ X > 0, 1 - FLIP, FLIP)
    rng = parallel.stream(cell.seed, 2, cell.index, cell.samples)
    drawn = rng.multinomial(cell.samples, np.full(X.shape[1], 1 / X.shape[1]), size=cell.size)
    plus = rng.binomial(drawn, chance)
    minus = drawn - plus
    rng = parallel.stream(cell.seed, 3, cell.index, cell.samples, list(METHODS).index(cell.method))
    W = tune(method, sigma, W0, plus, minus, cell.steps, rng)
    dW = [a - b for a, b in zip(W, W0, strict=True)]
    out = {
        name: gaps(V, sigma, plus, minus, chance) for name, V in (("gap", W), ("start", W0), ("update", dW))
    }
    for name, layers in (("w", W0), ("d", dW)):
        for number, V in enumerate(layers, 1):
            out[f"{name}{number}"] = np.linalg.svd(V, compute_uv=False)[:, 0]
    return out


def tune(
    method: Method,
    sigma: Activation,
    W0: list[Array],
    plus: Array,
    minus: Array,
    steps: int,
    rng: np.random.Generator,
) -> list[Array]:
    """Gradient descent on the squared error over the sample, chain by chain; every chain ends rounded and merged."""
    total = (plus + minus).sum(axis=1, keepdims=True)
    W, number = W0, CHAINS if method.chained else 1
    for chain in range(number):
        A = [factor(method, chain, len(plus), V.shape[2], rng) for V in W]
        B = [np.zeros((len(plus), V.shape[1], a.shape[1])) for V, a in zip(W, A, strict=True)]
        for _ in range(steps // number):
            now = [V + b @ a for V, a, b in zip(W, A, B, strict=True)]
            hidden, f = forward(now, sigma)
            error = ((plus + minus) * f - (plus - minus)) / total
            back = now[1].swapaxes(1, 2) * error[:, None] * sigma.slope(hidden)
            G = [back @ X.T, error[:, None] @ hidden.swapaxes(1, 2)]
            moved = [b - GAMMA * g @ a.swapaxes(1, 2) for b, a, g in zip(B, A, G, strict=True)]
            if method.law == "both":
                A = [a - GAMMA * b.swapaxes(1, 2) @ g for a, b, g in zip(A, B, G, strict=True)]
            B = moved
        if method.law == "both":
            A = [rounded(a) for a in A]
        W = [V + rounded(b) @ a for V, a, b in zip(W, A, B, strict=True)]
    return W

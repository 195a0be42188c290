"""The loss that `interpolation` promises, built in floats from the data of a counterexample."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from theory.lora_variants import thm_2_cyclic

Array = np.ndarray
INSTANCE = thm_2_cyclic.FIVE_BLOCKS


def number(text: str) -> float:
    top, _, bottom = text.partition("/")
    return float(top) / float(bottom or 1)


@pytest.fixture(scope="module")
def data() -> tuple[Array, Array, Array]:
    """Points, gradients and values of the run, in the two blocks that move."""
    G = np.array([[number(v) for v in row] for row in INSTANCE["G"]])
    f = np.array([number(v) for v in INSTANCE["f"][0]])
    W, gamma, blocks = np.zeros_like(G), number(INSTANCE["gamma"]), INSTANCE["draws"]
    for t in range(len(G) - 1):
        W[t + 1] = W[t]
        W[t + 1, t % blocks] -= gamma * G[t, t % blocks]
    keep = [t for t in range(len(G)) if t == 0 or np.any(W[t] != W[t - 1])]
    return W[keep][:, -2:], G[keep][:, -2:], f[keep]


def loss_and_gradient(w: Array, W: Array, G: Array, f: Array) -> tuple[float, Array]:
    """The minimum over weights of |w - sum a_i c_i|^2 + sum a_i e_i, minus |w|^2 / 2, and its gradient."""
    H = G + W
    c, e = W - H / 2, f + (W**2).sum(1) / 2 - (H**2).sum(1) / 4
    best = min(
        (
            minimize(
                lambda a: ((w - a @ c) ** 2).sum() + a @ e,
                start,
                jac=lambda a: -2 * c @ (w - a @ c) + e,
                bounds=[(0, 1)] * len(f),
                constraints=[{"type": "eq", "fun": lambda a: a.sum() - 1, "jac": lambda a: np.ones(len(a))}],
                method="SLSQP",
                options={"ftol": 1e-13, "maxiter": 500},
            )
            for start in (
                np.full(len(f), 1 / len(f)),
                np.eye(len(f))[int(np.argmin(((w - c) ** 2).sum(1) + e))],
            )
        ),
        key=lambda r: r.fun,
    )
    return best.fun - (w**2).sum() / 2, 2 * (w - best.x @ c) - w


def test_loss_has_the_values_and_gradients_of_the_run(data: tuple[Array, Array, Array]) -> None:
    W, G, f = data
    for w, g, value in zip(W, G, f, strict=True):
        found, gradient = loss_and_gradient(w, W, G, f)
        assert found == pytest.approx(value, abs=1e-4)
        np.testing.assert_allclose(gradient, g, atol=1e-2)


def test_loss_is_smooth_and_above_its_infimum(data: tuple[Array, Array, Array]) -> None:
    W, G, f = data
    rng = np.random.default_rng(0)
    for _ in range(40):
        one, other = rng.uniform(-40, 20, (2, 2))
        (low, g), (also, h) = loss_and_gradient(one, W, G, f), loss_and_gradient(other, W, G, f)
        assert min(low, also) >= f[0] - number(INSTANCE["Delta"]) - 1e-4
        assert np.linalg.norm(g - h) <= (1 + 1e-3) * np.linalg.norm(one - other) + 1e-3

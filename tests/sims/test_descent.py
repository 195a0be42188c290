"""Gradient descent in eigen coordinates is gradient descent."""

from __future__ import annotations

import numpy as np
import pytest

from sims import descent, networks
from sims.networks import Task

TASK = Task(widths=(5, 7, 6, 4), tuned=2, rank=2, residual_rank=3)
STEPS = (1, 5, 40)


@pytest.fixture
def problem():
    batch = networks.draw(TASK, np.random.default_rng(0), 3)
    Sig = batch["Si"] @ batch["Si"]
    return batch, Sig, batch["D"] @ Sig, descent.quadratic(batch["H"], batch["L"], Sig, batch["D"] @ Sig)


def gradient(batch, Sig, T):
    H, L = batch["H"], batch["L"]
    return H.mT @ ((H @ T @ L - batch["D"]) @ Sig) @ L.mT


def test_gradient_is_half_that_of_the_risk(problem):
    batch, Sig, _, _ = problem
    rng = np.random.default_rng(1)
    T, E = rng.standard_normal((2, 3, TASK.m, TASK.k))

    def risk(T):
        return (((batch["H"] @ T @ batch["L"] - batch["D"]) @ batch["Si"]) ** 2).sum(axis=(1, 2))

    slope = (risk(T + 1e-5 * E) - risk(T - 1e-5 * E)) / 2e-5
    np.testing.assert_allclose(slope, 2 * (gradient(batch, Sig, T) * E).sum(axis=(1, 2)), rtol=1e-6)


@pytest.mark.parametrize("how", descent.STARTS)
def test_low_rank_path_equals_a_plain_loop(problem, how):
    batch, Sig, _, quadratic = problem
    factors = descent.start(quadratic, TASK.rank, how, np.random.default_rng(2))
    U, V = quadratic.left @ factors.U, quadratic.right @ factors.V
    path = dict(zip(STEPS, descent.low_rank(quadratic, factors, STEPS), strict=True))
    rate = factors.rate[:, None, None]
    for step in range(1, STEPS[-1] + 1):
        G = gradient(batch, Sig, U @ V.mT)
        U, V = U - rate * G @ V, V - rate * G.mT @ U
        if step in path:
            ours = batch["H"] @ quadratic.restore(path[step]) @ batch["L"]
            np.testing.assert_allclose(ours, batch["H"] @ (U @ V.mT) @ batch["L"], atol=1e-12)


def test_linear_path_equals_a_plain_loop(problem):
    batch, Sig, Syx, _ = problem
    s = TASK.s
    above = batch["H"][:, :, :s]
    quadratic = descent.quadratic(above, batch["L"], Sig, Syx)
    path = dict(zip(STEPS, descent.linear(quadratic, STEPS), strict=True))
    rate = 1 / (quadratic.h.max(axis=1) * quadratic.c.max(axis=1))[:, None, None]
    T = np.zeros((3, TASK.m, TASK.k))
    for step in range(1, STEPS[-1] + 1):
        G = gradient(batch, Sig, T)
        G[:, s:] = 0  # S2FT trains the selected rows only
        T = T - rate * G
        if step in path:
            np.testing.assert_allclose(quadratic.restore(path[step]), T[:, :s], atol=1e-12)


def test_balanced_start_is_balanced_and_small(problem):
    _, _, _, quadratic = problem
    factors = descent.start(quadratic, TASK.rank, "balanced", np.random.default_rng(2))
    V = factors.V
    gram = V.mT @ V
    np.testing.assert_allclose(gram, gram[:, :1, :1] * np.eye(TASK.rank), atol=1e-15)
    assert np.abs(V).max() < 1e-2


def test_usual_start_moves_nothing(problem):
    _, _, _, quadratic = problem
    factors = descent.start(quadratic, TASK.rank, "usual", np.random.default_rng(2))
    assert (factors.U == 0).all() and (factors.V != 0).all()


def test_torch_tensors_take_the_same_path(problem):
    torch = pytest.importorskip("torch", reason="torch comes with the extra 'sim', for --device cuda")
    quadratic = problem[3]
    factors = descent.start(quadratic, TASK.rank, "usual", np.random.default_rng(2))

    def tensors(thing):
        return type(thing)(*(torch.as_tensor(np.ascontiguousarray(part)) for part in vars(thing).values()))

    for run, extra in ((descent.low_rank, (factors,)), (descent.linear, ())):
        plain = list(run(quadratic, *extra, STEPS))
        moved = list(run(tensors(quadratic), *map(tensors, extra), STEPS))
        for ours, theirs in zip(plain, moved, strict=True):
            np.testing.assert_allclose(descent.as_numpy(theirs), ours, atol=1e-13)

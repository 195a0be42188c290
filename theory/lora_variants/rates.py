"""The bounds of Theorem 2 as numbers, printed and repaired, and the exact mean gradients on quadratics beside them.

Source: LoRA past, present, future, Theorem 2; RAC-LoRA, Theorems 5.3 and 5.5; the repairs of the claims
lora_variants/thm_2_frozen, thm_2_chain, thm_2_fresh, thm_2_cyclic, thm_2_gaussian and peso/rac_sharp. Units with
L_G = 1, as in `descent`: Delta = L(W0) - L*, lam a lower bound on the smallest eigenvalue of E[H], 0 < gamma < 1, count a
number of steps or of chains. The functions of numbers take floats, arrays and fractions alike.

The mean of |grad L|^2 on <V, V Q> / 2 needs only S = E[V'V] (m x m): it is tr(Q S Q), and a step with a projector H
takes S to M'S M, M = I - gamma Q H. So blocks drawn anew for every chain cost a sum over blocks, not over runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from theory.protocol import Kit, Mat


# -- bounds on the mean of |grad L|^2 -----------------------------------------------------------------------
def printed(Delta: Any, lam: Any, gamma: Any, count: Any) -> Any:
    """2 Delta / (lam gamma T), for the iterates 0, ..., T - 1."""
    return 2 * Delta / (lam * gamma * count)


def sharp(Delta: Any, lam: Any, gamma: Any, count: Any) -> Any:
    """Fresh A at every step: over the steps. A kept for a chain: over the chains' starts, count their number."""
    return Delta / (lam * gamma * (1 - gamma / 2) * count)


def trained(Delta: Any, gamma: Any, count: Any) -> Any:
    """A frozen: for |grad L H|^2, every draw, no lam."""
    return sharp(Delta, 1, gamma, count)


def sweeps(Delta: Any, gamma: Any, blocks: Any, count: Any) -> Any:
    """Blocks in cyclic order, a step each: over the starts of `count` sweeps."""
    return 2 * (1 + blocks * gamma * gamma) * trained(Delta, gamma, count)


def best(Delta: Any, lam: Any, gamma: Any, count: int) -> Any:
    """Fresh A at every step, rac_sharp: attained on |W - M|^2 / 2 when E[H] = lam I."""
    q = gamma * (1 - gamma / 2) * lam
    return Delta * (1 - (1 - 2 * q) ** count) / (q * count)


def loss_printed(Delta: Any, lam: Any, gamma: Any, mu: Any, count: Any) -> Any:
    """Under the PL condition, after `count` chains of one step: E L(W_T) - L*."""
    return Delta * (1 - gamma * mu * lam) ** count


def loss_sharp(Delta: Any, lam: Any, gamma: Any, mu: Any, count: Any) -> Any:
    """The same, sharpened."""
    return Delta * (1 - gamma * (2 - gamma) * mu * lam) ** count


# -- exact means ------------------------------------------------------------------------------------------------
def isotropic(lam: Any, gamma: Any, chains: int, steps: int) -> list[Any]:
    """E |grad L(W_t)|^2 / |grad L(W_0)|^2 at t = 0, ..., chains * steps on |W - M|^2 / 2 where E[H] = lam I.

    A is kept for the steps of a chain: H (V - part) stays, and the part that H sees shrinks by 1 - gamma a step.
    """

    def seen(number: int) -> Any:
        return 1 - lam + lam * (1 - gamma) ** (2 * number)

    out, start = [], seen(0)
    for _ in range(chains):
        out += [start * seen(number) for number in range(steps)]
        start = start * seen(steps)
    return [*out, start]


def gaussian_factor(gamma: Any, r: int, m: int, variance: Any) -> Any:
    """By what a step W - gamma grad L A'A with fresh Gaussian A (r x m) multiplies E |W - M|^2 on |W - M|^2 / 2."""
    return 1 - 2 * gamma * r * variance + gamma * gamma * variance * variance * r * (r + m + 1)


def mean_squares(
    k: Kit, W: Mat, Q: Mat, gamma: Any, chains: Sequence[Sequence[Mat]], steps: int
) -> list[Any]:
    """E |grad L(W_t)|^2 at t = 0, ..., T on <V, V Q> / 2 from V = W; each chain draws one of its projectors.

    Args:
        k: the kit.
        W: the start, counted from a minimiser (n x m).
        Q: the curvature (m x m).
        gamma: the step.
        chains: for each chain the projectors (m x m) from which it draws, each as likely.
        steps: the steps for which a chain keeps its draw.
    """
    S, out = W.T @ W, []
    for draws in chains:
        runs = [[S] for _ in draws]
        for run, H in zip(runs, draws, strict=True):
            M = k.eye(Q.shape[0]) - gamma * (Q @ H)
            for _ in range(steps):
                run.append(M.T @ run[-1] @ M)
        share = k.num(f"1/{len(draws)}")
        means = [share * _sum([run[t] for run in runs]) for t in range(steps + 1)]
        out += [k.tr(Q @ mean @ Q) for mean in means[:-1]]
        S = means[-1]
    return [*out, k.tr(Q @ S @ Q)]


def _sum(parts: Sequence[Mat]) -> Mat:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total

"""Gradient descent of a layer's change, batched over seeds, on sufficient statistics.

The empirical risk of a change T (m x k) of the tuned layer is tr(T' H'H T C) - 2 tr(T' K) + const with
C = L Sxx L' (k x k) and K = H' Syx L' (m x k), so a step costs no sample. Gradient descent commutes with
rotations: in the eigenbases of H'H and C both become diagonal, `h` and `c`, and a step costs only skinny
products. The trajectory is the same as in the original basis (tested against a plain loop).

All functions take numpy arrays or torch tensors (seeds first), on whatever device these live.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any
STARTS = ("usual", "balanced")
BALANCED_SCALE = 1e-3  # of the small balanced start, relative to the size of the solution


@dataclass(frozen=True)
class Quadratic:
    """A batch of quadratic risks in eigen coordinates, and the rotations back.

    Attributes:
        h: eigenvalues of H'H (or of its block on the tuned channels), ascending, seeds x min(q, m).
        c: eigenvalues of C, ascending, seeds x k.
        K: the linear term, seeds x min(q, m) x k.
        left, right: orthonormal columns, with T = left @ (T in eigen coordinates) @ right'.
    """

    h: Array
    c: Array
    K: Array
    left: Array
    right: Array

    def restore(self, T: Array) -> Array:
        """A change of the layer, back in the original coordinates."""
        return self.left @ T @ self.right.mT

    def solution(self) -> Array:
        """The minimiser of least norm without a rank constraint, in eigen coordinates."""
        scale = self.h[:, :, None] * self.c[:, None, :]
        tiny = scale <= 1e-12 * scale.reshape(len(scale), -1).max(axis=1)[:, None, None]
        return np.where(tiny, 0.0, self.K / np.where(tiny, 1.0, scale))

    def to(self, device: str) -> Quadratic:
        """The same problem as float64 tensors on a torch device."""
        parts = (self.h, self.c, self.K, self.left, self.right)
        return Quadratic(*(on_device(part, device) for part in parts))


def on_device(a: Array, device: str) -> Array:
    """A numpy array as a tensor of a torch device; itself for "cpu", where numpy is faster."""
    if device == "cpu":
        return a
    import torch

    return torch.as_tensor(np.ascontiguousarray(a), device=device)


def as_numpy(a: Array) -> np.ndarray:
    """An array or tensor as a numpy array."""
    return a if isinstance(a, np.ndarray) else np.asarray(a.cpu())


def quadratic(H: Array, L: Array, Sxx: Array, Syx: Array) -> Quadratic:
    """Bring the risk of tuning the layer between H (q x m) and L (k x p) into eigen coordinates.

    For S2FT give the columns H[:, S]: its trained rows are then all there is.
    """
    # Directions beyond min(q, m) have no curvature and no gradient: nothing moves there.
    _, sigma, rows = np.linalg.svd(H, full_matrices=False)
    h, left = sigma[:, ::-1] ** 2, rows[:, ::-1].mT
    c, right = np.linalg.eigh(L @ Sxx @ L.mT)
    K = left.mT @ (H.mT @ Syx @ L.mT) @ right
    return Quadratic(h, np.maximum(c, 0), K, left, right)


def linear(problem: Quadratic, steps: Sequence[int]) -> Iterator[Array]:
    """Gradient descent on all entries of T from zero (full tuning, S2FT); yields T after each of `steps`."""
    curvature = problem.h[:, :, None] * problem.c[:, None, :]
    top = _column(problem.h[:, -1] * problem.c[:, -1])  # eigh sorts: the last eigenvalues are the largest
    shrink, push = curvature / top, problem.K / top
    T = 0 * problem.K
    done = 0
    for step in steps:
        for _ in range(step - done):
            T = T - shrink * T + push
        done = step
        yield T


def _column(a: Array) -> Array:
    return a[:, None, None]


@dataclass
class Factors:
    """LoRA's factors of T = U V' in eigen coordinates, and each seed's step size."""

    U: Array
    V: Array
    rate: Array

    def to(self, device: str) -> Factors:
        """The same on a device, see `on_device`."""
        return Factors(*(on_device(part, device) for part in (self.U, self.V, self.rate)))


def start(problem: Quadratic, rank: int, how: str, rng: np.random.Generator) -> Factors:
    """LoRA's start and step size; drawn with numpy so that every device starts alike.

    "usual": U = 0 and V uniform as peft draws A (variance 1 / (3 k)). "balanced": both factors orthonormal
    times a small number, so that U'U = V'V. The step is 1/4 over a bound of the curvature on the way.
    """
    size, m, k = problem.K.shape  # m: the directions in which H'H has curvature
    target = problem.solution()
    reach = np.sqrt(np.linalg.norm(target, 2, axis=(1, 2)))
    if how == "balanced":
        bases = (problem.left, problem.right)
        U, V = (BALANCED_SCALE * _column(reach) * (Q.mT @ _orthonormal(rng, Q, rank)) for Q in bases)
    else:
        U = np.zeros((size, m, rank))
        V = problem.right.mT @ rng.uniform(-1, 1, (size, k, rank)) / np.sqrt(k)
    widest = np.maximum(reach, np.linalg.norm(V, 2, axis=(1, 2)))
    curvature = problem.h.max(axis=1) * problem.c.max(axis=1) * widest**2
    return Factors(U, V, 0.25 / curvature)


def _orthonormal(rng: np.random.Generator, Q: Array, rank: int) -> Array:
    """Random orthonormal columns, as many rows as Q; the sign of each is fixed, whatever LAPACK chooses."""
    columns, R = np.linalg.qr(rng.standard_normal((*Q.shape[:2], rank)))
    return columns * np.sign(np.diagonal(R, axis1=1, axis2=2))[:, None, :]


def low_rank(problem: Quadratic, factors: Factors, steps: Sequence[int]) -> Iterator[Array]:
    """Gradient descent on both factors of T = U V' (LoRA); yields T after each of `steps`."""
    U, V, rate = factors.U, factors.V, _column(factors.rate)
    h, c = problem.h[:, :, None], problem.c[:, :, None]
    K = rate * problem.K
    Kt = K.mT.copy() if isinstance(K, np.ndarray) else K.mT.contiguous()
    h_rate, c_rate = rate * h, rate * c
    done = 0
    for step in steps:
        for _ in range(step - done):
            hU, cV = h_rate * U, c_rate * V
            A, B = V.mT @ cV, U.mT @ hU
            U, V = U + K @ V - (h * U) @ A, V + Kt @ U - (c * V) @ B
        done = step
        yield U @ V.mT

"""Risks of least squares on some of the coordinates, with isotropic Gaussian inputs, for any number of samples.

Source: ours, after Theorem 5 (second-hand); the claims of `thm_5` rest on the same formulas. Tuned are `tuned`
coordinates, on which the target has the energy `kept`; `left` is its energy on the others, v the noise variance. What
is left out acts as noise, and stays as bias. Numbers may be floats, fractions or arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

INFINITE = float("inf")


def minimum_norm(tuned: int, N: int, kept: Any, left: Any, v: Any) -> Any:
    """Mean excess risk of the minimum-norm fit to N samples; infinite for N = tuned - 1, tuned, tuned + 1.

    Above: (v + left) tuned / (N - tuned - 1) + left. Below: kept (1 - N / tuned) +
    (v + left) N / (tuned - N - 1) + left (means of inverse Wishart matrices).
    """
    noise = v + left
    if N > tuned + 1:
        return noise * tuned / (N - tuned - 1) + left
    if N < tuned - 1:
        return kept * (tuned - N) / tuned + noise * N / (tuned - N - 1) + left
    return INFINITE


def spectral(
    spectrum: Any,
    N: int,
    kept: Any,
    left: Any,
    v: Any,
    shrink: Callable[[Any], Any],
    total: Callable[[Any], Any],
) -> Any:
    """Mean excess risk of a fit that shrinks along the spectrum, for a given design and a random target.

    In an eigenvector of X'X / N with eigenvalue t the fit is shrink(t) times the least-squares solution. The target has
    a uniformly random direction among the tuned coordinates, so each eigenvector has the share 1 / tuned of `kept`.

    Args:
        spectrum: All eigenvalues of X'X / N (X is N x tuned), zeros included, in the last axis.
        N: Number of samples.
        kept: Energy of the target on the tuned coordinates.
        left: Its energy on the others.
        v: Noise variance.
        shrink: Function of the eigenvalues with shrink(0) = 0; quotients shrink(t)^2 / t at 0 count as 0.
        total: Sum over the last axis.
    """
    f, tuned = shrink(spectrum), spectrum.shape[-1]
    safe = spectrum + (spectrum == 0)
    return kept / tuned * total((1 - f) ** 2) + (v + left) / N * total(f * f / safe) + left


def ridge(penalty: Any) -> Callable[[Any], Any]:
    """T / (t + penalty): ridge regression with the penalty times N on |w|^2."""
    return lambda t: t / (t + penalty)


def stopped(rate: Any, steps: int) -> Callable[[Any], Any]:
    """1 - (1 - rate t)^steps: gradient descent on the mean squared error, halved, from zero."""
    return lambda t: 1 - (1 - rate * t) ** steps


def optimal_penalty(tuned: int, N: int, kept: Any, left: Any, v: Any) -> Any:
    """The penalty with the smallest mean risk for every design: (v + left) tuned / (N kept)."""
    return (v + left) * tuned / (N * kept)

"""Bounds on how far tuned weights move the output, in every reading, and the mean for random networks.

Source: Theorem 2 (second-hand) for `printed`; ours for the rest; see the claims of `thm_2`. N layers
x_k = sigma(W_k x_{k-1}) with sigma of Lipschitz constant L; m_k = |W_k| <= M, phi_k = |Phi_k|. Numbers may be floats,
fractions or arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def printed(M: Any, L: Any, phi: Sequence[Any], inputs: Sequence[Any]) -> Any:
    """sum_k (M L)^(N-k) L phi_k |x|, with one length |x| for each layer: the readings differ in which.

    Args:
        M: Bound of the base weights' spectral norms.
        L: Lipschitz constant of the activation.
        phi: Spectral norms of the changes, first layer first.
        inputs: For each layer the length that |x| stands for: of the network's input, or of the layer's input in the
            base or in the tuned network. The last of these three is a true bound.
    """
    depth = len(phi)
    terms = [(M * L) ** (depth - 1 - i) * L * phi[i] * inputs[i] for i in range(depth)]
    return sum(terms[1:], terms[0])


def sharp(L: Any, m: Sequence[Any], phi: Sequence[Any], length: Any) -> Any:
    """L^N [prod (m_k + phi_k) - prod m_k] |x|, a true bound if sigma(0) = 0 and there are no biases."""
    tuned, base = length, length
    for a, b in zip(m, phi, strict=True):
        tuned, base = L * (a + b) * tuned, L * a * base
    return tuned - base


def mean_square(depth: int, weight: Any, change: Any, length2: Any) -> Any:
    """E |f(x) - f0(x)|^2 for a linear network with all layers tuned.

    The entries of an n x n weight are independent with mean 0 and variance weight / n, those of its change with
    change / n. A layer multiplies E |x_k|^2 by weight + change in the tuned network and by weight in the base one,
    and so the mean product of the two, which equals the latter.
    """
    return ((weight + change) ** depth - weight**depth) * length2


def mean_square_of_layer(depth: int, weight: Any, change: Any, length2: Any) -> Any:
    """The same with one layer tuned: it does not depend on which."""
    return weight ** (depth - 1) * change * length2

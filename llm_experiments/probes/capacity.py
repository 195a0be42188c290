"""How far tuned weights may move the output by their norms alone, and whether that says anything.

For N layers x_k = sigma(W_k x_{k-1}), sigma Lipschitz with constant 1 and sigma(0) = 0, m_k = |W0_k|, phi_k = |delta_W_k|:

    |f(x) - f0(x)| <= [prod (m_k + phi_k) - prod m_k] |x|,

attained by positive numbers; relative to the largest output that the same norms allow the base network,
prod m_k |x|, this is prod (1 + phi_k / m_k) - 1. The bound that is printed, sum_k (M L)^(N-k) phi_k |x| with M the
largest m_k, lacks the cross terms and is false for more than one layer.

A value of 1 or more is called vacuous here: the bound then allows a change as large as the largest output. A
transformer is no such chain (attention, residuals and norms lie between its layers): the number says what this
style of bound can say about such weights, not what the model does.

Source: PEFT against full fine-tuning (arXiv:2505.22355), Theorem 2; claim `peft_vs_fft/thm_2_literal`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Capacity:
    """The bound over a chain of layers, relative to prod m_k |x|, as log10 (it leaves the range of floats).

    Attributes:
        layers: N.
        sharp: log10 of prod (1 + phi_k / m_k) - 1; None if nothing changed.
        printed: log10 of the printed sum over prod m_k; None if nothing changed.
        vacuous: whether the sharp form is 1 or more.
    """

    layers: int
    sharp: float | None
    printed: float | None
    vacuous: bool


def capacity(norms: Sequence[tuple[float, float]]) -> Capacity:
    """The bound of a chain.

    Args:
        norms: (m_k, phi_k) of every layer, input side first; m_k > 0.
    """
    growth = sum(math.log1p(phi / m) for m, phi in norms)
    if growth == 0:
        return Capacity(len(norms), None, None, False)
    # log(e^g - 1), without overflow for large g and without cancellation for small g.
    sharp = growth + math.log(-math.expm1(-growth))
    largest = math.log(max(m for m, _ in norms))
    base = sum(math.log(m) for m, _ in norms)
    terms = [
        (len(norms) - k) * largest + math.log(phi) - base for k, (_, phi) in enumerate(norms, 1) if phi > 0
    ]
    top = max(terms)
    printed = top + math.log(sum(math.exp(t - top) for t in terms))
    return Capacity(len(norms), sharp / math.log(10), printed / math.log(10), sharp >= 0)

"""What gradient descent and restarts leave of the loss |W - M|_F^2, exactly or as an exact mean.

Source: ours; the setting is the synthetic example of PESO (second-hand) and the restarts of RAC-LoRA. eta is the
step for the gradient 2 (W - M) + noise, the noise independent in every entry with standard deviation s. Numbers may
be floats, fractions or arrays.
"""

from __future__ import annotations

from typing import Any


def noise_left(steps: int, eta: Any, s: Any) -> Any:
    """Mean square that the noise leaves in one tuned entry after some steps: eta^2 s^2 (1 - c^T) / (1 - c).

    c = (1 - 2 eta)^2 is what one step leaves of a square; 0 < eta < 1.
    """
    c = (1 - 2 * eta) ** 2
    return eta**2 * s**2 * (1 - c**steps) / (1 - c)


def full(loss: Any, steps: int, eta: Any, entries: int, s: Any = 0) -> Any:
    """Mean loss of full tuning after some steps from a given loss; exact without noise."""
    return loss * (1 - 2 * eta) ** (2 * steps) + entries * noise_left(steps, eta, s)


def random_restart(loss: Any, share: Any, steps: int, eta: Any, entries: int, s: Any = 0) -> Any:
    """Mean loss after one restart in a uniformly random subspace and some steps inside it.

    Args:
        loss: Mean loss before.
        share: r / n, the mean share of any residual that a random subspace of dimension r in R^n sees.
        steps: Steps inside the subspace.
        eta: Step size.
        entries: Numbers tuned inside the subspace (r times the other size).
        s: Standard deviation of the noise.
    """
    seen = (1 - 2 * eta) ** (2 * steps)
    return (1 - share + share * seen) * loss + entries * noise_left(steps, eta, s)


def restarts_until(target: Any, loss: Any, share: Any, steps: int, eta: Any) -> int:
    """The first number of random restarts whose mean loss is at most the target (no noise)."""
    count = 0
    while loss > target:
        loss, count = random_restart(loss, share, steps, eta, 0), count + 1
    return count

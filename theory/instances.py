"""Instances as JSON, and building blocks that guarantee a hypothesis by construction.

JSON form of an instance: a matrix is a list of rows of strings "p/q" (``{"shape": [0, 3]}`` when it has no
entry), a number is a string "p/q", static data (sizes, ranks, index tuples) are ints, lists of ints or
booleans. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from theory.kits import reals
from theory.kits.exact import Exact
from theory.protocol import Instance, Kit, Mat

Shapes = Mapping[str, tuple[int, int]]


def is_matrix(value: Any) -> bool:
    """Whether a JSON value stands for a matrix."""
    if isinstance(value, dict):
        return set(value) == {"shape"}
    return isinstance(value, list) and bool(value) and all(isinstance(row, list) for row in value)


def load(k: Kit, data: Mapping[str, Any]) -> Instance:
    """A JSON instance as objects of the kit.

    Raises:
        ValueError: A value is none of matrix, number or static data; the message names it.
    """
    out = Instance()
    for name, value in data.items():
        if isinstance(value, dict) and set(value) == {"shape"}:
            out[name] = k.zeros(*value["shape"])
        elif is_matrix(value):
            if len({len(row) for row in value}) != 1:
                msg = f"the rows of {name!r} have different lengths"
                raise ValueError(msg)
            out[name] = k.mat([[_number(name, v) for v in row] for row in value])
        elif isinstance(value, str):
            out[name] = k.num(_number(name, value))
        elif isinstance(value, (list, tuple)) and all(isinstance(v, int) for v in value):
            out[name] = tuple(value)
        elif isinstance(value, (bool, int)):
            out[name] = value
        else:
            msg = f'{name!r} must be a matrix, a string "p/q" or ints; got {value!r}'
            raise ValueError(msg)
    return out


def _number(name: str, value: Any) -> Fraction:
    try:
        if isinstance(value, float):
            raise ValueError
        return Fraction(value)
    except (ValueError, TypeError, ZeroDivisionError):
        msg = f'an entry of {name!r} must be an exact number like "2/3"; got {value!r}'
        raise ValueError(msg) from None


def dump(k: Exact, x: Mapping[str, Any]) -> dict[str, Any]:
    """An instance of an exact kit as JSON."""
    out: dict[str, Any] = {}
    for name, value in x.items():
        if isinstance(value, Mat):
            empty = 0 in value.shape
            out[name] = (
                {"shape": list(value.shape)} if empty else [[reals.text(v) for v in r] for r in k.data(value)]
            )
        elif isinstance(value, Fraction):
            out[name] = str(value)
        elif isinstance(value, tuple):
            out[name] = list(value)
        elif isinstance(value, (bool, int)):
            out[name] = value
        else:
            msg = f"{name!r} is not exact: {value!r}"
            raise ValueError(msg)
    return out


def parameters(k: Kit, shapes: Shapes, values: Sequence[Any]) -> Instance:
    """Free parameters from one flat list of numbers, in the order of `shapes`."""
    out, at = Instance(), 0
    for name, (m, n) in shapes.items():
        out[name] = (
            k.mat([list(values[at + i * n : at + (i + 1) * n]) for i in range(m)]) if m * n else k.zeros(m, n)
        )
        at += m * n
    return out


def count(shapes: Shapes) -> int:
    """How many numbers the free parameters hold."""
    return sum(m * n for m, n in shapes.values())


# -- hypotheses met by construction -------------------------------------------------------------------------
def gram(C: Mat) -> Mat:
    """C C', psd of rank at most the number of columns of C."""
    return C @ C.T


def positive_definite(k: Kit, C: Mat) -> Mat:
    """C C' + I."""
    return C @ C.T + k.eye(C.shape[0])


def orthonormal_columns(k: Kit, Z: Mat, count: int) -> Mat:
    """The first `count` columns of the rational orthogonal matrix that Cayley's transform makes of Z."""
    return k.cols(k.skew_orth(Z), range(count))


def projector(k: Kit, A: Mat) -> Mat:
    """The orthogonal projector onto the column space of A."""
    return k.proj(A)


def of_rank(F: Mat, G: Mat) -> Mat:
    """F G, of rank at most the inner size."""
    return F @ G


def smooth_quadratic(k: Kit, C: Mat) -> Mat:
    """C C' / (1 + |C|_F^2): symmetric with 0 <= S <= I, the Hessian of a convex quadratic with smoothness 1."""
    S = gram(C)
    return k.scale(1 / (1 + k.tr(S)), S)


def realisable(A: Mat, Z: Mat) -> Mat:
    """A Z, a right side for which A X = Y has a solution."""
    return A @ Z


def aligned(A: Mat, Z: Mat) -> Mat:
    """A Z A', whose row and column spaces lie in the column space of A."""
    return A @ Z @ A.T


def unit_interval(k: Kit, g: Any) -> Any:
    """g^2 / (1 + g^2), a number in [0, 1)."""
    return k.sq(g) / (1 + k.sq(g))

"""Entrywise functions (activations, optimizer steps) in statements, on every kit that can carry them.

Numbers get the function itself. A proof by words gets a letter for the result of an unknown function, so that
it covers every function; all that it knows is that selecting rows or columns before or after makes no
difference: f(U'A, U'B) = U' f(A, B) and f(A V, B V) = f(A, B) V for selections U, V. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from theory.kits.exact import Exact
from theory.kits.words import Words
from theory.protocol import Kit, Mat, NotHere

Function = Callable[..., Any]


def entrywise(
    k: Kit, label: str, function: Function, parts: Sequence[Mat], parameters: Sequence[Any] = ()
) -> Mat:
    """The matrix of function(entries of the parts at that place, *parameters).

    Args:
        k: The kit.
        label: Names the function in proofs by words; one label stands for one function.
        function: A function of scalars, defined once in a module (not anew at each call).
        parts: Matrices of one shape.
        parameters: Scalars of the kit that every entry shares.
    """
    for P in parts[1:]:
        k.same_shape(parts[0], P)
    if isinstance(k, Words):
        return _unknown(k, label, function, parts, parameters)
    if isinstance(k, Exact):
        rows = [[k.data(P)[i] for P in parts] for i in range(parts[0].shape[0])]
        return k.mat(
            [[function(*e, *parameters) for e in zip(*r, strict=True)] for r in rows], parts[0].shape
        )
    if k.kind == "floats":
        shared = [p[:, None, None] if getattr(p, "ndim", 0) else p for p in parameters]
        return k.wrap(function(*(P.data for P in parts), *shared))  # type: ignore[attr-defined, no-any-return]
    if k.kind == "latex":
        return k.apply(label, parts, parameters)  # type: ignore[attr-defined, no-any-return]
    msg = f"an entrywise function in the kit of {k.kind}"
    raise NotHere(msg)


def _unknown(
    k: Words, label: str, function: Function, parts: Sequence[Mat], parameters: Sequence[Any]
) -> Mat:
    known: Any = k._known
    if known.setdefault(("function", label), function) is not function:
        msg = f"the label {label!r} stands for two functions"
        raise ValueError(msg)
    selections = {w[0][0]: M for key, M in k._known.items() if key[0] == "cols" for w in M.data}
    inner = [k.normal(P).data for P in parts]
    left: list[Mat] = []
    right: list[Mat] = []
    while (first := _shared(inner, 0)) and first[1] and first[0] in selections:
        left.append(selections[first[0]])
        inner = [{w[1:]: c for w, c in data.items()} for data in inner]
    while (last := _shared(inner, -1)) and not last[1] and last[0] in selections:
        right.append(selections[last[0]])
        inner = [{w[:-1]: c for w, c in data.items()} for data in inner]
    rows = left[-1].shape[0] if left else parts[0].shape[0]
    columns = right[-1].shape[0] if right else parts[0].shape[1]
    texts = [tuple(sorted((w, str(c)) for w, c in data.items())) for data in inner]
    key = ("entrywise", label, tuple(texts), tuple(str(p) for p in parameters))
    if key not in k._known:
        k._known[key] = k.letter(f"{label}[{len(k._known)}]", rows, columns)
    result = k._known[key]
    for U in reversed(left):
        result = U.T @ result
    for V in reversed(right):
        result = result @ V
    return result


def _shared(parts: Sequence[Any], place: int) -> Any:
    """The letter that every word of every part has at one end; None if there is none."""
    words = [w for data in parts for w in data]
    if not words or not all(parts) or any(not w for w in words):
        return None
    ends = {w[place] for w in words}
    return ends.pop() if len(ends) == 1 else None


def opaque(k: Kit, label: str, function: Function, parts: Sequence[Mat], rows: Any, columns: Any) -> Mat:
    """function(k, *parts), a matrix of rows x columns; in proofs by words an unknown function of its arguments.

    Nothing is known of it but that equal arguments give equal results, so a proof covers softmax, masks and
    rotations by position at once.
    """
    if not isinstance(k, Words):
        result: Mat = function(k, *parts)
        return result
    known: Any = k._known
    if known.setdefault(("function", label), function) is not function:
        msg = f"the label {label!r} stands for two functions"
        raise ValueError(msg)
    key = ("opaque", label, rows, columns, *(k._key("", k.normal(P)) for P in parts))
    if key not in k._known:
        k._known[key] = k.letter(f"{label}[{len(k._known)}]", rows, columns)
    return k._known[key]

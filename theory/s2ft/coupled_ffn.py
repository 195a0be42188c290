"""Reordering the hidden channels of a feed-forward block leaves its output as it is.

Source: S2FT, sections 1, 3.1 and 3.2. Up, Gate (n x d), Down (d x n), inputs X (d x T, tokens as columns), an
activation applied entrywise to the pairs (Up X, Gate X), for example Up X times SiLU(Gate X). One order of the n
hidden channels rearranges the rows of Up and Gate and the columns of Down.

Proved for every size and every entrywise activation: selecting rows commutes with it, and the orders on both
sides of it cancel. Softmax or a norm over the hidden channels would do as well, since they commute with orders.
It breaks where the activation tells channels apart: biases or slopes per channel must be reordered too.
Section 3.2 takes the selected channels from [d], but with its shapes (Up, Gate k x d, Down d x k) the hidden
channels are [k]; reordering [d] instead changes the output, and is harmless only when the inputs and outputs of
the block (the residual stream) are reordered as well. Section 1 speaks of columns of Up and Gate and rows of
Down, which is right in the transposed convention y = x W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, WordProof
from theory.kits.entrywise import entrywise
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting


def gated(up: Any, gate: Any, a: Any, b: Any) -> Any:
    """An activation of two arguments with free coefficients: u (g + a g^2) + b u^2; letters take any other."""
    return up * (gate + a * gate * gate) + b * up * up


def block(k: Kit, x: Instance, up: Mat, gate: Mat, down: Mat, X: Mat) -> Mat:
    """Down activation(Up X, Gate X)."""
    return down @ entrywise(k, "activation", gated, (up @ X, gate @ X), (x.a, x.b))


def order(k: Kit, x: Instance, size: Any) -> Mat:
    """The permutation matrix Pi of an order of `size` channels, and the hypothesis that it is one."""
    Pi: Mat = k.name(r"\Pi", k.cols(k.eye(size), x.order))
    k.given("the order lists every channel once", k.eq(Pi @ Pi.T, k.eye(size)))
    return Pi


def statement(k: Kit, x: Instance) -> None:
    """Rows of Up and Gate and columns of Down in one order of the hidden channels."""
    Pi = order(k, x, x.Up.shape[0])
    moved = block(k, x, Pi.T @ x.Up, Pi.T @ x.Gate, x.Down @ Pi, x.X)
    k.claim("same output", k.eq(moved, block(k, x, x.Up, x.Gate, x.Down, x.X)))


def proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Pi Pi' = I."""
    k.use("the order lists every channel once")
    return {}


def output_only(k: Kit, x: Instance) -> None:
    """A weaker statement: the squared norm of the output stays."""
    Pi = order(k, x, x.Up.shape[0])
    moved = block(k, x, Pi.T @ x.Up, Pi.T @ x.Gate, x.Down @ Pi, x.X)
    k.claim("same norm", k.eq(k.fro2(moved), k.fro2(block(k, x, x.Up, x.Gate, x.Down, x.X))))


def one_sided(k: Kit, x: Instance) -> None:
    """A change: the columns of Down are left in place."""
    Pi = order(k, x, x.Up.shape[0])
    moved = block(k, x, Pi.T @ x.Up, Pi.T @ x.Gate, x.Down, x.X)
    k.claim("same output", k.eq(moved, block(k, x, x.Up, x.Gate, x.Down, x.X)))


def outer(k: Kit, x: Instance) -> None:
    """Columns of Up and Gate and rows of Down (d of them) in one order, input and output left in place."""
    Pi = order(k, x, x.X.shape[0])
    moved = block(k, x, x.Up @ Pi, x.Gate @ Pi, Pi.T @ x.Down, x.X)
    k.claim("same output", k.eq(moved, block(k, x, x.Up, x.Gate, x.Down, x.X)))


def outer_with_stream(k: Kit, x: Instance) -> None:
    """The same with the block's input and output in that order."""
    Pi = order(k, x, x.X.shape[0])
    moved = block(k, x, x.Up @ Pi, x.Gate @ Pi, Pi.T @ x.Down, Pi.T @ x.X)
    k.claim("reordered output", k.eq(moved, Pi.T @ block(k, x, x.Up, x.Gate, x.Down, x.X)))


def input_only(k: Kit, x: Instance) -> None:
    """A change: the input is reordered and the output is expected in the old order."""
    Pi = order(k, x, x.X.shape[0])
    moved = block(k, x, x.Up @ Pi, x.Gate @ Pi, Pi.T @ x.Down, Pi.T @ x.X)
    k.claim("old output", k.eq(moved, block(k, x, x.Up, x.Gate, x.Down, x.X)))


def biased(k: Kit, x: Instance, shown: Mat, up: Mat, gate: Mat, down: Mat) -> Mat:
    """The block with a bias of the hidden channels: Down activation(Up X + shown, Gate X)."""
    return down @ entrywise(k, "activation", gated, (up @ x.X + shown, gate @ x.X), (x.a, x.b))


def bias_in_place(k: Kit, x: Instance) -> None:
    """A bias per hidden channel (`Bias`, n x T with equal columns) that is not reordered."""
    Pi = order(k, x, x.Up.shape[0])
    moved = biased(k, x, x.Bias, Pi.T @ x.Up, Pi.T @ x.Gate, x.Down @ Pi)
    k.claim("same output", k.eq(moved, biased(k, x, x.Bias, x.Up, x.Gate, x.Down)))


def bias_reordered(k: Kit, x: Instance) -> None:
    """The same with the bias reordered."""
    Pi = order(k, x, x.Up.shape[0])
    moved = biased(k, x, Pi.T @ x.Bias, Pi.T @ x.Up, Pi.T @ x.Gate, x.Down @ Pi)
    k.claim("same output", k.eq(moved, biased(k, x, x.Bias, x.Up, x.Gate, x.Down)))


# -- instances: n hidden channels, d the width, T tokens ------------------------------------------------------
HIDDEN: list[dict[str, Any]] = [
    {"n": 1, "d": 1, "T": 1, "order": (0,)},
    {"n": 2, "d": 1, "T": 1, "order": (1, 0)},
    {"n": 3, "d": 2, "T": 2, "order": (1, 2, 0)},
    {"n": 4, "d": 2, "T": 1, "order": (3, 1, 0, 2)},
]
OUTER: list[dict[str, Any]] = [
    {"n": 1, "d": 2, "T": 1, "order": (1, 0)},
    {"n": 2, "d": 3, "T": 1, "order": (1, 2, 0)},
]


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Weights, inputs, biases and the two coefficients of the activation."""
    n, w, T = d["n"], d["d"], d["T"]
    return {"Up": (n, w), "Gate": (n, w), "Down": (w, n), "X": (w, T), "bias": (n, 1), "shape": (1, 2)}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """A block with its inputs and an order."""
    ones = k.mat([[1] * d["T"]])
    return Instance(
        Up=t.Up,
        Gate=t.Gate,
        Down=t.Down,
        X=t.X,
        Bias=t.bias @ ones,
        a=k.e(t.shape, 0, 0),
        b=k.e(t.shape, 0, 1),
        order=d["order"],
    )


def letters(k: Any) -> Instance:
    """A block of any size with any order."""
    return Instance(
        Up=k.letter("Up", "n", "d"),
        Gate=k.letter("Gate", "n", "d"),
        Down=k.letter("Down", "d", "n"),
        X=k.letter("X", "d", "T"),
        Bias=k.letter("Bias", "n", "T"),
        a=k.number("a"),
        b=k.number("b"),
        order="pi",
    )


def small(**changes: Any) -> Json:
    """Two hidden channels that are swapped, width one, one token; the activation Up X times Gate X."""
    plain: Json = {
        "Up": [["1"], ["0"]],
        "Gate": [["1"], ["0"]],
        "Down": [["1", "0"]],
        "X": [["1"]],
        "Bias": [["0"], ["0"]],
        "a": "0",
        "b": "0",
        "order": [1, 0],
    }
    return {**plain, **changes}


def wide(**changes: Any) -> Json:
    """One hidden channel, width two whose channels are swapped, one token."""
    plain: Json = {
        "Up": [["1", "0"]],
        "Gate": [["1", "0"]],
        "Down": [["1"], ["0"]],
        "X": [["1"], ["0"]],
        "Bias": [["0"]],
        "a": "0",
        "b": "0",
        "order": [1, 0],
    }
    return {**plain, **changes}


SETTING = Setting(
    dims=HIDDEN, free=free, build=build, letters=letters, boundary=[small(), small(a="1", b="-1")]
)
STREAM = Setting(
    dims=OUTER, free=free, build=build, letters=letters, boundary=[wide(), wide(X=[["1"], ["1"]])]
)
BIASED = small(
    Up=[["0"], ["0"]], Gate=[["0"], ["0"]], Down=[["0", "1"]], X=[["0"]], Bias=[["1"], ["0"]], b="1"
)

CLAIM = Claim(
    id="s2ft/coupled_ffn",
    source=setting.source("3.1 and 3.2, feed-forward module"),
    sentence=(
        "One reordering of the rows of the up and gate projections and of the columns of the down projection leaves "
        "the output of the feed-forward block unchanged."
    ),
    headline=(
        "True for every size and every activation applied entrywise; the index range printed in 3.2 is that of the "
        "residual stream and must be that of the hidden channels."
    ),
    defect="misprint",
    setting=SETTING,
    readings=(
        Reading(
            name="hidden channels",
            statement=statement,
            evidence=WordProof(proof),
            scope="every size, every order, every entrywise activation of one or two arguments",
            controls=(
                Control("the columns of Down left in place", statement=one_sided, instance=small()),
                Control(
                    "an order that leaves a channel out",
                    drop=("the order lists every channel once",),
                    instance=small(order=[1, 1]),
                ),
                Control("the norm of the output", kind="true", statement=output_only),
            ),
        ),
        Reading(
            name="indices of the width, as printed in 3.2",
            sentence="The selected channels are indices in [d], the width of the block's input and output.",
            statement=outer,
            setting=STREAM,
            evidence=Counterexample(wide()),
            scope="width two, one hidden channel",
            open_instance=wide(Up=[["1", "2"]], Gate=[["1", "-1"]], Down=[["1"], ["2"]], X=[["1"], ["3"]]),
            repair=Repair(
                sentence="it holds when the input and the output of the block are reordered too",
                statement=outer_with_stream,
                evidence=WordProof(proof),
            ),
            controls=(
                Control("the input reordered, the output not", statement=input_only, instance=wide()),
                Control("with the stream reordered", kind="true", statement=outer_with_stream),
            ),
        ),
        Reading(
            name="activation with parameters per channel, left in place",
            sentence="The activation may carry a bias per hidden channel, which keeps its place.",
            statement=bias_in_place,
            evidence=Counterexample(BIASED),
            scope="two hidden channels",
            open_instance=small(
                Up=[["1"], ["2"]], Gate=[["1"], ["3"]], Bias=[["1"], ["-1"]], Down=[["1", "2"]]
            ),
            repair=Repair(
                sentence="it holds when the parameters per channel are reordered too",
                statement=bias_reordered,
                evidence=WordProof(proof),
            ),
            controls=(
                Control("the columns of Down left in place", statement=one_sided, instance=small()),
                Control("with the bias reordered", kind="true", statement=bias_reordered),
            ),
        ),
    ),
)

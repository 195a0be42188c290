"""How far the gradient of the whole weight can grow within a chain that keeps its A.

Source: ours; it bounds every iterate in Theorem 2 where A is drawn for each chain. W (n x m) the start of the chain, Q
(m x m) a contraction: the gradient at W is W Q and changes by D Q along D, which stands for any 1-Lipschitz gradient.
A step moves by -gamma G U U' for the chain's U (m x r). After t steps: D the way so far, moving the sum of the
|G_i U|^2, total the sum of the |G_i|^2. Then

    total <= 2 t |W Q|^2 + gamma^2 t^2 moving,   |D|^2 <= gamma^2 t moving,

by induction: one more step after any number (the second bound at t = 1 is the step itself). With
moving <= 2 Delta_chain / (gamma (2 - gamma)) (thm_2_frozen) and the gain lam |W Q|^2 in mean (thm_2_chain), the mean
over all T = c s iterates of c chains of s steps is at most (2 Delta / (gamma (2 - gamma) c)) (2 / lam + gamma^2 s).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Json, Setting
from theory.lora_variants import descent
from theory.lora_variants.descent import POSITIVE, selection, step
from theory.protocol import Instance, Kit

TURNED, COUNT, SOME = "QQ' <= I", "steps before >= 0", "squares before >= 0"
TOTAL, WAY = "sum of the squares", "how far the chain moved"


def statement(k: Kit, x: Instance) -> None:
    """`steps` more steps after `count` steps."""
    k.given(POSITIVE, k.lt(k.num(0), x.gamma))
    k.given(TURNED, k.psd(k.eye(x.Q.shape[0]) - x.Q @ x.Q.T))
    k.given(COUNT, k.le(k.num(0), x.count))
    k.given(SOME, k.le(k.num(0), x.moving))
    first, square = k.fro2(x.W @ x.Q), x.gamma * x.gamma
    k.given(TOTAL, k.le(x.total, 2 * x.count * first + square * x.count * x.count * x.moving))
    k.given(WAY, k.le(k.fro2(x.D), square * x.count * x.moving))
    U, V, total, moving = selection(k, x, 0), x.W + x.D, x.total, x.moving
    for _ in range(x.steps):
        total = total + k.fro2(V @ x.Q)
        moving = moving + k.fro2(V @ x.Q @ U)
        V = step(x, V, U)
    after = x.count + k.num(x.steps)
    k.claim(TOTAL, k.le(total, 2 * after * first + square * after * after * moving))
    way = k.fro2(V - x.W)  # the factor after - 1 spares the proof a division by it
    k.claim(WAY, k.le((after - 1) * way, (after - 1) * square * after * moving))


def weaker(k: Kit, x: Instance) -> None:
    """A weaker statement, from the start of a chain: one step, its square alone."""
    k.given("at the start", k.eq(x.D, k.zeros(*x.D.shape)))
    k.claim(TOTAL, k.le(k.fro2((x.W + x.D) @ x.Q), 2 * k.fro2(x.W @ x.Q)))


def proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """|G|^2 + |G_0 - D Q|^2 = 2 |G_0|^2 + 2 |D Q|^2; |D - gamma A|^2 by Cauchy-Schwarz with weights t and 1."""
    U, first, turn = selection(k, x, 0), x.W @ x.Q, x.D @ x.Q
    now = (x.W + x.D) @ x.Q @ U
    positive, count = k.hypothesis(POSITIVE), k.hypothesis(COUNT)
    square, one = positive * positive, k.square(now)
    bent = [k.hypothesis(WAY), k.against_psd(TURNED, x.D.T)]
    grown = [square * k.hypothesis(SOME), square * one, square * count * one, square * count * one]
    total = [k.hypothesis(TOTAL), k.square(first - turn), *2 * bent, *grown, square * count * count * one]
    way = [count * k.hypothesis(WAY), k.hypothesis(WAY), k.square(x.D + x.count * x.gamma * (now @ U.T))]
    return {TOTAL: total, WAY: way}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """A convex quadratic, from the start of a chain."""
    x = descent.build(k, t, {**d, "chains": 1})
    zero = {"count": k.num(0), "total": k.num(0), "moving": k.num(0)}
    return Instance(W=x.W, Q=x.Q, gamma=x.gamma, D=k.zeros(*x.W.shape), r=d["r"], steps=d["steps"], **zero)


def letters(k: Any) -> Instance:
    """One step after any number of steps."""
    numbers = {name: k.number(name) for name in ("gamma", "count", "total", "moving")}
    W, D, Q = k.letter("W", "n", "m"), k.letter("D", "n", "m"), k.letter("Q", "m", "m")
    return Instance(W=W, D=D, Q=Q, r="r", steps=1, **numbers)


def start(steps: int, **changes: Any) -> Json:
    """One entry, gamma = 1/2, with changes."""
    plain: Json = {
        "W": [["1"]],
        "D": [["0"]],
        "Q": [["1"]],
        "gamma": "1/2",
        "count": "0",
        "total": "0",
        "moving": "0",
    }
    return {**plain, "r": 1, "steps": steps, **changes}


SETTING = Setting(
    dims=[
        {"n": n, "r": r, "draws": draws, "steps": s}
        for n, r, draws, s in ((1, 1, 1, 1), (1, 1, 2, 2), (2, 1, 2, 4))
    ],
    free=descent.free,
    build=build,
    letters=letters,
    boundary=[start(1), start(3)],
)

"""Which reorderings an attention block takes: whole heads, channels inside a head, channels across heads.

Source: S2FT, sections 3.1 and 3.2. Q, K, V (n x d) and O (d x n) with n = heads times head size, inputs X (d x T);
U1, U2 (n x c) select the channels of two heads, U3 those of all others, Pi (n x n) reorders channels. A head gives
O U V_h X w', where its weights w (T x T) are any function of its queries and keys: rotation by position, scores,
causal mask and softmax.

Whole heads may change places in Q, K, V, O together: proved for every size and every such function, for two heads
that are exchanged beside any others; every order is a product of exchanges. Inside a head the channels of V and O
have an order of their own, and those of Q and K too, as long as positions enter by addition or by a bias on the
scores. With rotary embedding the order of the channels of Q and K must commute with every rotation: for head size
2, 4, 6 with different frequencies only the trivial order does. Channels cannot cross heads, since each head has
its own weights. So "the same order" for all four projections (Figure 3, read literally) is not what holds; it is
the order of heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import permutations
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Custom, WordProof
from theory.kits.entrywise import opaque
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting

Terms = Mapping[str, Sequence[Any]]


def weights(k: Kit, q: Mat, keys: Mat) -> Mat:
    """Causal weights of one head from queries and keys (c x T), rotated by position; a rational stand-in.

    Scores s give the weights (1 + s)^2 + 1, divided by their sum up to the present token; neighbouring channels are
    rotated by a quarter turn a token. Proofs by words take any function instead.
    """
    T = q.shape[1]
    rows = []
    for t in range(T):
        raw = []
        for u in range(t + 1):
            score = k.num(0)
            for c in range(q.shape[0]):
                turned = _turned(k, keys, c, u, (t - u) % 4)
                score = score + k.e(q, c, t) * turned
            raw.append((1 + score) * (1 + score) + 1)
        total = k.sum(raw)
        rows.append([v / total for v in raw] + [k.num(0)] * (T - t - 1))
    return k.mat(rows)


def _turned(k: Kit, keys: Mat, c: int, u: int, quarter: int) -> Any:
    """Channel c of the key at token u after so many quarter turns of its pair of channels."""
    partner = c + 1 if c % 2 == 0 else c - 1
    if partner >= keys.shape[0]:
        return k.e(keys, c, u)
    sign = -1 if c % 2 == 0 else 1
    own, other = k.e(keys, c, u), k.e(keys, partner, u)
    return (own, sign * other, -own, -(sign * other))[quarter]


def head(k: Kit, x: Instance, Q: Mat, K: Mat, V: Mat, O: Mat) -> Mat:  # noqa: E741
    """What one head (or a group of heads) adds to the output, given its rows of Q, K, V and columns of O."""
    T = x.X.shape[1]
    w = opaque(k, "weights", weights, (Q @ x.X, K @ x.X), T, T)
    added: Mat = O @ V @ x.X @ w.T
    return added


def others(k: Kit, x: Instance, Pi: Mat) -> Mat:
    """What all other heads add, in channels that Pi leaves where they are."""
    U = Pi @ x.U3
    return head(k, x, U.T @ x.Q, U.T @ x.K, U.T @ x.V, x.O @ U)


def block(k: Kit, x: Instance, Pi: Mat) -> Mat:
    """The output with the rows of Q, K, V and the columns of O reordered by Pi."""
    total = others(k, x, Pi)
    for U in (x.U1, x.U2):
        total = total + head(k, x, (Pi @ U).T @ x.Q, (Pi @ U).T @ x.K, (Pi @ U).T @ x.V, x.O @ Pi @ U)
    return total


def exchange(k: Kit, x: Instance) -> None:
    """Pi exchanges heads 1 and 2 and leaves the others."""
    k.given("Pi takes head 1 to head 2", k.eq(x.Pi @ x.U1, x.U2))
    k.given("Pi takes head 2 to head 1", k.eq(x.Pi @ x.U2, x.U1))
    k.given("Pi leaves the other heads", k.eq(x.Pi @ x.U3, x.U3))
    k.claim("same output", k.eq(block(k, x, x.Pi), block(k, x, k.eye(x.Q.shape[0]))))


def use_exchange(k: Any, x: Instance) -> Terms:
    """Where Pi takes the heads."""
    for name in ("Pi takes head 1 to head 2", "Pi takes head 2 to head 1", "Pi leaves the other heads"):
        k.use(name)
    return {}


def exchange_norm(k: Kit, x: Instance) -> None:
    """A weaker statement: the norm of the output stays."""
    k.given("Pi takes head 1 to head 2", k.eq(x.Pi @ x.U1, x.U2))
    k.given("Pi takes head 2 to head 1", k.eq(x.Pi @ x.U2, x.U1))
    k.given("Pi leaves the other heads", k.eq(x.Pi @ x.U3, x.U3))
    k.claim("same norm", k.eq(k.fro2(block(k, x, x.Pi)), k.fro2(block(k, x, k.eye(x.Q.shape[0])))))


def values_inside(k: Kit, x: Instance) -> None:
    """The channels of V and O inside head 1 in an order S (c x c) of their own."""
    k.given("S is an order", k.eq(x.S @ x.S.T, k.eye(x.S.shape[0])))
    Q, K, V, O = x.U1.T @ x.Q, x.U1.T @ x.K, x.U1.T @ x.V, x.O @ x.U1  # noqa: E741
    k.claim("same head", k.eq(head(k, x, Q, K, x.S.T @ V, O @ x.S), head(k, x, Q, K, V, O)))


def queries_inside(k: Kit, x: Instance) -> None:
    """The channels of Q and K inside head 1 in an order S: the scores without rotation."""
    k.given("S is an order", k.eq(x.S @ x.S.T, k.eye(x.S.shape[0])))
    Q, K = x.U1.T @ x.Q @ x.X, x.U1.T @ x.K @ x.X
    k.claim("same scores", k.eq((x.S.T @ Q).T @ (x.S.T @ K), Q.T @ K))


def use_order(k: Any, x: Instance) -> Terms:
    """S S' = I."""
    k.use("S is an order")
    return {}


def rotated(k: Kit, x: Instance) -> None:
    """The same with rotary embedding: R (c x c) rotates by the distance of two tokens."""
    k.given("S is an order", k.eq(x.S @ x.S.T, k.eye(x.S.shape[0])))
    Q, K = x.U1.T @ x.Q @ x.X, x.U1.T @ x.K @ x.X
    k.claim("same scores", k.eq((x.S.T @ Q).T @ x.R @ x.S.T @ K, Q.T @ x.R @ K))


def rotated_given(k: Kit, x: Instance) -> None:
    """The same for an order that commutes with the rotation."""
    k.given("S commutes with the rotation", k.eq(x.S @ x.R, x.R @ x.S))
    rotated(k, x)


def use_commuting(k: Any, x: Instance) -> Terms:
    """S R S' = R S S' = R."""
    k.use("S is an order")
    k.use("S commutes with the rotation")
    return {}


def across(k: Kit, x: Instance) -> None:
    """Channels of V and O change places across heads 1 and 2, whose weights w1, w2 (T x T) are what they are."""
    one, two = x.O @ x.U1, x.O @ x.U2
    before = one @ x.U1.T @ x.V @ x.X @ x.w1.T + two @ x.U2.T @ x.V @ x.X @ x.w2.T
    after = two @ x.U2.T @ x.V @ x.X @ x.w1.T + one @ x.U1.T @ x.V @ x.X @ x.w2.T
    k.claim("same output", k.eq(after, before))


def across_given(k: Kit, x: Instance) -> None:
    """The same when the two heads attend alike."""
    k.given("the heads have the same weights", k.eq(x.w1, x.w2))
    across(k, x)


def use_alike(k: Any, x: Instance) -> Terms:
    """w1 = w2."""
    k.use("the heads have the same weights")
    return {}


# -- instances: c channels a head, three heads ------------------------------------------------------------------
SIZES: list[dict[str, Any]] = [{"c": 1, "d": 1, "T": 1}, {"c": 2, "d": 1, "T": 2}, {"c": 2, "d": 2, "T": 3}]


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Weights and inputs."""
    n, w = 3 * d["c"], d["d"]
    return {"Q": (n, w), "K": (n, w), "V": (n, w), "O": (w, n), "X": (w, d["T"])}


def heads(c: int) -> dict[str, list[list[str]]]:
    """U1, U2, U3 and the exchange Pi of the first two of three heads; S swaps (or keeps) the channels of one."""
    n = 3 * c

    def columns(chosen: Sequence[int]) -> list[list[str]]:
        return [[str(int(i == j)) for j in chosen] for i in range(n)]

    one, two, three = range(c), range(c, 2 * c), range(2 * c, n)
    swapped = [[str(int(i + j == c - 1)) for j in range(c)] for i in range(c)]
    return {
        "U1": columns(one),
        "U2": columns(two),
        "U3": columns(three),
        "Pi": columns([*two, *one, *three]),
        "S": swapped,
    }


def rotation(c: int) -> list[list[str]]:
    """A rotation by the angle with cosine 3/5 of each pair of channels (c is 1 or 2)."""
    return [["1"]] if c == 1 else [["3/5", "-4/5"], ["4/5", "3/5"]]


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Three heads of c channels; w1 and w2 are weights over all tokens."""
    T = d["T"]
    fixed = {n: k.mat(rows) for n, rows in heads(d["c"]).items()}
    even = k.mat([[f"1/{T}"] * T for _ in range(T)])
    tilted = k.mat([[k.num(2) * k.num(j + 1) / (T * (T + 1)) for j in range(T)] for _ in range(T)])
    return Instance({**t, **fixed, "R": k.mat(rotation(d["c"])), "w1": even, "w2": tilted})


def letters(k: Any) -> Instance:
    """Any sizes."""
    shapes = {
        "Q": ("n", "d"),
        "K": ("n", "d"),
        "V": ("n", "d"),
        "O": ("d", "n"),
        "X": ("d", "T"),
        "U1": ("n", "c"),
        "U2": ("n", "c"),
        "U3": ("n", "o"),
        "Pi": ("n", "n"),
        "S": ("c", "c"),
        "R": ("c", "c"),
        "w1": ("T", "T"),
        "w2": ("T", "T"),
    }
    return Instance({name: k.letter(name, *shape) for name, shape in shapes.items()})


def instance(c: int, Q: Any, K: Any, V: Any, O: Any, X: Any, **changes: Any) -> Json:  # noqa: E741
    """Three heads of c channels with the weights given as columns (or rows) of numbers."""
    T = len(X[0])
    fixed: Json = {
        **heads(c),
        "R": rotation(c),
        "w1": [["1", *["0"] * (T - 1)]] * T,
        "w2": [[f"1/{T}"] * T] * T,
    }
    columns = {"Q": Q, "K": K, "V": V}
    return {
        **fixed,
        **{n: [[str(v)] for v in vs] for n, vs in columns.items()},
        "O": [[str(v) for v in O]],
        "X": X,
        **changes,
    }


TOKENS = [["1", "2"]]
GENERIC = instance(
    2, [1, 0, 0, 1, 1, 1], [0, 1, 1, 1, 2, 0], [1, 2, -1, 1, 3, 0], [1, 1, 2, -1, 1, 1], TOKENS
)
TURNED = instance(2, [1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0] * 6, [0] * 6, [["1"]])
CROSSED = instance(
    1, [0] * 3, [0] * 3, [1, 0, 0], [1, 0, 0], TOKENS, w1=[["1/2", "1/2"]] * 2, w2=[["1/3", "2/3"]] * 2
)
SETTING = Setting(dims=SIZES, free=free, build=build, letters=letters, boundary=[GENERIC])
NOT_ORDER = {**GENERIC, "S": [["1", "1"], ["0", "1"]]}
HALF_SWAP = {**GENERIC, "Pi": [[str(int(i == j)) for j in (2, 1, 0, 3, 4, 5)] for i in range(6)]}


# -- how many orders survive rotary embedding -------------------------------------------------------------------
PYTHAGOREAN = ((3, 4, 5), (5, 12, 13), (8, 15, 17))


def commuting_orders(size: int) -> int:
    """How many orders of a head's channels commute with rotations of the pairs (j, j + size/2), all different."""
    half = size // 2
    R = [[Fraction(0)] * size for _ in range(size)]
    for j, (a, b, c) in zip(range(half), PYTHAGOREAN, strict=False):
        R[j][j] = R[j + half][j + half] = Fraction(a, c)
        R[j][j + half], R[j + half][j] = -Fraction(b, c), Fraction(b, c)
    return sum(
        all(R[p[i]][p[j]] == R[i][j] for i in range(size) for j in range(size))
        for p in permutations(range(size))
    )


def survivors() -> Json:
    """Head size -> number of orders that survive."""
    return {str(size): commuting_orders(size) for size in (2, 4, 6)}


def only_one(data: Json, expected: int = 1) -> str | None:
    """A complaint unless exactly the trivial order survives at each head size."""
    for size, stored in data.items():
        if commuting_orders(int(size)) != stored or stored != expected:
            return f"head size {size}: {stored} orders survive, not {expected}"
    return None


CLAIM = Claim(
    id="s2ft/coupled_mha",
    source=setting.source("3.1 and 3.2, attention module"),
    sentence=(
        "The query, key, value and output projections can be reordered together without changing the "
        "output of the block."
    ),
    headline=(
        "True for the order of heads, and inside a head for value and output channels; inside a head not for query and "
        "key channels under rotary embedding, and never across heads."
    ),
    defect="missing hypothesis",
    setting=SETTING,
    readings=(
        Reading(
            name="whole heads",
            statement=exchange,
            evidence=WordProof(use_exchange),
            scope=(
                "every size; any rotation by position, mask and softmax that all heads share; any order "
                "as a product of exchanges"
            ),
            controls=(
                Control(
                    "half a head exchanged",
                    statement=exchange,
                    instance=HALF_SWAP,
                    drop=("Pi takes head 1 to head 2", "Pi takes head 2 to head 1"),
                ),
                Control("the norm of the output", kind="true", statement=exchange_norm),
            ),
        ),
        Reading(
            name="channels inside a head, value and output",
            sentence="Inside a head the channels of the value and output projections can be reordered together.",
            statement=values_inside,
            evidence=WordProof(use_order),
            scope="every size, any weights of the head",
            controls=(
                Control("S not an order", drop=("S is an order",), instance=NOT_ORDER),
                Control("whole heads", kind="true", statement=exchange),
            ),
        ),
        Reading(
            name="channels inside a head, query and key, without rotary embedding",
            sentence="Inside a head the channels of the query and key projections can be reordered together.",
            statement=queries_inside,
            evidence=WordProof(use_order),
            scope="every size; positions may enter by added embeddings, a mask or a bias on the scores",
            controls=(
                Control("S not an order", drop=("S is an order",), instance=NOT_ORDER),
                Control("value and output channels", kind="true", statement=values_inside),
            ),
        ),
        Reading(
            name="channels inside a head, query and key, with rotary embedding",
            sentence="The same when queries and keys are rotated by position.",
            statement=rotated,
            evidence=Counterexample(TURNED),
            scope="two channels, rotation with cosine 3/5; softmax then differs too, since one score of a row changes",
            open_instance=instance(2, [1, 2, 0, 0, 0, 0], [1, -1, 0, 0, 0, 0], [0] * 6, [0] * 6, [["1"]]),
            repair=Repair(
                sentence="it holds for orders that commute with every rotation",
                statement=rotated_given,
                evidence=WordProof(use_commuting),
                necessary={"S commutes with the rotation": TURNED},
            ),
            controls=(
                Control(
                    "the repair without its hypothesis",
                    statement=rotated_given,
                    drop=("S commutes with the rotation",),
                    instance=TURNED,
                ),
                Control("the repair", kind="true", statement=rotated_given),
            ),
        ),
        Reading(
            name="orders that commute with rotary embedding",
            sentence=(
                "With different frequencies no order of a head's query and key channels but the trivial "
                "one commutes with the rotations."
            ),
            evidence=Custom(
                status="proved_within",
                produce=survivors,
                verify=only_one,
                about="all orders of 2, 4 and 6 channels, rational rotations",
            ),
            scope="head sizes 2, 4, 6, pairs (j, j + size/2)",
            controls=(
                Control(
                    "two orders survive",
                    check=lambda: only_one(survivors(), 2) is not None,
                    spares=lambda: only_one(survivors()) is not None,
                ),
                Control("at least one survives", kind="true", check=lambda: min(survivors().values()) < 1),
            ),
        ),
        Reading(
            name="channels across heads",
            sentence="Channels of the value and output projections can change places across heads.",
            statement=across,
            evidence=Counterexample(CROSSED),
            scope="two heads of one channel, two tokens; positive weights, so softmax reaches them",
            open_instance=instance(
                1,
                [0] * 3,
                [0] * 3,
                [1, 2, 0],
                [1, -1, 0],
                TOKENS,
                w1=[["1/2", "1/2"]] * 2,
                w2=[["1/3", "2/3"]] * 2,
            ),
            repair=Repair(
                sentence="it holds for heads with the same weights",
                statement=across_given,
                evidence=WordProof(use_alike),
                necessary={"the heads have the same weights": CROSSED},
                sharp={**CROSSED, "w2": [["1/2", "1/2"]] * 2},
            ),
            controls=(
                Control(
                    "the repair without its hypothesis",
                    statement=across_given,
                    drop=("the heads have the same weights",),
                    instance=CROSSED,
                ),
                Control("the repair", kind="true", statement=across_given),
            ),
        ),
    ),
)

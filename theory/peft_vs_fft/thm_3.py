"""Does more rank, or do more coordinates, help less and less?

Source: Theorem 3 (second-hand). E(r) is the best loss with rank r (or with r coordinates).

- Loss (X - M) measured as |Ha^(1/2) (X - M) Hb^(1/2)|_F^2 (Kronecker Hessian): E(r) is the tail of the whitened target
  Ha^(1/2) M Hb^(1/2), so the gain of the r-th rank is its squared singular value, and gains never increase; the gains can
  be computed before training.
- A general positive definite quadratic: false at 2 x 2. For (s - 2)^2 + 4 (a^2 + b^2 + c^2) with trace s, a = X11 - X22,
  b = X12, c = X21, E(0) = 4 and E(2) = 0, but every X of rank one has loss at least 8/3: the second gain is larger.
- Coordinates: false for two correlated coordinates; true for a diagonal Hessian.
- A critical rank exists trivially (rank M), which says nothing; it is computable from the whitened target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Custom, WordProof
from theory.kits import perturbation
from theory.peft_vs_fft.setting import source
from theory.protocol import Instance, Kit


# -- rank under a Kronecker Hessian -----------------------------------------------------------------------------------
def marginal(k: Kit, x: Instance) -> None:
    """E(r-1) - E(r) = s_r^2 of the whitened target; the next gain is not larger."""
    whitened = x.Ra @ x.M @ x.Rb
    k.claim("gains", k.le(k.sq(k.sv(whitened, x.next)), k.sq(k.sv(whitened, x.r))))


def marginal_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """s_r^2 - s_{r+1}^2 = (s_r - s_{r+1}) (s_r + s_{r+1})."""
    whitened = x.Ra @ x.M @ x.Rb
    gap = perturbation.descending(k, whitened, x.r, x.next)
    both = perturbation.singular_value(k, whitened, x.r) + perturbation.singular_value(k, whitened, x.next)
    return {"gains": [gap * both]}


def first_gain(k: Kit, x: Instance) -> None:
    """A weaker statement: no gain exceeds the whole loss."""
    whitened = x.Ra @ x.M @ x.Rb
    k.claim("gain <= E(0)", k.le(k.sq(k.sv(whitened, x.r)), k.fro2(whitened)))


def kronecker_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Positive definite roots, a target and factors of rank r."""
    m, n, r = d["m"], d["n"], d["r"]
    Ra, Rb = t.A @ t.A.T + k.eye(m), t.B @ t.B.T + k.eye(n)
    return Instance(Ra=Ra, Rb=Rb, M=t.M, U=t.U, V=t.V, r=r, next=r + 1)


KRONECKER = Setting(
    dims=[
        {"m": 1, "n": 1, "r": 1},
        {"m": 2, "n": 2, "r": 1},
        {"m": 3, "n": 2, "r": 1},
        {"m": 3, "n": 3, "r": 2},
    ],
    free=lambda d: {
        "A": (d["m"], d["m"]),
        "B": (d["n"], d["n"]),
        "M": (d["m"], d["n"]),
        "U": (d["m"], d["r"]),
        "V": (d["r"], d["n"]),
    },
    build=kronecker_build,
    letters=lambda k: Instance(
        Ra=k.letter("Ra", "m", "m"),
        Rb=k.letter("Rb", "n", "n"),
        M=k.letter("M", "m", "n"),
        U=k.letter("U", "m", "r"),
        V=k.letter("V", "r", "n"),
        r="r",
        next="r + 1",
    ),
    boundary=[],
)
EYE = [["1", "0"], ["0", "1"]]
EVEN: Json = {"Ra": EYE, "Rb": EYE, "M": EYE, "U": [["1"], ["0"]], "V": [["1", "0"]], "r": 1, "next": 2}


def loss(X: Sequence[Fraction]) -> Fraction:
    """(X11 + X22 - 2)^2 + 4 ((X11 - X22)^2 + X12^2 + X21^2), a positive definite quadratic with minimum at I."""
    x11, x12, x21, x22 = X
    return (x11 + x22 - 2) ** 2 + 4 * ((x11 - x22) ** 2 + x12**2 + x21**2)


def squares(X: Sequence[Fraction]) -> Fraction:
    """3 (s - 2/3)^2 + 2 (X11 - X22)^2 + 4 (X12 - X21)^2 - 8 det X, s the trace."""
    x11, x12, x21, x22 = X
    s = x11 + x22
    return (
        3 * (s - Fraction(2, 3)) ** 2
        + 2 * (x11 - x22) ** 2
        + 4 * (x12 - x21) ** 2
        - 8 * (x11 * x22 - x12 * x21)
    )


def rank_one_floor() -> Json:
    """The identity loss = 8/3 + squares at the 3^4 points that decide a polynomial of degree 2 in each variable."""
    grid = [Fraction(v) for v in (-1, 0, 2)]
    rows = [{"X": [str(v) for v in X], "loss": str(loss(X))} for X in product(grid, repeat=4)]
    return {"floor": "8/3", "at_zero": str(loss((Fraction(0),) * 4)), "at_minimum": "0", "rows": rows}


def second_gain_is_larger(payload: Json) -> str | None:
    """Loss - floor is a sum of squares minus 8 det X, and det X = 0 at rank one: E(1) >= floor > (E(0) + E(2)) / 2."""
    floor = Fraction(payload["floor"])
    points = {tuple(row["X"]) for row in payload["rows"]}
    if len(points) < 81:
        return "fewer than 3^4 different points"
    for row in payload["rows"]:
        X = [Fraction(v) for v in row["X"]]
        if Fraction(row["loss"]) != loss(X) or loss(X) - floor != squares(X):
            return f"the identity fails at X = {row['X']}"
    start, end = Fraction(payload["at_zero"]), Fraction(payload["at_minimum"])
    if start != loss([Fraction(0)] * 4) or end != loss([Fraction(v) for v in (1, 0, 0, 1)]):
        return "E(0) or E(2) is wrong"
    if start - floor >= floor - end:
        return "the second gain is not larger"
    return None


def _low_floor() -> Json:
    return {**rank_one_floor(), "floor": "2"}


MARGINAL = Claim(
    id="peft_vs_fft/thm_3_marginal",
    source=source("Theorem 3, rank"),
    sentence="The best loss with rank r has non-increasing marginal gains.",
    headline=(
        "True for quadratics with a Kronecker Hessian, where gains are squared singular values of the whitened target; "
        "false for general quadratics, already at 2 x 2."
    ),
    setting=KRONECKER,
    defect="missing hypothesis",
    uses=("peft_vs_fft/thm_3_critical_rank",),
    readings=(
        Reading(
            name="Kronecker Hessian",
            statement=marginal,
            evidence=WordProof(marginal_proof),
            scope="every size and rank, every pair of roots Ra, Rb",
            sharp=EVEN,
            controls=(
                Control("the next gain smaller by 1/50", tighten="1/50", instance=EVEN),
                Control("no gain exceeds the whole loss", kind="true", statement=first_gain),
            ),
        ),
        Reading(
            name="any positive definite quadratic",
            evidence=Custom(
                status="refuted",
                produce=rank_one_floor,
                verify=second_gain_is_larger,
                about="a quadratic at 2 x 2 whose loss at rank one is bounded below by a sum of squares",
            ),
            scope="2 x 2: E(0) = 4, E(1) >= 8/3, E(2) = 0",
            controls=(
                Control("a floor of 2", check=lambda: second_gain_is_larger(_low_floor()) is not None),
                Control(
                    "the floor 8/3",
                    kind="true",
                    check=lambda: second_gain_is_larger(rank_one_floor()) is not None,
                ),
            ),
        ),
    ),
)


# -- the critical rank ----------------------------------------------------------------------------------------------------
def computable(k: Kit, x: Instance) -> None:
    """Every product of rank r has a whitened loss of at least the tail of the whitened target."""
    whitened = x.Ra @ x.M @ x.Rb
    value = k.fro2(x.Ra @ (x.M - x.U @ x.V) @ x.Rb)
    k.claim("loss >= tail", k.le(k.tail2(whitened, x.r), value))


def computable_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Ra U V Rb has rank at most r."""
    return {
        "loss >= tail": [perturbation.eckart_young_product(k, x.Ra @ x.M @ x.Rb, x.r, x.Ra @ x.U, x.V @ x.Rb)]
    }


def at_least_zero(k: Kit, x: Instance) -> None:
    """A weaker statement."""
    k.claim("loss >= 0", k.le(k.num(0), k.fro2(x.Ra @ (x.M - x.U @ x.V) @ x.Rb)))


def beyond_the_rank(k: Kit, x: Instance) -> None:
    """No rank beyond that of the target gains anything."""
    k.given("rank M <= r", k.rank_le(x.M, x.r))
    k.claim("no loss left", k.eq(k.tail2(x.M, x.r), k.num(0)))


def exists() -> Json:
    """Whatever the target, r = min(m, n) leaves no gain: the index of a singular value runs to min(m, n)."""
    return {"sizes": [[m, n, min(m, n)] for m in range(1, 5) for n in range(1, 5)]}


def exists_trivially(payload: Json) -> str | None:
    """The tail beyond min(m, n) is an empty sum."""
    for m, n, r in payload["sizes"]:
        if len(range(r + 1, min(m, n) + 1)) != 0:
            return f"a singular value is left beyond r = {r} at {m} x {n}"
    return None


CRITICAL = Claim(
    id="peft_vs_fft/thm_3_critical_rank",
    source=source("Theorem 3, critical rank"),
    sentence="There is a critical rank beyond which the gains are negligible.",
    headline=(
        "Existence is trivial and says nothing (r = min(m, n) will do); useful is that E(r) is the tail of the whitened "
        "target, known before training."
    ),
    setting=KRONECKER,
    readings=(
        Reading(
            name="exists",
            evidence=Custom(
                status="proved_within",
                produce=exists,
                verify=exists_trivially,
                about="the tail beyond min(m, n) is an empty sum",
            ),
            vacuous="r = min(m, n) is such a rank for every target and every loss",
            scope="every target",
            controls=(
                Control(
                    "r = min(m, n) - 1", check=lambda: exists_trivially({"sizes": [[2, 2, 1]]}) is not None
                ),
                Control("r = min(m, n)", kind="true", check=lambda: exists_trivially(exists()) is not None),
            ),
        ),
        Reading(
            name="computable from the whitened singular values",
            sentence="Under a Kronecker Hessian no rank r has a loss below the tail of the whitened target.",
            statement=computable,
            evidence=WordProof(computable_proof),
            scope="every size; attained by the unwhitened SVD_r where Ra and Rb are invertible",
            sharp=EVEN,
            controls=(
                Control("the loss smaller by 1/50", tighten="1/50", instance=EVEN),
                Control("the loss is not negative", kind="true", statement=at_least_zero),
            ),
        ),
    ),
)


# -- coordinates --------------------------------------------------------------------------------------------------------
def best_losses(k: Kit, x: Instance) -> tuple[Any, Any, Any]:
    """E(0), E(1), E(2) of w'Hw / 2 - g'w over supports of that size, two coordinates."""
    single = [-k.sq(k.e(x.g, i, 0)) / (2 * k.e(x.H, i, i)) for i in (0, 1)]
    return k.num(0), k.min_(*single), -k.tr(x.g.T @ k.inv(x.H) @ x.g) / 2


def selection(k: Kit, x: Instance) -> None:
    """The second coordinate gains no more than the first."""
    k.given("H psd", k.psd(x.H))
    none, one, both = best_losses(k, x)
    k.claim("gains", k.le(one - both, none - one))


def selection_diagonal(k: Kit, x: Instance) -> None:
    """The same for a diagonal Hessian, as sums of squares g_i^2 / (2 h_i): the smaller one comes second."""
    k.given("ordered", k.le(x.small, x.large))
    k.claim("gains", k.le(x.small, x.large))


CORRELATED: Json = {"H": [["10", "9"], ["9", "10"]], "g": [["1"], ["0"]], "small": "0", "large": "1"}
PAIR_SETTING = Setting(
    dims=[{}],
    free=lambda d: {"R": (2, 2), "g": (2, 1), "s": (1, 2)},
    build=lambda k, t, d: Instance(
        H=t.R @ t.R.T + k.eye(2),
        g=t.g,
        small=k.sq(k.e(t.s, 0, 0)),
        large=k.sq(k.e(t.s, 0, 0)) + k.sq(k.e(t.s, 0, 1)),
    ),
    letters=lambda k: Instance(
        H=k.letter("H", 2, 2), g=k.letter("g", 2, 1), small=k.number("small"), large=k.number("large")
    ),
    boundary=[{"H": EYE, "g": [["1"], ["1"]], "small": "1", "large": "1"}],
)
SELECTION = Claim(
    id="peft_vs_fft/thm_3_selection",
    source=source("Theorem 3, sparse methods"),
    sentence="The best loss with r coordinates has non-increasing marginal gains.",
    headline="False for correlated coordinates: a pair can be worth far more than twice the best single one.",
    setting=PAIR_SETTING,
    defect="missing hypothesis",
    readings=(
        Reading(
            name="any positive definite quadratic",
            statement=selection,
            evidence=Counterexample({"H": [["3", "2"], ["2", "2"]], "g": [["1"], ["0"]]}),
            scope="two coordinates",
            open_instance={"H": [["10", "9"], ["9", "10"]], "g": [["1"], ["0"]]},
            repair=Repair(
                sentence="For a diagonal Hessian the gains are g_i^2 / (2 h_i) in descending order",
                statement=selection_diagonal,
                evidence=WordProof(lambda k, x: {"gains": [k.hypothesis("ordered")]}),
                necessary={"ordered": {**CORRELATED, "small": "2"}},
            ),
            controls=(
                Control(
                    "gains in ascending order",
                    statement=selection_diagonal,
                    drop=("ordered",),
                    instance={**CORRELATED, "small": "2"},
                ),
                Control("the repair", kind="true", statement=selection_diagonal),
            ),
        ),
    ),
)

CLAIMS = (MARGINAL, CRITICAL, SELECTION)

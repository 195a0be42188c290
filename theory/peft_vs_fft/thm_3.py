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


GRID = (
    Fraction(-1),
    Fraction(0),
    Fraction(2),
)  # three values decide a polynomial of degree 2 in each variable


def rank_one_floor() -> Json:
    """The identity loss = 8/3 + squares at the 3^4 points that decide a polynomial of degree 2 in each variable."""
    rows = [{"X": [str(v) for v in X], "loss": str(loss(X))} for X in product(GRID, repeat=4)]
    return {"floor": "8/3", "at_zero": str(loss((Fraction(0),) * 4)), "at_minimum": "0", "rows": rows}


def second_gain_is_larger(payload: Json) -> str | None:
    """Loss - floor is a sum of squares minus 8 det X, and det X = 0 at rank one: E(1) >= floor > (E(0) + E(2)) / 2."""
    floor = Fraction(payload["floor"])
    points = {tuple(Fraction(v) for v in row["X"]) for row in payload["rows"]}
    if points != set(product(GRID, repeat=4)):
        return "the points are not the grid of 3^4"
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


def attained(k: Kit, x: Instance) -> None:
    """The whitened target's best rank-r part, unwhitened, has that loss."""
    whitened = x.Ra @ x.M @ x.Rb
    best = k.inv(x.Ra) @ k.svd_r(whitened, x.r, "SVD_r of the whitened target") @ k.inv(x.Rb)
    k.claim("loss = tail", k.eq(k.fro2(x.Ra @ (x.M - best) @ x.Rb), k.tail2(whitened, x.r)))


def unwhitened(k: Kit, x: Instance) -> None:
    """Wrong: the best rank-r part of the target itself has that loss."""
    value = k.fro2(x.Ra @ (x.M - k.svd_r(x.M, x.r, "SVD_r of the target")) @ x.Rb)
    k.claim("loss = tail", k.eq(value, k.tail2(x.Ra @ x.M @ x.Rb, x.r)))


def attained_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Positive definite roots, and a whitened target with a rational singular value decomposition."""
    m, n = d["m"], d["n"]
    Ra, Rb = t.A @ t.A.T + k.eye(m), t.B @ t.B.T + k.eye(n)
    whitened = k.skew_orth(t.U) @ k.diagm(t.s, m, n) @ k.skew_orth(t.V)
    return Instance(Ra=Ra, Rb=Rb, M=k.inv(Ra) @ whitened @ k.inv(Rb), r=d["r"])


def computable_at(k: Kit, x: Instance) -> None:
    """A weaker statement: the tail is at most twice the loss of that change."""
    whitened = x.Ra @ x.M @ x.Rb
    best = k.inv(x.Ra) @ k.svd_r(whitened, x.r, "SVD_r of the whitened target") @ k.inv(x.Rb)
    k.claim("tail <= 2 loss", k.le(k.tail2(whitened, x.r), 2 * k.fro2(x.Ra @ (x.M - best) @ x.Rb)))


def everything(k: Kit, x: Instance) -> None:
    """With r = m the factors I and X give every X; likewise X and I with r = n."""
    m, n = x.X.shape
    k.claim("r = m", k.eq(k.eye(m) @ x.X, x.X))
    k.claim("r = n", k.eq(x.X @ k.eye(n), x.X))


def its_length(k: Kit, x: Instance) -> None:
    """A weaker statement, on lengths."""
    k.claim("length", k.le(k.fro2(k.eye(x.X.shape[0]) @ x.X), k.fro2(x.X)))


ANY: Json = {"X": [["1"]]}
ATTAINED = Setting(
    dims=[{"m": 1, "n": 1, "r": 1}, {"m": 2, "n": 2, "r": 1}, {"m": 3, "n": 2, "r": 1}],
    free=lambda d: {
        "A": (d["m"], d["m"]),
        "B": (d["n"], d["n"]),
        "U": (d["m"], d["m"]),
        "V": (d["n"], d["n"]),
        "s": (1, min(d["m"], d["n"])),
    },
    build=attained_build,
    letters=lambda k: Instance(
        Ra=k.letter("Ra", "m", "m"), Rb=k.letter("Rb", "n", "n"), M=k.letter("M", "m", "n"), r="r"
    ),
    boundary=[],
)
WEIGHTED: Json = {"Ra": [["1", "0"], ["0", "3"]], "Rb": EYE, "M": [["2", "0"], ["0", "1"]], "r": 1}


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
            statement=everything,
            setting=Setting(
                dims=[{"m": 1, "n": 1}, {"m": 2, "n": 3}],
                free=lambda d: {"X": (d["m"], d["n"])},
                build=lambda k, t, d: Instance(X=t.X),
                letters=lambda k: Instance(X=k.letter("X", "m", "n")),
                boundary=[ANY],
            ),
            evidence=WordProof(),
            vacuous="r = min(m, n) is such a rank for every target and every loss",
            scope="every size and every loss: at r = min(m, n) all changes are reached, so no rank gains more",
            controls=(
                Control("a change larger by 1/1000", tighten="1/1000", only="r = m", instance=ANY),
                Control("on lengths", kind="true", statement=its_length),
            ),
        ),
        Reading(
            name="computable from the whitened singular values",
            sentence="Under a Kronecker Hessian no rank r has a loss below the tail of the whitened target.",
            statement=computable,
            evidence=WordProof(computable_proof),
            scope="every size and rank",
            sharp=EVEN,
            controls=(
                Control("the loss smaller by 1/50", tighten="1/50", instance=EVEN),
                Control("the loss is not negative", kind="true", statement=at_least_zero),
            ),
        ),
        Reading(
            name="attained by the best rank-r part, unwhitened",
            sentence="For invertible Ra and Rb the change Ra^-1 SVD_r(Ra M Rb) Rb^-1 has the loss E(r), the tail.",
            statement=attained,
            setting=ATTAINED,
            evidence=WordProof(),
            scope="every size and rank; with the reading before it E(r) is the tail",
            sharp=WEIGHTED,
            controls=(
                Control("the target's own SVD_r", statement=unwhitened, instance=WEIGHTED),
                Control("the tail is at most twice that loss", kind="true", statement=computable_at),
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
    """A diagonal Hessian diag(1 / u1, 1 / u2): with weights u v the loss is the sum of u (|v|^2 / 2 - <g, v>).

    Named so that the first coordinate gains no less: E(1) and E(2) are the losses at v = g, and no weights lie below.
    """
    k.given("u1 >= 0", k.le(k.num(0), x.u1))
    k.given("u2 >= 0", k.le(k.num(0), x.u2))
    first, second = x.u1 * k.fro2(x.g1) / 2, x.u2 * k.fro2(x.g2) / 2
    k.given("ordered", k.le(second, first))
    one = x.u1 * (k.fro2(x.v1) / 2 - k.dot(x.g1, x.v1))
    other = x.u2 * (k.fro2(x.v2) / 2 - k.dot(x.g2, x.v2))
    none, best, both = k.num(0), -first, -first - second
    k.claim("E(1), first coordinate", k.le(best, one))
    k.claim("E(1), second coordinate", k.le(best, other))
    k.claim("E(2)", k.le(both, one + other))
    k.claim("gains", k.le(best - both, none - best))


def selection_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Each loss plus its gain is u |v - g|^2 / 2."""
    first = k.hypothesis("u1 >= 0") * k.square(x.v1 - x.g1, "1/2")
    second = k.hypothesis("u2 >= 0") * k.square(x.v2 - x.g2, "1/2")
    return {
        "E(1), first coordinate": [first],
        "E(1), second coordinate": [second, k.hypothesis("ordered")],
        "E(2)": [first, second],
        "gains": [k.hypothesis("ordered")],
    }


def diagonal_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Curvatures and gradients; u2 is made so small that the second coordinate gains no more."""
    u1, share = k.sq(k.e(t.u1, 0, 0)) + 1, k.sq(k.e(t.u2, 0, 0))
    u2 = u1 * k.fro2(t.g1) / ((1 + share) * (1 + k.fro2(t.g2)))
    return Instance({**t, "u1": u1, "u2": u2})


UNIT = {name: [["1"]] for name in ("g1", "g2", "v1", "v2")}
EQUAL: Json = {**UNIT, "u1": "1", "u2": "1"}
DIAGONAL = Setting(
    dims=[{}],
    free=lambda d: {name: (1, 1) for name in ("g1", "g2", "v1", "v2", "u1", "u2")},
    build=diagonal_build,
    letters=lambda k: Instance(
        {name: k.letter(name, 1, 1) for name in UNIT} | {name: k.number(name) for name in ("u1", "u2")}
    ),
    boundary=[EQUAL],
)
PAIR_SETTING = Setting(
    dims=[{}],
    free=lambda d: {"R": (2, 2), "g": (2, 1)},
    build=lambda k, t, d: Instance(H=t.R @ t.R.T + k.eye(2), g=t.g),
    letters=lambda k: Instance(H=k.letter("H", 2, 2), g=k.letter("g", 2, 1)),
    boundary=[{"H": EYE, "g": [["1"], ["1"]]}],
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
                sentence=(
                    "For a diagonal Hessian of two coordinates the gains are g_i^2 / (2 h_i), the larger one first: "
                    "E(1) = -max, E(2) = -sum"
                ),
                statement=selection_diagonal,
                evidence=WordProof(selection_proof),
                setting=DIAGONAL,
                necessary={"ordered": {**EQUAL, "u2": "2"}},
                sharp=EQUAL,
            ),
            controls=(
                Control(
                    "gains in ascending order",
                    statement=selection_diagonal,
                    drop=("ordered",),
                    instance={**EQUAL, "u2": "2"},
                ),
                Control("the repair", kind="true", statement=selection_diagonal),
            ),
        ),
    ),
)

CLAIMS = (MARGINAL, CRITICAL, SELECTION)

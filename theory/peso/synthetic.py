"""The synthetic example |W - M|_F^2 with M = 10 diag(1, .., 1, 0, ..), r + 1 ones: who stops at 100, who at 0.

Source: PESO, Figure 1 and the appendix on the synthetic example (second-hand). Written without coordinates:
M = 10 (U U' + e e') with orthonormal columns U (n x r) and a unit vector e orthogonal to them; B (n x r), A (r x n).

- Plain LoRA at B = 10 U, A = U' is at a stationary point of the factors with loss 100, exactly and in integers.
- No matrix of rank at most r has a loss below 100: its columns hold at most r of the r + 1 directions of M. So 100
  is LoRA's floor, whatever its optimiser, and any method that never merges has it.
- A restart in the top-r part of the residual removes its r largest singular values (step 1/2): after t restarts the
  loss is the tail beyond t r, hence 0 here after two. That needs a new subspace: with one restart only, or K at least
  the number of steps, the floor stays, so K is not free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Identity, WordProof
from theory.peso import setting
from theory.protocol import Instance, Kit


# -- the trap ---------------------------------------------------------------------------------------------------
def target(k: Kit, x: Instance) -> Any:
    """M = 10 (U U' + e e'), with what is assumed of U and e."""
    k.given("U orthonormal", k.eq(x.U.T @ x.U, k.eye(x.U.shape[1])))
    k.given("e unit", k.eq(x.e.T @ x.e, k.eye(1)))
    k.given("e orthogonal to U", k.eq(x.U.T @ x.e, k.zeros(x.U.shape[1], 1)))
    return 10 * (x.U @ x.U.T + x.e @ x.e.T)


def trap(k: Kit, x: Instance) -> None:
    """Both factor gradients vanish at B = 10 U, A = U', and the loss is 100."""
    M = target(k, x)
    B, A = 10 * x.U, x.U.T
    residual = B @ A - M
    k.claim("gradient in B", k.eq(k.fro2(2 * residual @ A.T), k.num(0)))
    k.claim("gradient in A", k.eq(k.fro2(2 * B.T @ residual), k.num(0)))
    k.claim("loss 100", k.eq(k.fro2(residual), 100 * k.tr(k.eye(1))))


def use_target(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The three assumptions as rules."""
    for name in ("U orthonormal", "e unit", "e orthogonal to U"):
        k.use(name)
    return {}


def not_a_minimum(k: Kit, x: Instance) -> None:
    """A consequence: the loss there is positive, though M itself is reached in the full space."""
    M = target(k, x)
    k.claim("positive", k.lt(k.num(0), k.fro2(10 * (x.U @ x.U.T) - M)))


def letters(k: Any) -> Instance:
    """U and e."""
    return Instance(U=k.letter("U", "n", "r"), e=k.letter("e", "n", 1))


def frame(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """The first r and the (r + 1)-th column of a rational orthogonal matrix."""
    Q = k.skew_orth(t.Z)
    return Instance(U=k.cols(Q, range(d["r"])), e=k.cols(Q, [d["r"]]))


PLANE: Json = {"U": [["1"], ["0"]], "e": [["0"], ["1"]]}
FRAMES: list[dict[str, Any]] = [{"n": 2, "r": 1}, {"n": 3, "r": 1}, {"n": 3, "r": 2}]
TRAP_SETTING = Setting(
    dims=FRAMES, free=lambda d: {"Z": (d["n"], d["n"])}, build=frame, letters=letters, boundary=[PLANE]
)
TRAP = Claim(
    id="peso/lora_trap",
    source=setting.source("appendix on the synthetic example"),
    sentence="On |W - M|^2 with r + 1 equal singular values plain LoRA of rank r has an exact stationary point above 0.",
    headline="True: at B = 10 U, A = U' both factor gradients vanish exactly and the loss is 100, for every size and rank.",
    setting=TRAP_SETTING,
    readings=(
        Reading(
            name="as printed",
            statement=trap,
            evidence=WordProof(use_target),
            scope="every size, rank and frame; integers for the coordinate frame",
            sharp=PLANE,
            controls=(
                Control("a loss of 100.1", instance=PLANE, tighten="1/1000", only="loss 100"),
                Control("the loss is positive", kind="true", statement=not_a_minimum),
            ),
        ),
    ),
)


# -- the floor of LoRA and the zero of the others -----------------------------------------------------------------
def floor(k: Kit, x: Instance) -> None:
    """A matrix W of rank at most r has loss at least 100."""
    M = target(k, x)
    r = k.tr(k.eye(x.U.shape[1]))
    k.given("rank W <= r", k.le(k.tr(k.proj(x.W)), r))  # the trace of a projector is its rank
    k.claim("loss >= 100", k.le(100 * k.tr(k.eye(1)), k.fro2(x.W - M)))


def floor_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """With P = W W^+ and M = 10 N: |W - M|^2 = |P (W - M)|^2 + 100 (tr N - tr P N), and tr P N <= tr P.

    N = U U' + e e' is a projector of trace r + 1, so tr P - tr P N = |(I - N) P|^2.
    """
    use_target(k, x)
    P, N = k.proj(x.W), x.U @ x.U.T + x.e @ x.e.T
    inside = k.square(P @ (x.W - 10 * N))
    return {"loss >= 100": [inside, k.square(P - N @ P, 100), *[k.hypothesis("rank W <= r")] * 100]}


def floor_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """W = B A."""
    return Instance({**frame(k, t, d), "W": t.B @ t.A})


FLOOR_SETTING = Setting(
    dims=FRAMES,
    free=lambda d: {"Z": (d["n"], d["n"]), "B": (d["n"], d["r"]), "A": (d["r"], d["n"])},
    build=floor_build,
    letters=lambda k: Instance({**letters(k), "W": k.letter("W", "n", "n")}),
    boundary=[{**PLANE, "W": [["10", "0"], ["0", "0"]]}, {**PLANE, "W": [["0", "0"], ["0", "0"]]}],
)
ON_THE_FLOOR: Json = FLOOR_SETTING.boundary[0]
ABOVE_THE_RANK: Json = {**PLANE, "W": [["10", "0"], ["0", "10"]]}


def half_floor(k: Kit, x: Instance) -> None:
    """A lower floor."""
    M = target(k, x)
    k.given("rank W <= r", k.rank_le(x.W, x.U.shape[1]))
    k.claim("loss >= 50", k.le(50 * k.tr(k.eye(1)), k.fro2(x.W - M)))


def two_restarts(k: Kit, x: Instance) -> None:
    """Two merged restarts from W = 0 with step 1/2 reach M when its rank is at most 2 r."""
    first = k.svd_r(x.M, x.r, "first")
    second = k.svd_r(x.M - first, x.r, "second")
    k.given("rank M <= 2 r", k.rank_le(x.M, 2 * x.r))
    k.claim("loss 0", k.eq(first + second, x.M))


def descending(k: Kit, t: Instance, d: dict[str, Any], rank: int) -> Instance:
    """E with a rational SVD and strictly descending singular values, and its parts as hints' material."""
    m, n = d["m"], d["n"]
    left, right = k.skew_orth(t.U), k.skew_orth(t.V)
    values = [k.num(0)] * min(m, n)
    total = k.num(0)
    for i in reversed(range(rank)):
        total = total + k.sq(k.e(t.s, 0, i)) + 1
        values[i] = total
    parts = [values[i] * (left @ k.unit(m, n, i, i) @ right.T) for i in range(min(m, n))]
    zero = k.num(0) * (left @ k.zeros(m, n) @ right.T)
    return Instance(parts=parts, zero=zero)


def added(parts: Sequence[Any], zero: Any) -> Any:
    """The sum of some parts."""
    for part in parts:
        zero = zero + part
    return zero


def restarts_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """M of rank at most 2 r (all ranks of the sizes), with hints for its parts."""
    r = d["r"]
    made = descending(k, t, d, min(2 * r, d["m"], d["n"]))
    k.hint("first", added(made.parts[:r], made.zero))
    k.hint("second", added(made.parts[r : 2 * r], made.zero))
    return Instance(M=added(made.parts, made.zero), r=r)


def svd_free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Rotations and singular values."""
    return {"U": (d["m"], d["m"]), "V": (d["n"], d["n"]), "s": (1, min(d["m"], d["n"]))}


RESTART_SIZES: list[dict[str, Any]] = [
    {"m": 1, "n": 1, "r": 1},
    {"m": 2, "n": 2, "r": 1},
    {"m": 3, "n": 2, "r": 1},
]
RESTART_SETTING = Setting(
    dims=RESTART_SIZES, free=svd_free, build=restarts_build, boundary=[{"M": [["0"]], "r": 1}]
)
TWO: Json = {"M": [["10", "0"], ["0", "10"]], "r": 1}
THREE: Json = {"M": [["10", "0", "0"], ["0", "10", "0"], ["0", "0", "10"]], "r": 1}


def shrinks(k: Kit, x: Instance) -> None:
    """A weaker statement: the second restart does not make the loss larger."""
    first = k.svd_r(x.M, x.r, "first")
    second = k.svd_r(x.M - first, x.r, "second")
    k.claim("no ascent", k.le(k.fro2(x.M - first - second), k.fro2(x.M - first)))


CURVES = Claim(
    id="peso/synthetic_curves",
    source=setting.source("Figure 1, middle panel"),
    sentence="On the synthetic example full tuning reaches 0, LoRA stops at the floor 100, PESO-LoRA reaches 0.",
    headline=(
        "True: 100 is the floor of every matrix of rank r, and two merged restarts reach 0; a warm start that never "
        "merges keeps the floor."
    ),
    uses=("peso/lora_trap", "peso/deflation"),
    readings=(
        Reading(
            name="LoRA's floor, and that of any method that does not merge",
            sentence="No update of rank at most r has a loss below 100.",
            statement=floor,
            setting=FLOOR_SETTING,
            evidence=WordProof(floor_proof),
            scope="every size, rank and W of rank at most r",
            sharp=ON_THE_FLOOR,
            controls=(
                Control("a W of rank r + 1", instance=ABOVE_THE_RANK, drop=("rank W <= r",)),
                Control("a floor of 102.04", instance=ON_THE_FLOOR, tighten="1/50"),
                Control("a floor of 50", kind="true", statement=half_floor),
            ),
        ),
        Reading(
            name="PESO with merged restarts",
            sentence="Two merged top-r restarts reach the minimum when rank M <= 2 r.",
            statement=two_restarts,
            setting=RESTART_SETTING,
            evidence=Identity(RESTART_SIZES, points=1),
            scope="the sizes tested; M with a rational SVD and distinct singular values",
            sharp=TWO,
            controls=(
                Control("rank M = 3 r", drop=("rank M <= 2 r",), instance=THREE),
                Control("the second restart does not hurt", kind="true", statement=shrinks),
            ),
        ),
    ),
)


# -- deflation -----------------------------------------------------------------------------------------------------
def deflation(k: Kit, x: Instance) -> None:
    """After two restarts with step 1/2 the residual has lost its 2 r largest singular values."""
    first = k.svd_r(x.E, x.r, "first")
    second = k.svd_r(x.E - first, x.r, "second")
    both = k.svd_r(x.E, 2 * x.r, "both")
    k.claim("one restart", k.eq(x.E - first, x.E - k.svd_r(x.E, x.r, "again")))
    k.claim("two restarts", k.eq(k.fro2(x.E - first - second), k.fro2(x.E - both)))


def deflation_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """E of full rank with descending singular values."""
    r = d["r"]
    made = descending(k, t, d, min(d["m"], d["n"]))
    for label, part in (
        ("first", made.parts[:r]),
        ("again", made.parts[:r]),
        ("second", made.parts[r : 2 * r]),
    ):
        k.hint(label, added(part, made.zero))
    k.hint("both", added(made.parts[: 2 * r], made.zero))
    return Instance(E=added(made.parts, made.zero), r=r)


def deflation_bound(k: Kit, x: Instance) -> None:
    """A weaker statement: two restarts leave no more than one."""
    first = k.svd_r(x.E, x.r, "first")
    both = k.svd_r(x.E, 2 * x.r, "both")
    k.claim("less is left", k.le(k.fro2(x.E - both), k.fro2(x.E - first)))


GRADED: Json = {"E": [["3", "0", "0"], ["0", "2", "0"], ["0", "0", "1"]], "r": 1}
DEFLATION_SIZES: list[dict[str, Any]] = [
    {"m": 2, "n": 2, "r": 1},
    {"m": 3, "n": 2, "r": 1},
    {"m": 3, "n": 3, "r": 1},
]
DEFLATION = Claim(
    id="peso/deflation",
    source=setting.source("synthetic example, full gradient restarts"),
    sentence="With step 1/2 the loss after t restarts is the sum of the squared singular values beyond the (t r)-th.",
    headline="True: a top-r restart with step 1/2 removes exactly the r largest singular values of the residual.",
    setting=Setting(dims=DEFLATION_SIZES, free=svd_free, build=deflation_build, boundary=[GRADED]),
    readings=(
        Reading(
            name="two restarts from any residual",
            statement=deflation,
            evidence=Identity(DEFLATION_SIZES, points=1),
            scope="the sizes tested, residuals with a rational SVD and distinct singular values; t restarts by repetition",
            sharp=GRADED,
            controls=(
                Control("a loss larger by 1/1000", instance=GRADED, tighten="1/1000", only="two restarts"),
                Control("two restarts leave no more than one", kind="true", statement=deflation_bound),
            ),
        ),
    ),
)


# -- how often to restart --------------------------------------------------------------------------------------------
def free_k(k: Kit, x: Instance) -> None:
    """After T steps the loss is the same whether the subspace was chosen once (K >= T) or at every step."""
    k.given("K >= 1", k.le(k.num(1), k.num(x.K)))
    once = x.M - k.svd_r(x.M, x.r, "first")
    second = k.svd_r(once, x.r, "second")
    left = once - second if x.K == 1 else once
    k.claim("loss after two steps", k.le(k.fro2(left), k.fro2(once - second)))


def counted_restarts(k: Kit, x: Instance) -> None:
    """The loss after two steps is what 2 / K restarts leave: the tail beyond 2 r / K."""
    k.given("K divides the steps", k.any_(k.eq(k.num(x.K), k.num(1)), k.eq(k.num(x.K), k.num(2))))
    once = x.M - k.svd_r(x.M, x.r, "first")
    left = once - k.svd_r(once, x.r, "second") if x.K == 1 else once
    count = 2 * x.r // x.K
    k.claim("loss after two steps", k.eq(k.fro2(left), k.fro2(x.M - k.svd_r(x.M, count, "of all restarts"))))


def counted_build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """M of rank at most 2 r or of full rank, with hints for its parts."""
    r, sizes = d["r"], (d["m"], d["n"])
    made = descending(k, t, d, min(sizes))
    k.hint("first", added(made.parts[:r], made.zero))
    k.hint("second", added(made.parts[r : 2 * r], made.zero))
    k.hint("of all restarts", added(made.parts[: 2 * r // d["K"]], made.zero))
    return Instance(M=added(made.parts, made.zero), r=r, K=d["K"])


ONCE: Json = {**TWO, "K": 2}
GRADED_ONCE: Json = {"M": GRADED["E"], "r": 1, "K": 2}
COUNTED: list[dict[str, Any]] = [
    {"m": 2, "n": 2, "r": 1, "K": 1},
    {"m": 2, "n": 2, "r": 1, "K": 2},
    {"m": 3, "n": 3, "r": 1, "K": 1},
    {"m": 3, "n": 3, "r": 1, "K": 2},
]
COUNT = Claim(
    id="peso/restart_count",
    source=setting.source("choice of the restart interval K"),
    sentence="The restart interval K may be chosen freely.",
    headline=(
        "False for a given number of steps: with K at least as large, PESO has one subspace and keeps LoRA's floor; "
        "the guarantees count restarts, not steps."
    ),
    setting=Setting(dims=COUNTED, free=svd_free, build=counted_build, boundary=[{**TWO, "K": 1}]),
    defect="missing hypothesis",
    uses=("peso/deflation", "peso/synthetic_curves"),
    readings=(
        Reading(
            name="for a given number of steps",
            statement=free_k,
            evidence=Counterexample(ONCE),
            scope="2 x 2, r = 1, two steps of length 1/2, one subspace against two",
            open_instance={"M": [["10", "0"], ["0", "9"]], "r": 1, "K": 2},
            repair=Repair(
                sentence="Two steps leave what 2 / K restarts leave, the singular values beyond the (2 r / K)-th",
                statement=counted_restarts,
                evidence=Identity(COUNTED, points=1),
                sharp=GRADED_ONCE,
            ),
            controls=(
                Control(
                    "the repair larger by 1/1000",
                    statement=counted_restarts,
                    tighten="1/1000",
                    instance=GRADED_ONCE,
                ),
                Control("the repair", kind="true", statement=counted_restarts),
            ),
        ),
    ),
)

CLAIMS = (TRAP, CURVES, DEFLATION, COUNT)

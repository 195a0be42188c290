"""The update lines of Algorithms 1 and 4, as printed and as gradient descent on B.

Source: LoRA past, present, future, section 2.3 and Algorithms 1 and 4. The masked gradient G Diag(0, 1..1, 0) has the
shape of W, B has r columns: printed, the difference is not defined for r below the width of the layer.

`alg_1`, shapes of section 2: W, G (n x m), B, D (n x r), U = I[:, :r], A = U', c = alpha/r. Taking the first r columns
G U in place of G Diag makes the line B - gamma c G U, exactly gradient descent on B, whose gradient is c G U; so does
reading B with m - r zero columns. If the printed nabla_j already is the derivative by B, then c stands there twice.
Section 2.3 prints B A = [B | 0_{n x (m - n)}]; the zero block has m - r columns.

`alg_4_update`, shapes of Algorithm 4 (W m x n), run over several chains. The line takes the gradient at
W_0 + c B A_0 although earlier chains were merged into W_0^(c) (Algorithm 3 has the index), and keeps the columns of the
first offset xi although A_0 was re-initialised with xi'. Either alone makes a step that is not gradient descent on B:
with the stale columns it writes the gradient of some columns into others and can leave the minimum. With both repaired
every step of every run is W - gamma c^2 grad L(W) A'A: true for every size. The schedule is that of Algorithm 3: at
least k re-initialisations, so that at least k + 1 offsets are drawn and for T < 2k the first trains nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Identity, WordProof
from theory.lora_variants.chains import printed_starts, run
from theory.lora_variants.setting import selection, source
from theory.protocol import Instance, Kit, Mat

NARROW, ONE = "r < min(n, m)", "alpha = r"


# -- alg_1 ------------------------------------------------------------------------------------------------------
def first_columns(k: Kit, x: Instance) -> Mat:
    """U = I[:, :r]; Diag(1..1, 0..0) is U U'."""
    return selection(k, x.G.shape[1], x.r, 0, "first")


def narrow(k: Kit, x: Instance) -> None:
    """The rank is below both sizes of the layer."""
    n, m = x.G.shape
    k.given(NARROW, k.all_(k.lt(k.num(x.r), k.num(n)), k.lt(k.num(x.r), k.num(m))))


def line_is_defined(k: Kit, x: Instance) -> None:
    """B and G Diag(1..1, 0..0) have the same number of columns."""
    narrow(k, x)
    U = first_columns(k, x)
    masked = x.G @ U @ U.T
    k.claim("columns", k.eq(k.num(x.B.shape[1]), k.num(masked.shape[1])))


def descent_on_B(k: Kit, x: Instance) -> None:
    """The gradient by B is c G U, and the step of W is -gamma c^2 G A'A."""
    U = first_columns(k, x)
    by_B = x.scale * (x.G @ U)
    k.claim("gradient by B", k.eq(k.dot(x.G, x.scale * (x.D @ U.T)), k.dot(by_B, x.D)))
    after = x.B - x.gamma * by_B
    step = (x.gamma * x.scale * x.scale) * (x.G @ U @ U.T)
    k.claim("step of W", k.eq(x.scale * (after @ U.T), x.scale * (x.B @ U.T) - step))


def zero_columns(k: Kit, x: Instance) -> None:
    """The printed line for B A, which has the shape of W, is gradient descent on B."""
    U = first_columns(k, x)
    printed = x.B @ U.T - (x.gamma * x.scale) * (x.G @ U @ U.T)
    k.claim("line for B A", k.eq(printed, (x.B - x.gamma * (x.scale * (x.G @ U))) @ U.T))


def derivative_by_B(k: Kit, x: Instance) -> None:
    """With nabla_j the derivative by B the line is a step of length gamma on B."""
    by_B = x.scale * (x.G @ first_columns(k, x))
    k.claim("step on B", k.eq(x.B - (x.gamma * x.scale) * by_B, x.B - x.gamma * by_B))


def derivative_with_r(k: Kit, x: Instance) -> None:
    """The same for alpha = r."""
    k.given(ONE, k.eq(x.scale, k.num(1)))
    derivative_by_B(k, x)


def rest_is_kept(k: Kit, x: Instance) -> None:
    """A weaker statement: the change of W lies in the first r columns."""
    U = first_columns(k, x)
    step = (x.gamma * x.scale * x.scale) * (x.G @ U @ U.T)
    k.claim("only the first columns", k.eq(step @ U @ U.T, step))


def printed_block(k: Kit, x: Instance) -> None:
    """[B | 0_{n x (m - n)}] has the m columns of W."""
    narrow(k, x)
    n, m = x.G.shape
    k.claim("columns", k.eq(k.num(x.r + m - n), k.num(m)))


def repaired_block(k: Kit, x: Instance) -> None:
    """B A = [B | 0_{n x (m - r)}]."""
    n, m = x.G.shape
    k.claim("B A", k.eq(x.B @ first_columns(k, x).T, k.hcat(x.B, k.zeros(n, m - x.r))))


def sizes_of_update(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """A gradient, a factor, a direction, a step and alpha / r."""
    n, m, r = d["n"], d["m"], d["r"]
    return {"G": (n, m), "B": (n, r), "D": (n, r), "gamma": (1, 1), "scale": (1, 1)}


def build_update(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Any numbers."""
    return Instance(
        G=t.G, B=t.B, D=t.D, gamma=k.e(t.gamma, 0, 0), scale=1 + k.sq(k.e(t.scale, 0, 0)), r=d["r"]
    )


def letters_update(k: Any) -> Instance:
    """Any sizes."""
    G = k.letter("G", "n", "m")
    U = k.cols(k.eye("m"), "first")
    B, D = (k.letter(name, "n", U.shape[1]) for name in ("B", "D"))
    return Instance(G=G, B=B, D=D, gamma=k.number("gamma"), scale=k.number("c"), r="r")


def layer(n: int, m: int, scale: str = "1") -> Json:
    """R = 1: the gradient is 1 in the first entry, B and the direction too; gamma = 1."""
    one = [[str(int(i == 0))] for i in range(n)]
    G = [[str(int(i == j == 0)) for j in range(m)] for i in range(n)]
    return {"G": G, "B": one, "D": one, "gamma": "1", "scale": scale, "r": 1}


UNIT: Json = {**layer(1, 1, "2"), "B": [["0"]], "D": [["0"]]}
UPDATE = Setting(
    dims=[{"n": n, "m": m, "r": r} for n, m, r in ((2, 2, 1), (2, 3, 1), (3, 4, 2))],
    free=sizes_of_update,
    build=build_update,
    letters=letters_update,
    boundary=[layer(2, 2), layer(3, 2)],
)
COLUMNS = Repair(
    sentence="B^t = B^(t-1) - gamma (alpha/r) G A_0', the first r columns of G: gradient descent on B",
    statement=descent_on_B,
    evidence=WordProof(),
    sharp=layer(2, 2),
)
LARGER = Control(
    "the repair's right sides larger by 1/1000",
    statement=descent_on_B,
    tighten="1/1000",
    instance={**layer(2, 2), "gamma": "1/2"},
)
KEPT = Control("the other columns keep their values", kind="true", statement=rest_is_kept)


# -- alg_4_update -------------------------------------------------------------------------------------------------
def follows_the_gradient(k: Kit, x: Instance, old_base: bool, old_mask: bool) -> None:
    """Every step of the run is W - gamma c^2 grad L(W) A'A at the current model W."""
    starts = printed_starts(x.steps, x.chains)
    states = run(k, x, starts, old_base=old_base, old_mask=old_mask)
    for t, (before, after, U) in enumerate(states, start=1):
        step = (x.gamma * x.scale * x.scale) * (before @ x.Q @ U @ U.T)
        k.claim(f"step {t}", k.eq(after, before - step))


def as_printed(k: Kit, x: Instance) -> None:
    """Base W_0 and the columns of the first offset."""
    follows_the_gradient(k, x, old_base=True, old_mask=True)


def printed_base(k: Kit, x: Instance) -> None:
    """Base W_0, columns of the current offset."""
    follows_the_gradient(k, x, old_base=True, old_mask=False)


def printed_mask(k: Kit, x: Instance) -> None:
    """Base W_0^(c), columns of the first offset."""
    follows_the_gradient(k, x, old_base=False, old_mask=True)


def repaired(k: Kit, x: Instance) -> None:
    """Base W_0^(c) and the columns of the current offset."""
    follows_the_gradient(k, x, old_base=False, old_mask=False)


def first_step(k: Kit, x: Instance) -> None:
    """A weaker statement: with one chain's offset throughout, the first step of the printed run is right."""
    same = Instance({**x, "offsets": (x.offsets[0],) * len(x.offsets)})
    before, after, U = next(run(k, same, printed_starts(x.steps, x.chains), old_base=True, old_mask=True))
    step = (x.gamma * x.scale * x.scale) * (before @ x.Q @ U @ U.T)
    k.claim("step 1", k.eq(after, before - step))


def build_run(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Any start, symmetric curvature, step and factor."""
    return Instance(
        W=t.W,
        Q=t.C + t.C.T,
        gamma=k.e(t.gamma, 0, 0),
        scale=k.e(t.scale, 0, 0),
        r=d["r"],
        steps=d["steps"],
        chains=d["chains"],
        offsets=d["offsets"],
    )


def letters_run(k: Any) -> Instance:
    """Two chains of one step, three offsets, any sizes; further steps only repeat the second."""
    return Instance(
        W=k.letter("W", "m", "n"),
        Q=k.letter("Q", "n", "n"),
        gamma=k.number("gamma"),
        scale=k.number("c"),
        r="r",
        steps=2,
        chains=2,
        offsets=("first", "second", "third"),
    )


RUNS: list[dict[str, Any]] = [
    {"m": 1, "n": 1, "r": 1, "steps": 2, "chains": 2, "offsets": (0, 0, 0)},
    {"m": 1, "n": 2, "r": 1, "steps": 1, "chains": 1, "offsets": (0, 1)},
    {"m": 1, "n": 2, "r": 1, "steps": 3, "chains": 2, "offsets": (0, 1, 0, 1)},
    {"m": 2, "n": 3, "r": 2, "steps": 4, "chains": 2, "offsets": (0, 1, 0)},
]


def scalar_run(steps: int, chains: int) -> Json:
    """The loss w^2 / 2 from w = 1 with a step of length 1."""
    offsets = [0] * (1 + len(printed_starts(steps, chains)))
    plain: Json = {"W": [["1"]], "Q": [["1"]], "gamma": "1", "scale": "1"}
    return {**plain, "r": 1, "steps": steps, "chains": chains, "offsets": offsets}


MOVED: Json = {
    "W": [["1", "0"]],
    "Q": [["1", "0"], ["0", "1"]],
    "gamma": "1",
    "scale": "1",
    "r": 1,
    "steps": 1,
    "chains": 1,
    "offsets": [0, 1],
}
CHAINED = Setting(
    dims=RUNS,
    free=lambda d: {
        "W": (d["m"], d["n"]),
        "C": (d["n"], d["n"]),
        "gamma": (1, 1),
        "scale": (1, 1),
    },
    build=build_run,
    letters=letters_run,
    boundary=[scalar_run(1, 1)],
)
CURRENT = Repair(
    sentence="with W_0^(c) and the new offset in the line, every step is W - gamma (alpha/r)^2 grad L(W) A'A",
    statement=repaired,
    evidence=WordProof(),
    sharp={**scalar_run(2, 2), "gamma": "1/2"},
)
RUN_CONTROLS = (
    Control(
        "the repair's right side larger by 1/1000",
        statement=repaired,
        tighten="1/1000",
        instance={**scalar_run(2, 2), "gamma": "1/2"},
    ),
    Control("the first step with one offset", kind="true", statement=first_step),
)

CLAIMS = (
    Claim(
        id="lora_variants/alg_1",
        source=source("Algorithm 1, line 7, and section 2.3 before (5)"),
        sentence="B^t = B^(t-1) - gamma (alpha/r) nabla_j L(W_0 + (alpha/r) B^(t-1) A_0) Diag(1..1, 0..0).",
        headline=(
            "The masked gradient has m columns and B has r, so the line is not defined; with the first r columns of "
            "the gradient by W it is gradient descent on B, for every size."
        ),
        defect="misprint",
        setting=UPDATE,
        readings=(
            Reading(
                name="as printed, shapes of section 2",
                sentence="B (n x r) and the masked gradient (n x m) can be subtracted.",
                statement=line_is_defined,
                evidence=Counterexample(layer(2, 2)),
                scope="n = m = 2, r = 1; it fails whenever r < m",
                repair=COLUMNS,
                controls=(LARGER, KEPT),
            ),
            Reading(
                name="B with zero columns",
                sentence="With B A_0 (n x m) in the place of B the printed line is gradient descent on B.",
                statement=zero_columns,
                evidence=WordProof(),
                scope="every size",
                controls=(
                    Control(
                        "right side larger by 1/1000",
                        tighten="1/1000",
                        instance={**layer(2, 2), "gamma": "1/2"},
                    ),
                    KEPT,
                ),
            ),
            Reading(
                name="nabla_j as the derivative by B",
                sentence="If nabla_j is the derivative by B, the line is a gradient step of length gamma on B.",
                statement=derivative_by_B,
                setting=replace(UPDATE, dims=[{"n": 1, "m": 1, "r": 1}, *UPDATE.dims]),
                evidence=Counterexample(UNIT),
                scope="a single weight, alpha = 2 r: the factor alpha/r stands there twice",
                repair=Repair(
                    sentence="it is if alpha = r",
                    statement=derivative_with_r,
                    evidence=Identity(UPDATE.dims),
                    setting=Setting(
                        dims=UPDATE.dims,
                        free=sizes_of_update,
                        build=lambda k, t, d: Instance({**build_update(k, t, d), "scale": k.num(1)}),
                        boundary=[layer(2, 2)],
                    ),
                    necessary={ONE: UNIT},
                ),
                controls=(LARGER, KEPT),
            ),
            Reading(
                name="the product B A of section 2.3",
                sentence="B A = [B | 0_{n x (m - n)}] has the m columns of W.",
                statement=printed_block,
                evidence=Counterexample(layer(2, 2)),
                scope="n = m = 2, r = 1; it fails whenever r differs from n",
                repair=Repair(
                    sentence="B A = [B | 0_{n x (m - r)}]",
                    statement=repaired_block,
                    evidence=Identity(UPDATE.dims),
                    sharp=layer(2, 2),
                ),
                controls=(
                    Control(
                        "the repair's right side larger by 1/1000",
                        statement=repaired_block,
                        tighten="1/1000",
                        instance=layer(2, 2),
                    ),
                    KEPT,
                ),
            ),
        ),
    ),
    Claim(
        id="lora_variants/alg_4_update",
        source=source("Algorithm 4, line 15"),
        sentence="Each step of random-c3LA is a gradient step on B at the current model.",
        headline=(
            "False as printed: the line evaluates the gradient at the unmerged W_0 and keeps the columns of the first "
            "offset; with W_0^(c) and the current offset it is true for every size."
        ),
        defect="misprint",
        setting=CHAINED,
        uses=("lora_variants/alg_1",),
        readings=(
            Reading(
                name="as printed",
                statement=as_printed,
                evidence=Counterexample(scalar_run(2, 2)),
                open_instance={**MOVED, "W": [["1", "1/3"]], "gamma": "1/2"},
                scope="one weight, two chains of one step: the second step repeats the first from W_0",
                repair=CURRENT,
                controls=RUN_CONTROLS,
            ),
            Reading(
                name="W_0 as printed, current offset",
                sentence="The same with the columns of the current offset, but the gradient at W_0 + (alpha/r) B A_0.",
                statement=printed_base,
                evidence=Counterexample(scalar_run(2, 2)),
                scope="one weight, two chains of one step",
                repair=CURRENT,
                controls=RUN_CONTROLS,
            ),
            Reading(
                name="W_0^(c), first offset as printed",
                sentence="The same with the gradient at the current model, but the columns of the first offset.",
                statement=printed_mask,
                evidence=Counterexample(MOVED),
                scope="one by two, r = 1: the gradient of column 1 is written into column 2",
                repair=CURRENT,
                controls=RUN_CONTROLS,
            ),
            Reading(
                name="W_0^(c) and current offset",
                sentence="Each step is W - gamma (alpha/r)^2 grad L(W) A'A at the current model W.",
                statement=repaired,
                evidence=WordProof(),
                scope=(
                    "every size and offset, quadratic losses (for any loss read W Q as its gradient); also line 13 of "
                    "Algorithm 3"
                ),
                controls=(
                    Control(
                        "right side larger by 1/1000",
                        tighten="1/1000",
                        instance={**scalar_run(2, 2), "gamma": "1/2"},
                    ),
                    Control("the first step with one offset", kind="true", statement=first_step),
                ),
            ),
        ),
    ),
)

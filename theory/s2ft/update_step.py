"""One gradient step of S2FT: what it does to the layer's output, and how close it is to a full gradient step.

Source: S2FT, section 4.2. A layer y = (W + U V') x with U = I[:,S] (m x s) fixed and V (k x s) trained; G (1 x m)
is the derivative of the loss by y at the input x (k x 1), eta the learning rate; Gw (m x k) a full gradient of W.

`update_identity`: the step changes y by -eta U U' G' |x|^2: true for every size. The paper then drops U U'
"because U is orthogonal"; but U has s < m columns, U'U = I and U U' is the projector on the tuned channels, so
this is false unless all channels outside S have gradient zero. True is: on the tuned channels the change is that
of the full step, elsewhere it is zero.

`equivalent_gradient`: the V-gradient whose U G_V' is nearest to Gw is U'Gw transposed, the plain gradient of V.
True for every U with orthonormal columns, so it is nothing special to standard basis vectors; for other U the
factor (U'U)^-1 is needed. As printed, G_V = U'Gw (s x k), where V and its gradient are k x s: a transpose is
missing, and for k = s, where both shapes fit, the printed one is not optimal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, WordProof
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting


# -- update_identity ------------------------------------------------------------------------------------------
def step(k: Kit, x: Instance) -> tuple[Mat, Mat]:
    """(U, change of the layer's output at x by one step on V from any V)."""
    U = k.name("U", k.cols(k.eye(x.G.shape[1]), x.S))
    gradient = x.x @ x.G @ U  # of the loss by V, k x s
    moved = x.V - x.eta * gradient
    return U, U @ moved.T @ x.x - U @ x.V.T @ x.x


def full_step(k: Kit, x: Instance) -> Mat:
    """-eta G' |x|^2, the change by a step on all of W."""
    change: Mat = -(x.eta * (x.G.T @ x.x.T @ x.x))
    return change


def first(k: Kit, x: Instance) -> None:
    """Change of the output = -eta U U' G' |x|^2."""
    U, change = step(k, x)
    k.claim("change of the output", k.eq(change, U @ U.T @ full_step(k, x)))


def simplified(k: Kit, x: Instance) -> None:
    """As printed in the second place: change of the output = -eta G' |x|^2."""
    _, change = step(k, x)
    k.claim("without U U'", k.eq(change, full_step(k, x)))


def repaired(k: Kit, x: Instance) -> None:
    """On S the full step, elsewhere nothing."""
    U, change = step(k, x)
    k.claim("on the tuned channels", k.eq(U.T @ change, U.T @ full_step(k, x)))
    k.claim("elsewhere", k.eq(U @ U.T @ change, change))


def norms(k: Kit, x: Instance) -> None:
    """A weaker statement: the change is at most that of a full step."""
    _, change = step(k, x)
    k.claim("not longer than a full step", k.le(k.fro2(change), k.fro2(full_step(k, x))))


STEPS: list[dict[str, Any]] = [
    {"m": 1, "k": 1, "S": (0,)},
    {"m": 2, "k": 1, "S": (0,)},
    {"m": 3, "k": 2, "S": (2, 0)},
]


def free_step(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Input, output gradient, V and the learning rate."""
    return {"x": (d["k"], 1), "G": (1, d["m"]), "V": (d["k"], len(d["S"])), "eta": (1, 1)}


def build_step(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """One step at one input."""
    return Instance(x=t.x, G=t.G, V=t.V, eta=k.e(t.eta, 0, 0), S=d["S"])


def letters_step(k: Any) -> Instance:
    """A layer of any size and any selection."""
    return Instance(
        x=k.letter("x", "k", 1),
        G=k.letter("G", 1, "m"),
        V=k.letter("V", "k", "|S|"),
        eta=k.number("eta"),
        S="S",
    )


def one_step(**changes: Any) -> Json:
    """Two channels of which the first is tuned, one input, step size one."""
    plain: Json = {"x": [["1"]], "G": [["0", "1"]], "V": [["0"]], "eta": "1", "S": [0]}
    return {**plain, **changes}


STEP = Setting(
    dims=STEPS,
    free=free_step,
    build=build_step,
    letters=letters_step,
    boundary=[one_step(), one_step(G=[["1", "1"]]), one_step(V=[["3"]], x=[["-2"]])],
)

UPDATE_IDENTITY = Claim(
    id="s2ft/update_identity",
    source=setting.source("4.2, change of the output in one step"),
    sentence=(
        "One gradient step changes the output of the layer by -eta U U' G' |x|^2, which simplifies to "
        "-eta G' |x|^2 because U is orthogonal."
    ),
    headline=(
        "The first formula is true; the simplification is false: U U' is the projector on the tuned channels, and the "
        "others do not move."
    ),
    defect="false statement",
    setting=STEP,
    readings=(
        Reading(
            name="with U U'",
            sentence="One gradient step changes the output of the layer by -eta U U' G' |x|^2.",
            statement=first,
            evidence=WordProof(),
            scope="every size, selection, step size and current V",
            controls=(
                Control(
                    "the right side larger by 1/1000", instance=one_step(G=[["1", "1"]]), tighten="1/1000"
                ),
                Control("not longer than a full step", kind="true", statement=norms),
            ),
        ),
        Reading(
            name="simplified, as printed",
            sentence="One gradient step changes the output of the layer by -eta G' |x|^2.",
            statement=simplified,
            evidence=Counterexample(one_step()),
            scope="two channels, one tuned",
            open_instance=one_step(G=[["2", "3"]], x=[["1"]]),
            repair=Repair(
                sentence=(
                    "on the tuned channels the step equals the full step, on the others it is zero; the printed "
                    "formula holds if and only if eta |x|^2 times the gradient outside S is zero"
                ),
                statement=repaired,
                evidence=WordProof(),
                sharp=one_step(G=[["1", "1"]]),
            ),
            controls=(
                Control(
                    "the repair's right side larger by 1/1000",
                    statement=repaired,
                    instance=one_step(G=[["1", "1"]]),
                    tighten="1/1000",
                ),
                Control("the repair", kind="true", statement=repaired),
            ),
        ),
    ),
)


# -- equivalent_gradient --------------------------------------------------------------------------------------
def nearest(k: Kit, x: Instance, best: Mat) -> None:
    """|U best' - Gw|_F <= |U Z' - Gw|_F for every Z."""
    k.claim("nearest", k.le(k.fro2(x.U @ best.T - x.Gw), k.fro2(x.U @ x.Z.T - x.Gw)))


def orthonormal(k: Kit, x: Instance) -> None:
    """The hypothesis on U."""
    k.given("U'U = I", k.eq(x.U.T @ x.U, k.eye(x.U.shape[1])))


def plain_gradient(k: Kit, x: Instance) -> None:
    """The plain gradient Gw'U (k x s) of V is the best."""
    orthonormal(k, x)
    nearest(k, x, x.Gw.T @ x.U)


def plain_gradient_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The rest of Gw is orthogonal to U."""
    k.use("U'U = I")
    return {"nearest": [k.square(x.U @ x.Z.T - x.U @ x.U.T @ x.Gw)]}


def untransposed(k: Kit, x: Instance) -> None:
    """As printed: G_V = U'Gw, where k = s makes the shapes fit."""
    orthonormal(k, x)
    k.given("k = s", k.eq(k.num(x.Gw.shape[1]), k.num(x.U.shape[1])))
    nearest(k, x, x.U.T @ x.Gw)


def any_factor(k: Kit, x: Instance) -> None:
    """The plain gradient for every U, as LoRA would have it."""
    nearest(k, x, x.Gw.T @ x.U)


def scaled_gradient(k: Kit, x: Instance) -> None:
    """With the Gram matrix of U: best for every U (its inverse where U has full column rank)."""
    nearest(k, x, x.Gw.T @ k.pinv(x.U).T)


def scaled_gradient_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """U U^+ projects on the column space of U."""
    return {"nearest": [k.square(x.U @ x.Z.T - x.U @ k.pinv(x.U) @ x.Gw)]}


def better_than_nothing(k: Kit, x: Instance) -> None:
    """A weaker statement: it is nearer than the zero update."""
    orthonormal(k, x)
    k.claim("nearer than zero", k.le(k.fro2(x.U @ x.U.T @ x.Gw - x.Gw), k.fro2(x.Gw)))


def free_gradient(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """A generator of orthonormal columns, a gradient and a rival."""
    return {"O": (d["m"], d["m"]), "Gw": (d["m"], d["k"]), "Z": (d["k"], d["s"])}


def build_gradient(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """U with orthonormal columns."""
    return Instance(U=k.cols(k.skew_orth(t.O), range(d["s"])), Gw=t.Gw, Z=t.Z)


def build_any(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Any U."""
    return Instance(U=k.cols(t.O, range(d["s"])), Gw=t.Gw, Z=t.Z)


def letters_gradient(k: Any) -> Instance:
    """Matrices of any size."""
    return Instance(U=k.letter("U", "m", "s"), Gw=k.letter("Gw", "m", "k"), Z=k.letter("Z", "k", "s"))


SCALAR: Json = {"U": [["1"]], "Gw": [["1"]], "Z": [["1"]]}
DOUBLED: Json = {"U": [["2"]], "Gw": [["1"]], "Z": [["0"]]}
EYE = [["1", "0"], ["0", "1"]]
TURNED: Json = {"U": EYE, "Gw": [["0", "1"], ["0", "0"]], "Z": [["0", "0"], ["0", "0"]]}
SIZES: list[dict[str, Any]] = [{"m": 1, "k": 1, "s": 1}, {"m": 2, "k": 1, "s": 1}, {"m": 3, "k": 2, "s": 2}]
SQUARE: list[dict[str, Any]] = [{"m": 1, "k": 1, "s": 1}, {"m": 2, "k": 2, "s": 2}, {"m": 3, "k": 2, "s": 2}]
GRADIENT = Setting(
    dims=SIZES, free=free_gradient, build=build_gradient, letters=letters_gradient, boundary=[SCALAR]
)
FITTING = Setting(
    dims=SQUARE, free=free_gradient, build=build_gradient, letters=letters_gradient, boundary=[SCALAR, TURNED]
)
FACTORS = Setting(
    dims=SIZES, free=free_gradient, build=build_any, letters=letters_gradient, boundary=[SCALAR, DOUBLED]
)

EQUIVALENT_GRADIENT = Claim(
    id="s2ft/equivalent_gradient",
    source=setting.source("4.2, equivalent gradient"),
    sentence=(
        "Among all updates U G_V' of the weight, the one nearest to the full gradient has the plain "
        "gradient of V as G_V."
    ),
    headline=(
        "True for every U with orthonormal columns, so not special to standard basis vectors; the printed formula "
        "lacks a transpose, and a trained U needs the inverse of U'U."
    ),
    defect="misprint",
    setting=GRADIENT,
    readings=(
        Reading(
            name="in the shape of V",
            statement=plain_gradient,
            evidence=WordProof(plain_gradient_proof),
            scope="every size and every U with orthonormal columns, standard basis vectors among them",
            sharp=SCALAR,
            controls=(
                Control("U not orthonormal", drop=("U'U = I",), instance=DOUBLED),
                Control("nearer than the zero update", kind="true", statement=better_than_nothing),
            ),
        ),
        Reading(
            name="as printed, without the transpose",
            sentence="The nearest update has G_V = U'G (an s x k matrix; the shapes fit for k = s).",
            statement=untransposed,
            setting=FITTING,
            evidence=Counterexample(TURNED),
            scope="m = k = s = 2",
            open_instance={"U": EYE, "Gw": [["1", "2"], ["0", "1"]], "Z": [["1", "0"], ["2", "1"]]},
            repair=Repair(
                sentence="G_V = G'U",
                statement=plain_gradient,
                evidence=WordProof(plain_gradient_proof),
                sharp=SCALAR,
            ),
            controls=(
                Control(
                    "the repair without U'U = I",
                    statement=plain_gradient,
                    drop=("U'U = I",),
                    instance=DOUBLED,
                ),
                Control("the repair", kind="true", statement=plain_gradient),
            ),
        ),
        Reading(
            name="any factor U",
            sentence="The same for every U, as in LoRA with U held fixed.",
            statement=any_factor,
            setting=FACTORS,
            evidence=Counterexample(DOUBLED),
            scope="one by one",
            repair=Repair(
                sentence="with the factor (U'U)^-1, or U^+ where U lacks full column rank, for every U",
                statement=scaled_gradient,
                evidence=WordProof(scaled_gradient_proof),
                sharp=SCALAR,
            ),
            controls=(
                Control("the plain gradient, at U = 2", statement=any_factor, instance=DOUBLED),
                Control("with U^+", kind="true", statement=scaled_gradient),
            ),
        ),
    ),
)

CLAIMS = (UPDATE_IDENTITY, EQUIVALENT_GRADIENT)

"""The block structure that turns layers into one vector of parameters: Propositions 2 and 3, and equation (16).

Source: LoRA past, present, future, C.2. U1 (d x d1), U2 (d x d2) are the columns of the d x d identity that belong
to a layer and to all other layers; w, v (d x 1) are vectors of all weights. G (m x n) is a gradient in the shapes of
C.2, H (n x n) a projector, vec stacks columns.

`prop_2`: the pieces U1'w, U2'w determine w = U1 U1'w + U2 U2'w. True for every size. `prop_3`: <x, y> is the sum of
<U_i x_i, U_i y_i>. True; in the second line of its proof U^j U^i should read (U^j)'U^i, the printed product is
not defined. `eq_16`: vec(A B C) = (C' kron A) vec(B), and vec(G H) = (H' kron I) vec(G) with I of as many rows as G:
m in the shapes of C.2. In the shapes of section 2, where the layer is n x m and H is m x m, the identity has size n;
the subscript m of C.2 then belongs to the wrong side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Identity, WordProof
from theory.lora_variants.setting import source
from theory.protocol import Instance, Kit, Mat

WHOLE, APART = "the layers fill the vector", "the layers do not overlap"


# -- prop_2, prop_3 -----------------------------------------------------------------------------------------
def layers(k: Kit, x: Instance) -> tuple[Mat, Mat]:
    """(U1, U2) and what the decomposition says of them."""
    U1, U2 = k.cols(k.eye(x.w.shape[0]), x.one), k.cols(k.eye(x.w.shape[0]), x.others)
    k.given(APART, k.eq(U1.T @ U2, k.zeros(U1.shape[1], U2.shape[1])))
    k.given(WHOLE, k.eq(U1 @ U1.T + U2 @ U2.T, k.eye(x.w.shape[0])))
    return U1, U2


def unique(k: Kit, x: Instance) -> None:
    """Weights put together from pieces have those pieces, and are the only ones."""
    U1, U2 = layers(k, x)
    k.claim("made of its pieces", k.eq(U1 @ (U1.T @ x.w) + U2 @ (U2.T @ x.w), x.w))
    k.claim("first piece", k.eq(U1.T @ (U1 @ x.a + U2 @ x.b), x.a))
    k.claim("other pieces", k.eq(U2.T @ (U1 @ x.a + U2 @ x.b), x.b))


def lengths(k: Kit, x: Instance) -> None:
    """A consequence: lengths add up."""
    U1, U2 = layers(k, x)
    k.claim("Pythagoras", k.eq(k.fro2(x.w), k.fro2(U1.T @ x.w) + k.fro2(U2.T @ x.w)))


def inner_products(k: Kit, x: Instance) -> None:
    """<w, v> = <U1 w1, U1 v1> + <U2 w2, U2 v2>."""
    U1, U2 = layers(k, x)
    parts = [k.dot(U @ (U.T @ x.w), U @ (U.T @ x.v)) for U in (U1, U2)]
    k.claim("inner product", k.eq(k.dot(x.w, x.v), parts[0] + parts[1]))


def use_layers(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """U1'U2 = 0 and U1 U1' + U2 U2' = I."""
    k.use(APART)
    k.use(WHOLE)
    return {}


SIZES: list[dict[str, Any]] = [
    {"one": (0,), "others": (1,)},
    {"one": (0, 1), "others": (2,)},
    {"one": (1, 3), "others": (0, 2, 4)},
]


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Two vectors of weights and two pieces."""
    m, n = len(d["one"]), len(d["others"])
    return {"w": (m + n, 1), "v": (m + n, 1), "a": (m, 1), "b": (n, 1)}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """The parameters with the layers' places."""
    return Instance({**t, **d})


def letters(k: Any) -> Instance:
    """Layers of any size."""
    vectors = {name: k.letter(name, "d", 1) for name in ("w", "v")}
    pieces = {"a": k.letter("a", "|one|", 1), "b": k.letter("b", "|others|", 1)}
    return Instance(one="one", others="others", **vectors, **pieces)


def pair(**changes: Any) -> Json:
    """Two layers of one weight, with changes."""
    plain: Json = {
        "w": [["1"], ["2"]],
        "v": [["1"], ["1"]],
        "a": [["1"]],
        "b": [["3"]],
        "one": [0],
        "others": [1],
    }
    return {**plain, **changes}


MISSED = pair(w=[["1"], ["2"], ["1"]], v=[["1"], ["1"], ["1"]])
LAYERS = Setting(dims=SIZES, free=free, build=build, letters=letters, boundary=[pair()])


# -- eq_16 ----------------------------------------------------------------------------------------------------
def vec(k: Kit, A: Mat) -> Mat:
    """The columns of A on top of each other."""
    return k.vcat(*(k.cols(A, [j]) for j in range(A.shape[1])))


def three_factors(k: Kit, x: Instance) -> None:
    """vec(A B C) = (C' kron A) vec(B)."""
    k.claim("vec(ABC)", k.eq(vec(k, x.A @ x.B @ x.C), k.kron(x.C.T, x.A) @ vec(k, x.B)))


def gradient_times_projector(k: Kit, x: Instance) -> None:
    """In the shapes of C.2, with the projector's square."""
    H = k.proj(x.F)
    lifted = k.kron(H.T, k.eye(x.G.shape[0]))
    k.claim("vec(G H)", k.eq(vec(k, x.G @ H), lifted @ vec(k, x.G)))
    k.claim("a projector", k.eq(lifted.T @ lifted, lifted))


def one_side_identity(k: Kit, x: Instance) -> None:
    """What (16) says for C = I: vec(A B) = (I kron A) vec(B), of whose entries the first column is A times that of B."""
    first = k.kron(k.eye(x.B.shape[1]), x.A) @ vec(k, x.B)
    k.claim("first column", k.eq(k.rows(first, range(x.A.shape[0])), x.A @ k.cols(x.B, [0])))


def sizes_fit(k: Kit, x: Instance) -> None:
    """G (n x m), H (m x m): the columns of H' kron I_m are as many as the entries of G."""
    columns = x.H.shape[0] * x.G.shape[1]
    k.claim("the product is defined", k.eq(k.num(columns), k.num(x.G.shape[0] * x.G.shape[1])))


def sizes_repaired(k: Kit, x: Instance) -> None:
    """With the identity of the size of the rows of G."""
    columns = x.H.shape[0] * x.G.shape[0]
    k.claim("the product is defined", k.eq(k.num(columns), k.num(x.G.shape[0] * x.G.shape[1])))
    k.claim("vec(G H)", k.eq(vec(k, x.G @ x.H), k.kron(x.H.T, k.eye(x.G.shape[0])) @ vec(k, x.G)))


FACTORS = Setting(
    dims=[{"p": p, "q": q, "s": s, "t": t} for p, q, s, t in ((1, 1, 1, 1), (2, 1, 3, 2), (2, 3, 2, 3))],
    free=lambda d: {"A": (d["p"], d["q"]), "B": (d["q"], d["s"]), "C": (d["s"], d["t"])},
    build=lambda k, t, d: t,
    boundary=[{"A": [["1"]], "B": [["1"]], "C": [["1"]]}],
)
GRADIENTS = Setting(
    dims=[{"m": m, "n": n, "r": r} for m, n, r in ((1, 2, 1), (2, 1, 1), (3, 2, 1), (2, 3, 2))],
    free=lambda d: {"G": (d["m"], d["n"]), "F": (d["n"], d["r"])},
    build=lambda k, t, d: t,
    boundary=[{"G": [["1"]], "F": [["1"]]}],
)
SECTION_2 = Setting(
    dims=[{"n": 1, "m": 1}, {"n": 1, "m": 2}, {"n": 3, "m": 2}],
    free=lambda d: {"G": (d["n"], d["m"]), "H": (d["m"], d["m"])},
    build=lambda k, t, d: t,
    boundary=[{"G": [["1"]], "H": [["1"]]}],
)
SCALAR_GRADIENT: Json = {"G": [["1"]], "F": [["1"]]}
ONE_BY_TWO: Json = {"G": [["1", "0"]], "H": [["1", "0"], ["0", "0"]]}
SQUARE: Json = {"G": [["1"]], "H": [["1"]]}

CLAIMS = (
    Claim(
        id="lora_variants/prop_2",
        source=source("Proposition 2"),
        sentence="The pieces of a weight vector in its layers represent the vector uniquely.",
        headline="True for every size: a weight vector is put together from its pieces, and from no others.",
        setting=LAYERS,
        readings=(
            Reading(
                name="as printed",
                statement=unique,
                evidence=WordProof(use_layers),
                scope="every size; one layer against all others, layer by layer for more",
                controls=(
                    Control("a weight in no layer", drop=(WHOLE,), instance=MISSED),
                    Control("Pythagoras", kind="true", statement=lengths),
                ),
            ),
        ),
    ),
    Claim(
        id="lora_variants/prop_3",
        source=source("Proposition 3, (17)"),
        sentence="The inner product of two weight vectors is the sum over the layers of those of their pieces.",
        headline="True for every size; the second line of the printed proof lacks a transpose.",
        defect="misprint",
        setting=LAYERS,
        uses=("lora_variants/prop_2",),
        readings=(
            Reading(
                name="as printed",
                statement=inner_products,
                evidence=WordProof(use_layers),
                scope="every size; one layer against all others, layer by layer for more",
                unused=(APART,),
                controls=(
                    Control("right side larger by 1/1000", tighten="1/1000", instance=pair()),
                    Control("a weight in no layer", drop=(WHOLE,), instance=MISSED),
                    Control("Pythagoras", kind="true", statement=lengths),
                ),
            ),
        ),
    ),
    Claim(
        id="lora_variants/eq_16",
        source=source("C.2, (16) and the adapted update rule"),
        sentence="vec(A B C) = (C' kron A) vec(B), so a gradient times H becomes (H' kron I_m) applied to its vector.",
        headline=(
            "True where the gradient has m rows, as in C.2; in the shapes of section 2 the identity must have size n."
        ),
        defect="misprint",
        readings=(
            Reading(
                name="three factors",
                sentence="vec(A B C) = (C' kron A) vec(B).",
                statement=three_factors,
                setting=FACTORS,
                evidence=Identity(FACTORS.dims),
                scope="factors of up to three rows and columns",
                controls=(
                    Control("right side larger by 1/1000", tighten="1/1000", instance=FACTORS.boundary[0]),
                    Control("first column of (I kron A) vec(B)", kind="true", statement=one_side_identity),
                ),
            ),
            Reading(
                name="gradient times projector, shapes of C.2",
                sentence="For G (m x n) and H (n x n), vec(G H) = (H' kron I_m) vec(G), again with a projector.",
                statement=gradient_times_projector,
                setting=GRADIENTS,
                evidence=Identity(GRADIENTS.dims),
                scope="gradients of up to three rows and columns, projectors of rank up to two",
                controls=(
                    Control("right side larger by 1/1000", tighten="1/1000", instance=SCALAR_GRADIENT),
                    Control("the same identities", kind="true", statement=gradient_times_projector),
                ),
            ),
            Reading(
                name="gradient times projector, shapes of section 2",
                sentence="For G (n x m) and H (m x m), the product (H' kron I_m) vec(G) is defined.",
                statement=sizes_fit,
                setting=SECTION_2,
                evidence=Counterexample(ONE_BY_TWO),
                scope="n = 1, m = 2; it fails whenever n and m differ",
                repair=Repair(
                    sentence="vec(G H) = (H' kron I_n) vec(G)",
                    statement=sizes_repaired,
                    evidence=Identity(SECTION_2.dims),
                    sharp=SQUARE,
                ),
                controls=(
                    Control(
                        "the repair's right side larger by 1/1000",
                        statement=sizes_repaired,
                        tighten="1/1000",
                        instance=SQUARE,
                    ),
                    Control("the repair", kind="true", statement=sizes_repaired),
                ),
            ),
        ),
    ),
)

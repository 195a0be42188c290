"""S2FT's change of the weights as an adapter: it can be taken out exactly, and disjoint ones do not collide.

Source: S2FT, section 6.2. W0 (m x k) the pretrained weight, W the fine-tuned one, U = I[:,S] (m x s) for tuned
rows, or V = I[:,S] (k x s) for tuned columns; two tasks have selections S1, S2.

`adapter_unmerge`: if only the rows S changed, W - W0 = U V' with V = (W - W0)'U; if only the columns S did, it is
U V' with U = (W - W0) V. True for every size, in exact arithmetic (what floating point does is
`switch_exactness`). The paper calls the m x s matrix U a permutation matrix; it is a selection, U'U = I only.

`fusion_orthogonality`: for disjoint S1, S2 the two changes are orthogonal, and so are their column spaces (row
form) or row spaces (column form). Not more: in row form both tasks may read the same inputs, and behind the
layers above (H, q x m) their effects on the output may be parallel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, WordProof
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting


def rows_form(k: Kit, x: Instance) -> None:
    """Tuned rows."""
    U = k.name("U", k.cols(k.eye(x.W0.shape[0]), x.S))
    change = x.W - x.W0
    k.given("only the rows S changed", k.eq(U @ U.T @ change, change))
    k.claim("adapter", k.eq(U @ (change.T @ U).T, change))
    k.claim("unmerged", k.eq(x.W - U @ (change.T @ U).T, x.W0))


def columns_form(k: Kit, x: Instance) -> None:
    """Tuned columns."""
    V = k.name("V", k.cols(k.eye(x.W0.shape[1]), x.S))
    change = x.W - x.W0
    k.given("only the columns S changed", k.eq(change @ V @ V.T, change))
    k.claim("adapter", k.eq((change @ V) @ V.T, change))
    k.claim("unmerged", k.eq(x.W - (change @ V) @ V.T, x.W0))


def use_rows(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """U U' change = change, written for the letter W."""
    k.use("only the rows S changed")
    return {}


def use_columns(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The same for columns."""
    k.use("only the columns S changed")
    return {}


def rows_norm(k: Kit, x: Instance) -> None:
    """A weaker statement: V carries the whole norm of the change."""
    U = k.name("U", k.cols(k.eye(x.W0.shape[0]), x.S))
    change = x.W - x.W0
    k.given("only the rows S changed", k.eq(U @ U.T @ change, change))
    k.claim("norm", k.eq(k.fro2(change.T @ U), k.fro2(change)))


def columns_norm(k: Kit, x: Instance) -> None:
    """The same for columns."""
    V = k.name("V", k.cols(k.eye(x.W0.shape[1]), x.S))
    change = x.W - x.W0
    k.given("only the columns S changed", k.eq(change @ V @ V.T, change))
    k.claim("norm", k.eq(k.fro2(change @ V), k.fro2(change)))


SIZES: list[dict[str, Any]] = [
    {"m": 1, "k": 1, "S": (0,)},
    {"m": 2, "k": 2, "S": (1,)},
    {"m": 3, "k": 3, "S": (2, 0)},
]


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Pretrained weight and change."""
    return {"W0": (d["m"], d["k"]), "C": (d["m"], d["k"])}


def build_rows(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Only the rows S change."""
    U = k.cols(k.eye(d["m"]), d["S"])
    return Instance(W0=t.W0, W=t.W0 + U @ U.T @ t.C, S=d["S"])


def build_columns(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Only the columns S change."""
    V = k.cols(k.eye(d["k"]), d["S"])
    return Instance(W0=t.W0, W=t.W0 + t.C @ V @ V.T, S=d["S"])


def letters(k: Any) -> Instance:
    """Weights of any size."""
    return Instance(W0=k.letter("W0", "m", "k"), W=k.letter("W", "m", "k"), S="S")


IN_ROW: Json = {"W0": [["0"], ["0"]], "W": [["1"], ["0"]], "S": [0]}
OFF_ROW: Json = {"W0": [["0"], ["0"]], "W": [["0"], ["1"]], "S": [0]}
IN_COLUMN: Json = {"W0": [["0", "0"]], "W": [["1", "0"]], "S": [0]}
OFF_COLUMN: Json = {"W0": [["0", "0"]], "W": [["0", "1"]], "S": [0]}
ROWS = Setting(dims=SIZES, free=free, build=build_rows, letters=letters, boundary=[IN_ROW])
COLUMNS = Setting(dims=SIZES, free=free, build=build_columns, letters=letters, boundary=[IN_COLUMN])

UNMERGE = Claim(
    id="s2ft/adapter_unmerge",
    source=setting.source("6.2, unmerged computation"),
    sentence=(
        "The change of the weight by S2FT is exactly a product U V' of a selection of s channels and an "
        "s-column matrix."
    ),
    headline="True for every size, for tuned rows and for tuned columns; U is a selection, not a permutation matrix.",
    defect="misprint",
    readings=(
        Reading(
            name="tuned rows",
            statement=rows_form,
            setting=ROWS,
            evidence=WordProof(use_rows),
            scope="every size and selection",
            controls=(
                Control("a row outside S changed", drop=("only the rows S changed",), instance=OFF_ROW),
                Control("V has the norm of the change", kind="true", statement=rows_norm),
            ),
        ),
        Reading(
            name="tuned columns",
            statement=columns_form,
            setting=COLUMNS,
            evidence=WordProof(use_columns),
            scope="every size and selection",
            controls=(
                Control(
                    "a column outside S changed", drop=("only the columns S changed",), instance=OFF_COLUMN
                ),
                Control("U has the norm of the change", kind="true", statement=columns_norm),
            ),
        ),
    ),
)


# -- fusion_orthogonality -------------------------------------------------------------------------------------
def two_tasks(k: Kit, x: Instance) -> tuple[Mat, Mat]:
    """The changes U1 V1' and U2 V2' of two tasks with disjoint selections."""
    U1, U2 = k.cols(k.eye(x.H.shape[1]), x.S1), k.cols(k.eye(x.H.shape[1]), x.S2)
    k.given("the selections are disjoint", k.eq(U1.T @ U2, k.zeros(U1.shape[1], U2.shape[1])))
    return U1 @ x.V1.T, U2 @ x.V2.T


def column_spaces(k: Kit, x: Instance) -> None:
    """Orthogonal changes with orthogonal column spaces, whatever the weights of the fusion."""
    one, two = two_tasks(k, x)
    k.claim("column spaces", k.eq(one.T @ two, k.zeros(x.V1.shape[0], x.V2.shape[0])))
    k.claim("inner product", k.eq(k.dot(one, two), k.num(0)))


def use_disjoint(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """U1'U2 = 0."""
    k.use("the selections are disjoint")
    return {}


def pythagoras(k: Kit, x: Instance) -> None:
    """A consequence: the fused change is as long as its parts."""
    one, two = two_tasks(k, x)
    k.claim("Pythagoras", k.eq(k.fro2(one + two), k.fro2(one) + k.fro2(two)))


def row_spaces(k: Kit, x: Instance) -> None:
    """The row spaces are orthogonal as well."""
    one, two = two_tasks(k, x)
    k.claim("row spaces", k.eq(one @ two.T, k.zeros(one.shape[0], two.shape[0])))


def row_spaces_given(k: Kit, x: Instance) -> None:
    """The same when the two tasks read orthogonal inputs."""
    k.given("the tasks read orthogonal inputs", k.eq(x.V1.T @ x.V2, k.zeros(x.V1.shape[1], x.V2.shape[1])))
    row_spaces(k, x)


def use_inputs(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """V1'V2 = 0."""
    k.use("the tasks read orthogonal inputs")
    return {}


def at_the_output(k: Kit, x: Instance) -> None:
    """The effects at the output of the network are orthogonal."""
    one, two = two_tasks(k, x)
    k.claim("at the output", k.eq(k.dot(x.H @ one, x.H @ two), k.num(0)))


def at_the_output_given(k: Kit, x: Instance) -> None:
    """The same when the layers above keep angles."""
    k.given("H'H = I", k.eq(x.H.T @ x.H, k.eye(x.H.shape[1])))
    at_the_output(k, x)


def use_isometry(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """H'H = I and U1'U2 = 0."""
    k.use("H'H = I")
    k.use("the selections are disjoint")
    return {}


PAIRS: list[dict[str, Any]] = [
    {"q": 2, "m": 2, "k": 1, "S1": (0,), "S2": (1,)},
    {"q": 3, "m": 3, "k": 2, "S1": (0, 2), "S2": (1,)},
]


def free_pair(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Layers above and the trained parts of two tasks."""
    return {"H": (d["q"], d["m"]), "V1": (d["k"], len(d["S1"])), "V2": (d["k"], len(d["S2"]))}


def build_pair(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Two tasks with disjoint selections."""
    return Instance(H=t.H, V1=t.V1, V2=t.V2, S1=d["S1"], S2=d["S2"])


def letters_pair(k: Any) -> Instance:
    """Tasks of any size."""
    return Instance(
        H=k.letter("H", "q", "m"),
        V1=k.letter("V1", "k", "|S1|"),
        V2=k.letter("V2", "k", "|S2|"),
        S1="S1",
        S2="S2",
    )


def pair(**changes: Any) -> Json:
    """Two channels, one for each task, one input; the layers above are the identity."""
    plain: Json = {"H": [["1", "0"], ["0", "1"]], "V1": [["1"]], "V2": [["1"]], "S1": [0], "S2": [1]}
    return {**plain, **changes}


ADDING = pair(H=[["1", "1"]])
PAIR = Setting(
    dims=PAIRS, free=free_pair, build=build_pair, letters=letters_pair, boundary=[pair(), pair(V1=[["0"]])]
)

FUSION = Claim(
    id="s2ft/fusion_orthogonality",
    source=setting.source("6.2, adapter fusion"),
    sentence="Adapters with non-overlapping selections change orthogonal low-rank spaces.",
    headline=(
        "True for the space of the selection (output channels in row form); false for the inputs that the tasks "
        "read and for their effects at the output of the network."
    ),
    defect="missing hypothesis",
    setting=PAIR,
    readings=(
        Reading(
            name="column spaces of the changes",
            statement=column_spaces,
            evidence=WordProof(use_disjoint),
            scope="every size and every pair of disjoint selections; column form by transposition",
            controls=(
                Control(
                    "overlapping selections", drop=("the selections are disjoint",), instance=pair(S2=[0])
                ),
                Control("Pythagoras for the fused change", kind="true", statement=pythagoras),
            ),
        ),
        Reading(
            name="row spaces too",
            sentence="Adapters with non-overlapping selections have orthogonal column spaces and orthogonal row spaces.",
            statement=row_spaces,
            evidence=Counterexample(pair(H=[["0", "0"], ["0", "0"]])),
            scope="two channels, one input; the layers above play no part",
            open_instance=pair(),
            repair=Repair(
                sentence="it holds when the trained parts satisfy V1'V2 = 0",
                statement=row_spaces_given,
                evidence=WordProof(use_inputs),
                necessary={"the tasks read orthogonal inputs": pair()},
                sharp=pair(V2=[["0"]]),
            ),
            controls=(
                Control(
                    "the repair without its hypothesis",
                    statement=row_spaces_given,
                    drop=("the tasks read orthogonal inputs",),
                    instance=pair(),
                ),
                Control("the repair", kind="true", statement=row_spaces_given),
            ),
        ),
        Reading(
            name="at the output of the network",
            sentence="The effects of the two adapters at the output of the network are orthogonal.",
            statement=at_the_output,
            evidence=Counterexample(ADDING),
            scope="two channels that the next layer adds up; the instance is open",
            repair=Repair(
                sentence="it holds when the layers above keep angles, H'H = I",
                statement=at_the_output_given,
                evidence=WordProof(use_isometry),
                necessary={"H'H = I": ADDING},
                sharp=pair(),
            ),
            controls=(
                Control(
                    "the repair without its hypothesis",
                    statement=at_the_output_given,
                    drop=("H'H = I",),
                    instance=ADDING,
                ),
                Control("the repair", kind="true", statement=at_the_output_given),
            ),
        ),
    ),
)

CLAIMS = (UNMERGE, FUSION)

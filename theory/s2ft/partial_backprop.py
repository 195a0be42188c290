"""Which part of an activation the gradient of a slice needs, and that training the slice is masked training.

Source: S2FT, sections 3.2 and 3.3. A projection y = W a on T tokens: W (m x k), inputs a (k x T), G (m x T) the
derivative of the loss by y; the full gradient is G a'. A slice is a set S of columns (inputs: output and down
projections) or of rows (outputs: query, key, value, up and gate projections) of W.

`partial_backprop`: the gradient computed for the slice is the slice of the full gradient, for rows and for
columns. That only the slice a[S] of the activation has to be kept is true for columns, the case of the printed
code, hence for two of the seven projections. For rows all of a is needed (what can be dropped is G outside S):
inputs that agree on S may give different gradients. The printed code also hands the integers start and end to
`save_for_backward`, which takes tensors only.

`masked_equivalence`: reorder the channels so that S comes first, train that block in place and undo the order:
the same as training W with the update masked to S, for every optimizer that works entrywise (SGD, momentum, AdamW
with its state), step by step. If instead the *gradient* is masked and then given to an optimizer with decoupled
weight decay, the frozen weights decay, and the two differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, WordProof
from theory.kits.entrywise import entrywise
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting


# -- partial_backprop -----------------------------------------------------------------------------------------
def slices(k: Kit, x: Instance) -> None:
    """Slices of the full gradient, from slices of the factors."""
    full = x.G @ x.a.T
    k.claim("rows", k.eq(k.rows(x.G, x.S) @ x.a.T, k.rows(full, x.S)))
    k.claim("columns", k.eq(x.G @ k.rows(x.a, x.R).T, k.cols(full, x.R)))


def same_energy(k: Kit, x: Instance) -> None:
    """A weaker statement: the slices' norms agree."""
    full = x.G @ x.a.T
    k.claim("rows", k.eq(k.fro2(k.rows(x.G, x.S) @ x.a.T), k.fro2(k.rows(full, x.S))))


def wrong_slice(k: Kit, x: Instance) -> None:
    """A change: the gradient of the rows S from the rows R of the derivative."""
    k.claim("rows", k.eq(k.rows(x.G, x.R) @ x.a.T, k.rows(x.G @ x.a.T, x.S)))


def kept_columns(k: Kit, x: Instance) -> None:
    """Inputs a and b that agree on the channels R give the same gradient of the columns R."""
    k.given("the kept slices agree", k.eq(k.rows(x.a, x.R), k.rows(x.b, x.R)))
    k.claim("columns", k.eq(k.cols(x.G @ x.a.T, x.R), k.cols(x.G @ x.b.T, x.R)))


def kept_rows(k: Kit, x: Instance) -> None:
    """Inputs that agree on the channels R give the same gradient of the rows S, here with S = R."""
    k.given("the kept slices agree", k.eq(k.rows(x.a, x.R), k.rows(x.b, x.R)))
    k.given("the slice of the weight has the same numbers", k.eq(k.num(x.S[0]), k.num(x.R[0])))
    k.claim("rows", k.eq(k.rows(x.G @ x.a.T, x.S), k.rows(x.G @ x.b.T, x.S)))


def kept_outputs(k: Kit, x: Instance) -> None:
    """What may be dropped for rows: derivatives G and F that agree on S give the same gradient of the rows S."""
    k.given("the kept derivatives agree", k.eq(k.rows(x.G, x.S), k.rows(x.F, x.S)))
    k.claim("rows", k.eq(k.rows(x.G @ x.a.T, x.S), k.rows(x.F @ x.a.T, x.S)))


def use_kept(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The agreeing slices."""
    k.use("the kept slices agree")
    return {}


def use_outputs(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The agreeing derivatives."""
    k.use("the kept derivatives agree")
    return {}


SIZES: list[dict[str, Any]] = [
    {"m": 1, "k": 2, "T": 1, "S": (0,), "R": (0,)},
    {"m": 2, "k": 2, "T": 1, "S": (1,), "R": (1,)},
    {"m": 3, "k": 3, "T": 2, "S": (0, 2), "R": (0, 1)},
]


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Derivatives and inputs, each with a part outside the slice."""
    return {"G": (d["m"], d["T"]), "C": (d["m"], d["T"]), "a": (d["k"], d["T"]), "c": (d["k"], d["T"])}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """B agrees with a on R, F agrees with G on S."""
    U, V = k.cols(k.eye(d["m"]), d["S"]), k.cols(k.eye(d["k"]), d["R"])
    b = t.a + (k.eye(d["k"]) - V @ V.T) @ t.c
    F = t.G + (k.eye(d["m"]) - U @ U.T) @ t.C
    return Instance(G=t.G, F=F, a=t.a, b=b, S=d["S"], R=d["R"])


def letters(k: Any) -> Instance:
    """A projection of any size."""
    return Instance(
        G=k.letter("G", "m", "T"),
        F=k.letter("F", "m", "T"),
        a=k.letter("a", "k", "T"),
        b=k.letter("b", "k", "T"),
        S="S",
        R="R",
    )


def projection(**changes: Any) -> Json:
    """One output channel, two inputs of which the first is kept; the dropped input is 0 or 1."""
    plain: Json = {"G": [["1"]], "F": [["1"]], "a": [["0"], ["0"]], "b": [["0"], ["1"]], "S": [0], "R": [0]}
    return {**plain, **changes}


TWO_OUTPUTS = projection(G=[["1"], ["2"]], F=[["1"], ["0"]], a=[["1"], ["3"]], b=[["1"], ["0"]])
SLICES = Setting(dims=SIZES, free=free, build=build, letters=letters, boundary=[projection(), TWO_OUTPUTS])

PARTIAL_BACKPROP = Claim(
    id="s2ft/partial_backprop",
    source=setting.source("3.3, partial back-propagation"),
    sentence=(
        "The gradient of the selected slice is the slice of the full gradient, and only the slice of the activation "
        "has to be kept for it."
    ),
    headline=(
        "The first half is true everywhere; the second for the output and down projections only: query, key, value, "
        "up and gate slices need the whole input."
    ),
    defect="missing hypothesis",
    setting=SLICES,
    readings=(
        Reading(
            name="slice of the gradient",
            sentence="The gradient of a slice of rows or of columns is that slice of the full gradient.",
            statement=slices,
            evidence=WordProof(),
            scope="every size and selection",
            controls=(
                Control("rows of another slice", statement=wrong_slice, instance={**TWO_OUTPUTS, "R": [1]}),
                Control("norms of the slices", kind="true", statement=same_energy),
            ),
        ),
        Reading(
            name="kept activation, columns (output, down)",
            sentence="Inputs that agree on the selected channels give the same gradient of the selected columns.",
            statement=kept_columns,
            evidence=WordProof(use_kept),
            scope="every size and selection: two of the seven projections",
            controls=(
                Control(
                    "the kept slices differ",
                    drop=("the kept slices agree",),
                    instance=projection(b=[["1"], ["0"]]),
                ),
                Control("the slice of the gradient", kind="true", statement=slices),
            ),
        ),
        Reading(
            name="kept activation, rows (query, key, value, up, gate)",
            sentence="Inputs that agree on the selected channels give the same gradient of the selected rows.",
            statement=kept_rows,
            evidence=Counterexample(projection(F=[["0"]])),
            scope="one output channel, two inputs, one token",
            open_instance=projection(G=[["2"]], a=[["1"], ["3"]], b=[["1"], ["-1"]]),
            repair=Repair(
                sentence="for rows the whole input is needed, and the derivative by the outputs only on S",
                statement=kept_outputs,
                evidence=WordProof(use_outputs),
                sharp=TWO_OUTPUTS,
            ),
            controls=(
                Control(
                    "the repair without agreeing derivatives",
                    statement=kept_outputs,
                    drop=("the kept derivatives agree",),
                    instance=projection(a=[["1"], ["0"]], F=[["0"]]),
                ),
                Control("the repair", kind="true", statement=kept_outputs),
            ),
        ),
    ),
)


# -- masked_equivalence ---------------------------------------------------------------------------------------
def adaptive(w: Any, g: Any, first: Any, second: Any, rate: Any, decay: Any) -> Any:
    """An entrywise step with two states and decoupled weight decay; letters take any other, AdamW included."""
    return w - rate * ((g + first) / (1 + g * g + second * second) + decay * w)


def loss_gradient(H: Mat, W: Mat, X: Mat, target: Mat) -> Mat:
    """Gradient by W of |H W X - target|_F^2 / 2."""
    return H.T @ (H @ W @ X - target) @ X.T


def orders(k: Kit, x: Instance) -> tuple[Mat, Mat, Mat]:
    """(Pi, U, E): the order, the selection S before it and the front block after it."""
    m = x.W.shape[0]
    Pi, U = k.cols(k.eye(m), x.order), k.cols(k.eye(m), x.S)
    E = k.cols(k.eye(Pi.shape[1]), x.front)
    k.given("the order lists every channel once", k.eq(Pi @ Pi.T, k.eye(m)))
    k.given("the selected channels come first", k.eq(Pi @ E @ E.T @ Pi.T, U @ U.T))
    return Pi, U, E


def masked_step(k: Kit, x: Instance) -> None:
    """One entrywise step on the front block = the step masked to S, for weights and both states alike."""
    Pi, U, E = orders(k, x)
    numbers = (x.rate, x.decay)
    g = loss_gradient(x.H, x.W, x.X, x.Y)
    masked = x.W + U @ U.T @ (entrywise(k, "step", adaptive, (x.W, g, x.M1, x.M2), numbers) - x.W)
    front = loss_gradient(x.H @ Pi, Pi.T @ x.W, x.X, x.Y)
    block = entrywise(
        k, "step", adaptive, tuple(E.T @ Z for Z in (Pi.T @ x.W, front, Pi.T @ x.M1, Pi.T @ x.M2)), numbers
    )
    trained = Pi.T @ x.W + E @ (block - E.T @ Pi.T @ x.W)
    k.claim("same weights after the step", k.eq(Pi @ trained, masked))
    k.claim("same network after the step", k.eq(x.H @ Pi @ trained @ x.X, x.H @ masked @ x.X))


def use_orders(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Pi Pi' = I and Pi E E'Pi' = U U'."""
    k.use("the order lists every channel once")
    k.use("the selected channels come first")
    return {}


def masked_gradient(k: Kit, x: Instance) -> None:
    """The gradient is masked and the optimizer then steps on all of W, weight decay included."""
    _, U, _ = orders(k, x)
    g = U @ U.T @ loss_gradient(x.H, x.W, x.X, x.Y)
    update = entrywise(k, "step", adaptive, (x.W, g, U @ U.T @ x.M1, U @ U.T @ x.M2), (x.rate, x.decay))
    k.claim("frozen weights stay", k.eq(update - U @ U.T @ update, x.W - U @ U.T @ x.W))


def masked_gradient_plain(k: Kit, x: Instance) -> None:
    """The same for plain steps W - rate g: masking the gradient masks the update."""
    _, U, _ = orders(k, x)
    update = x.W - x.rate * (U @ U.T @ loss_gradient(x.H, x.W, x.X, x.Y))
    k.claim("frozen weights stay", k.eq(update - U @ U.T @ update, x.W - U @ U.T @ x.W))


def unmasked(k: Kit, x: Instance) -> None:
    """A change: the full step instead of the masked one."""
    Pi, _, E = orders(k, x)
    numbers = (x.rate, x.decay)
    full = entrywise(k, "step", adaptive, (x.W, loss_gradient(x.H, x.W, x.X, x.Y), x.M1, x.M2), numbers)
    front = loss_gradient(x.H @ Pi, Pi.T @ x.W, x.X, x.Y)
    block = entrywise(
        k, "step", adaptive, tuple(E.T @ Z for Z in (Pi.T @ x.W, front, Pi.T @ x.M1, Pi.T @ x.M2)), numbers
    )
    k.claim("same weights", k.eq(Pi @ (Pi.T @ x.W + E @ (block - E.T @ Pi.T @ x.W)), full))


TRAINING: list[dict[str, Any]] = [
    {"q": 1, "m": 2, "k": 1, "T": 1, "order": (1, 0), "S": (1,), "front": (0,)},
    {"q": 2, "m": 3, "k": 2, "T": 2, "order": (2, 0, 1), "S": (2, 0), "front": (0, 1)},
]


def free_training(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Weights, two states, data, layers above."""
    m, kk = d["m"], d["k"]
    states = {"W": (m, kk), "M1": (m, kk), "M2": (m, kk)}
    return {**states, "H": (d["q"], m), "X": (kk, d["T"]), "Y": (d["q"], d["T"]), "c": (1, 2)}


def build_training(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """One training step."""
    data = {n: v for n, v in t.items() if n != "c"}
    return Instance(
        {
            **data,
            "rate": k.e(t.c, 0, 0),
            "decay": k.e(t.c, 0, 1),
            "order": d["order"],
            "S": d["S"],
            "front": d["front"],
        }
    )


def letters_training(k: Any) -> Instance:
    """A layer of any size with any data."""
    x = Instance({n: k.letter(n, "m", "k") for n in ("W", "M1", "M2")})
    x |= {"H": k.letter("H", "q", "m"), "X": k.letter("X", "k", "T"), "Y": k.letter("Y", "q", "T")}
    return Instance(
        {**x, "rate": k.number("rate"), "decay": k.number("decay"), "order": "pi", "S": "S", "front": "front"}
    )


def training(**changes: Any) -> Json:
    """Two channels that are swapped, the second one tuned; one input, one output, one token."""
    zero = [["0"], ["0"]]
    plain: Json = {
        "W": [["1"], ["0"]],
        "M1": zero,
        "M2": zero,
        "H": [["0", "0"]],
        "X": [["1"]],
        "Y": [["0"]],
        "rate": "1",
        "decay": "1",
        "order": [1, 0],
        "S": [1],
        "front": [0],
    }
    return {**plain, **changes}


BUSY = training(H=[["1", "2"]], Y=[["3"]], decay="0")
TRAIN = Setting(
    dims=TRAINING, free=free_training, build=build_training, letters=letters_training, boundary=[BUSY]
)

MASKED_EQUIVALENCE = Claim(
    id="s2ft/masked_equivalence",
    source=setting.source("3.2, implied"),
    sentence=(
        "Training the front block after reordering the channels is training the original weight masked to"
        " the selected channels."
    ),
    headline=(
        "True step by step for every entrywise optimizer when the update is masked; masking only the gradient lets "
        "weight decay move the frozen weights."
    ),
    setting=TRAIN,
    readings=(
        Reading(
            name="masked update",
            statement=masked_step,
            evidence=WordProof(use_orders),
            scope=(
                "one step from any weights and any two optimizer states of one layer with squared loss, every entrywise "
                "optimizer and every size; states are updated entrywise too, so all later steps follow by induction"
            ),
            controls=(
                Control("the full step instead", statement=unmasked, instance=BUSY),
                Control("plain steps with a masked gradient", kind="true", statement=masked_gradient_plain),
            ),
        ),
        Reading(
            name="masked gradient, then weight decay",
            sentence="Masking the gradient and stepping with decoupled weight decay leaves the frozen weights as they are.",
            statement=masked_gradient,
            evidence=Counterexample(training(X=[["0"]])),
            scope="two channels, no data",
            open_instance=training(),
            repair=Repair(
                sentence="it does for plain steps on the masked gradient (no decay, no state of the frozen weights)",
                statement=masked_gradient_plain,
                evidence=WordProof(),
                sharp=training(),
            ),
            controls=(
                Control("the full step is not the masked one", statement=unmasked, instance=BUSY),
                Control("the repair", kind="true", statement=masked_gradient_plain),
            ),
        ),
    ),
)

CLAIMS = (PARTIAL_BACKPROP, MASKED_EQUIVALENCE)

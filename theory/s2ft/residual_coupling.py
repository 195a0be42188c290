"""One reordering of the whole residual stream can be written into the weights; one at a single place cannot.

Source: S2FT, section 3.1 and Figure 3b. Residual stream of width d: the embedding writes h0 = Emb X (X holds
tokens as columns), each block writes h + W2 act(W1 c h) with a gain c (d x d, diagonal) of its norm, and the head
reads Head h. The paper says that couplings through the residual stream need an additional permutation of the
residual at run time, and therefore leaves them out.

That is so when the channels are reordered at one block only: the skip connection carries the old order, and
without a permutation at run time the output changes. It is not so for one and the same order in all of the
model: reorder the rows of Emb and of every W2, the columns of every W1 and of Head, and the gains. Then the
model is the same function, with nothing to do at run time (RMSNorm divides by a norm, which no order changes).
What stays true of the paper's choice: different blocks cannot have different orders of the stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, WordProof
from theory.kits.entrywise import entrywise
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting

BLOCKS = (("G1", "Up1", "Down1"), ("G2", "Up2", "Down2"))


def bent(z: Any) -> Any:
    """An activation: z + z^2; letters take any other."""
    return z + z * z


def model(
    k: Kit, x: Instance, emb: Mat, gains: Sequence[Mat], ups: Sequence[Mat], downs: Sequence[Mat], head: Mat
) -> Mat:
    """Two residual blocks between an embedding and a head; x.c1, x.c2 stand for 1/rms of a norm."""
    h = emb @ x.X
    for gain, up, down, scale in zip(gains, ups, downs, (x.c1, x.c2), strict=True):
        h = h + down @ entrywise(k, "act", bent, (scale * (up @ gain @ h),))
    output: Mat = head @ h
    return output


def plain(k: Kit, x: Instance) -> Mat:
    """The model as it is."""
    return model(
        k,
        x,
        x.Emb,
        [x[g] for g, _, _ in BLOCKS],
        [x[u] for _, u, _ in BLOCKS],
        [x[w] for _, _, w in BLOCKS],
        x.Head,
    )


def everywhere(k: Kit, x: Instance, Pi: Mat) -> Mat:
    """The model with the stream reordered in every weight."""
    return model(
        k,
        x,
        Pi.T @ x.Emb,
        [Pi.T @ x[g] @ Pi for g, _, _ in BLOCKS],
        [x[u] @ Pi for _, u, _ in BLOCKS],
        [Pi.T @ x[w] for _, _, w in BLOCKS],
        x.Head @ Pi,
    )


def order(k: Kit, x: Instance) -> Mat:
    """The permutation matrix of the stream, and the hypothesis that it is one."""
    d = x.Emb.shape[0]
    Pi: Mat = k.name(r"\Pi", k.cols(k.eye(d), x.order))
    k.given("the order lists every channel once", k.eq(Pi @ Pi.T, k.eye(d)))
    return Pi


def needed(k: Kit, x: Instance) -> None:
    """As printed, for one order of the whole stream: written into the weights alone, it changes the output."""
    Pi = order(k, x)
    d = x.Emb.shape[0]
    k.given("the order is not the identity", k.lt(k.num(0), k.fro2(Pi - k.eye(d))))
    k.claim("the output changes", k.lt(k.num(0), k.fro2(everywhere(k, x, Pi) - plain(k, x))))


def not_needed(k: Kit, x: Instance) -> None:
    """The opposite: the model is the same function, and the norm of the stream too."""
    Pi = order(k, x)
    k.claim("same output", k.eq(everywhere(k, x, Pi), plain(k, x)))
    k.claim("same norm of the stream", k.eq(k.fro2(Pi.T @ x.Emb @ x.X), k.fro2(x.Emb @ x.X)))


def proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Pi Pi' = I."""
    k.use("the order lists every channel once")
    return {}


def one_place(k: Kit, x: Instance, stream: Mat, Pi: Mat) -> Mat:
    """Block 1 writes and block 2 reads in the order of Pi; `stream` is what the skip connection carries."""
    inner = entrywise(k, "act", bent, (x.c1 * (x.Up1 @ x.G1 @ x.Emb @ x.X),))
    h = stream + Pi.T @ x.Down1 @ inner
    total: Mat = h + Pi.T @ x.Down2 @ entrywise(k, "act", bent, (x.c2 * (x.Up2 @ x.G2 @ Pi @ h),))
    return total


def with_run_time_step(k: Kit, x: Instance) -> None:
    """One place only: the output is the reordered one if the skip connection is permuted at run time."""
    Pi = order(k, x)
    h = x.Emb @ x.X
    same = one_place(k, x, h, k.eye(x.Emb.shape[0]))
    k.claim("with the step", k.eq(x.Head @ (Pi @ one_place(k, x, Pi.T @ h, Pi)), x.Head @ same))


def without_run_time_step(k: Kit, x: Instance) -> None:
    """A change: the skip connection keeps its order."""
    Pi = order(k, x)
    h = x.Emb @ x.X
    same = one_place(k, x, h, k.eye(x.Emb.shape[0]))
    k.claim("without the step", k.eq(x.Head @ (Pi @ one_place(k, x, h, Pi)), x.Head @ same))


SIZES: list[dict[str, Any]] = [
    {"d": 2, "n": 1, "v": 1, "T": 1, "order": (1, 0)},
    {"d": 3, "n": 2, "v": 2, "T": 1, "order": (1, 2, 0)},
]


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Embedding, two blocks, head and inputs; gains as rows."""
    w, n, v, T = d["d"], d["n"], d["v"], d["T"]
    shapes = {"Emb": (w, v), "X": (v, T), "Head": (v, w), "c": (1, 2)}
    for i in ("1", "2"):
        shapes |= {f"G{i}": (1, w), f"Up{i}": (n, w), f"Down{i}": (w, n)}
    return shapes


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """A model with diagonal gains."""
    w = d["d"]
    gains = {f"G{i}": k.diagm(t[f"G{i}"], w, w) for i in ("1", "2")}
    return Instance(
        {
            **{n: v for n, v in t.items() if n != "c"},
            **gains,
            "c1": k.e(t.c, 0, 0),
            "c2": k.e(t.c, 0, 1),
            "order": d["order"],
        }
    )


def letters(k: Any) -> Instance:
    """A model of any width."""
    x = Instance(Emb=k.letter("Emb", "d", "v"), X=k.letter("X", "v", "T"), Head=k.letter("Head", "v", "d"))
    for i in ("1", "2"):
        x[f"G{i}"] = k.letter(f"G{i}", "d", "d", symmetric=False)
        x[f"Up{i}"] = k.letter(f"Up{i}", f"n{i}", "d")
        x[f"Down{i}"] = k.letter(f"Down{i}", "d", f"n{i}")
        x[f"c{i}"] = k.number(f"c{i}")
    x["order"] = "pi"
    return x


def two_channels(**changes: Any) -> Json:
    """A stream of two channels that are swapped; the blocks write nothing."""
    eye, row, column = [["1", "0"], ["0", "1"]], [["1", "0"]], [["0"], ["0"]]
    model: Json = {
        "Emb": [["1"], ["0"]],
        "X": [["1"]],
        "Head": row,
        "G1": eye,
        "G2": eye,
        "Up1": row,
        "Up2": row,
        "Down1": column,
        "Down2": column,
        "c1": "1",
        "c2": "1",
        "order": [1, 0],
    }
    return {**model, **changes}


BUSY = two_channels(
    Down1=[["1"], ["2"]],
    Down2=[["3"], ["1"]],
    Emb=[["1"], ["2"]],
    G1=[["1", "0"], ["0", "2"]],
    Up2=[["1", "-1"]],
)
NOTHING = [["0", "0"], ["0", "0"]]
SILENT = two_channels(
    Emb=[["0"], ["0"]],
    X=[["0"]],
    Head=[["0", "0"]],
    G1=NOTHING,
    G2=NOTHING,
    Up1=[["0", "0"]],
    Up2=[["0", "0"]],
    c1="0",
    c2="0",
)  # all weights zero: the smallest model, which no order can change

SETTING = Setting(dims=SIZES, free=free, build=build, letters=letters, boundary=[two_channels(), BUSY])

CLAIM = Claim(
    id="s2ft/residual_coupling",
    source=setting.source("3.1 and Figure 3b"),
    sentence="Reordering channels that are coupled through the residual stream needs an extra permutation at run time.",
    headline=(
        "True for an order at one place of the stream; false for one order of the whole stream, which can be "
        "written into all weights and costs nothing at run time."
    ),
    defect="missing hypothesis",
    setting=SETTING,
    readings=(
        Reading(
            name="one order of the whole stream",
            sentence="No order of the residual stream can be written into the weights alone.",
            statement=needed,
            evidence=Counterexample(SILENT),
            scope="a stream of two channels with two blocks; any weights do, zeros are the smallest",
            open_instance=BUSY,
            repair=Repair(
                sentence=(
                    "every order of the stream that is applied to the embedding, to all that reads from the stream "
                    "and to all that writes into it, gains included, leaves the model the same function"
                ),
                statement=not_needed,
                evidence=WordProof(proof),
            ),
            controls=(
                Control(
                    "the run-time step left out at one place only",
                    statement=without_run_time_step,
                    instance=BUSY,
                ),
                Control("the order in every weight", kind="true", statement=not_needed),
            ),
        ),
        Reading(
            name="an order at one place",
            sentence=(
                "An order that one block writes and the next one reads leaves the function as it is when the skip "
                "connection is permuted at run time, and changes it when it is not."
            ),
            statement=with_run_time_step,
            evidence=WordProof(proof),
            scope="every width; that the step cannot be left out is shown by the false control's instance",
            controls=(
                Control("without the step at run time", statement=without_run_time_step, instance=BUSY),
                Control("one order in every weight", kind="true", statement=not_needed),
            ),
        ),
    ),
)

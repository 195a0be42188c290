"""When c3LA starts a chain: Algorithm 3 as printed for every 1 <= k <= T, and Proposition 1.

Source: LoRA past, present, future, Algorithm 3 (shapes there: W m x n, A r x n) and Proposition 1. Steps t = 1, ..., T,
k chains, p = floor(T/k). Printed: at every t divisible by p the counter c grows, B is merged, and A becomes
[0_{r x cr} | I_r | 0_{r x (n - r - cr)}]. Block j are columns j r, ..., j r + r - 1; n = k r.

`alg_3_schedule`: since k p <= T, the counter reaches k at t = k p whatever T and k are, and block k lies outside the
matrix (k = 1, T = 1 is the smallest case). Block 0 gets p - 1 steps (none for T < 2k), the last counter value often
one. Line 16 chooses among p steps of chains 1, ..., k; chain 0 is left out, and chain k has fewer steps. If the shift
wraps around, as "circulant" suggests, each block is trained for every k <= T, and exactly T/k steps if k divides T.
Repaired: chains start at t = 1 + j p for j = 1, ..., k - 1.

`prop_1`: with the printed schedule no step may be left for block 0; with chains of floor(E/k) epochs from the start
every column is trainable if and only if E >= k, in layers of at most k r columns; layers of the network other than
the first need not be so narrow. "Updated" is less than "trainable": an element changes by -gamma (alpha/r)^2 times the
sum of its gradient over the chain of its block, which may be zero.

Section 2.3 says that the identity shifts to the left; its matrices and Algorithm 3 move it to the right.
"""

from __future__ import annotations

from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, WordProof
from theory.lora_variants.chains import counters, everywhere, printed_starts, repaired_starts, run
from theory.lora_variants.setting import source
from theory.protocol import Instance, Kit

RANGE, DIVIDES = "1 <= k <= T", "k divides T"
LONG, WIDTH = "E >= k", "at most k r columns"
UP_TO = 12  # steps of the grid


# -- alg_3_schedule -----------------------------------------------------------------------------------------------
def in_order(k: Kit, x: Instance) -> None:
    """1 <= k <= T."""
    k.given(RANGE, k.all_(k.le(k.num(1), k.num(x.chains)), k.le(k.num(x.chains), k.num(x.steps))))


def block_steps(x: Instance, repaired: bool, wrap: bool = False) -> dict[int, int]:
    """Steps that each block gets, by block; a block beyond k - 1 is listed too unless the shift wraps around."""
    starts = (repaired_starts if repaired else printed_starts)(x.steps, x.chains)
    seen = dict.fromkeys(range(x.chains), 0)
    for c in counters(x.steps, starts):
        block = c % x.chains if wrap else c
        seen[block] = seen.get(block, 0) + 1
    return seen


def inside(k: Kit, x: Instance, repaired: bool) -> None:
    """The last block that is asked for ends within the n = k r columns."""
    in_order(k, x)
    last = max(block_steps(x, repaired))
    k.claim("(c + 1) r <= n", k.le(k.num((last + 1) * x.r), k.num(x.chains * x.r)))


def printed_inside(k: Kit, x: Instance) -> None:
    """As printed."""
    inside(k, x, repaired=False)


def repaired_inside(k: Kit, x: Instance) -> None:
    """Repaired; every block has floor(T/k) steps at least."""
    inside(k, x, repaired=True)
    for j, count in block_steps(x, repaired=True).items():
        k.claim(f"steps of block {j}", k.le(k.num(x.steps // x.chains), k.num(count)))


def always_outside(k: Kit, x: Instance) -> None:
    """The printed counter reaches k."""
    in_order(k, x)
    k.claim("k <= last c", k.le(k.num(x.chains), k.num(max(block_steps(x, repaired=False)))))


def reaches_next(k: Kit, x: Instance) -> None:
    """Control: the counter goes beyond k."""
    in_order(k, x)
    k.claim("k < last c", k.lt(k.num(x.chains), k.num(max(block_steps(x, repaired=False)))))


def equal_shares(k: Kit, x: Instance, repaired: bool, wrap: bool) -> None:
    """Each of the blocks 0, ..., k - 1 is trained for T/k steps."""
    in_order(k, x)
    k.given(DIVIDES, k.eq(k.num(x.steps % x.chains), k.num(0)))
    share = block_steps(x, repaired, wrap)
    for j in range(x.chains):
        k.claim(f"steps of block {j}", k.eq(k.num(share[j]), k.num(x.steps // x.chains)))


def printed_shares(k: Kit, x: Instance) -> None:
    """As printed, matrices wide enough for every block that is asked for."""
    equal_shares(k, x, repaired=False, wrap=False)


def circulant_shares(k: Kit, x: Instance) -> None:
    """The printed schedule, the shift wraps around."""
    equal_shares(k, x, repaired=False, wrap=True)


def repaired_shares(k: Kit, x: Instance) -> None:
    """The repaired schedule."""
    equal_shares(k, x, repaired=True, wrap=False)


def circulant_cover(k: Kit, x: Instance) -> None:
    """A weaker statement: with the shift wrapping around every block gets a step, for every k <= T."""
    in_order(k, x)
    for j, count in block_steps(x, repaired=False, wrap=True).items():
        k.claim(f"block {j} is trained", k.le(k.num(1), k.num(count)))


def printed_choice(k: Kit, x: Instance) -> None:
    """Line 16: chains c = 1, ..., k have floor(T/k) steps to choose from."""
    in_order(k, x)
    steps = block_steps(x, repaired=False)
    for c in range(1, x.chains + 1):
        k.claim(f"steps of chain {c}", k.le(k.num(x.steps // x.chains), k.num(steps.get(c, 0))))


def merged_steps(k: Kit, x: Instance) -> None:
    """A weaker statement: the steps of all chains add up to T."""
    in_order(k, x)
    k.claim("steps", k.eq(k.num(sum(block_steps(x, repaired=False).values())), k.num(x.steps)))


def schedule(steps: int, chains: int, r: int = 1) -> Json:
    """T, k and r."""
    return {"steps": steps, "chains": chains, "r": r}


GRID = [schedule(T, k, r) for T in range(1, UP_TO + 1) for k in range(1, T + 1) for r in (1, 2)]
SCHEDULES = Setting(
    dims=[{**d} for d in GRID if d["r"] == 1 and d["steps"] <= 4],
    free=lambda d: {"none": (1, 1)},
    build=lambda k, t, d: Instance(d),
)
SHIFTED = Repair(
    sentence="with chains starting at t = 1 + j floor(T/k), j < k, all blocks lie inside and get floor(T/k) steps or more",
    statement=repaired_inside,
    evidence=everywhere(repaired_inside, GRID),
    sharp=schedule(2, 2),
)
SHORTER = Control(
    "the repair with right sides smaller by 1/50",
    statement=repaired_inside,
    tighten="1/50",
    instance=schedule(2, 2),
)
ADD_UP = Control("the steps of all chains add up to T", kind="true", statement=merged_steps)


# -- prop_1 ---------------------------------------------------------------------------------------------------------
def covered(k: Kit, x: Instance, repaired: bool) -> None:
    """Every column of the layer is trained in at least one epoch."""
    share = block_steps(Instance({**x, "steps": x.epochs}), repaired)
    for column in range(x.width):
        k.claim(f"column {column}", k.le(k.num(1), k.num(share.get(column // x.r, 0))))


def enough_epochs(k: Kit, x: Instance) -> None:
    """E >= k."""
    k.given(LONG, k.le(k.num(x.chains), k.num(x.epochs)))


def whole_width(k: Kit, x: Instance) -> None:
    """The layer has d_in = k r columns."""
    k.given("d_in = k r", k.eq(k.num(x.width), k.num(x.chains * x.r)))


def printed_epochs(k: Kit, x: Instance) -> None:
    """Algorithm 3's rule with epochs for steps."""
    enough_epochs(k, x)
    whole_width(k, x)
    covered(k, x, repaired=False)


def plain_epochs(k: Kit, x: Instance) -> None:
    """K chains of floor(E/k) epochs one after another, the last with the rest, no matter how few epochs."""
    whole_width(k, x)
    covered(k, x, repaired=True)


def every_layer(k: Kit, x: Instance) -> None:
    """The same for layers of any width."""
    enough_epochs(k, x)
    covered(k, x, repaired=True)


def covered_repaired(k: Kit, x: Instance) -> None:
    """E >= k, a layer of at most k r columns, chains one after another from the first epoch."""
    enough_epochs(k, x)
    k.given(WIDTH, k.le(k.num(x.width), k.num(x.chains * x.r)))
    covered(k, x, repaired=True)


def first_block(k: Kit, x: Instance) -> None:
    """A weaker statement: the first column is trained from the first epoch on."""
    whole_width(k, x)
    enough_epochs(k, x)
    share = block_steps(Instance({**x, "steps": x.epochs}), repaired=True)
    k.claim("column 0", k.le(k.num(1), k.num(share[0])))


def layer(epochs: int, chains: int, width: int, r: int = 1) -> Json:
    """E, k, r and the columns of the layer."""
    return {"epochs": epochs, "chains": chains, "r": r, "width": width}


LAYERS = [
    layer(E, k, m, r)
    for E in range(1, UP_TO + 1)
    for k in range(1, E + 1)
    for r in (1, 2)
    for m in sorted({1, k * r})
]
EPOCHS = Setting(
    dims=[layer(E, k, m) for E in (1, 2, 3) for k in (1, 2, 3) for m in (k, k + 1)],
    free=lambda d: {"none": (1, 1)},
    build=lambda k, t, d: Instance(d),
)
COVERED = Repair(
    sentence=(
        "if E >= k, k chains of floor(E/k) epochs from the first epoch on, the last with the rest, train every column "
        "of a layer of at most k r"
    ),
    statement=covered_repaired,
    evidence=everywhere(covered_repaired, LAYERS),
    necessary={LONG: layer(1, 2, 2), WIDTH: layer(1, 1, 2)},
    sharp=layer(2, 2, 2),
)
FEWER = Control(
    "the repair with right sides smaller by 1/50",
    statement=covered_repaired,
    tighten="1/50",
    instance=layer(2, 2, 2),
)
FIRST = Control("the first column", kind="true", statement=first_block)


def changed(k: Kit, x: Instance) -> None:
    """The weights differ after the run."""
    k.given("gamma > 0", k.lt(k.num(0), x.gamma))
    k.given("alpha > 0", k.lt(k.num(0), x.scale))
    *_, (_, after, _) = run(k, x, repaired_starts(x.steps, x.chains))
    k.claim("changed", k.lt(k.num(0), k.fro2(after - x.W)))


def summed_gradient(k: Kit, x: Instance) -> None:
    """The whole change is -gamma c^2 times the sum over the run of grad L(W_t) A_t'A_t."""
    states = list(run(k, x, repaired_starts(x.steps, x.chains)))
    total = k.zeros(*x.W.shape)
    for before, _, U in states:
        total = total + before @ x.Q @ U @ U.T
    k.claim("change", k.eq(states[-1][1], x.W - (x.gamma * x.scale * x.scale) * total))


def build_weights(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Any start, symmetric curvature, step and factor."""
    numbers = {name: 1 / (1 + k.sq(k.e(t[name], 0, 0))) for name in ("gamma", "scale")}
    return Instance({**d, **numbers, "W": t.W, "Q": t.C + t.C.T})


def letters_weights(k: Any) -> Instance:
    """Two chains of one step each, any sizes; longer chains only repeat the step."""
    W, Q = k.letter("W", "n", "m"), k.letter("Q", "m", "m")
    numbers = {name: k.number(name) for name in ("gamma", "scale")}
    return Instance({**numbers, "W": W, "Q": Q, "r": "r", "steps": 2, "chains": 2, "offsets": ("1", "2")})


def weight(start: str) -> Json:
    """The loss w^2 / 2, one step of length 1."""
    plain: Json = {"W": [[start]], "Q": [["1"]], "gamma": "1/2", "scale": "1"}
    return {**plain, "r": 1, "steps": 1, "chains": 1, "offsets": [0]}


WEIGHTS = Setting(
    dims=[
        {"r": 1, "steps": 1, "chains": 1, "offsets": (0,)},
        {"r": 1, "steps": 4, "chains": 2, "offsets": (0, 1)},
    ],
    free=lambda d: {
        "W": (2, d["chains"]),
        "C": (d["chains"], d["chains"]),
        "gamma": (1, 1),
        "scale": (1, 1),
    },
    build=build_weights,
    letters=letters_weights,
    boundary=[weight("1")],
)

CLAIMS = (
    Claim(
        id="lora_variants/alg_3_schedule",
        source=source("Algorithm 3, lines 4-9 and 16"),
        sentence="c3LA trains the blocks 0, ..., k - 1 of the n = k r columns one after another.",
        headline=(
            "For every 1 <= k <= T the printed counter reaches k, a block outside the matrix, and block 0 gets one step "
            "less than its share; right if the shift wraps around or the first chain is not cut short."
        ),
        defect="misprint",
        setting=SCHEDULES,
        readings=(
            Reading(
                name="all blocks inside",
                sentence="For n = k r every A_0 of the run has its identity inside the n columns.",
                statement=printed_inside,
                evidence=Counterexample(schedule(1, 1)),
                scope="T = k = r = 1; it fails for every 1 <= k <= T",
                repair=SHIFTED,
                controls=(SHORTER, ADD_UP),
            ),
            Reading(
                name="never inside",
                sentence="For every 1 <= k <= T the printed counter reaches k.",
                statement=always_outside,
                evidence=everywhere(always_outside, GRID),
                scope=f"T <= {UP_TO}; for every T, since step k floor(T/k) <= T is divisible by floor(T/k)",
                sharp=schedule(1, 1),
                controls=(
                    Control("the counter goes beyond k", statement=reaches_next, instance=schedule(1, 1)),
                    ADD_UP,
                ),
            ),
            Reading(
                name="equal shares",
                sentence="If k divides T each of the blocks 0, ..., k - 1 is trained for T/k steps, n large enough.",
                statement=printed_shares,
                evidence=Counterexample(schedule(1, 1)),
                scope="T = k = 1: block 0 gets no step; always one step less than T/k",
                repair=Repair(
                    sentence="it is when chains start at t = 1 + j T/k, j < k",
                    statement=repaired_shares,
                    evidence=everywhere(repaired_shares, GRID),
                    necessary={DIVIDES: schedule(3, 2)},
                    sharp=schedule(2, 2),
                ),
                controls=(SHORTER, ADD_UP),
            ),
            Reading(
                name="circulant",
                sentence=(
                    "If the identity wraps around, n = k r and k divides T, each of the k blocks is trained T/k steps."
                ),
                statement=circulant_shares,
                evidence=everywhere(circulant_shares, GRID),
                scope=f"T <= {UP_TO}; for every T = k p: block 0 gets p - 1 steps first and the last one",
                controls=(
                    Control(
                        "right side larger by 1/1000",
                        tighten="1/1000",
                        instance=schedule(2, 2),
                    ),
                    Control("k does not divide T", drop=(DIVIDES,), instance=schedule(3, 2)),
                    Control("every block gets a step", kind="true", statement=circulant_cover),
                ),
            ),
            Reading(
                name="the choice of line 16",
                sentence="Each of the chains c = 1, ..., k has the floor(T/k) steps among which line 16 chooses.",
                statement=printed_choice,
                evidence=Counterexample(schedule(2, 1)),
                scope="T = 2, k = 1: chain 1 has one step; the steps of chain 0 are never chosen",
                repair=SHIFTED,
                controls=(SHORTER, ADD_UP),
            ),
        ),
    ),
    Claim(
        id="lora_variants/prop_1",
        source=source("Proposition 1"),
        sentence="If d_in = k r, a chain every floor(E/k) epochs makes c3LA update each element of W_0.",
        headline=(
            "True for trainable elements if E >= k, chains start with the first epoch and the layer has at most k r "
            "columns; false for the printed schedule, for other widths, and for updated in the place of trainable."
        ),
        defect="missing hypothesis",
        setting=EPOCHS,
        uses=("lora_variants/alg_3_schedule",),
        readings=(
            Reading(
                name="schedule of Algorithm 3",
                sentence="With the rule of Algorithm 3 in epochs and E >= k every column is trained in some epoch.",
                statement=printed_epochs,
                evidence=Counterexample(layer(1, 1, 1)),
                scope="E = k = r = 1: the only epoch goes to block 1; block 0 gets none for every E < 2 k",
                repair=COVERED,
                controls=(FEWER, FIRST),
            ),
            Reading(
                name="chains from the first epoch, any E",
                sentence="k chains of floor(E/k) epochs, the last with the rest, train every column in some epoch.",
                statement=plain_epochs,
                evidence=Counterexample(layer(1, 2, 2)),
                scope="E = 1, k = 2: floor(E/k) = 0",
                repair=COVERED,
                controls=(FEWER, FIRST),
            ),
            Reading(
                name="every layer",
                sentence="The same, E >= k, for each layer of the network, of whatever width.",
                statement=every_layer,
                evidence=Counterexample(layer(1, 1, 2)),
                scope="a layer of two columns where d_in = k r = 1",
                repair=COVERED,
                controls=(FEWER, FIRST),
            ),
            Reading(
                name="updated as changed",
                sentence="Every element of a trainable column has another value after the run.",
                statement=changed,
                setting=WEIGHTS,
                evidence=Counterexample(weight("0")),
                scope="one weight at the minimum of w^2 / 2; such starts are exceptional",
                repair=Repair(
                    sentence="its change is -gamma (alpha/r)^2 times the sum of its gradient over the chain of its block",
                    statement=summed_gradient,
                    evidence=WordProof(),
                    sharp=weight("1"),
                ),
                controls=(
                    Control(
                        "the repair's right side larger by 1/1000",
                        statement=summed_gradient,
                        tighten="1/1000",
                        instance=weight("1"),
                    ),
                    Control("the repair", kind="true", statement=summed_gradient),
                ),
            ),
        ),
    ),
)

"""Is what PEFT reaches in function space strictly less than what full tuning reaches?

Source: Theorem 1 (second-hand): the functions that PEFT reaches are a strict subset of those that full tuning reaches.
That they are a subset at all is the matter of `thm_1_inclusion`.

- Not for over-parameterised models: f(x) = w2 w1 x with only w1 tuned reaches every function that tuning both reaches
  (w2 != 0). Nor on few inputs: for N <= r inputs X the factors B = Delta X, A = X^+ give B A X = Delta X.
- It is strict for one linear layer on inputs X when some reachable change has rank(Delta X) > r: the distance of B A X
  from Delta X is at least the energy of the singular values of Delta X beyond r.
- It is strict for one attention head and for one hidden layer on enough inputs: the derivative of the outputs in all
  weights then has a rank, found exactly at a rational point, above the dimension of what the method can reach at all,
  for LoRA the sum of r (m + n - r) over its matrices.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Custom, WordProof
from theory.kits import perturbation
from theory.peft_vs_fft import finite_inputs, image_size
from theory.peft_vs_fft.setting import source
from theory.protocol import Instance, Kit

# -- strictness ---------------------------------------------------------------------------------------------------------
GRID = (Fraction(-2), Fraction(1), Fraction(3))


def sections() -> Json:
    """For weights w1, w2 and targets c the tuned change of w1 that gives w2 (w1 + phi) = c."""
    rows = [[str(v) for v in (w1, w2, c, c / w2 - w1)] for w1, w2, c in product(GRID, repeat=3)]
    return {"rows": rows}


def every_target_is_reached(payload: Json) -> str | None:
    """Phi = c / w2 - w1 reaches c; 3^3 points decide the identity w2 (w1 + phi) = c."""
    if {tuple(Fraction(v) for v in row[:3]) for row in payload["rows"]} != set(product(GRID, repeat=3)):
        return "the points are not the grid of 3^3"
    for row in payload["rows"]:
        w1, w2, c, phi = (Fraction(v) for v in row)
        if phi != c / w2 - w1 or w2 * (w1 + phi) != c:
            return f"the target {c} is not reached from w1 = {w1}, w2 = {w2}"
    return None


def _wrong_sections() -> Json:
    payload = sections()
    payload["rows"] = [[*row[:3], row[2]] for row in payload["rows"]]
    return payload


def distance(k: Kit, x: Instance) -> None:
    """One linear layer on inputs X (p x N): how near B A X comes to Delta X."""
    wanted = x.Delta @ x.X
    k.claim("tail <= distance", k.le(k.tail2(wanted, x.r), k.fro2(wanted - x.B @ x.A @ x.X)))


def distance_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """B (A X) has rank at most r."""
    return {"tail <= distance": [perturbation.eckart_young_product(k, x.Delta @ x.X, x.r, x.B, x.A @ x.X)]}


def non_negative(k: Kit, x: Instance) -> None:
    """A weaker statement: the distance is not negative."""
    k.claim("distance >= 0", k.le(k.num(0), k.fro2(x.Delta @ x.X - x.B @ x.A @ x.X)))


LINE: Json = {
    "Delta": [["2", "0"], ["0", "1"]],
    "X": [["1", "0"], ["0", "1"]],
    "B": [["2"], ["0"]],
    "A": [["1", "0"]],
    "r": 1,
}
LAYER = Setting(
    dims=[
        {"q": 1, "p": 1, "N": 1, "r": 1},
        {"q": 2, "p": 2, "N": 1, "r": 1},
        {"q": 2, "p": 2, "N": 2, "r": 1},
        {"q": 3, "p": 3, "N": 4, "r": 2},
    ],
    free=lambda d: {
        "Delta": (d["q"], d["p"]),
        "X": (d["p"], d["N"]),
        "B": (d["q"], d["r"]),
        "A": (d["r"], d["p"]),
    },
    build=lambda k, t, d: Instance(Delta=t.Delta, X=t.X, B=t.B, A=t.A, r=d["r"]),
    letters=lambda k: Instance(
        Delta=k.letter("Delta", "q", "p"),
        X=k.letter("X", "p", "N"),
        B=k.letter("B", "q", "r"),
        A=k.letter("A", "r", "p"),
        r="r",
    ),
    boundary=[LINE],
)

FEW = Setting(
    dims=[
        {"q": 1, "p": 1, "N": 1, "r": 1},
        {"q": 2, "p": 3, "N": 1, "r": 1},
        {"q": 3, "p": 3, "N": 2, "r": 2},
    ],
    free=LAYER.free,
    build=LAYER.build,
    letters=LAYER.letters,
    boundary=[{**{n: [["1"]] for n in ("Delta", "X", "B", "A")}, "r": 1}],
)


def few_inputs(k: Kit, x: Instance) -> None:
    """On at most r inputs B A X stays away from Delta X all the same."""
    k.given("N <= r", k.le(k.num(x.X.shape[1]), k.num(x.r)))
    k.claim("distance > 0", k.lt(k.num(0), k.fro2(x.Delta @ x.X - x.B @ x.A @ x.X)))


def few_inputs_reached(k: Kit, x: Instance) -> None:
    """B = Delta X and A = X^+ have the inner size N <= r and reach Delta on the inputs."""
    k.given("N <= r", k.le(k.num(x.X.shape[1]), k.num(x.r)))
    k.claim("reached", k.eq((x.Delta @ x.X) @ k.pinv(x.X) @ x.X, x.Delta @ x.X))


def halves(k: Kit, x: Instance) -> None:
    """Wrong: half of these factors reaches Delta too."""
    k.claim("reached", k.eq(k.num("1/2") * ((x.Delta @ x.X) @ k.pinv(x.X) @ x.X), x.Delta @ x.X))


# -- networks on finitely many inputs ----------------------------------------------------------------------------------
def entries(rows: int, columns: int, stream: str, values: Sequence[int]) -> list[list[int]]:
    """Fixed small integers, taken from a hash."""
    source = b"".join(hashlib.sha256(f"{rows} {columns} {stream} {i}".encode()).digest() for i in range(2))
    return [[values[source[i * columns + j] % len(values)] for j in range(columns)] for i in range(rows)]


SMALL, ODD = (
    (-2, -1, 0, 1, 2),
    (-3, -1, 1, 3),
)  # sums of three products of odd numbers are odd, hence not zero
SHAPES_OF = {
    "attention": {"Wq": (3, 4), "Wk": (3, 4), "Wv": (3, 4), "Wo": (4, 3)},
    "hidden layer": {"W1": (4, 3), "W2": (2, 4)},
}
COUNTS = {"attention": (1, 2, 3), "hidden layer": (2, 4, 6, 8, 10)}


def most(network: str, r: int) -> dict[str, int]:
    """What the functions of each method can have as dimension at most: numbers less what moves nothing."""
    shapes = SHAPES_OF[network]
    lora = sum(image_size.dimension(m, n, r) for m, n in shapes.values())
    if network == "attention":
        some = sum(image_size.dimension(*shapes[name], r) for name in ("Wq", "Wv"))
        return {
            "LoRA or AdaLoRA, all matrices": lora,
            "LoRA or AdaLoRA, queries and values": some,
            "(IA)^3": 2 * shapes["Wk"][0],
            "BitFit": 3 * shapes["Wq"][0] + shapes["Wo"][0],
        }
    return {
        "LoRA or AdaLoRA, all matrices": lora,
        "(IA)^3": shapes["W1"][0],
        "BitFit": shapes["W1"][0] + shapes["W2"][0],
    }


def network_ranks(network: str, r: int = 1) -> Json:
    """Weights, inputs, and for some numbers of inputs the ranks of the derivative in all weights and in the factors."""
    shapes, values = SHAPES_OF[network], SMALL if network == "attention" else ODD
    W = {name: entries(m, n, name, values) for name, (m, n) in shapes.items()}
    factors = {
        name: [entries(m, r, f"B of {name}", SMALL), entries(r, n, f"A of {name}", SMALL)]
        for name, (m, n) in shapes.items()
    }
    wide = (
        3 if network == "attention" else 1
    )  # tokens of a sequence; an input of the hidden layer is a column
    d = 4 if network == "attention" else 3
    inputs = [entries(d, wide, f"input {i}", values) for i in range(COUNTS[network][-1])]
    payload: Json = {"network": network, "r": r, "weights": W, "factors": factors, "inputs": inputs}
    rows = [{"inputs": N, **found_ranks(payload, N)} for N in COUNTS[network]]
    last = {
        name: next((row["inputs"] for row in rows if row["full"] > size), None)
        for name, size in most(network, r).items()
    }
    return {**payload, "rows": rows, "strict from": last}


def found_ranks(payload: Json, N: int) -> Json:
    """Outputs, and the two ranks, on the first N inputs."""
    D = finite_inputs.derivative(payload["network"], payload["weights"], payload["inputs"][:N])
    full = [column for columns in D.values() for column in columns]
    lora = [
        column
        for name, columns in D.items()
        for column in finite_inputs.through_factors(columns, *payload["factors"][name])
    ]
    return {"outputs": len(full[0]), "full": finite_inputs.rank(full), "LoRA": finite_inputs.rank(lora)}


def ranks_exceed(payload: Json) -> str | None:
    """Every rank is found again, and on enough inputs that of full tuning exceeds what each method can have.

    The set that full tuning reaches on the inputs contains a piece of the dimension of its rank (rank theorem); the set
    of a method is a smooth image of finitely many manifolds of at most the dimension in `most`. The smaller cannot
    cover the larger.
    """
    network, r = payload["network"], payload["r"]
    for name, (m, n) in SHAPES_OF[network].items():
        shapes = [(len(A), len(A[0])) for A in (payload["weights"][name], *payload["factors"][name])]
        if shapes != [(m, n), (m, r), (r, n)]:
            return f"{name} or its factors have the shapes {shapes}"
    for row in payload["rows"]:
        found = found_ranks(payload, row["inputs"])
        if {"inputs": row["inputs"], **found} != row:
            return f"on {row['inputs']} inputs the ranks are {found}"
    for name, size in most(network, r).items():
        start = payload["strict from"][name]
        if start is None:
            return f"{name} may have the dimension {size}, no less than full tuning on these inputs"
        if next(row["full"] for row in payload["rows"] if row["inputs"] == start) <= size:
            return f"{name} is not told from full tuning on {start} inputs"
    return None


def _network(network: str, name: str, sentence: str, scope: str) -> Reading:
    return Reading(
        name=name,
        sentence=sentence,
        evidence=Custom(
            status="proved_within",
            produce=lambda: network_ranks(network),
            verify=ranks_exceed,
            about="exact ranks of the derivative in the weights at a rational point, against dimensions",
            reason="one network of each kind; more inputs only add to what tells the two apart",
        ),
        scope=scope,
        controls=(
            Control("rank 2", check=lambda: ranks_exceed(network_ranks(network, 2)) is not None),
            Control("rank 1", kind="true", check=lambda: ranks_exceed(network_ranks(network)) is not None),
        ),
    )


FUNCTION_SPACE = Claim(
    id="peft_vs_fft/thm_1_function_space",
    source=source("Theorem 1, strict subset of functions"),
    sentence="The functions that PEFT reaches are a strict subset of those that full tuning reaches.",
    headline=(
        "False as a general statement: a two-layer linear model tuned in one layer loses nothing, nor does LoRA on r "
        "inputs; strict on enough inputs for a linear layer, an attention head and a hidden layer."
    ),
    defect="missing hypothesis",
    uses=("peft_vs_fft/thm_1_null", "peft_vs_fft/thm_1_inclusion"),
    readings=(
        Reading(
            name="every model",
            evidence=Custom(
                status="refuted",
                produce=sections,
                verify=every_target_is_reached,
                about="a model of two weights with the tuned change that reaches each target",
            ),
            scope="f(x) = w2 w1 x with w2 != 0, w1 tuned against both tuned",
            controls=(
                Control("phi = c", check=lambda: every_target_is_reached(_wrong_sections()) is not None),
                Control(
                    "the sections", kind="true", check=lambda: every_target_is_reached(sections()) is not None
                ),
            ),
        ),
        Reading(
            name="one linear layer on finitely many inputs",
            sentence="B A X stays away from Delta X by at least the tail of Delta X beyond r.",
            statement=distance,
            setting=LAYER,
            evidence=WordProof(distance_proof),
            scope="every size; strict as soon as rank(Delta X) > r for some Delta, that is r < min(q, rank X)",
            sharp=LINE,
            controls=(
                Control("the distance smaller by 1/50", tighten="1/50", instance=LINE),
                Control("the distance is not negative", kind="true", statement=non_negative),
            ),
        ),
        Reading(
            name="one linear layer on at most r inputs",
            sentence="Also on at most r inputs some functions of full tuning are out of reach.",
            statement=few_inputs,
            setting=FEW,
            evidence=Counterexample(FEW.boundary[0]),
            scope="one weight, one input",
            open_instance={**LINE, "X": [["1"], ["0"]]},
            repair=Repair(
                sentence="On N <= r inputs LoRA reaches every change: B = Delta X, A = X^+",
                statement=few_inputs_reached,
                evidence=WordProof(),
            ),
            controls=(
                Control("half of those factors", statement=halves, instance=FEW.boundary[0]),
                Control("the distance is not negative", kind="true", statement=non_negative),
            ),
        ),
        _network(
            "attention",
            "one attention head on finitely many inputs",
            "On enough inputs LoRA, AdaLoRA, (IA)^3 and BitFit reach strictly less than full tuning of one attention head.",
            "d = 4, h = 3, rank 1, sequences of three tokens: from 3 sequences on for LoRA on all four matrices, where on "
            "2 its derivative still has the rank of full tuning's",
        ),
        _network(
            "hidden layer",
            "one hidden layer on finitely many inputs",
            "On enough inputs LoRA, AdaLoRA, (IA)^3 and BitFit reach strictly less than full tuning of one hidden layer.",
            "3 inputs, 4 hidden units max(., 0), 2 outputs, rank 1: from 10 inputs on for LoRA, from 4 for (IA)^3",
        ),
    ),
)

CLAIM = FUNCTION_SPACE

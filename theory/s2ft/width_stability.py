"""Learning rates that keep one step of order one as the width grows.

Source: S2FT, section 4.2, after LoRA+. A layer of width n, input x, derivative G (of order one in each entry);
S2FT's step changes the output by -eta U U' G' |x|^2 (`update_identity`). The paper: with x of order one, eta of
order 1/n gives a change of order one; LoRA (U m x r starting at 0, V random) needs eta_U of order 1 and eta_V of
order 1/n.

With *entries* of x of order one, |x|^2 is of order n and the first half is true, with explicit constants, on the
tuned channels (the others do not move). With *length* of order one it is false: the change dies out like 1/n. In
the column form only the s tuned inputs count, so eta of order 1/n is too small for fixed s. The rates said of LoRA
are those of adaptive (sign-like) steps; under the plain gradient steps of this very paragraph eta_V of order 1/n
lets the second step grow like n when all n outputs have a gradient of order one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Custom, WordProof
from theory.protocol import Instance, Kit, Mat
from theory.s2ft import setting

WIDTHS = tuple(range(1, 13))  # more points than the degree in n and 1/n of any quantity below


def change(k: Kit, x: Instance) -> tuple[Mat, Any]:
    """(change of the output, U'G') at the rate c/n; x.u stands for 1/n."""
    U = k.cols(k.eye(x.G.shape[1]), x.S)
    n = x.x.shape[0]
    k.given("u = 1/n", k.eq(x.u * (k.number(n) if isinstance(n, str) else k.num(n)), k.num(1)))  # type: ignore[attr-defined]
    for name, value in (("u", x.u), ("c", x.c), ("low", x.low)):
        k.given(f"0 <= {name}", k.le(k.num(0), value))
    size = k.fro2(x.x)
    k.given("low <= mean square of the entries", k.le(x.low, x.u * size))
    k.given("mean square of the entries <= high", k.le(x.u * size, x.high))
    return -(x.c * x.u * size) * (U @ U.T @ x.G.T), U.T @ x.G.T


def stable(k: Kit, x: Instance) -> None:
    """The change on S lies between c low and c high times the derivative, for every n."""
    step, derivative = change(k, x)
    k.claim("not too small", k.le(k.sq(x.c * x.low) * k.fro2(derivative), k.fro2(step)))
    k.claim("not too large", k.le(k.fro2(step), k.sq(x.c * x.high) * k.fro2(derivative)))


def proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """c^2 |U'G'|^2 (y - low)(y + low) and c^2 |U'G'|^2 (high - y)(high + y) for the mean square y."""
    _, derivative = change(k, x)
    c, low = k.hypothesis("0 <= c"), k.hypothesis("0 <= low")
    mean = k.hypothesis("0 <= u") * k.square(x.x)
    above, below = (
        k.hypothesis("low <= mean square of the entries"),
        k.hypothesis("mean square of the entries <= high"),
    )
    weight = c * c * k.square(derivative)
    return {
        "not too small": [weight * above * (mean + low)],
        "not too large": [weight * below * (below + mean + mean)],
    }


def only_upper(k: Kit, x: Instance) -> None:
    """A weaker statement: with twice the upper constant."""
    step, derivative = change(k, x)
    k.claim("not too large", k.le(k.fro2(step), k.sq(2 * x.c * x.high) * k.fro2(derivative)))


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Input, derivative, rate."""
    return {"x": (d["n"], 1), "G": (1, d["n"]), "c": (1, 1)}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Tight bounds on the mean square of the entries."""
    u = k.num(f"1/{d['n']}")
    mean = u * k.fro2(t.x)
    return Instance(x=t.x, G=t.G, c=k.sq(k.e(t.c, 0, 0)), u=u, low=mean, high=mean, S=d["S"])


def letters(k: Any) -> Instance:
    """Any width."""
    return Instance(
        x=k.letter("x", "n", 1),
        G=k.letter("G", 1, "m"),
        S="S",
        **{v: k.number(v) for v in ("c", "u", "low", "high")},
    )


ONES: Json = {"x": [["1"], ["1"]], "G": [["1", "1"]], "c": "1", "u": "1/2", "low": "1", "high": "1", "S": [0]}
WIDE_STEP: Json = {**ONES, "x": [["2"], ["2"]]}
SETTING = Setting(
    dims=[{"n": 1, "S": (0,)}, {"n": 2, "S": (1,)}, {"n": 4, "S": (0, 2)}],
    free=free,
    build=build,
    letters=letters,
    boundary=[ONES],
)


# -- families of growing width, run exactly ---------------------------------------------------------------------
def sparse_step(n: int, x: Sequence[Fraction], tuned_inputs: Sequence[int] | None = None) -> Fraction:
    """First entry of the change of the output, G = (1, ..., 1), eta = 1/n; the first output channel is tuned.

    Args:
        n: Width.
        x: The input.
        tuned_inputs: For the column form; None for the row form.
    """
    seen = range(n) if tuned_inputs is None else tuned_inputs
    return -Fraction(1, n) * sum((x[i] * x[i] for i in seen), Fraction(0))


def lora_second_step(n: int, plain: bool, rate: Fraction | None = None) -> Fraction:
    """What a step on V adds to the first output in LoRA's second step, eta_U = 1, rank 1.

    Input and derivative are all ones (a linear loss), U = 0, V = (1/n, ..., 1/n), so that V'x = 1.

    Args:
        n: Width of input and output.
        plain: Plain gradient steps, or steps along the signs of the gradient.
        rate: eta_V; 1/n if None.
    """
    x, g, U, V = ([Fraction(v)] * n for v in (1, 1, 0, Fraction(1, n)))

    def sign(v: Fraction) -> Fraction:
        return v if plain else Fraction((v > 0) - (v < 0))

    added, rate = Fraction(0), rate or Fraction(1, n)
    for _ in range(2):
        seen = sum((v * a for v, a in zip(V, x, strict=True)), Fraction(0))
        back = sum((u * b for u, b in zip(U, g, strict=True)), Fraction(0))
        moved_U = [u - sign(b * seen) for u, b in zip(U, g, strict=True)]
        moved_V = [v - rate * sign(a * back) for v, a in zip(V, x, strict=True)]
        added = U[0] * sum(((w - v) * a for w, v, a in zip(moved_V, V, x, strict=True)), Fraction(0))
        U, V = moved_U, moved_V
    return added


FAMILIES: dict[str, tuple[Callable[[int], Fraction], int]] = {
    # name -> (value at width n, exponent e: the value is exactly +-n^e)
    "length": (lambda n: sparse_step(n, [Fraction(1)] + [Fraction(0)] * (n - 1)), -1),
    "columns": (lambda n: sparse_step(n, [Fraction(1)] * n, [0]), -1),
    "entries": (lambda n: sparse_step(n, [Fraction(1)] * n), 0),
    "plain": (lambda n: lora_second_step(n, True), 1),
    "slow": (lambda n: lora_second_step(n, True, Fraction(1, n * n)), 0),
    "sign": (lambda n: lora_second_step(n, False), 0),
}


def payload(name: str) -> Json:
    """Values of a family at the widths."""
    value, exponent = FAMILIES[name]
    return {"family": name, "exponent": exponent, "values": {str(n): str(value(n)) for n in WIDTHS}}


def follows(data: Json, exponent: int | None = None) -> str | None:
    """A complaint unless the family run again has these values and is exactly +-n^exponent."""
    value, known = FAMILIES[data["family"]]
    expected = known if exponent is None else exponent
    for n in WIDTHS:
        again = value(n)
        if str(again) != data["values"].get(str(n)) or abs(again) != Fraction(n) ** expected:
            return f"the family {data['family']!r} at width {n} is {again}, not +-n^{expected}"
    return None


def family(name: str, status: str, about: str, reason: str = "") -> Custom:
    """Evidence by an explicit family."""
    return Custom(status=status, produce=lambda: payload(name), verify=follows, about=about, reason=reason)


def changes(name: str, wrong: int) -> Control:
    """A false control: another growth is claimed of the family."""
    return Control(
        f"the growth n^{wrong} for the same family",
        check=lambda: follows(payload(name), wrong) is not None,
        spares=lambda: follows(payload(name)) is not None,
    )


ENTRIES = Control(
    "entries of order one, S2FT", kind="true", check=lambda: follows(payload("entries")) is not None
)
REPAIRED = Repair(
    sentence=(
        "with entries of order one, tuned rows and eta = c/n the change lies between c low and c high "
        "times the derivative"
    ),
    statement=stable,
    evidence=WordProof(proof),
    sharp=ONES,
)
GROWTH = "a family of growing width, run exactly; every value is rational in n of degree below the number of widths"

CLAIM = Claim(
    id="s2ft/width_stability",
    source=setting.source("4.2, learning rates"),
    sentence=(
        "A learning rate of order 1/n gives S2FT feature updates of order one; LoRA needs eta_U of order 1 and eta_V "
        "of order 1/n."
    ),
    headline=(
        "True for S2FT when the entries of the input are of order one and rows are tuned; false for inputs of length "
        "one and for tuned columns; LoRA's rates are those of adaptive steps, not of the plain steps used here."
    ),
    defect="text uncertain",
    setting=SETTING,
    uses=("s2ft/update_identity",),
    readings=(
        Reading(
            name="S2FT, entries of order one",
            statement=stable,
            evidence=WordProof(proof),
            scope="every width, selection and derivative; constants low and high of the mean square of the entries",
            sharp=ONES,
            unused=("u = 1/n",),
            controls=(
                Control(
                    "the upper constant smaller by 1/50", instance=ONES, tighten="1/50", only="not too large"
                ),
                Control(
                    "larger entries than the bound",
                    drop=("mean square of the entries <= high",),
                    instance=WIDE_STEP,
                ),
                Control("with twice the upper constant", kind="true", statement=only_upper),
            ),
        ),
        Reading(
            name="S2FT, length of order one",
            sentence="A learning rate of order 1/n gives an update of order one for inputs of length of order one.",
            evidence=family("length", "refuted", GROWTH),
            scope="x the first unit vector: the change is 1/n",
            repair=REPAIRED,
            controls=(changes("length", 0), ENTRIES),
        ),
        Reading(
            name="S2FT, tuned columns",
            sentence="A learning rate of order 1/n gives an update of order one when a fixed number of columns is tuned.",
            evidence=family("columns", "refuted", GROWTH),
            scope="one tuned input, entries of order one: the change is 1/n",
            repair=REPAIRED,
            controls=(changes("columns", 0), ENTRIES),
        ),
        Reading(
            name="LoRA, plain gradient steps",
            sentence="Under plain gradient steps eta_U = 1 and eta_V = 1/n keep LoRA's updates of order one.",
            evidence=family("plain", "refuted", GROWTH),
            scope="rank one, all entries of input and derivative one: the second step adds n",
            repair=Repair(
                sentence="on the same family eta_V = 1/n^2 keeps the second step of order one",
                evidence=family(
                    "slow",
                    "supported",
                    "one family, run exactly",
                    "asymptotic statement about random starts; checked exactly on one family of growing width",
                ),
            ),
            controls=(changes("plain", 0), ENTRIES),
        ),
        Reading(
            name="LoRA, steps along signs",
            sentence=(
                "Under steps along the signs of the gradient eta_U = 1 and eta_V = 1/n keep LoRA's "
                "updates of order one."
            ),
            evidence=family(
                "sign",
                "supported",
                "one family, run exactly",
                "asymptotic statement about random starts; checked exactly on one family of growing width",
            ),
            scope="rank one, all entries of input and derivative one: the second step adds exactly one",
            controls=(changes("sign", 1), ENTRIES),
        ),
    ),
)

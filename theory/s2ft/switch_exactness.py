"""Switching adapters: two scattered additions, exact on paper, drifting in floating point, linear in the width.

Source: S2FT, section 6.2. The weight W0 + U1 V1' becomes W0 + U2 V2' by subtracting one adapter and adding the
other on the tuned rows; U1, U2 are selections of s of the m rows, V1, V2 have k rows.

In exact arithmetic two scattered additions do it, for every size. The paper says nothing about rounding: in any
binary floating-point format w + v - v need not be w, and over switches between different adapters the error grows
(numbers in the certificate: 1000 switches in exact emulations of float32 and bfloat16). Putting one and the same
adapter in and out repeatedly drifts at most once (Knuth, The Art of Computer Programming 4.2.2; here checked on all
small formats). Exact in every format: keep the s k numbers of the base's slice and copy them back.
The switch writes 2 s k numbers: linear in the width k, not constant; LoRA writes 2 m k.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Custom, WordProof
from theory.protocol import Instance, Kit
from theory.s2ft import setting

FORMATS = {"float32": 24, "bfloat16": 8}  # bits of the significand
SWITCHES = 1000
MARKS = (1, 10, 100, 1000)
WEIGHTS, ADAPTERS = 16, 61


# -- exact arithmetic ---------------------------------------------------------------------------------------------
def switched(k: Kit, x: Instance) -> None:
    """Two scattered additions lead from one adapter to the other."""
    U1, U2 = k.cols(k.eye(x.W0.shape[0]), x.S1), k.cols(k.eye(x.W0.shape[0]), x.S2)
    now = x.W0 + U1 @ x.V1.T
    k.claim("switched", k.eq(now - U1 @ x.V1.T + U2 @ x.V2.T, x.W0 + U2 @ x.V2.T))


def one_addition(k: Kit, x: Instance) -> None:
    """A change: the old adapter stays in."""
    U1, U2 = k.cols(k.eye(x.W0.shape[0]), x.S1), k.cols(k.eye(x.W0.shape[0]), x.S2)
    k.claim("switched", k.eq(x.W0 + U1 @ x.V1.T + U2 @ x.V2.T, x.W0 + U2 @ x.V2.T))


def there_and_back(k: Kit, x: Instance) -> None:
    """A weaker statement: putting an adapter in and out leaves the base."""
    U1 = k.cols(k.eye(x.W0.shape[0]), x.S1)
    k.claim("base", k.eq(x.W0 + U1 @ x.V1.T - U1 @ x.V1.T, x.W0))


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Base and two adapters."""
    return {"W0": (d["m"], d["k"]), "V1": (d["k"], len(d["S1"])), "V2": (d["k"], len(d["S2"]))}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Base and two adapters, with their selections."""
    return Instance({**t, "S1": d["S1"], "S2": d["S2"]})


def letters(k: Any) -> Instance:
    """Any sizes."""
    return Instance(
        W0=k.letter("W0", "m", "k"),
        V1=k.letter("V1", "k", "|S1|"),
        V2=k.letter("V2", "k", "|S2|"),
        S1="S1",
        S2="S2",
    )


UNIT: Json = {"W0": [["0"]], "V1": [["1"]], "V2": [["1"]], "S1": [0], "S2": [0]}
SETTING = Setting(
    dims=[{"m": 1, "k": 1, "S1": (0,), "S2": (0,)}, {"m": 3, "k": 2, "S1": (0, 2), "S2": (1,)}],
    free=free,
    build=build,
    letters=letters,
    boundary=[UNIT],
)


# -- floating point, emulated exactly -----------------------------------------------------------------------------
def rounded(value: int, bits: int) -> int:
    """The nearest number with a significand of so many bits, ties to even; exponents are not bounded.

    Numbers are integers in units of 2^-60, which sums and roundings of such numbers never leave.
    """
    size = abs(value)
    excess = size.bit_length() - bits
    if excess <= 0:
        return value
    kept, dropped, half = size >> excess, size & ((1 << excess) - 1), 1 << (excess - 1)
    if dropped > half or (dropped == half and kept & 1):
        kept += 1
    return (kept << excess) if value > 0 else -(kept << excess)


def numbers(seed: int, count: int, halvings: int, bits: int) -> list[int]:
    """Pseudo-random numbers of the format in (-2^-halvings, 2^-halvings), from a fixed linear recurrence."""
    state, out = seed, []
    for _ in range(count):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        out.append(rounded(((state >> 3) - 2**60) >> halvings, bits))
    return out


def drift(bits: int, copy_back: bool = False) -> Json:
    """The largest error of the base, in units of 2^-bits, after so many switches between different adapters.

    Args:
        bits: Significand of the format.
        copy_back: Restore the stored base in place of subtracting the old adapter.
    """
    base = numbers(1, WEIGHTS, 0, bits)
    adapters = [numbers(2 + i, WEIGHTS, 3, bits) for i in range(ADAPTERS)]
    choice = numbers(0, SWITCHES, 0, 60)
    weights, marks = base, {}
    for switch in range(1, SWITCHES + 1):
        adapter = adapters[choice[switch - 1] % ADAPTERS]
        merged = [rounded(w + v, bits) for w, v in zip(weights, adapter, strict=True)]
        weights = base if copy_back else [rounded(w - v, bits) for w, v in zip(merged, adapter, strict=True)]
        if switch in MARKS:
            worst = max(abs(w - b) for w, b in zip(weights, base, strict=True))
            marks[str(switch)] = str(Fraction(worst, 2 ** (60 - bits)))
    return marks


def drifts() -> Json:
    """Drift per format by subtracting and adding."""
    return {name: drift(bits) for name, bits in FORMATS.items()}


def does_drift(data: Json, copy_back: bool = False) -> str | None:
    """A complaint unless every format, run again, has these errors, and they are not zero and grow."""
    for name, bits in FORMATS.items():
        again = drift(bits, copy_back)
        if again != data[name]:
            return f"{name}: the errors come out as {again}"
        first, last = Fraction(again["1"]), Fraction(again[str(SWITCHES)])
        if not 0 < first < last:
            return f"{name}: the base does not drift further: {again}"
    return None


def returns(data: Json) -> str | None:
    """A complaint unless copying the stored base back leaves no error at any mark."""
    for name, bits in FORMATS.items():
        if drift(bits, copy_back=True) != data[name] or any(v != "0" for v in data[name].values()):
            return f"{name}: copying back leaves {data[name]}"
    return None


def formats(bits: int) -> list[int]:
    """All numbers of so many bits with seven exponents, and zero."""
    positive = [m << e for m in range(2 ** (bits - 1), 2**bits) for e in range(7)]
    return [0, *positive, *(-v for v in positive)]


def repeated(data: Json, first_time: bool = False) -> str | None:
    """A complaint unless a second round of + v - v changes nothing, for all numbers of the small formats.

    Args:
        data: The sizes of the significands.
        first_time: Ask it of the first round.
    """
    for bits in data["bits"]:
        values = formats(bits)
        for w in values:
            for v in values:
                start = w if first_time else rounded(rounded(w + v, bits) - v, bits)
                if rounded(rounded(start + v, bits) - v, bits) != start:
                    return f"{bits} bits: w = {w}, v = {v}"
    return None


BITS: Json = {"bits": [2, 3, 4, 5]}


def written(data: Json) -> str | None:
    """A complaint unless the entries that a switch writes double with the width, at s fixed."""
    s = data["s"]
    for width, count in data["written"].items():
        if count != 2 * s * int(width):
            return f"width {width}: {count} numbers are written"
    counts = [data["written"][w] for w in sorted(data["written"], key=int)]
    return (
        None
        if all(b == 2 * a for a, b in zip(counts, counts[1:], strict=False))
        else "the counts do not double"
    )


def scatter_counts() -> Json:
    """Entries written by two scattered additions into s rows, counted entry by entry on index sets."""
    s = 2
    counts = {
        str(k): sum(1 for _ in range(2) for _ in range(s) for _ in range(k)) for k in (16, 32, 64, 128, 256)
    }
    return {"s": s, "written": counts}


EXACT = Control("there and back in exact arithmetic", kind="true", statement=there_and_back)

CLAIM = Claim(
    id="s2ft/switch_exactness",
    source=setting.source("6.2, adapter switch"),
    sentence="Adapters are switched by two scattered additions, at a cost that stays constant in the width.",
    headline=(
        "Two scattered additions suffice in exact arithmetic; in floating point the base drifts unless its slice is "
        "kept and copied back, and the work is linear in the width."
    ),
    defect="missing hypothesis",
    setting=SETTING,
    uses=("s2ft/adapter_unmerge",),
    readings=(
        Reading(
            name="exact arithmetic",
            sentence="Two scattered additions lead from one adapter to the other.",
            statement=switched,
            evidence=WordProof(),
            scope="every size, equal or different selections",
            controls=(Control("one addition only", statement=one_addition, instance=UNIT), EXACT),
        ),
        Reading(
            name="floating point",
            sentence="After any number of switches by two additions in float32 or bfloat16 the base is what it was.",
            evidence=Custom(
                status="refuted",
                produce=drifts,
                verify=does_drift,
                about="exact emulation of round-to-nearest-even: 1000 switches between 61 adapters",
            ),
            scope=f"{WEIGHTS} weights; errors in units of 2^-24 and 2^-8 after 1, 10, 100 and 1000 switches",
            repair=Repair(
                sentence="it is when the base's slice (s k numbers) is kept and copied back in place of the subtraction",
                evidence=Custom(
                    status="proved_within",
                    produce=lambda: {n: drift(b, copy_back=True) for n, b in FORMATS.items()},
                    verify=returns,
                    about="the same switches with a copy of the slice: nothing is rounded on the way back",
                ),
            ),
            controls=(
                Control(
                    "copying back drifts too",
                    check=lambda: (
                        does_drift({n: drift(b, True) for n, b in FORMATS.items()}, True) is not None
                    ),
                    spares=lambda: False,
                ),
                EXACT,
            ),
        ),
        Reading(
            name="one adapter in and out again and again",
            sentence="Putting the same adapter in and out repeatedly changes the base at most the first time.",
            evidence=Custom(
                status="proved_within",
                produce=lambda: BITS,
                verify=repeated,
                about="all pairs of numbers of formats with 2 to 5 bits and seven exponents",
            ),
            scope="small formats, completely; a theorem of Knuth says it for all",
            controls=(
                Control(
                    "not even the first time",
                    check=lambda: repeated(BITS, True) is not None,
                    spares=lambda: repeated(BITS) is not None,
                ),
                EXACT,
            ),
        ),
        Reading(
            name="cost constant in the width",
            sentence="The work of a switch does not grow with the width.",
            evidence=Custom(
                status="refuted",
                produce=scatter_counts,
                verify=written,
                about="entries written, counted: 2 s k, unbounded in the width k",
            ),
            scope="numbers written, not seconds; fixed overhead can hide it at small widths",
            repair=Repair(
                sentence="it writes exactly 2 s k numbers, linear in the width, where LoRA writes 2 m k",
                evidence=Custom(
                    status="proved_within",
                    produce=scatter_counts,
                    verify=written,
                    about="entries written, counted",
                ),
            ),
            controls=(
                Control(
                    "a third addition",
                    check=lambda: written({"s": 3, "written": scatter_counts()["written"]}) is not None,
                    spares=lambda: False,
                ),
                EXACT,
            ),
        ),
    ),
)

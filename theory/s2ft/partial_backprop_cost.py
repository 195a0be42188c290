"""How much time partial back-propagation can save, and against whom the paper's 1.5-2.7x and 1.4-3.0x hold.

Source: S2FT, abstract, section 1 and section 6.1 with Figure 5 (one A100; milliseconds and GB, numbers below).
Section 6.1 compares with full fine-tuning, section 1 claims the same factors over existing PEFT methods ("increases
latency" is meant as a speed-up).

Against full fine-tuning Figure 5 agrees after rounding. Against PEFT methods it does not: section 6.1 itself gives
average reductions of 2% (memory) and 9% (latency), and no set of factors of at least 1.4 (1.5) averages to these.
Arithmetic alone gives less: a step is one unit of matrix products forward, one for the gradient by inputs and one
for the gradient by weights; tuning slices saves the third and, below the first tuned layer, the second. For
LLaMA-7B that is 1.508 at most, near the 3/2 of the unit count; what goes beyond comes from the optimizer's memory
traffic over all weights, which every PEFT method saves as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from theory.claim import Claim, Control, Json, Reading, Repair
from theory.evidence import Custom
from theory.s2ft import setting

# Figure 5, LLaMA2-7B: (S2FT, full fine-tuning) at (length, batch size); the 13B model did not fit in full
LATENCY = {"512, 1": (118, 314), "512, 2": (231, 439), "1024, 1": (258, 461), "1024, 2": (476, 713)}
MEMORY = {"512, 1": (18, 54), "512, 2": (23, 54), "1024, 1": (26, 54), "1024, 2": (39, 54)}
AVERAGE_SAVED = {"latency": Fraction(9, 100), "memory": Fraction(2, 100)}  # over PEFT methods, section 6.1
LEAST_FACTOR: Mapping[str, Fraction] = {
    "latency": Fraction(3, 2),
    "memory": Fraction(7, 5),
}  # over PEFT methods, section 1

SLIGHT = {"latency": Fraction(51, 50), "memory": Fraction(51, 50)}  # for a control

# LLaMA-7B in units of the width: query, key, value, output, up, gate, down of a block, then the head
WIDTH, HIDDEN, VOCABULARY, BLOCKS = 4096, 11008, 32000, 32
FIRST_TUNED = 3  # output is the first tuned projection of a block


def figure() -> Json:
    """The factors over full fine-tuning."""
    return {
        "latency": {n: str(Fraction(full, ours)) for n, (ours, full) in LATENCY.items()},
        "memory": {n: str(Fraction(full, ours)) for n, (ours, full) in MEMORY.items()},
    }


def figure_agrees(data: Json, bounds: tuple[str, str, str, str] = ("3/2", "27/10", "7/5", "3")) -> str | None:
    """A complaint unless every factor, rounded to one decimal, lies in the printed range."""
    low_time, high_time, low_memory, high_memory = (Fraction(b) for b in bounds)
    for kind, low, high in (("latency", low_time, high_time), ("memory", low_memory, high_memory)):
        for place, value in data[kind].items():
            factor = Fraction(round(Fraction(value) * 10), 10)
            if value != figure()[kind][place] or not low <= factor <= high:
                return f"{kind} at {place}: {float(Fraction(value)):.3f} outside {low} to {high}"
    return None


def averages(factors: Mapping[str, Fraction] = LEAST_FACTOR) -> Json:
    """The least average reduction that factors over every PEFT method allow, beside the one of section 6.1."""
    return {n: {"at least": str(1 - 1 / f), "section 6.1": str(AVERAGE_SAVED[n])} for n, f in factors.items()}


def contradict(data: Json, factors: Mapping[str, Fraction] = LEAST_FACTOR) -> str | None:
    """A complaint unless factors of at least these force average reductions above those of section 6.1."""
    if data != averages(factors):
        return f"the reductions come out as {averages(factors)}"
    for name, factor in factors.items():
        if 1 - 1 / factor <= AVERAGE_SAVED[name]:
            return f"{name}: factors of at least {factor} allow the average of section 6.1"
    return None


def unit_speedup(tuned_share: Fraction = Fraction(0)) -> Fraction:
    """Matrix-product units of a full step over those of a step on a share of output and down, for LLaMA-7B.

    Attention scores cost the same in both and would only lower the factor. Full tuning includes the head and needs
    the gradient by the inputs everywhere (embeddings are tuned); S2FT needs it only above the first tuned layer.
    """
    block = [WIDTH] * 4 + [HIDDEN] * 3
    layers = block * BLOCKS + [VOCABULARY]
    total = sum(layers)
    slices = tuned_share * (WIDTH + HIDDEN) * BLOCKS
    return Fraction(3 * total) / (2 * total - sum(layers[: FIRST_TUNED + 1]) + slices)


def units() -> Json:
    """The factor at vanishing and at one per cent of tuned channels."""
    return {"vanishing slice": str(unit_speedup()), "one per cent": str(unit_speedup(Fraction(1, 100)))}


def units_agree(data: Json) -> str | None:
    """A complaint unless the factors come out again and stay below 1.51, far from 2.7."""
    if data != units():
        return f"the factors are {units()}"
    values = [Fraction(v) for v in data.values()]
    return None if all(Fraction(149, 100) < v < Fraction(151, 100) for v in values) else f"factors {values}"


FULL = Control(
    "Figure 5 against full fine-tuning", kind="true", check=lambda: figure_agrees(figure()) is not None
)
MEASURED = Custom(
    status="supported",
    produce=figure,
    verify=figure_agrees,
    about="the paper's own measurements, divided",
    reason="a measurement on one processor, of which only the arithmetic can be checked here",
)

CLAIM = Claim(
    id="s2ft/partial_backprop_cost",
    source=setting.source("abstract, 1 and 6.1 with Figure 5"),
    sentence="S2FT trains 1.5-2.7 times faster with 1.4-3.0 times less memory.",
    headline=(
        "Agrees with the paper's figure against full fine-tuning; false against other PEFT methods; skipped matrix "
        "products alone can give 1.51 at most."
    ),
    defect="misprint",
    readings=(
        Reading(
            name="against full fine-tuning (6.1)",
            sentence="Compared with full fine-tuning S2FT is 1.5-2.7 times faster with 1.4-3.0 times less memory.",
            evidence=MEASURED,
            scope="LLaMA2-7B, lengths 512 and 1024, batch sizes 1 and 2, rounded to one decimal as printed",
            controls=(
                Control(
                    "at least 1.6 times faster",
                    check=lambda: figure_agrees(figure(), ("8/5", "27/10", "7/5", "3")) is not None,
                    spares=lambda: figure_agrees(figure()) is not None,
                ),
                FULL,
            ),
        ),
        Reading(
            name="against existing PEFT methods (1)",
            sentence="Compared with existing PEFT methods S2FT is 1.5-2.7 times faster with 1.4-3.0 times less memory.",
            evidence=Custom(
                status="refuted",
                produce=averages,
                verify=contradict,
                about="section 6.1's averages over the same methods cannot come from such factors",
            ),
            scope="the paper against itself: 2% and 9% on average, where the factors would need at least 28% and 33%",
            repair=Repair(sentence="the factors are those over full fine-tuning", evidence=MEASURED),
            controls=(
                Control(
                    "factors of at least 1.02 contradict the averages too",
                    check=lambda: contradict(averages(SLIGHT), SLIGHT) is not None,
                    spares=lambda: False,
                ),
                FULL,
            ),
        ),
        Reading(
            name="from skipped matrix products alone",
            sentence="Skipping gradients makes a step 1.5-2.7 times faster by the count of matrix products.",
            evidence=Custom(
                status="refuted",
                produce=units,
                verify=units_agree,
                about="matrix-product units of LLaMA-7B, counted; no count reaches beyond 1.51",
            ),
            scope=(
                "LLaMA-7B, output and down projections tuned; recomputing activations would lower the "
                "factor to about 4/3"
            ),
            repair=Repair(
                sentence=(
                    "for LLaMA-7B the count gives less than 1.51, and exactly 3/2 without the layers "
                    "below the first tuned one"
                ),
                evidence=Custom(
                    status="proved_within",
                    produce=units,
                    verify=units_agree,
                    about="matrix-product units, counted",
                ),
            ),
            controls=(
                Control(
                    "one per cent of the channels costs nothing",
                    check=lambda: (
                        units_agree(
                            {"vanishing slice": str(unit_speedup()), "one per cent": str(unit_speedup())}
                        )
                        is not None
                    ),
                    spares=lambda: False,
                ),
                FULL,
            ),
        ),
    ),
)

"""Floating-point operations and trainable parameters, counted from shapes and held against Tables 4 and 12.

Source: LoRA past, present, future, 4.1, D.3, Tables 4 and 12. A layer n x m, rank r, B (n x r), A (r x m); products of
matrices and vectors only, 2 operations an entry, for one vector through forward pass, gradient by inputs, gradient by
weights. Full: 6 n m. LoRA: 4 n m + 6 r (n + m). A frozen: 4 n m + 6 r n + 4 r m. A a selection, by gathering:
4 n m + 6 r n.

`flops`: gathering saves 4 r m against a frozen dense A, which saves 2 r m against LoRA: true for every size. Against
full tuning the sparse variants save operations if and only if 3 r <= m. Table 12 agrees within its two digits: never more
than 3/2 between full tuning and LoRA, never more than a tenth saved by gathering.

`parameter_counts`: the printed counts of Table 4 follow from the published shapes of the models (TinyLlama's 1.03 B
without its output layer, DeBERTa v2 XXL's 1.56 B without a classifier). "Sparse variants do not reduce the number of
trainable parameters" holds against Asymmetric LoRA (r n both); against LoRA they save r m. All chains of c3LA together
train k r n numbers: with k r = m as many as full tuning. D.3 says that Table 4 has percentages for each method; the
converted table has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Custom, Open, WordProof
from theory.lora_variants.printed import between, table
from theory.lora_variants.setting import source
from theory.protocol import Instance, Kit

NARROW, SAVED, BELOW = "3 r <= m", "not more than full tuning", "r < min(n, m)"
SIZES = ("n", "m", "r")


# -- flops ------------------------------------------------------------------------------------------------------
def operations(x: Instance) -> dict[str, Any]:
    """Operations a vector."""
    base = 4 * (x.n * x.m)
    return {
        "full": 6 * (x.n * x.m),
        "LoRA": base + 6 * (x.r * (x.n + x.m)),
        "A frozen": base + 6 * (x.r * x.n) + 4 * (x.r * x.m),
        "A gathered": base + 6 * (x.r * x.n),
    }


def sizes(k: Kit, x: Instance) -> None:
    """Sizes are not negative."""
    for name in SIZES:
        k.given(f"{name} >= 0", k.le(k.num(0), x[name]))


def ordered(k: Kit, x: Instance) -> None:
    """Gathering needs no more than a frozen A, and that no more than LoRA."""
    sizes(k, x)
    count = operations(x)
    k.claim("gathered", k.le(count["A gathered"], count["A frozen"]))
    k.claim("frozen", k.le(count["A frozen"], count["LoRA"]))


def ordered_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """4 r m and 2 r m."""
    product = k.hypothesis("r >= 0") * k.hypothesis("m >= 0")
    return {"gathered": [product] * 4, "frozen": [product] * 2}


def below_full(k: Kit, x: Instance) -> None:
    """Gathering needs no more than full tuning, for ranks below both sizes."""
    sizes(k, x)
    k.given(BELOW, k.all_(k.lt(x.r, x.n), k.lt(x.r, x.m)))
    count = operations(x)
    k.claim(SAVED, k.le(count["A gathered"], count["full"]))


def below_full_narrow(k: Kit, x: Instance) -> None:
    """The same for 3 r <= m; the difference is 2 n (m - 3 r)."""
    k.given(NARROW, k.le(3 * x.r, x.m))
    below_full(k, x)
    saved = operations(x)["full"] - operations(x)["A gathered"]
    k.claim("difference", k.eq(saved, 2 * (x.n * (x.m - 3 * x.r))))


def narrow_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """2 n (m - 3 r)."""
    return {SAVED: [k.hypothesis("n >= 0") * k.hypothesis(NARROW)] * 2}


def frozen_only(k: Kit, x: Instance) -> None:
    """A weaker statement: the frozen base alone needs no more than full tuning."""
    sizes(k, x)
    k.claim("base", k.le(4 * (x.n * x.m), operations(x)["full"]))


def layer(n: int, m: int, r: int) -> Json:
    """Sizes as numbers."""
    return {"n": str(n), "m": str(m), "r": str(r)}


LAYER = Setting(
    dims=[{"n": n, "m": m, "r": r} for n in (1, 2, 3) for m in (1, 2, 3) for r in (1, 2) if r <= min(n, m)]
    + [{"n": 2, "m": 4, "r": 1}],
    free=lambda d: {"none": (1, 1)},
    build=lambda k, t, d: Instance({name: k.num(d[name]) for name in SIZES}),
    letters=lambda k: Instance({name: k.number(name) for name in SIZES}),
    boundary=[layer(768, 768, 16), layer(192, 768, 16), layer(3, 6, 2)],
)


def table_12() -> Json:
    """The printed operations an epoch."""
    return {name: dict(row) for name, row in table("table_12")["rows"].items()}


def agrees_with_count(rows: Json, factor: str = "3/2", share: str = "1/10") -> str | None:
    """A complaint unless numbers that are printed so exist with the counted order and the two bounds."""
    if rows != table_12():
        return "not the rows of the table"
    for name, row in rows.items():
        low, high = ({n: between(text)[i] for n, text in row.items()} for i in (0, 1))
        order = ("Naive Sparse", "Asym", "LoRA", "FFT")
        if any(low[a] > high[b] for a, b in zip(order, order[1:], strict=False)):
            return f"{name}: the order is not the counted one"
        if low["FFT"] > Fraction(factor) * high["LoRA"]:
            return f"{name}: more than {factor} between full tuning and LoRA"
        if low["Asym"] - high["Naive Sparse"] > Fraction(share) * high["Asym"]:
            return f"{name}: gathering saves more than {share}"
    return None


# -- parameter_counts ---------------------------------------------------------------------------------------------
def trained(x: Instance) -> dict[str, Any]:
    """Trainable numbers of one layer."""
    return {"LoRA": x.r * (x.n + x.m), "A frozen": x.r * x.n, "sparse": x.r * x.n}


def as_asymmetric(k: Kit, x: Instance) -> None:
    """Sparse variants train as many numbers as Asymmetric LoRA."""
    sizes(k, x)
    count = trained(x)
    k.claim("as many", k.eq(count["sparse"], count["A frozen"]))


def as_lora(k: Kit, x: Instance) -> None:
    """Sparse variants train as many numbers as LoRA."""
    sizes(k, x)
    count = trained(x)
    k.claim("as many", k.eq(count["sparse"], count["LoRA"]))


def less_than_lora(k: Kit, x: Instance) -> None:
    """They train r m fewer."""
    sizes(k, x)
    count = trained(x)
    k.claim("difference", k.eq(count["LoRA"] - count["sparse"], x.r * x.m))


def at_most_lora(k: Kit, x: Instance) -> None:
    """A weaker statement: not more than LoRA."""
    sizes(k, x)
    k.claim("not more", k.le(trained(x)["sparse"], trained(x)["LoRA"]))


def all_chains(k: Kit, x: Instance) -> None:
    """With d_in = k r the k chains together train n d_in numbers, as full tuning does."""
    sizes(k, x)
    k.claim("together", k.eq(x.chains * trained(x)["sparse"], x.n * (x.chains * x.r)))


CHAINED = Setting(
    dims=[{"n": n, "r": r, "chains": c} for n in (1, 2) for r in (1, 2) for c in (1, 3)],
    free=lambda d: {"none": (1, 1)},
    build=lambda k, t, d: Instance({name: k.num(v) for name, v in {**d, "m": d["chains"] * d["r"]}.items()}),
    letters=lambda k: Instance({name: k.number(name) for name in (*SIZES, "chains")}),
    boundary=[{**layer(2, 6, 2), "chains": "3"}],
)


def encoder(width: int, hidden: int, layers: int) -> int:
    """Blocks with four square projections, two of the feed-forward, all with biases, two normalisations."""
    attention = 4 * (width * width + width)
    feed_forward = 2 * width * hidden + hidden + width
    return layers * (attention + feed_forward + 4 * width)


def classifier(width: int) -> int:
    """A square layer and two outputs, with biases."""
    return width * width + width + 2 * width + 2


def roberta(width: int, layers: int, vocabulary: int = 50265) -> int:
    """Embeddings of words, 514 places and one type; encoder; classifier."""
    return (vocabulary + 514 + 1 + 2) * width + encoder(width, 4 * width, layers) + classifier(width)


def deberta(width: int, layers: int) -> int:
    """Word embeddings and 512 relative places, both normalised, and the encoder; without a classifier."""
    return (128100 + 2 + 512 + 2) * width + encoder(width, 4 * width, layers)


def convolution(width: int) -> int:
    """A convolution of width three with bias and normalisation, which only DeBERTa v2 XXL has."""
    return 3 * width * width + 3 * width


def gated(width: int, hidden: int, layers: int, keys: int, vocabulary: int, outputs: bool) -> int:
    """Decoders without biases: two square projections, keys and values, three of the feed-forward."""
    block = 2 * width * width + 2 * width * keys + 3 * width * hidden + 2 * width
    return (1 + outputs) * vocabulary * width + layers * block + width


def shapes(tiny_outputs: bool = False) -> Json:
    """Parameters from the published shapes of the models."""
    return {
        "RoBERTa-Base": roberta(768, 12),
        "RoBERTa-Large": roberta(1024, 24),
        "DeBERTa v2 XXL": deberta(1536, 48) + convolution(1536),
        "DeBERTa v3 Base": deberta(768, 12) + classifier(768),
        "GPT2-Small": (50257 + 1024 + 2) * 768 + encoder(768, 3072, 12),
        "DeepSeek-Coder-Base": gated(2048, 5504, 24, 2048, 32256, outputs=True),
        "TinyLlama": gated(2048, 5632, 22, 256, 32000, outputs=tiny_outputs),
    }


def agrees_with_shapes(counts: Json) -> str | None:
    """A complaint unless every count of Table 4 is the printed one after rounding."""
    rows = table("table_4")["rows"]
    if set(counts) != set(rows):
        return "other models than in the table"
    for model, row in rows.items():
        low, high = between(row["parameters"])
        if not low <= counts[model] <= high:
            return f"{model}: {counts[model]} parameters, printed {row['parameters']}"
    return None


def from_shapes(counts: Json) -> str | None:
    """The same, the counts being those of the shapes."""
    return agrees_with_shapes(counts) if counts == shapes() else f"the shapes give {shapes()}"


PRINTED = Control("the table as it is", kind="true", check=lambda: agrees_with_count(table_12()) is not None)

CLAIMS = (
    Claim(
        id="lora_variants/flops",
        source=source("4.1, D.3 and Table 12"),
        sentence="The sparse variants reduce the number of floating-point operations.",
        headline=(
            "True for every size against LoRA and Asymmetric LoRA; against full fine-tuning for 3 r <= m alone; Table 12 "
            "agrees with the count within its two digits."
        ),
        setting=LAYER,
        readings=(
            Reading(
                name="against LoRA and Asymmetric LoRA",
                statement=ordered,
                evidence=WordProof(ordered_proof),
                scope="every size; products only, one layer",
                unused=("n >= 0",),
                controls=(
                    Control("right sides smaller by 1/50", tighten="1/50", instance=layer(768, 768, 1)),
                    Control("the base alone", kind="true", statement=frozen_only),
                ),
            ),
            Reading(
                name="against full fine-tuning",
                sentence="With A gathered a layer needs no more operations than with full tuning, for every r < min(n, m).",
                statement=below_full,
                evidence=Counterexample(layer(2, 2, 1)),
                scope="two by two, r = 1: 28 operations against 24",
                repair=Repair(
                    sentence="it needs no more if and only if 3 r <= m",
                    statement=below_full_narrow,
                    evidence=WordProof(narrow_proof),
                    necessary={NARROW: layer(2, 2, 1)},
                    sharp=layer(3, 6, 2),
                ),
                controls=(
                    Control(
                        "the repair's right side smaller by 1/50",
                        statement=below_full_narrow,
                        tighten="1/50",
                        instance=layer(3, 6, 2),
                    ),
                    Control("the base alone", kind="true", statement=frozen_only),
                ),
            ),
            Reading(
                name="Table 12",
                sentence=(
                    "The printed operations have the counted order, full tuning needs at most 3/2 of LoRA, and gathering "
                    "saves at most a tenth, each up to rounding."
                ),
                evidence=Custom(
                    "supported",
                    table_12,
                    agrees_with_count,
                    "the printed numbers with their rounding",
                    reason="measurements; which projections were adapted is not said, so only bounds can be checked",
                ),
                scope="the eight rows that the converted table has; GPT2-Small of its caption is not among them",
                controls=(
                    Control(
                        "at most 4/3 between full tuning and LoRA",
                        check=lambda: agrees_with_count(table_12(), factor="4/3") is not None,
                        spares=lambda: agrees_with_count(table_12()) is not None,
                    ),
                    PRINTED,
                ),
            ),
        ),
    ),
    Claim(
        id="lora_variants/parameter_counts",
        source=source("4.1, D.3 and Table 4"),
        sentence="The sparse variants do not reduce the number of trainable parameters; Table 4 gives those of the models.",
        headline=(
            "Table 4 follows from the shapes; the sparse variants train as many numbers as Asymmetric LoRA and r m fewer "
            "than LoRA in each layer."
        ),
        setting=LAYER,
        readings=(
            Reading(
                name="Table 4",
                sentence="The printed parameters of full fine-tuning are those of the models' shapes.",
                evidence=Custom(
                    "proved_within",
                    shapes,
                    from_shapes,
                    "parameters counted from the published shapes against the printed numbers with their rounding",
                ),
                scope=(
                    "the seven models whose cell is readable; TinyLlama without its output layer, DeBERTa v2 XXL without "
                    "a classifier (1.57 B with one), the others whole"
                ),
                controls=(
                    Control(
                        "TinyLlama with its output layer",
                        check=lambda: agrees_with_shapes(shapes(tiny_outputs=True)) is not None,
                        spares=lambda: agrees_with_shapes(shapes()) is not None,
                    ),
                    Control(
                        "the shapes as they are", kind="true", check=lambda: from_shapes(shapes()) is not None
                    ),
                ),
            ),
            Reading(
                name="against Asymmetric LoRA",
                sentence="A sparse variant trains as many numbers as Asymmetric LoRA of the same rank.",
                statement=as_asymmetric,
                evidence=WordProof(),
                scope="every size",
                unused=tuple(f"{name} >= 0" for name in SIZES),
                controls=(
                    Control("right side larger by 1/1000", tighten="1/1000", instance=layer(1, 1, 1)),
                    Control("not more than LoRA", kind="true", statement=at_most_lora),
                ),
            ),
            Reading(
                name="against LoRA",
                sentence="A sparse variant trains as many numbers as LoRA of the same rank.",
                statement=as_lora,
                evidence=Counterexample(layer(1, 1, 1)),
                scope="one weight: 1 against 2",
                repair=Repair(
                    sentence="it trains r m fewer",
                    statement=less_than_lora,
                    evidence=WordProof(),
                    sharp=layer(1, 1, 1),
                ),
                controls=(
                    Control(
                        "the repair's right side larger by 1/1000",
                        statement=less_than_lora,
                        tighten="1/1000",
                        instance=layer(1, 1, 1),
                    ),
                    Control("not more than LoRA", kind="true", statement=at_most_lora),
                ),
            ),
            Reading(
                name="all chains of c3LA together",
                sentence="With d_in = k r the chains of c3LA together train as many numbers as full fine-tuning.",
                statement=all_chains,
                setting=CHAINED,
                evidence=WordProof(),
                scope="every size, one layer",
                unused=tuple(f"{name} >= 0" for name in SIZES),
                controls=(
                    Control(
                        "right side larger by 1/1000",
                        tighten="1/1000",
                        instance={**layer(2, 6, 2), "chains": "3"},
                    ),
                    Control("not more than LoRA", kind="true", statement=at_most_lora),
                ),
            ),
            Reading(
                name="percentages of each method",
                sentence="Table 4 gives the share of trainable parameters for each method.",
                evidence=Open("the converted table has no such column; only the conversion may have lost it"),
                scope="text uncertain",
            ),
        ),
    ),
)

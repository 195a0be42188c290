"""The paper's sentences about its results, held against its own tables.

Source: LoRA past, present, future, abstract, 3.1, 4, E against Tables 2-4 and 13-15 (`tables/`, with the place of
each). A cell that the converted text lost is never held against a sentence: it is left out where the sentence stays
decided without it, and named in the scope otherwise.

That the tables were read rightly shows in Table 2: all of its readable percentages of drop follow from its accuracies.
Several sentences do not follow: the sparse variants stay below full tuning and LoRA in one of the two examples of
outperforming them; in two of three examples of full tuning doing poorly it beats most methods; c3LA has the least
generalization error in no readable row; full tuning has most intruders only at one of two thresholds for ViT-Base,
and nearly fewest for RoBERTa.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair
from theory.evidence import Custom, Open
from theory.lora_variants.printed import half_unit, table, value
from theory.lora_variants.setting import source

SPARSE = ("cLA", "c3LA", "r-cLA", "r-c3LA")
PAIRS = {"LoRA": "CoLA", "Asym": "RAC", "cLA": "c3LA", "r-cLA": "r-c3LA"}  # without and with chains
PERPLEXITY = "GPT2-Small, E2E"  # the row of Table 2 where less is better

Facts = Callable[[], Json]
Test = Callable[[Json], bool]


def numbers(row: Json) -> dict[str, Fraction]:
    """The readable cells of a row."""
    return {method: value(text) for method, text in row.items() if text is not None}


def judged(
    name: str,
    sentence: str,
    facts: Facts,
    holds: Test,
    true: bool,
    harder: tuple[str, Test],
    weaker: tuple[str, Test],
    scope: str,
) -> Reading:
    """A reading decided by arithmetic on printed numbers.

    Args:
        name: Of the reading.
        sentence: What is held against the tables.
        facts: The printed numbers that it speaks about, from the tables; they go into the record.
        holds: Whether the sentence holds of such numbers.
        true: Whether it does, which is checked.
        harder: A sentence that must not hold of the numbers, with its test.
        weaker: One that must hold; for a false sentence it is the repair.
        scope: What was compared.
    """

    def verifier(test: Test, expected: bool) -> Callable[[Json], str | None]:
        def verify(payload: Json) -> str | None:
            if payload != facts():
                return f"the tables give {facts()}"
            return None if test(payload) == expected else f"it is {not expected} of {payload}"

        return verify

    about = "printed numbers, compared exactly"
    repair = None
    if not true:
        repair = Repair(
            sentence=weaker[0],
            evidence=Custom("proved_within", facts, verifier(weaker[1], True), about),
        )
    return Reading(
        name=name,
        sentence=sentence,
        evidence=Custom("proved_within" if true else "refuted", facts, verifier(holds, true), about),
        scope=scope,
        repair=repair,
        controls=(
            Control(
                harder[0],
                check=lambda: not harder[1](facts()),
                spares=lambda: true and not holds(facts()),
            ),
            Control(weaker[0], kind="true", check=lambda: not weaker[1](facts())),
        ),
    )


# -- Table 2 ------------------------------------------------------------------------------------------------------
def accuracy(name: str) -> Facts:
    """A row of Table 2 without its lost cells."""
    return lambda: {m: text for m, text in table("table_2")["rows"][name].items() if text is not None}


def sparse_above(row: Json, which: Callable[[Any], bool], *baselines: str) -> bool:
    """Whether some or all (`which`) sparse variants exceed each baseline."""
    v = numbers(row)
    return which(all(v[s] > v[b] for b in baselines) for s in SPARSE)


def sparse_below(row: Json) -> bool:
    """Every sparse variant lies below full tuning and below LoRA."""
    v = numbers(row)
    return all(v[s] < min(v["FFT"], v["LoRA"]) for s in SPARSE)


def better_than_full(row: Json) -> int:
    """Methods that exceed full tuning, each lost cell counted as if it did."""
    v = numbers(row)
    return sum(a > v["FFT"] for a in v.values()) + 10 - len(v)


def margin_below(row: Json, points: str) -> bool:
    """Full tuning lies more than so many points below every other readable method."""
    v = numbers(row)
    return all(a - v["FFT"] > Fraction(points) for m, a in v.items() if m != "FFT")


def best(name: str) -> str:
    """The best method of a complete row."""
    v = numbers(table("table_2")["rows"][name])
    return (min if name == PERPLEXITY else max)(v, key=v.__getitem__)


def winners() -> Json:
    """The best method of each row without a lost cell."""
    return {name: best(name) for name, row in table("table_2")["rows"].items() if None not in row.values()}


def drop_errors(baseline: str | None = None) -> Json:
    """Rows and methods whose printed drop is not that against the best of the row (or against a baseline)."""
    found: Json = {"compared": 0, "wrong": []}
    for name, drops in table("table_2")["drops"].items():
        v = numbers(table("table_2")["rows"][name])
        reference = v[baseline] if baseline else (min if name == PERPLEXITY else max)(v.values())
        for method, printed in drops.items():
            if printed is None:
                continue
            found["compared"] += 1
            drop = 100 * abs(v[method] - reference) / reference
            if abs(drop - value(printed)) > half_unit(printed):
                found["wrong"].append([name, method])
    return found


def drops() -> Json:
    """Against the best of the row, and against LoRA for comparison."""
    return {"best": drop_errors(), "LoRA": drop_errors("LoRA")}


def metric() -> Json:
    """What Table 4 calls the measure of GPT2-Small, the row of Table 2, and its printed drops."""
    return {
        "Table 4": table("table_4")["rows"]["GPT2-Small"]["metrics"],
        "row": accuracy(PERPLEXITY)(),
        "drops": table("table_2")["drops"][PERPLEXITY],
    }


def drops_against(facts: Json, reference: Callable[[Any], Fraction]) -> bool:
    """Whether the printed drops are those against the least or the largest value."""
    v = numbers(facts["row"])
    r = reference(v.values())
    return all(
        abs(100 * abs(v[m] - r) / r - value(text)) <= half_unit(text) for m, text in facts["drops"].items()
    )


def frozen_pairs() -> Json:
    """CLA and Asymmetric LoRA where both accuracies are readable."""
    rows = {n: numbers(r) for n, r in table("table_2")["rows"].items() if n != PERPLEXITY}
    return {n: [str(v["cLA"]), str(v["Asym"])] for n, v in rows.items() if {"cLA", "Asym"} <= set(v)}


def within(facts: Json, share: str, spared: str = "") -> bool:
    """CLA has lost at most that share of Asymmetric LoRA's accuracy in every row but the spared one."""
    return all(
        Fraction(a) >= (1 - Fraction(share)) * Fraction(b) for n, (a, b) in facts.items() if n != spared
    )


# -- Tables 3 and 15 -----------------------------------------------------------------------------------------------
def errors() -> Json:
    """The readable rows of generalization errors."""
    return {name: dict(row) for name, row in table("table_15")["rows"].items()}


def least_in(facts: Json, method: str) -> list[str]:
    """The rows in which the method has the least error."""
    rows = {name: numbers(row) for name, row in facts.items()}
    return [name for name, v in rows.items() if v[method] == min(v.values())]


def could_win_most(facts: Json) -> bool:
    """Whether c3LA could have the least error in most rows of Table 3, each unreadable row counted for it."""
    places = table("table_15")["rows_of_table_3"]
    lost = [name for name in places if name not in facts]
    won = [name for name in least_in(facts, "c3LA") if name in places]
    return 2 * (len(lost) + len(won)) > len(places)


def smaller(facts: Json, one: str, other: str, factor: int = 1) -> int:
    """In how many rows `factor` times the error of the one is below that of the other."""
    return sum(factor * v[one] < v[other] for v in map(numbers, facts.values()))


def bounds_order(facts: Json) -> bool:
    """In every row the method with the smaller bound has the smaller error."""
    return all(smaller(facts, a, b) == len(facts) for a, b in ORDERED)


ORDERED = (("cLA", "r-c3LA"), ("cLA", "RAC"), ("Asym", "c3LA"))


# -- Tables 13 and 14 ----------------------------------------------------------------------------------------------
def intruders(*places: tuple[str, str]) -> Facts:
    """Counts of every method by table and threshold, at the four points of training."""
    return lambda: {f"{t}, {e}": {m: r[e] for m, r in table(t)["rows"].items()} for t, e in places}


EVERYWHERE = [(t, e) for t in ("table_13", "table_14") for e in ("0.4", "0.8")]


def exceptions(facts: Json, points: range) -> list[tuple[str, str, int]]:
    """Where a chain variant has no more intruders than its counterpart."""
    return [
        (place, chain, t)
        for place, rows in facts.items()
        for plain, chain in PAIRS.items()
        for t in points
        if value(rows[chain][t]) <= value(rows[plain][t])
    ]


def gaps(facts: Json) -> dict[str, Fraction]:
    """Chain minus plain at the end of training."""
    (rows,) = facts.values()
    return {chain: value(rows[chain][3]) - value(rows[plain][3]) for plain, chain in PAIRS.items()}


def rank_of_full(facts: Json) -> int:
    """How many methods have more intruders than full tuning at the end of training."""
    (rows,) = facts.values()
    return sum(value(row[3]) > value(rows["FFT"][3]) for row in rows.values())


def columns() -> Json:
    """The methods of Table 2."""
    (row, *_) = table("table_2")["rows"].values()
    return {"methods": list(row), "LoRA-based": len(row) - 1}


VIT_HOME, VIT_CIFAR = "ViT-Base, OfficeHome", "ViT-Base, CIFAR-10"
MRPC, RTE, DJANGO = "DeBERTa v3 Base, MRPC", "DeBERTa v3 Base, RTE", "DeepseekCoder, DJANGO"
EVERY_BELOW = "every sparse variant lies below full tuning and below LoRA there"


def poorly(name: str, row: str) -> Reading:
    """An example of full tuning performing rather poorly, which it does not."""
    return judged(
        name,
        f"On {row} full tuning performs poorly: at least half of the nine other methods are better.",
        accuracy(row),
        lambda f: 2 * better_than_full(f) >= 9,
        False,
        ("all others are better", lambda f: better_than_full(f) == 9),
        ("at most four of the nine other methods are better", lambda f: better_than_full(f) <= 4),
        "Table 2; a lost cell counts as better than full tuning",
    )


READINGS = (
    judged(
        "the drops of Table 2",
        "Each printed drop is that against the best result of its row.",
        drops,
        lambda f: not f["best"]["wrong"],
        True,
        ("each is the drop against LoRA", lambda f: not f["LoRA"]["wrong"]),
        ("more than fifty can be compared", lambda f: f["best"]["compared"] > 50),
        "every readable drop, up to rounding",
    ),
    judged(
        "sparse variants on ViT-Base, OfficeHome (4.1)",
        "Some sparse variant outperforms full tuning and LoRA on ViT-Base, OfficeHome.",
        accuracy(VIT_HOME),
        lambda f: sparse_above(f, any, "FFT", "LoRA"),
        True,
        ("every sparse variant does", lambda f: sparse_above(f, all, "FFT", "LoRA")),
        ("every one outperforms full tuning", lambda f: sparse_above(f, all, "FFT")),
        "Table 2: by 2.79 points over full tuning, by 0.25 over LoRA",
    ),
    judged(
        "sparse variants on DeBERTa v3, MRPC (4.1)",
        "Some sparse variant outperforms full tuning and LoRA on DeBERTa v3, MRPC.",
        accuracy(MRPC),
        lambda f: sparse_above(f, any, "FFT", "LoRA"),
        False,
        ("every sparse variant does", lambda f: sparse_above(f, all, "FFT", "LoRA")),
        (EVERY_BELOW, sparse_below),
        "Table 2: the best sparse variant has 85.42, full tuning 85.80, LoRA 88.33",
    ),
    judged(
        "full tuning on ViT-Base, OfficeHome (4.1)",
        "Full tuning performs poorly on ViT-Base, OfficeHome: worst of the readable methods.",
        accuracy(VIT_HOME),
        lambda f: margin_below(f, "0"),
        True,
        ("by more than two points", lambda f: margin_below(f, "2")),
        ("by more than one point", lambda f: margin_below(f, "1")),
        "Table 2 without RAC-LoRA, whose cell is lost",
    ),
    poorly("full tuning on DeBERTa v3, RTE (4.1)", RTE),
    poorly("full tuning on DeepseekCoder, DJANGO (4.1)", DJANGO),
    judged(
        "full tuning on ViT-Base, CIFAR-10 (Figure 1)",
        "Full tuning has the worst test accuracy on ViT-Base, CIFAR-10, of the readable methods.",
        accuracy(VIT_CIFAR),
        lambda f: margin_below(f, "0"),
        True,
        ("by more than one point", lambda f: margin_below(f, "1")),
        ("by more than 0.2 points", lambda f: margin_below(f, "1/5")),
        "Table 2 without RAC-LoRA, whose cell is lost",
    ),
    judged(
        "no method is best everywhere (4.1)",
        "No one method is the best on every model and data set.",
        winners,
        lambda f: len(set(f.values())) > 1,
        True,
        ("full tuning is the best in every complete row", lambda f: set(f.values()) == {"FFT"}),
        ("Asymmetric LoRA is not the best everywhere", lambda f: set(f.values()) != {"Asym"}),
        "the complete rows of Table 2: DJANGO is won by Asymmetric LoRA, E2E by full tuning",
    ),
    judged(
        "nearly as well as Asymmetric LoRA (E)",
        "cLA loses at most 7 per cent against Asymmetric LoRA, on every model and data set.",
        frozen_pairs,
        lambda f: within(f, "7/100"),
        False,
        ("at most one per cent", lambda f: within(f, "1/100")),
        ("it does on all but DeepseekCoder, DJANGO", lambda f: within(f, "7/100", DJANGO)),
        "Table 2 without E2E; on DJANGO cLA has 7.83, Asymmetric LoRA 35.12",
    ),
    judged(
        "GPT2-Small is measured by accuracy (Table 4)",
        "The row of GPT2-Small in Table 2 holds accuracies: its drops are taken against the largest value.",
        metric,
        lambda f: drops_against(f, max),
        False,
        ("against the largest value, again", lambda f: drops_against(f, max)),
        (
            "they are taken against the least value, as for the perplexity of 4.1",
            lambda f: drops_against(f, min),
        ),
        "Tables 2 and 4",
    ),
    judged(
        "seven LoRA-based methods (abstract)",
        "The study spans seven LoRA-based methods and full fine-tuning.",
        columns,
        lambda f: f["LoRA-based"] == 7,
        False,
        ("it spans six", lambda f: f["LoRA-based"] == 6),
        (
            "it spans nine, as section 1 says; section 4 counts eight methods in all",
            lambda f: f["LoRA-based"] == 9,
        ),
        "the columns of Table 2",
    ),
    judged(
        "c3LA generalizes best (3.1)",
        "c3LA has the least generalization error of all methods in most rows of Table 3.",
        errors,
        could_win_most,
        False,
        ("it has in every readable row", lambda f: len(least_in(f, "c3LA")) == len(f)),
        (
            "it has the least error in none of the readable rows of Tables 3 and 15",
            lambda f: not least_in(f, "c3LA"),
        ),
        "Table 3 has twelve rows, six of them readable; the unreadable ones count for c3LA",
    ),
    judged(
        "errors ordered as the bounds (4.2)",
        "cLA has a smaller error than r-c3LA, cLA than RAC-LoRA, and Asymmetric LoRA than c3LA, in every row.",
        errors,
        bounds_order,
        False,
        (
            "by a factor of two in most rows",
            lambda f: all(2 * smaller(f, a, b, 2) > len(f) for a, b in ORDERED),
        ),
        (
            "in 3, 4 and 5 of the 8 readable rows",
            lambda f: [smaller(f, a, b) for a, b in ORDERED] == [3, 4, 5] and len(f) == 8,
        ),
        "Tables 3 and 15, readable rows",
    ),
    judged(
        "r-c3LA outperforms r-cLA in a case (4.2)",
        "In some row r-c3LA has a smaller error than r-cLA, though the larger bound.",
        errors,
        lambda f: smaller(f, "r-c3LA", "r-cLA") > 0,
        True,
        ("in every row", lambda f: smaller(f, "r-c3LA", "r-cLA") == len(f)),
        ("not in every row the other way", lambda f: smaller(f, "r-cLA", "r-c3LA") < len(f)),
        "Tables 3 and 15, readable rows",
    ),
    judged(
        "chains have more intruders, tuned models (4.2)",
        "After training each chain variant has more intruders than its counterpart without chains.",
        intruders(*EVERYWHERE),
        lambda f: not exceptions(f, range(3, 4)),
        True,
        ("at every recorded point of training", lambda f: not exceptions(f, range(4))),
        ("all but one comparison at any point", lambda f: len(exceptions(f, range(4))) <= 1),
        "Tables 13 and 14, four pairs, both thresholds, at 100 per cent of training",
    ),
    judged(
        "chains have more intruders, all of training (4.2)",
        "At each recorded point of training each chain variant has more intruders than its counterpart.",
        intruders(*EVERYWHERE),
        lambda f: not exceptions(f, range(4)),
        False,
        (
            "at least half more",
            lambda f: all(
                2 * value(r[c][t]) >= 3 * value(r[p][t])
                for r in f.values()
                for p, c in PAIRS.items()
                for t in range(4)
            ),
        ),
        (
            "it holds in 63 of 64 comparisons; CoLA has fewer than LoRA for ViT-Base at 0.8 and 25 per cent",
            lambda f: exceptions(f, range(4)) == [("table_14, 0.8", "CoLA", 0)],
        ),
        "Tables 13 and 14, four pairs, both thresholds, four points",
    ),
    judged(
        "least pronounced for LoRA and CoLA, RoBERTa, 0.8 (4.2)",
        "For RoBERTa-Base at 0.8 LoRA and CoLA differ least of the four pairs.",
        intruders(("table_13", "0.8")),
        lambda f: min(gaps(f), key=gaps(f).__getitem__) == "CoLA",
        True,
        ("by less than one", lambda f: gaps(f)["CoLA"] < 1),
        ("by less than Asymmetric LoRA and RAC-LoRA", lambda f: gaps(f)["CoLA"] < gaps(f)["RAC"]),
        "Table 13 at 100 per cent of training",
    ),
    judged(
        "least pronounced for LoRA and CoLA, RoBERTa, 0.4 (4.2)",
        "For RoBERTa-Base at 0.4 LoRA and CoLA differ least of the four pairs.",
        intruders(("table_13", "0.4")),
        lambda f: min(gaps(f), key=gaps(f).__getitem__) == "CoLA",
        False,
        ("by less than one", lambda f: gaps(f)["CoLA"] < 1),
        (
            "Asymmetric LoRA and RAC-LoRA differ least; CoLA has 5.9 against 3.0",
            lambda f: min(gaps(f), key=gaps(f).__getitem__) == "RAC",
        ),
        "Table 13 at 100 per cent of training",
    ),
    judged(
        "full tuning has most intruders, ViT-Base, 0.8 (4.2)",
        "For ViT-Base at 0.8 full tuning has the most intruders.",
        intruders(("table_14", "0.8")),
        lambda f: rank_of_full(f) == 0,
        True,
        ("it has fewest", lambda f: rank_of_full(f) == 8),
        ("at most one method has more", lambda f: rank_of_full(f) <= 1),
        "Table 14 at 100 per cent of training, without LoRA+; the model of Figure 3c cannot be read",
    ),
    judged(
        "full tuning has most intruders, ViT-Base, 0.4 (4.2)",
        "For ViT-Base at 0.4 full tuning has the most intruders.",
        intruders(("table_14", "0.4")),
        lambda f: rank_of_full(f) == 0,
        False,
        ("it has fewest", lambda f: rank_of_full(f) == 8),
        ("c3LA and r-c3LA have more", lambda f: rank_of_full(f) == 2),
        "Table 14 at 100 per cent of training, without LoRA+; the model of Figure 3c cannot be read",
    ),
    judged(
        "full tuning has most intruders, RoBERTa-Base (4.2)",
        "For RoBERTa-Base at 0.4 full tuning has the most intruders.",
        intruders(("table_13", "0.4")),
        lambda f: rank_of_full(f) == 0,
        False,
        ("at most one method has more", lambda f: rank_of_full(f) <= 1),
        ("it has the fewest of all nine", lambda f: rank_of_full(f) == 8),
        "Table 13 at 100 per cent of training, without LoRA+; the model of Figure 3c cannot be read",
    ),
    Reading(
        name="errors on ViT-Base (Figures 1 and 2, 4.2)",
        sentence="On ViT-Base full tuning has the least error for CIFAR-10, RAC-LoRA for OfficeHome.",
        evidence=Open("the conversion lost these cells of Table 15"),
        scope="text uncertain",
    ),
)

CLAIM = Claim(
    id="lora_variants/text_vs_tables",
    source=source("abstract, 3.1, 4.1, 4.2, E against Tables 2-4 and 13-15"),
    sentence="What the paper says about its results is what its tables show.",
    headline=(
        "Partly: one of two examples for the sparse variants and two of three for full tuning point the other way, c3LA "
        "generalizes best in no readable row, and full tuning has most intruders for one model at one threshold only."
    ),
    defect="false statement",
    readings=READINGS,
)

"""How much grouped-query attention restricts the order and the choice of heads.

Source: S2FT, section 5.4: for LLaMA3-8B and Mistral-7B only the down projection is tuned, because multi-query
attention makes the selection inflexible. h query heads share g key-value heads, h/g each, in consecutive groups.

Counted exactly: an order of the query heads needs no change at run time if and only if it permutes groups and
heads inside groups, so g! ((h/g)!)^g of the h! orders survive: for 1 < g < h fewer than all (for 32 and 8, the
shapes of both models, about one in 5.9e19). With a single key-value head, which is what "multi-query" means, all
orders survive, and the reason given is false for the output projection. A set of heads can become one contiguous
block if and only if it cuts at most two groups (contains some of their heads but not all), and the front block if
and only if it cuts at most one. Nothing restricts the choice of whole groups or, inside a head, of value channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations
from math import factorial
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair
from theory.evidence import Custom
from theory.s2ft import setting

SHAPES = ((2, 1), (2, 2), (3, 3), (4, 1), (4, 2), (4, 4), (6, 2), (6, 3))
MODELS = {"LLaMA3-8B": (32, 8), "Mistral-7B": (32, 8)}


def survives(order: tuple[int, ...], g: int) -> bool:
    """Whether the heads that stand in one group share one key-value head: order[i] is the head that stands at i."""
    m = len(order) // g
    return all(len({v // m for v in order[j * m : (j + 1) * m]}) == 1 for j in range(g))


def surviving(h: int, g: int) -> int:
    """The number of surviving orders, by looking at all."""
    return sum(survives(order, g) for order in permutations(range(h)))


def formula(h: int, g: int) -> int:
    """G! ((h/g)!)^g."""
    orders_of_groups: int = factorial(g) * factorial(h // g) ** g
    return orders_of_groups


def orders() -> Json:
    """Counts at all shapes, and the share for the two models by the formula."""
    counted = [[h, g, surviving(h, g)] for h, g in SHAPES]
    return {
        "counted": counted,
        "one order in": {n: str(factorial(h) // formula(h, g)) for n, (h, g) in MODELS.items()},
    }


def orders_agree(data: Json, fewer_from: int = 2) -> str | None:
    """A complaint unless the counts are the formula's, and below h! exactly for fewer_from <= g < h."""
    for h, g, count in data["counted"]:
        if count != surviving(h, g) or count != formula(h, g):
            return f"h = {h}, g = {g}: {count} orders survive, the formula says {formula(h, g)}"
        if (count < factorial(h)) != (fewer_from <= g < h):
            return f"h = {h}, g = {g}: {count} of {factorial(h)} orders survive"
    return None


def single_group(data: Json) -> str | None:
    """A complaint unless one key-value head leaves every order."""
    for h in data["heads"]:
        if surviving(h, 1) != factorial(h):
            return f"with one key-value head and {h} query heads some order fails"
    return None


def cut_groups(chosen: tuple[int, ...], h: int, g: int) -> int:
    """How many groups a set of heads contains partly."""
    m = h // g
    return sum(0 < sum(v // m == j for v in chosen) < m for j in range(g))


def blocks(h: int, g: int) -> Iterator[tuple[tuple[int, ...], bool, bool]]:
    """(set, whether some surviving order makes it contiguous, whether it can stand in front)."""
    good = [order for order in permutations(range(h)) if survives(order, g)]
    for size in range(1, h):
        anywhere = {tuple(sorted(o[a : a + size])) for o in good for a in range(h - size + 1)}
        front = {tuple(sorted(o[:size])) for o in good}
        for chosen in combinations(range(h), size):
            yield chosen, chosen in anywhere, chosen in front


def contiguous(data: Json, limit: int = 2) -> str | None:
    """A complaint unless sets are contiguous exactly when they cut at most `limit` groups, front sets at most one."""
    for h, g in data["shapes"]:
        for chosen, anywhere, front in blocks(h, g):
            cut = cut_groups(chosen, h, g)
            if anywhere != (cut <= limit) or front != (cut <= 1):
                return f"h = {h}, g = {g}: the set {chosen} cuts {cut} groups; contiguous {anywhere}, in front {front}"
    return None


BLOCK_SHAPES: Json = {"shapes": [[4, 2], [6, 2], [6, 3]]}


def evidence(status: str, produce: Any, verify: Any) -> Custom:
    """Evidence by complete enumeration."""
    return Custom(
        status=status,
        produce=produce,
        verify=verify,
        about="complete enumeration of orders and sets of heads",
    )


COUNTS = evidence("proved_within", orders, orders_agree)
FORMULA_HOLDS = Control(
    "the formula at all shapes", kind="true", check=lambda: orders_agree(orders()) is not None
)

CLAIM = Claim(
    id="s2ft/coupled_gqa",
    source=setting.source("5.4, grouped and multi-query attention"),
    sentence="Attention heads that share keys and values make the selection of heads inflexible.",
    headline=(
        "True for several groups: g! ((h/g)!)^g of the h! orders survive and a block may cut at most two groups; false "
        "for a single key-value head, where every order survives."
    ),
    defect="missing hypothesis",
    uses=("s2ft/coupled_mha",),
    readings=(
        Reading(
            name="grouped-query attention, 1 < g < h",
            sentence=(
                "With 1 < g < h key-value heads only g! ((h/g)!)^g of the h! orders of query heads "
                "survive, fewer than all."
            ),
            evidence=COUNTS,
            scope="all orders for h up to 6; the formula then gives one order in 5.9e19 for h = 32, g = 8",
            controls=(
                Control(
                    "fewer survive already for g = 1",
                    check=lambda: orders_agree(orders(), 1) is not None,
                    spares=lambda: orders_agree(orders()) is not None,
                ),
                FORMULA_HOLDS,
            ),
        ),
        Reading(
            name="multi-query attention in the strict sense, g = 1",
            sentence="With a single key-value head some order of the query heads fails.",
            evidence=evidence("refuted", lambda: {"heads": [1, 2, 3, 4, 5]}, single_group),
            scope="up to five query heads, all orders; all heads are alike to the one key-value head, so for more too",
            repair=Repair(sentence="some order fails if and only if 1 < g < h", evidence=COUNTS),
            controls=(
                Control(
                    "some order fails with two groups of two",
                    check=lambda: surviving(4, 2) < factorial(4),
                    spares=lambda: False,
                ),
                FORMULA_HOLDS,
            ),
        ),
        Reading(
            name="which sets become one block",
            sentence=(
                "A set of heads can be made contiguous exactly when it cuts at most two groups, and put "
                "in front when it cuts at most one."
            ),
            evidence=evidence("proved_within", lambda: BLOCK_SHAPES, contiguous),
            scope="all sets of heads for (h, g) = (4, 2), (6, 2), (6, 3)",
            controls=(
                Control(
                    "at most one group for any block",
                    check=lambda: contiguous(BLOCK_SHAPES, 1) is not None,
                    spares=lambda: contiguous(BLOCK_SHAPES) is not None,
                ),
                FORMULA_HOLDS,
            ),
        ),
    ),
)

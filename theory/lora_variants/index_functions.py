"""The index functions of Theorem 1: which product of norms stands at which index, and which offsets are summed.

Source: LoRA past, present, future, Theorem 1 and its proof, C.1.2. For layers l = 1, ..., L: w_l = |W0^l|,
d_l = |dW^l|, s_l = |sigma_l(0)|, lip_l the Lipschitz constant of sigma_l, C a bound on the input, all >= 0.

P(i, j), i = 1, ..., 2^L, is w or d of layer L - j + 1 as floor((i - 1) / 2^(L - j)) is odd or even: the binary digits
of i - 1, so i runs through all choices and the products sum to prod (w_l + d_l). Theorem 1 prints another
denominator, in the conversion at hand "2L - 1"; with 2^(L - 1) or 2 L - 1 the choice no longer depends on j.

F(i) is s of layer L - psi, psi = floor(log2 i), times lip_l H(i, j) over the psi layers above it; H is chosen by the
digits of i after the leading one, d for a one and w for a zero. What has to be summed follows from

    D_l = lip_l (d_l N_(l-1) + w_l D_(l-1)),    N_l = lip_l (w_l + d_l) N_(l-1) + s_l,    D_0 = 0, N_0 = C,

the bounds of the proof for |f_(W0+dW) - f_W0| and |f_(W0+dW)| after l layers: every choice for the layers above
except w throughout. That is the index 2^psi; the printed sum leaves out 2^a - 1 instead, where d stands throughout, so
it keeps products without any trained layer and drops ones that are needed. Exchanging w and d in H, as the proof
does for the other branch, puts it right; the other branch then is right from index 3 on, not from 1.

The denominators 2^(psi - j) of H are printed without the exponent in both places; they are read as powers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Identity, WordProof
from theory.lora_variants.setting import source
from theory.protocol import Instance, Kit

NORMS = "norms and Lipschitz constants >= 0"
Denominator = Callable[[int, int], int]


# -- the functions as printed ---------------------------------------------------------------------------------
def power(L: int, j: int) -> int:
    """2^(L - j), C.1.2."""
    return int(2 ** (L - j))


def norm(x: Instance, trained: bool, layer: int) -> Any:
    """|dW^l| or |W0^l|."""
    return x[f"{'d' if trained else 'w'}{layer}"]


def P(x: Instance, i: int, j: int, denominator: Denominator = power) -> Any:
    """|W0| of layer L - j + 1 if floor((i - 1) / denominator) is odd, |dW| if it is even."""
    return norm(x, ((i - 1) // denominator(x.L, j)) % 2 == 0, x.L - j + 1)


def product(k: Kit, x: Instance, i: int, denominator: Denominator = power) -> Any:
    """prod_j P(i, j)."""
    total = k.num(1)
    for j in range(1, x.L + 1):
        total = total * P(x, i, j, denominator)
    return total


def products(k: Kit, x: Instance, first: int, last: int, denominator: Denominator = power) -> Any:
    """The sum of prod_j P(i, j) over i = first, ..., last."""
    return k.sum(product(k, x, i, denominator) for i in range(first, last + 1))


def F(k: Kit, x: Instance, i: int, exchanged: bool = False) -> Any:
    """|sigma_(L-psi)(0)| prod_(j <= psi) lip_(L-j+1) H(i, j); `exchanged` swaps the cases of H."""
    psi = i.bit_length() - 1
    total = x[f"s{x.L - psi}"]
    for j in range(1, psi + 1):
        odd = (i // 2 ** (psi - j)) % 2 == 1
        total = total * x[f"lip{x.L - j + 1}"] * norm(x, odd != exchanged, x.L - j + 1)
    return total


def around_start(L: int) -> list[int]:
    """The indices of Phi_dW: up to 2^L - 2 (the theorem's 2^L - 1 is left out anyway), without 2^a - 1."""
    return [i for i in range(1, 2**L - 1) if i not in {2**a - 1 for a in range(1, L + 1)}]


def around_update(L: int, first: int) -> list[int]:
    """The indices of Phi_W0: first, ..., 2^L - 1 without 2^a."""
    return [i for i in range(first, 2**L) if i not in {2**a for a in range(1, L + 1)}]


def needed(L: int) -> list[int]:
    """What H as printed needs around W0: everything but the powers of two."""
    return [i for i in range(1, 2**L) if i & (i - 1)]


def offsets(k: Kit, x: Instance, indices: Sequence[int], exchanged: bool = False) -> Any:
    """The sum of F over some indices."""
    return k.sum(F(k, x, i, exchanged) for i in indices)


# -- what they stand for --------------------------------------------------------------------------------------
def difference(k: Kit, x: Instance, size: Any, apart: Any, around: str = "w") -> tuple[Any, Any]:
    """(D_L, N_L) from D_0 = apart, N_0 = size, around W0 ("w") or around dW ("d"): 4 L products."""
    D, N = apart, size
    for layer in range(1, x.L + 1):
        w, d, lip = x[f"w{layer}"], x[f"d{layer}"], x[f"lip{layer}"]
        base, change = (w, d) if around == "w" else (d, w)
        D, N = lip * (change * N + base * D), lip * (w + d) * N + x[f"s{layer}"]
    return D, N


def recursion(k: Kit, x: Instance, size: Any, around: str = "w") -> Any:
    """D_L for one input of that size."""
    return difference(k, x, size, k.num(0), around)[0]


def not_negative(k: Kit, x: Instance) -> None:
    """The numbers are norms and Lipschitz constants."""
    names = [f"{kind}{layer}" for kind in ("w", "d", "s", "lip") for layer in range(1, x.L + 1)]
    k.given(NORMS, k.all_(*(k.le(k.num(0), x[name]) for name in names), k.le(k.num(0), x.C)))


# -- thm_1_index_P ----------------------------------------------------------------------------------------------
def sum_of_products(k: Kit, x: Instance, denominator: Denominator) -> None:
    """All products sum to prod (w_l + d_l); the last is prod w_l, the first prod d_l."""
    not_negative(k, x)
    whole, start, update = k.num(1), k.num(1), k.num(1)
    for layer in range(1, x.L + 1):
        whole, start, update = (
            whole * (x[f"w{layer}"] + x[f"d{layer}"]),
            start * x[f"w{layer}"],
            update * x[f"d{layer}"],
        )
    k.claim("sum of all products", k.eq(products(k, x, 1, 2**x.L, denominator), whole))
    k.claim("last product", k.eq(product(k, x, 2**x.L, denominator), start))
    k.claim("first product", k.eq(product(k, x, 1, denominator), update))


def exponent_of_the_proof(k: Kit, x: Instance) -> None:
    """2^(L - j)."""
    sum_of_products(k, x, power)


def exponent_of_the_theorem(k: Kit, x: Instance) -> None:
    """2^(L - 1)."""
    sum_of_products(k, x, lambda L, j: int(2 ** (L - 1)))


def no_exponent(k: Kit, x: Instance) -> None:
    """2 L - 1."""
    sum_of_products(k, x, lambda L, j: 2 * L - 1)


def untrained_sum(k: Kit, x: Instance) -> None:
    """A consequence: without trained layers the products sum to prod w_l."""
    not_negative(k, x)
    y, start = Instance(x), k.num(1)
    for layer in range(1, x.L + 1):
        y[f"d{layer}"] = k.num(0)
        start = start * x[f"w{layer}"]
    k.claim("dW = 0", k.eq(products(k, y, 1, 2**x.L), start))


# -- thm_1_index_F ----------------------------------------------------------------------------------------------
def offsets_around_start(k: Kit, x: Instance) -> None:
    """Phi_dW as printed, from index 1 or 2 alike."""
    not_negative(k, x)
    k.claim("offsets", k.eq(offsets(k, x, around_start(x.L)), recursion(k, x, k.num(0))))


def offsets_around_update(k: Kit, x: Instance) -> None:
    """Phi_W0 as in the theorem, from index 1."""
    not_negative(k, x)
    k.claim("offsets", k.eq(offsets(k, x, around_update(x.L, 1)), recursion(k, x, k.num(0), "d")))


def offsets_from_three(k: Kit, x: Instance) -> None:
    """Phi_W0 from index 3, H as printed."""
    not_negative(k, x)
    k.claim("offsets", k.eq(offsets(k, x, around_update(x.L, 3)), recursion(k, x, k.num(0), "d")))


def offsets_exchanged(k: Kit, x: Instance) -> None:
    """Phi_W0 from index 3, the cases of H exchanged."""
    not_negative(k, x)
    k.claim("offsets", k.eq(offsets(k, x, around_update(x.L, 3), True), recursion(k, x, k.num(0), "d")))


def repaired_around_start(k: Kit, x: Instance) -> None:
    """Phi_dW: the printed indices with the cases of H exchanged, or the printed H without the powers of two."""
    not_negative(k, x)
    k.claim("H exchanged", k.eq(offsets(k, x, around_start(x.L), True), recursion(k, x, k.num(0))))
    k.claim("powers of two left out", k.eq(offsets(k, x, needed(x.L)), recursion(k, x, k.num(0))))


def how_many(k: Kit, x: Instance) -> None:
    """2^L - (L + 1) offsets, in Phi_dW and, from index 3, in Phi_W0; a C is summed for each."""
    not_negative(k, x)
    count = k.num(2**x.L - (x.L + 1)) * x.C
    k.claim("Phi_dW", k.eq(k.sum(x.C for _ in around_start(x.L)), count))
    k.claim("Phi_W0", k.eq(k.sum(x.C for _ in around_update(x.L, 3)), count))


def how_many_from_one(k: Kit, x: Instance) -> None:
    """2^L - (L + 1) offsets in Phi_W0 as in the theorem, from index 1; a C is summed for each."""
    not_negative(k, x)
    count = k.num(2**x.L - (x.L + 1)) * x.C
    k.claim("Phi_W0", k.eq(k.sum(x.C for _ in around_update(x.L, 1)), count))


def last_offset(k: Kit, x: Instance) -> None:
    """A consequence: with s_L alone nothing is added."""
    not_negative(k, x)
    y = Instance(x)
    for layer in range(1, x.L):
        y[f"s{layer}"] = k.num(0)
    k.claim("s_L alone", k.eq(offsets(k, y, around_update(x.L, 3), True), k.num(0)))


# -- thm_1_expansions -------------------------------------------------------------------------------------------
def one_layer(k: Kit, x: Instance) -> None:
    """C lip_1 d_1."""
    not_negative(k, x)
    k.claim("one layer", k.eq(x.C * x.lip1 * x.d1, recursion(k, x, x.C)))


def two_terms(x: Instance) -> Any:
    """What both versions of the two-layer expansion share."""
    lips = x.lip2 * x.lip1
    return x.C * lips * x.w2 * x.d1 + x.C * lips * x.d2 * x.w1 + x.lip2 * x.d2 * x.s1


def two_layers(k: Kit, x: Instance) -> None:
    """As printed: the product of both updates carries lip_2 alone."""
    not_negative(k, x)
    k.claim("two layers", k.eq(two_terms(x) + x.C * x.lip2 * x.d2 * x.d1, recursion(k, x, x.C)))


def two_layers_repaired(k: Kit, x: Instance) -> None:
    """With lip_1 in the product of both updates."""
    not_negative(k, x)
    both = x.C * x.lip2 * x.lip1 * x.d2 * x.d1
    k.claim("two layers", k.eq(two_terms(x) + both, recursion(k, x, x.C)))


def three_layers(k: Kit, x: Instance) -> None:
    """Seven products and four offsets, as printed."""
    not_negative(k, x)
    w, d = {layer: x[f"w{layer}"] for layer in (1, 2, 3)}, {layer: x[f"d{layer}"] for layer in (1, 2, 3)}
    seven = w[3] * w[2] * d[1] + w[3] * d[2] * w[1] + w[3] * d[2] * d[1]
    seven = seven + d[3] * w[2] * w[1] + d[3] * w[2] * d[1] + d[3] * d[2] * w[1] + d[3] * d[2] * d[1]
    upper = x.lip3 * x.lip2 * x.s1 * (w[3] * d[2] + d[3] * w[2])
    rest = x.lip3 * x.lip2 * d[3] * d[2] * x.s1 + x.lip3 * d[3] * x.s2
    k.claim("three layers", k.eq(x.C * x.lip1 * x.lip2 * x.lip3 * seven + upper + rest, recursion(k, x, x.C)))


def closed_form(k: Kit, x: Instance) -> None:
    """A consequence: the difference of the bounds on the sizes of the two networks, 2 L products each."""
    not_negative(k, x)
    new, old = x.C, x.C
    for layer in range(1, x.L + 1):
        lip, s = x[f"lip{layer}"], x[f"s{layer}"]
        new, old = lip * (x[f"w{layer}"] + x[f"d{layer}"]) * new + s, lip * x[f"w{layer}"] * old + s
    k.claim("closed form", k.eq(new - old, recursion(k, x, x.C)))


# -- settings ---------------------------------------------------------------------------------------------------
KINDS = ("w", "d", "s", "lip")


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """A row of each kind, and C."""
    return {**{kind: (1, d["L"]) for kind in KINDS}, "C": (1, 1)}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Squares of the parameters."""
    numbers = {
        f"{kind}{layer + 1}": k.sq(k.e(t[kind], 0, layer)) for kind in KINDS for layer in range(d["L"])
    }
    return Instance(numbers, C=k.sq(k.e(t.C, 0, 0)), L=d["L"])


def letters(L: int) -> Callable[[Any], Instance]:
    """L layers of any norms."""
    return lambda k: Instance(
        {f"{kind}{layer}": k.number(f"{kind}{layer}") for kind in KINDS for layer in range(1, L + 1)},
        C=k.number("C"),
        L=L,
    )


def layers(L: int, **changes: str) -> Json:
    """L layers with Lipschitz constants 1 and everything else 0, with changes."""
    plain = {f"{kind}{layer}": "1" if kind == "lip" else "0" for kind in KINDS for layer in range(1, L + 1)}
    return {**plain, "C": "1", "L": L, **changes}


def setting(*counts: int) -> Setting:
    """Networks of so many layers."""
    return Setting(
        dims=[{"L": L} for L in counts],
        free=free,
        build=build,
        letters=letters(counts[0]) if len(counts) == 1 else None,
        boundary=[layers(counts[-1] if len(counts) == 1 else 2)],
    )


def identity(**instance: str) -> Control:
    """The false control of an identity."""
    return Control("right side larger by 1/1000", tighten="1/1000", instance=layers(2, **instance))


TO_EIGHT = setting(*range(1, 9))
EVERY = Identity(TO_EIGHT.dims)
ONES = {f"{kind}{layer}": "1" for kind in ("w", "d", "s") for layer in (1, 2)}
POWERS = Repair(
    sentence="with the denominator 2^(L - j), the products are all choices of one norm for each layer",
    statement=exponent_of_the_proof,
    evidence=EVERY,
    sharp=layers(2, **ONES),
)
EXCHANGED = Repair(
    sentence="around dW from index 3 with the cases of H exchanged, as C.1.2 says in words",
    statement=offsets_exchanged,
    evidence=EVERY,
    sharp=layers(2, **ONES),
)
BELOW_POWERS = Control(
    "the repair's right side larger by 1/1000",
    statement=exponent_of_the_proof,
    tighten="1/1000",
    instance=layers(2, **ONES),
)
BELOW_EXCHANGED = Control(
    "the repair's right side larger by 1/1000",
    statement=offsets_exchanged,
    tighten="1/1000",
    instance=layers(2, **ONES),
)
SHORT = Control("one factor in closed form", kind="true", statement=closed_form)

INDEX_P = Claim(
    id="lora_variants/thm_1_index_P",
    source=source("Theorem 1 and C.1.2, P(i, j)"),
    sentence=(
        "The products of P(i, j) over the layers, summed over i = 1, ..., 2^L, give prod (|W0^l| + |dW^l|); the last "
        "one is prod |W0^l|, the first prod |dW^l|."
    ),
    headline="True with the denominator of the proof, 2^(L - j); false with the one that the theorem shows.",
    defect="text uncertain",
    setting=TO_EIGHT,
    readings=(
        Reading(
            name="denominator 2^(L - j), as in the proof",
            statement=exponent_of_the_proof,
            evidence=EVERY,
            scope="L <= 8 layers; for every L because i - 1 runs through all rows of L binary digits",
            sharp=layers(2, **ONES),
            unused=(NORMS,),
            controls=(identity(**ONES), Control("without updates", kind="true", statement=untrained_sum)),
        ),
        Reading(
            name="denominator 2^(L - 1), as in the theorem",
            statement=exponent_of_the_theorem,
            evidence=Counterexample(layers(2, w1="1", w2="1")),
            scope="two layers of norm 1, no update; with one layer both denominators agree",
            open_instance=layers(2, w1="2", w2="3", d1="1", d2="1"),
            repair=POWERS,
            controls=(BELOW_POWERS,),
        ),
        Reading(
            name="denominator 2 L - 1, as converted",
            statement=no_exponent,
            evidence=Counterexample(layers(2, d1="1", d2="1")),
            scope="two layers; an exponent that the conversion lost would explain it",
            open_instance=layers(2, w1="1/2", w2="1/3", d1="1", d2="1"),
            repair=POWERS,
            controls=(BELOW_POWERS,),
        ),
    ),
)
INDEX_F = Claim(
    id="lora_variants/thm_1_index_F",
    source=source("Theorem 1 and C.1.2, F(i), H(i, j) and the index sets"),
    sentence=(
        "The sums of F over the printed indices are the terms with sigma_l(0) in the recursive expansion of the "
        "difference of the two networks; there are 2^L - (L + 1) of them."
    ),
    headline=(
        "False as printed: around W0 the cases of H are exchanged, and around dW index 1 must go. With H exchanged and "
        "the sum from 3 both branches are right, and the count is right."
    ),
    defect="misprint",
    setting=TO_EIGHT,
    readings=(
        Reading(
            name="Phi_dW, as printed",
            statement=offsets_around_start,
            evidence=Counterexample(layers(2, s1="1", d2="1")),
            scope="two layers; the lower limits 1 and 2 and the upper limits 2^L - 2 and 2^L - 1 leave the same indices",
            open_instance=layers(2, s1="1", d2="1", w2="1/10"),
            repair=Repair(
                sentence="Phi_dW with the cases of H exchanged, or with the powers of two left out instead of 2^a - 1",
                statement=repaired_around_start,
                evidence=EVERY,
                sharp=layers(2, **ONES),
            ),
            controls=(
                Control(
                    "the repair's right side larger by 1/1000",
                    statement=repaired_around_start,
                    tighten="1/1000",
                    instance=layers(2, **ONES),
                ),
            ),
        ),
        Reading(
            name="Phi_W0 from index 1, as in the theorem",
            statement=offsets_around_update,
            evidence=Counterexample(layers(1, s1="1")),
            scope="one layer: |sigma_1(0)| appears, though it cancels in the difference",
            open_instance=layers(2, w2="1", d2="1/2", s1="1", s2="1"),
            repair=EXCHANGED,
            controls=(BELOW_EXCHANGED,),
        ),
        Reading(
            name="Phi_W0 from index 3, H as printed",
            statement=offsets_from_three,
            evidence=Counterexample(layers(2, s1="1", w2="1")),
            scope="two layers",
            open_instance=layers(2, s1="1", w2="1", d2="1/10"),
            repair=EXCHANGED,
            controls=(BELOW_EXCHANGED,),
        ),
        Reading(
            name="Phi_W0 from index 3, H exchanged as C.1.2 says in words",
            statement=offsets_exchanged,
            evidence=EVERY,
            scope="L <= 8 layers",
            sharp=layers(2, **ONES),
            unused=(NORMS,),
            controls=(identity(**ONES), Control("s_L alone", kind="true", statement=last_offset)),
        ),
        Reading(
            name="the count, Phi_W0 from index 3",
            statement=how_many,
            evidence=EVERY,
            scope="L <= 8 layers; 2^L - 1 indices less L left out",
            unused=(NORMS,),
            controls=(identity(), Control("s_L alone", kind="true", statement=last_offset)),
        ),
        Reading(
            name="the count, Phi_W0 from index 1",
            statement=how_many_from_one,
            evidence=Counterexample(layers(1)),
            scope="one layer; one too many for every L",
            repair=Repair(
                sentence="2^L - (L + 1) from index 3 on", statement=how_many, evidence=EVERY, sharp=layers(2)
            ),
            controls=(
                Control(
                    "the repair's count larger by 1/1000",
                    statement=how_many,
                    tighten="1/1000",
                    instance=layers(2),
                ),
            ),
        ),
    ),
)
EXPANSIONS = Claim(
    id="lora_variants/thm_1_expansions",
    source=source("C.1.2, expansions for one, two and three layers"),
    sentence="The printed expansions for one, two and three layers are what the recursion of the proof gives.",
    headline=(
        "True for one and three layers; the third term for two layers lacks the Lipschitz constant of the first activation."
    ),
    defect="misprint",
    readings=(
        Reading(
            name="one layer",
            statement=one_layer,
            setting=setting(1),
            evidence=WordProof(),
            scope="every norm and Lipschitz constant",
            unused=(NORMS,),
            controls=(
                Control("right side larger by 1/1000", tighten="1/1000", instance=layers(1, d1="1")),
                SHORT,
            ),
        ),
        Reading(
            name="two layers",
            statement=two_layers,
            setting=setting(2),
            evidence=Counterexample(layers(2, d1="1", d2="1", lip1="2")),
            scope="both updates of norm 1, lip_1 = 2: the bound is 1, and a scalar network differs by 2",
            repair=Repair(
                sentence="C lip_2 lip_1 |dW^2| |dW^1| in place of C lip_2 |dW^2| |dW^1|",
                statement=two_layers_repaired,
                evidence=WordProof(),
                sharp=layers(2, **ONES),
            ),
            controls=(
                Control(
                    "the repair's right side larger by 1/1000",
                    statement=two_layers_repaired,
                    tighten="1/1000",
                    instance=layers(2, **ONES),
                ),
                SHORT,
            ),
        ),
        Reading(
            name="three layers",
            statement=three_layers,
            setting=setting(3),
            evidence=WordProof(),
            scope="every norm and Lipschitz constant",
            unused=(NORMS,),
            controls=(
                Control("right side larger by 1/1000", tighten="1/1000", instance=layers(3, d3="1", s2="1")),
                SHORT,
            ),
        ),
    ),
)
CLAIMS = (INDEX_P, INDEX_F, EXPANSIONS)

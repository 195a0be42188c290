"""How far fine-tuning can move the generalization error: Theorem 1, its linear case, and what tight means there.

Source: LoRA past, present, future, Theorem 1, C.1.2, C.1.3 (Corollary 1, Remark 1), C.1.4. W, V: the weights of a layer
around which the bound is taken and the others, (W0, dW) for Phi_dW and (dW, W0) for Phi_W0; w, d their norms, or any
numbers with |W z| <= w |z| and |V z| <= d |z| for the z at hand, which covers spectral and Frobenius norms; lip, s
Lipschitz constant and |sigma(0)| of the activation; Lip that of the loss. G is risk minus empirical risk.

An instance follows one input x. a, b are what the layers get in the new network (W + V) and in the old one (W), both x
before the first layer; p, q, c are sigma at (W + V) a, at W b and at 0. Values that keep the Lipschitz conditions at
these points belong to a Lipschitz activation (Kirszbraun), so nothing is lost. `population` and `sample` are the mean
changes new minus old of the loss under the law and on the data; each is a mean of changes of at most Lip |p - q|.

As printed, the offsets are the wrong ones (index_functions): with x = 0, a first activation that is 1, a second layer
that is trained from 0 to 1 and fair labels 0, 1 with the loss |f - y|, the risk stays, a sample of ones is fitted, so G
grows by 1, and the printed Phi is 0. With the right offsets the theorem is true, and then
Phi_dW = 2 Lip (N_L(w + d) - N_L(w)) with N_l(v) = lip_l v_l N_(l-1)(v) + s_l, N_0 = C: 2 L products instead of 2^L.

For proofs in words one layer stands above any number of others: M >= |a| and D >= |a - b| (M - N for linear layers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, Identity, WordProof
from theory.lora_variants import index_functions as index
from theory.lora_variants.setting import source
from theory.partial import StepProof
from theory.protocol import Instance, Kit, Mat

OUTPUTS, SIZE, GAP = "difference of the outputs", "size of the output", "change of G"
POPULATION, SAMPLE = "change of the risk", "change of the empirical risk"
NORMS, LOSS, INPUT, APART = (
    "norms and constants >= 0",
    "Lip >= 0",
    "size of the input",
    "difference of the inputs",
)


# -- one input through both networks --------------------------------------------------------------------------
def norms_hold(k: Kit, x: Instance, layer: int, a: Mat, b: Mat) -> None:
    """The numbers w, d bound what layer layer does to the vectors at hand."""
    W, V, w, d = x[f"W{layer}"], x[f"V{layer}"], x[f"w{layer}"], x[f"d{layer}"]
    k.given(f"w >= 0, layer {layer}", k.le(k.num(0), w))
    k.given(f"d >= 0, layer {layer}", k.le(k.num(0), d))
    k.given(f"|W a| <= w |a|, layer {layer}", k.le(k.fro(W @ a), w * k.fro(a)))
    k.given(f"|V a| <= d |a|, layer {layer}", k.le(k.fro(V @ a), d * k.fro(a)))
    k.given(f"|W (a - b)| <= w |a - b|, layer {layer}", k.le(k.fro(W @ (a - b)), w * k.fro(a - b)))


def through(k: Kit, x: Instance) -> tuple[Mat, Mat]:
    """The outputs of both networks; the activations enter by their values."""
    a, b = x.a, x.b
    for layer in range(1, x.L + 1):
        norms_hold(k, x, layer, a, b)
        u, v = (x[f"W{layer}"] + x[f"V{layer}"]) @ a, x[f"W{layer}"] @ b
        p, q, c, lip = x[f"p{layer}"], x[f"q{layer}"], x[f"c{layer}"], x[f"lip{layer}"]
        k.given(f"lip >= 0, layer {layer}", k.le(k.num(0), lip))
        k.given(f"sigma moves little, layer {layer}", k.le(k.fro(p - q), lip * k.fro(u - v)))
        k.given(f"sigma from 0, layer {layer}", k.le(k.fro(p - c), lip * k.fro(u)))
        k.given(f"sigma from 0, old network, layer {layer}", k.le(k.fro(q - c), lip * k.fro(v)))
        k.given(f"|sigma(0)| <= s, layer {layer}", k.le(k.fro(c), x[f"s{layer}"]))
        a, b = p, q
    return a, b


def losses(k: Kit, x: Instance, f: Mat, g: Mat) -> Any:
    """G(new) - G(old), given that the loss is Lip-Lipschitz."""
    most = x.Lip * k.fro(f - g)
    k.given(LOSS, k.le(k.num(0), x.Lip))
    k.given(POPULATION, k.le(x.population, most))
    k.given("change of the risk, below", k.le(-x.population, most))
    k.given("change of the empirical risk, above", k.le(x.sample, most))
    k.given(SAMPLE, k.le(-x.sample, most))
    return x.population - x.sample


def same_input(k: Kit, x: Instance) -> None:
    """Both networks get the same input, of size at most M."""
    k.given(INPUT, k.le(k.fro(x.a), x.M))
    k.given("one input", k.eq(x.a, x.b))


def swapped(x: Instance) -> Instance:
    """The norms under the names of the paper when W is dW and V is W0."""
    y = Instance(x)
    for layer in range(1, x.L + 1):
        y[f"w{layer}"], y[f"d{layer}"] = x[f"d{layer}"], x[f"w{layer}"]
    return y


def lipschitz_product(k: Kit, x: Instance) -> Any:
    """The product of the lip_l."""
    total = k.num(1)
    for layer in range(1, x.L + 1):
        total = total * x[f"lip{layer}"]
    return total


def printed_around_start(k: Kit, x: Instance) -> None:
    """G(W0 + dW) <= G(W0) + Phi_dW, index functions as printed (P with the exponent of the proof)."""
    same_input(k, x)
    f, g = through(k, x)
    products = index.products(k, x, 1, 2**x.L - 1)
    offsets = index.offsets(k, x, index.around_start(x.L))
    Phi = 2 * x.Lip * (x.M * lipschitz_product(k, x) * products + offsets)
    k.claim(GAP, k.le(losses(k, x, f, g), Phi))


def printed_around_update(k: Kit, x: Instance) -> None:
    """G(W0 + dW) <= G(dW) + Phi_W0, index functions as printed, offsets from index 1; W is dW, V is W0."""
    same_input(k, x)
    f, g = through(k, x)
    y = swapped(x)
    products = index.products(k, y, 2, 2**x.L)
    offsets = index.offsets(k, y, index.around_update(x.L, 1))
    Phi = 2 * x.Lip * (x.M * lipschitz_product(k, x) * products + offsets)
    k.claim(GAP, k.le(losses(k, x, f, g), Phi))


def right_offsets(k: Kit, x: Instance) -> None:
    """Both branches with the terms of the recursion, from inputs with |a| <= M and |a - b| <= D."""
    k.given(INPUT, k.le(k.fro(x.a), x.M))
    k.given(APART, k.le(k.fro(x.a - x.b), x.D))
    f, g = through(k, x)
    D, N = index.difference(k, x, x.M, x.D)
    k.claim(OUTPUTS, k.le(k.fro(f - g), D))
    k.claim(SIZE, k.le(k.fro(f), N))
    k.claim(GAP, k.le(losses(k, x, f, g), 2 * x.Lip * D))


def layer_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Triangle inequalities, the norms, and the hypotheses on the inputs."""
    use = k.hypothesis
    lip, w, d = (use(f"{name} >= 0, layer 1") for name in ("lip", "w", "d"))
    moved = [k.triangle(x.V1 @ x.a, x.W1 @ (x.a - x.b)), use("|V a| <= d |a|, layer 1"), d * use(INPUT)]
    moved += [use("|W (a - b)| <= w |a - b|, layer 1"), w * use(APART)]
    apart = [use("sigma moves little, layer 1"), *(lip * term for term in moved)]
    grown = [k.triangle(x.W1 @ x.a, x.V1 @ x.a), use("|W a| <= w |a|, layer 1"), w * use(INPUT)]
    grown += [use("|V a| <= d |a|, layer 1"), d * use(INPUT)]
    size = [k.triangle(x.p1 - x.c1, x.c1), use("|sigma(0)| <= s, layer 1"), use("sigma from 0, layer 1")]
    size += [lip * term for term in grown]
    means = [use(POPULATION), use(SAMPLE), *(use(LOSS) * term for term in 2 * apart)]
    return {OUTPUTS: apart, SIZE: size, GAP: means}


def only_size(k: Kit, x: Instance) -> None:
    """A weaker statement: |f - g| <= 2 N_L + D_L."""
    k.given(INPUT, k.le(k.fro(x.a), x.M))
    k.given(APART, k.le(k.fro(x.a - x.b), x.D))
    f, g = through(k, x)
    D, N = index.difference(k, x, x.M, x.D)
    k.claim(OUTPUTS, k.le(k.fro(f - g), 2 * N + D))


# -- linear networks ------------------------------------------------------------------------------------------
def linear(k: Kit, x: Instance) -> None:
    """Corollary 1 for |a| <= M, |a - b| <= M - N; at M = N = C the bound is C times the printed sum over i < 2^L."""
    k.given(INPUT, k.le(k.fro(x.a), x.M))
    k.given(APART, k.le(k.fro(x.a - x.b), x.M - x.N))
    f, g = x.a, x.b
    for layer in range(1, x.L + 1):
        norms_hold(k, x, layer, f, g)
        f, g = (x[f"W{layer}"] + x[f"V{layer}"]) @ f, x[f"W{layer}"] @ g
    most = x.M * index.products(k, x, 1, 2**x.L) - x.N * index.product(k, x, 2**x.L)
    k.claim(OUTPUTS, k.le(k.fro(f - g), most))
    k.claim(SIZE, k.le(k.fro(f), x.M * index.products(k, x, 1, 2**x.L)))
    k.claim(GAP, k.le(losses(k, x, f, g), 2 * x.Lip * most))


def linear_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """(W + V) a - W b = V a + W (a - b)."""
    use = k.hypothesis
    w, d = use("w >= 0, layer 1"), use("d >= 0, layer 1")
    moved = [k.triangle(x.V1 @ x.a, x.W1 @ (x.a - x.b)), use("|V a| <= d |a|, layer 1"), d * use(INPUT)]
    moved += [use("|W (a - b)| <= w |a - b|, layer 1"), w * use(APART)]
    grown = [k.triangle(x.W1 @ x.a, x.V1 @ x.a), use("|W a| <= w |a|, layer 1"), w * use(INPUT)]
    grown += [use("|V a| <= d |a|, layer 1"), d * use(INPUT)]
    means = [use(POPULATION), use(SAMPLE), *(use(LOSS) * term for term in 2 * moved)]
    return {OUTPUTS: moved, SIZE: grown, GAP: means}


def linear_size(k: Kit, x: Instance) -> None:
    """A weaker statement: |f - g| <= 2 M prod (w_l + d_l)."""
    k.given(INPUT, k.le(k.fro(x.a), x.M))
    k.given("one input", k.eq(x.a, x.b))
    f, g = x.a, x.b
    for layer in range(1, x.L + 1):
        norms_hold(k, x, layer, f, g)
        f, g = (x[f"W{layer}"] + x[f"V{layer}"]) @ f, x[f"W{layer}"] @ g
    k.claim(OUTPUTS, k.le(k.fro(f - g), 2 * x.M * index.products(k, x, 1, 2**x.L)))


def remark(k: Kit, x: Instance) -> None:
    """One linear layer: G(new) <= G(old) + 2 C Lip d."""
    same_input(k, x)
    norms_hold(k, x, 1, x.a, x.b)
    f, g = (x.W1 + x.V1) @ x.a, x.W1 @ x.b
    k.claim(GAP, k.le(losses(k, x, f, g), 2 * x.M * x.Lip * x.d1))


def remark_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The outputs differ by V x."""
    k.use("one input")
    use = k.hypothesis
    moved = [use("|V a| <= d |a|, layer 1"), use("d >= 0, layer 1") * use(INPUT)]
    return {GAP: [use(POPULATION), use(SAMPLE), *(use(LOSS) * term for term in 2 * moved)]}


def remark_twice(k: Kit, x: Instance) -> None:
    """A weaker statement: 4 C Lip d."""
    same_input(k, x)
    norms_hold(k, x, 1, x.a, x.b)
    f, g = (x.W1 + x.V1) @ x.a, x.W1 @ x.b
    k.claim(GAP, k.le(losses(k, x, f, g), 4 * x.M * x.Lip * x.d1))


# -- tightness ------------------------------------------------------------------------------------------------
def untrained(k: Kit, x: Instance) -> Instance:
    """The norms at dW = 0."""
    return Instance({**x, **{f"d{layer}": k.num(0) for layer in range(1, x.L + 1)}})


def printed_vanishes(k: Kit, x: Instance) -> None:
    """C.1.4: without training every printed offset is zero."""
    index.not_negative(k, x)
    y = untrained(k, x)
    k.claim("dW = 0", k.eq(index.offsets(k, y, index.around_start(x.L)), k.num(0)))


def repaired_vanishes(k: Kit, x: Instance) -> None:
    """With the cases of H exchanged every offset is zero, and so is the rest of Phi_dW."""
    index.not_negative(k, x)
    y = untrained(k, x)
    k.claim("offsets at dW = 0", k.eq(x.C * index.offsets(k, y, index.around_start(x.L), True), k.num(0)))
    k.claim("products at dW = 0", k.eq(index.products(k, y, 1, 2**x.L - 1), k.num(0)))


def attained(k: Kit, x: Instance) -> None:
    """Scalar layers sigma(u) = lip u + s, all positive, input C: outputs f > g differ by D_L.

    The label g has probability 1 - share, the label f has `share`, all data carry f, and the loss is |out - y|: then G
    changes by (1 - share) of Phi_dW.
    """
    index.not_negative(k, x)
    f, g = x.C, x.C
    for layer in range(1, x.L + 1):
        lip, s = x[f"lip{layer}"], x[f"s{layer}"]
        f, g = lip * (x[f"w{layer}"] + x[f"d{layer}"]) * f + s, lip * x[f"w{layer}"] * g + s
    D = index.recursion(k, x, x.C)
    new, old = x.share * (f - f) + (1 - x.share) * (f - g), x.share * (f - g) + (1 - x.share) * (g - g)
    change = (new - (f - f)) - (old - (f - g))
    k.claim(OUTPUTS, k.eq(f - g, D))
    k.claim(GAP, k.eq(change, (1 - x.share) * (2 * D)))


def attained_one_term(k: Kit, x: Instance) -> None:
    """A consequence: without inputs and offsets the networks agree."""
    index.not_negative(k, x)
    y = Instance({**x, **{f"s{layer}": k.num(0) for layer in range(1, x.L + 1)}})
    k.claim(OUTPUTS, k.eq(index.recursion(k, y, k.num(0)), k.num(0)))


# -- settings -------------------------------------------------------------------------------------------------
def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Layers of n units, slopes and constants of the activations, an input, two mean changes."""
    n, L = d["n"], d["L"]
    shapes = {f"{name}{layer}": (n, n) for name in ("W", "V") for layer in range(1, L + 1)}
    shapes.update({f"{name}{layer}": (n, 1) for name in ("slope", "c") for layer in range(1, L + 1)})
    return {**shapes, "x": (n, 1), "means": (1, 2)}


def size(k: Kit, A: Mat) -> Any:
    """|A| for a number, else 1 + |A|_F^2, which is above every norm that a proof needs."""
    return k.abs_(k.e(A, 0, 0)) if A.shape == (1, 1) else 1 + k.fro2(A)


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Entrywise affine activations; the numbers of `size` for the norms."""
    n, L = d["n"], d["L"]
    x, f, g = Instance(L=L, a=t.x, b=t.x), t.x, t.x
    for layer in range(1, L + 1):
        W, V, c, slope = t[f"W{layer}"], t[f"V{layer}"], t[f"c{layer}"], t[f"slope{layer}"]
        D = k.zeros(n, n)
        for i in range(n):
            D = D + k.e(slope, i, 0) * k.unit(n, n, i, i)
        x[f"W{layer}"], x[f"V{layer}"], x[f"c{layer}"] = W, V, c
        x[f"w{layer}"], x[f"d{layer}"], x[f"lip{layer}"], x[f"s{layer}"] = (
            size(k, W),
            size(k, V),
            size(k, slope),
            size(k, c),
        )
        f, g = D @ ((W + V) @ f) + c, D @ (W @ g) + c
        x[f"p{layer}"], x[f"q{layer}"] = f, g
    x["M"] = x["N"] = size(k, t.x)
    x["D"], x["Lip"] = k.num(0), k.num(1)
    x["population"], x["sample"] = means(k, t, f, g)
    return x


def means(k: Kit, t: Instance, f: Mat, g: Mat) -> tuple[Any, Any]:
    """Mean changes between the two largest that a 1-Lipschitz loss of the first output allows."""
    far = k.e(f, 0, 0) - k.e(g, 0, 0)
    share = [k.sq(k.e(t.means, 0, i)) / (1 + k.sq(k.e(t.means, 0, i))) for i in (0, 1)]
    return share[0] * far, -share[1] * far


def build_linear(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """The same with identities as activations."""
    x = build(k, t, d)
    f, g = t.x, t.x
    for layer in range(1, d["L"] + 1):
        f, g = (t[f"W{layer}"] + t[f"V{layer}"]) @ f, t[f"W{layer}"] @ g
    x["population"], x["sample"] = means(k, t, f, g)
    return x


def letters(k: Any) -> Instance:
    """One layer on top of any others."""
    names = {"W1": ("m", "n"), "V1": ("m", "n"), "a": ("n", 1), "b": ("n", 1)}
    names.update({name: ("m", 1) for name in ("p1", "q1", "c1")})
    numbers = ("w1", "d1", "lip1", "s1", "M", "N", "D", "Lip", "population", "sample")
    return Instance(
        {name: k.letter(name, *shape) for name, shape in names.items()},
        **{name: k.number(name) for name in numbers},
        L=1,
    )


def chain(W: Sequence[str], V: Sequence[str], c: Sequence[str], x: str, population: str, sample: str) -> Json:
    """A network of scalar layers sigma(u) = u + c with the numbers that go with it; all entries >= 0."""
    f = g = Fraction(x)
    data: Json = {"a": [[x]], "b": [[x]], "M": x, "N": x, "D": "0", "Lip": "1", "L": len(W)}
    for layer in range(1, len(W) + 1):
        w, v, s = Fraction(W[layer - 1]), Fraction(V[layer - 1]), Fraction(c[layer - 1])
        f, g = (w + v) * f + s, w * g + s
        data.update(
            {f"W{layer}": [[str(w)]], f"V{layer}": [[str(v)]], f"w{layer}": str(w), f"d{layer}": str(v)}
        )
        data.update(
            {f"c{layer}": [[str(s)]], f"s{layer}": str(s), f"p{layer}": [[str(f)]], f"q{layer}": [[str(g)]]}
        )
        data[f"lip{layer}"] = "1"
    return {**data, "population": population, "sample": sample}


# fair labels 0 and 1, sample of ones, loss |f - y|, outputs 1 and 0; the first activation is constant
SWITCHED_ON = {**chain(("0", "0"), ("0", "1"), ("1", "0"), "0", "0", "-1"), "lip1": "0"}
SWITCHED_ON_OPEN = chain(("1/10", "1/10"), ("1/10", "1"), ("1", "1/10"), "1/10", "1/2", "-1")
# the label of the sample has probability 1/100
TWO_LAYERS = chain(("1", "1"), ("1", "1"), ("1", "1"), "1", "98/100", "-1")
NEARLY = {**TWO_LAYERS, "population": "392/100", "sample": "-4"}
LINEAR = {**chain(("1", "1"), ("1", "1"), ("0", "0"), "1", "294/100", "-3")}
SINGLE = chain(("1",), ("1",), ("0",), "1", "98/100", "-1")
NETWORKS = Setting(
    dims=[{"n": n, "L": L} for n, L in ((1, 1), (1, 2), (1, 3), (2, 2))],
    free=free,
    build=build,
    letters=letters,
    boundary=[TWO_LAYERS, NEARLY],
)
LINEAR_NETWORKS = Setting(
    dims=NETWORKS.dims, free=free, build=build_linear, letters=letters, boundary=[LINEAR, SINGLE]
)
ONE_LINEAR = Setting(
    dims=[{"n": 1, "L": 1}, {"n": 2, "L": 1}],
    free=free,
    build=build_linear,
    letters=letters,
    boundary=[SINGLE],
)


def free_share(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Norms, and the share of the label of the sample."""
    return {**index.free(d), "share": (1, 1)}


def build_share(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Any share: as identities these hold beyond [0, 1]."""
    return Instance({**index.build(k, t, d), "share": k.e(t.share, 0, 0)})


TO_EIGHT = Setting(
    dims=index.TO_EIGHT.dims,
    free=free_share,
    build=build_share,
    boundary=[{**index.layers(2, **index.ONES), "share": "1/100"}],
)
SPARE = ("sigma from 0, old network", "change of the risk, below", "change of the empirical risk, above")


def unused(layers: Sequence[int], *more: str) -> tuple[str, ...]:
    """The hypotheses that only make an instance a network."""
    return (*(f"{SPARE[0]}, layer {layer}" for layer in layers), *SPARE[1:], *more)


RIGHT = Repair(
    sentence=(
        "the same with the offsets of the recursive expansion: Phi_dW = 2 Lip (N_L(w + d) - N_L(w)) and "
        "Phi_W0 = 2 Lip (N_L(w + d) - N_L(d)) with N_l(v) = lip_l v_l N_(layer-1)(v) + s_l, N_0 = C"
    ),
    statement=right_offsets,
    evidence=StepProof(layer_proof),
    sharp=NEARLY,
)
BELOW_RIGHT = Control(
    "the repair's right side smaller by 1/50",
    statement=right_offsets,
    tighten="1/50",
    only=GAP,
    instance={**NEARLY, "population": "399/100"},
)
WEAKER = Control("|f - g| <= 2 N_L + D_L", kind="true", statement=only_size)

THEOREM = Claim(
    id="lora_variants/thm_1",
    source=source("Theorem 1, C.1.2"),
    sentence=(
        "The generalization error of the fine-tuned network is at most the smaller of G(W0) + Phi_dW and "
        "G(dW) + Phi_W0."
    ),
    headline=(
        "False with the offsets as printed when an activation does not vanish at 0; true for every network with the "
        "offsets of its proof, in a closed form of 2 L products."
    ),
    defect="misprint",
    setting=NETWORKS,
    uses=("lora_variants/thm_1_index_P", "lora_variants/thm_1_index_F"),
    readings=(
        Reading(
            name="around W0, offsets as printed",
            statement=printed_around_start,
            evidence=Counterexample(SWITCHED_ON),
            open_instance=SWITCHED_ON_OPEN,
            scope="two scalar layers; W = W0, V = dW",
            repair=RIGHT,
            controls=(BELOW_RIGHT,),
        ),
        Reading(
            name="around dW, offsets as printed",
            statement=printed_around_update,
            evidence=Counterexample(SWITCHED_ON),
            open_instance=SWITCHED_ON_OPEN,
            scope="two scalar layers; W = dW, V = W0, offsets from index 1",
            repair=RIGHT,
            controls=(BELOW_RIGHT,),
        ),
        Reading(
            name="offsets of the expansion",
            sentence="The same with the offsets that the proof's recursion gives, around W0 and, exchanging names, dW.",
            statement=right_offsets,
            evidence=StepProof(layer_proof),
            scope=(
                "one layer above any number of others, the step of the recursion, and G above the last: any input, layer "
                "sizes, norms with |Az| <= |A||z| (spectral, Frobenius), Lipschitz activations"
            ),
            sharp=NEARLY,
            unused=unused((1,)),
            controls=(
                Control(
                    "right side smaller by 1/50",
                    tighten="1/50",
                    only=GAP,
                    instance={**NEARLY, "population": "399/100"},
                ),
                WEAKER,
            ),
        ),
    ),
)
COROLLARY = Claim(
    id="lora_variants/cor_1",
    source=source("Corollary 1, C.1.3"),
    sentence=(
        "Without activations G(W0 + dW) exceeds G(W0) by at most 2 C Lip times the sum of prod_j P(i, j) over i < 2^L, "
        "and G(dW) by at most the same over i > 1."
    ),
    headline="True for every linear network, for spectral and Frobenius norms alike.",
    setting=LINEAR_NETWORKS,
    uses=("lora_variants/thm_1", "lora_variants/thm_1_index_P"),
    readings=(
        Reading(
            name="as printed",
            statement=linear,
            evidence=StepProof(linear_proof),
            scope="one layer above any number of others, of every size; around dW by exchanging W0 and dW",
            sharp=LINEAR,
            unused=unused(()),
            controls=(
                Control("right side smaller by 1/50", tighten="1/50", only=GAP, instance=LINEAR),
                Control("|f - g| <= 2 M prod (w + d)", kind="true", statement=linear_size),
            ),
        ),
    ),
)
REMARK = Claim(
    id="lora_variants/remark_1",
    source=source("Remark 1, C.1.3"),
    sentence="For one linear layer G(W0 + dW) <= min(G(W0) + 2 C Lip |dW|, G(dW) + 2 C Lip |W0|).",
    headline="True for every size, with spectral and Frobenius norms; 2 is the best constant.",
    setting=ONE_LINEAR,
    uses=("lora_variants/cor_1",),
    readings=(
        Reading(
            name="as printed",
            statement=remark,
            evidence=WordProof(remark_proof),
            scope="every size; the other half by exchanging W0 and dW",
            sharp=SINGLE,
            unused=(
                *unused(()),
                "w >= 0, layer 1",
                "|W a| <= w |a|, layer 1",
                "|W (a - b)| <= w |a - b|, layer 1",
            ),
            controls=(
                Control("right side smaller by 1/50", tighten="1/50", instance=SINGLE),
                Control("4 C Lip |dW|", kind="true", statement=remark_twice),
            ),
        ),
    ),
)
TIGHTNESS = Claim(
    id="lora_variants/tightness_c14",
    source=source("C.1.4"),
    sentence="The bound of Theorem 1 is tight; without training, |dW| = 0, each of its offsets is zero.",
    headline=(
        "The printed offsets do not vanish without training. The repaired ones do, which alone would not make a bound "
        "tight; but scalar networks attain it, up to the share of the sample's label in the population."
    ),
    defect="misprint",
    setting=TO_EIGHT,
    uses=("lora_variants/thm_1", "lora_variants/thm_1_index_F"),
    readings=(
        Reading(
            name="printed offsets vanish at dW = 0",
            statement=printed_vanishes,
            evidence=Counterexample({**index.layers(2, w2="1", s1="1"), "share": "0"}),
            scope="two layers: F(2) = |sigma_1(0)| lip_2 |W0^2|",
            repair=Repair(
                sentence="with the cases of H exchanged, Phi_dW = 0 at dW = 0",
                statement=repaired_vanishes,
                evidence=Identity(TO_EIGHT.dims),
            ),
            controls=(
                Control(
                    "all products vanish, the last one too",
                    statement=lambda k, x: k.claim(
                        "dW = 0", k.eq(index.products(k, untrained(k, x), 1, 2**x.L), k.num(0))
                    ),
                    instance={**index.layers(2, w1="1", w2="1"), "share": "0"},
                ),
            ),
        ),
        Reading(
            name="attained with trained layers",
            sentence="The repaired bound is attained: for all norms some network changes G by almost Phi_dW.",
            statement=attained,
            evidence=Identity(TO_EIGHT.dims),
            scope=(
                "L <= 8; scalar affine layers, for all norms, offsets and constants; share -> 0, and share = 0 for "
                "labels without atoms; the attained ratio is 1 - share"
            ),
            sharp=TO_EIGHT.boundary[0],
            unused=(index.NORMS,),
            controls=(
                Control("right side larger by 1/1000", tighten="1/1000", instance=TO_EIGHT.boundary[0]),
                Control("no input, no offset", kind="true", statement=attained_one_term),
            ),
        ),
    ),
)
CLAIMS = (THEOREM, COROLLARY, REMARK, TIGHTNESS)

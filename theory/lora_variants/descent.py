"""Gradient descent through random projectors: the common part of Theorem 2 in its regimes.

Source: LoRA past, present, future, Sections 3.2 and C.2, one layer in the shapes of section 2: W (n x m), A
(r x m), H = A'(AA')^+A (m x m), step W - gamma grad L(W) H. Several layers are one with H block diagonal.

The loss is scaled so that L_G = 1 (dividing it by L_G and multiplying gamma by L_G changes no side of any
inequality here relatively), and W counts from a minimiser. Fields of an instance:
W (n x m) the start, Q (m x m) with 0 <= Q <= I: the loss is <W, W Q> / 2 with gradient W Q; slack >= 0: how much
more than that each step lowers the loss; gamma the step; E (m x m) the mean of H, lam a lower bound on its
smallest eigenvalue; draws, r: H is one of `draws` coordinate blocks of r columns, each as likely; chains,
steps: a block is drawn for each chain and kept for its steps.

Why this covers every 1-smooth loss in a proof of one step: with Q = I the gradient W Q is any matrix, and by the
descent lemma the loss falls to loss - <G, D> + |D|^2 / 2 - slack with D = gamma G H and some slack >= 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Json
from theory.lora_variants import setting
from theory.protocol import Instance, Kit, Mat

SMOOTH, CURVED = "Q <= I", "Q psd"
POSITIVE, BELOW = "gamma > 0", "gamma < 1/L_G"
MEAN, LOWEST, SLACK = "E is the mean of H", "E >= lam I", "slack >= 0"


def loss(k: Kit, x: Instance, W: Mat) -> Any:
    """<W, W Q> / 2."""
    return k.num("1/2") * k.dot(W, W @ x.Q)


def selection(k: Kit, x: Instance, block: int) -> Mat:
    """I[:, block]: the columns that a draw trains; H = U U'."""
    return setting.selection(k, x.W.shape[1], x.r, block * x.r, f"block {block}")


def step(x: Instance, W: Mat, U: Mat) -> Mat:
    """W - gamma grad L(W) U U'."""
    moved: Mat = W - x.gamma * (W @ x.Q @ U @ U.T)
    return moved


def smooth_loss(k: Kit, x: Instance) -> None:
    """The loss is convex and 1-smooth, the step below 1 / L_G = 1."""
    k.given(CURVED, k.psd(x.Q))
    k.given(SMOOTH, k.psd(k.eye(x.Q.shape[0]) - x.Q))
    k.given(POSITIVE, k.lt(k.num(0), x.gamma))
    k.given(BELOW, k.lt(x.gamma, k.num(1)))


def uniform_blocks(k: Kit, x: Instance) -> None:
    """The law of A that Proposition 4 intends, and what lam is to it."""
    total = k.zeros(*x.E.shape)
    for block in range(x.draws):
        U = selection(k, x, block)
        total = total + U @ U.T
    k.given(MEAN, k.eq(k.num(x.draws) * x.E, total))
    k.given(LOWEST, k.psd(x.E - x.lam * k.eye(x.E.shape[0])))
    k.given("lam > 0", k.lt(k.num(0), x.lam))


def squares(k: Kit, x: Instance, W: Mat, chains: int, last: bool) -> Any:
    """The mean over the draws of the sum of |grad L|^2 along the run; with `last`, of the final iterate too."""
    if chains == 0:
        return k.fro2(W @ x.Q) if last else k.num(0)
    total = k.num(0)
    for block in range(x.draws):
        V, U = W, selection(k, x, block)
        for _ in range(x.steps):
            total = total + k.fro2(V @ x.Q)
            V = step(x, V, U)
        total = total + squares(k, x, V, chains - 1, last)
    return total / k.num(x.draws)


def printed(k: Kit, x: Instance, total: Any, last: bool) -> None:
    """E|grad L|^2 <= 2 (L(W0) - L*) / (lam gamma T), given the sum over the iterates."""
    T = x.chains * x.steps
    bound = 2 * loss(k, x, x.W) / (x.lam * x.gamma * k.num(T))
    k.claim("mean of |grad L|^2", k.le(total / k.num(T + last), bound))


def every_iterate(k: Kit, x: Instance) -> None:
    """As printed: the mean over W_0, ..., W_T."""
    smooth_loss(k, x)
    uniform_blocks(k, x)
    printed(k, x, squares(k, x, x.W, x.chains, True), True)


def iterates_of_the_proof(k: Kit, x: Instance) -> None:
    """The mean over W_0, ..., W_(T-1), which the proof bounds."""
    smooth_loss(k, x)
    uniform_blocks(k, x)
    printed(k, x, squares(k, x, x.W, x.chains, False), False)


def largest_value(k: Kit, x: Instance) -> None:
    """A weaker statement that holds in every regime: |grad L|^2 is at most 2 (L(W0) - L*) at every iterate."""
    smooth_loss(k, x)
    uniform_blocks(k, x)
    T = x.chains * x.steps
    total = squares(k, x, x.W, x.chains, True)
    k.claim("mean of |grad L|^2", k.le(total, 2 * k.num(T + 1) * loss(k, x, x.W)))


# -- what is true -------------------------------------------------------------------------------------------
def trained_part(k: Kit, x: Instance) -> None:
    """For every draw kept for the whole run: gamma (2 - gamma) sum |grad L(W_t) H|^2 <= 2 (L(W_0) - L(W_T))."""
    smooth_loss(k, x)
    k.given(SLACK, k.le(k.num(0), x.slack))
    T = x.chains * x.steps
    for block in range(x.draws):
        V, U, total = x.W, selection(k, x, block), k.num(0)
        for _ in range(T):
            total = total + k.fro2(V @ x.Q @ U)
            V = step(x, V, U)
        fall = loss(k, x, x.W) - loss(k, x, V) + k.num(T) * x.slack
        k.claim(f"trained part, draw {block}", k.le(x.gamma * (2 - x.gamma) * total, 2 * fall))


def trained_part_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Descent lemma for one step; further steps add up."""
    U = selection(k, x, 0)
    positive, moved = k.hypothesis(POSITIVE), U @ U.T @ x.Q @ x.W.T
    slack = k.hypothesis(SLACK)
    return {"trained part, draw 0": [positive * positive * k.against_psd(SMOOTH, moved), slack, slack]}


def first_of_chain(k: Kit, x: Instance, factor: Any) -> None:
    """One chain of `steps` steps from W: factor (lam |G|^2 + <G, G (H - E)>) <= 2 (L(before) - L(after)).

    The mean over the draw of the second term on the left is zero, since H is independent of W.
    """
    smooth_loss(k, x)
    k.given(SLACK, k.le(k.num(0), x.slack))
    k.given(LOWEST, k.psd(x.E - x.lam * k.eye(x.E.shape[0])))
    G = x.W @ x.Q
    for block in range(x.draws):
        V, U = x.W, selection(k, x, block)
        for _ in range(x.steps):
            V = step(x, V, U)
        fall = loss(k, x, x.W) - loss(k, x, V) + k.num(x.steps) * x.slack
        gain = x.lam * k.fro2(G) + k.dot(G, G @ (U @ U.T - x.E))
        k.claim(f"one chain, draw {block}", k.le(factor * gain, 2 * fall))


def plain_factor(k: Kit, x: Instance) -> None:
    """The printed constant: factor gamma."""
    first_of_chain(k, x, x.gamma)


def sharp_factor(k: Kit, x: Instance) -> None:
    """The constant sharpened: factor gamma (2 - gamma)."""
    first_of_chain(k, x, x.gamma * (2 - x.gamma))


def sharp_terms(k: Any, x: Instance) -> list[Any]:
    """Descent at the first step, E >= lam I, and a descent at each later step."""
    U, V = selection(k, x, 0), x.W
    positive, below = k.hypothesis(POSITIVE), k.hypothesis(BELOW)
    terms = [
        positive * below * k.against_psd(LOWEST, x.Q @ x.W.T),
        positive * k.against_psd(LOWEST, x.Q @ x.W.T),
    ]
    for number in range(x.steps):
        G = V @ x.Q
        terms += [positive * positive * k.against_psd(SMOOTH, U @ U.T @ G.T), *[k.hypothesis(SLACK)] * 2]
        if number:  # gamma (2 - gamma) = gamma (1 - gamma) + gamma
            terms += [positive * below * k.square(G @ U), positive * k.square(G @ U)]
        V = step(x, V, U)
    return terms


def sharp_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """As `sharp_terms`."""
    return {"one chain, draw 0": sharp_terms(k, x)}


def plain_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """Gamma |G H|^2 is the smaller part of gamma (2 - gamma) |G H|^2."""
    U, G = selection(k, x, 0), x.W @ x.Q
    positive, below = k.hypothesis(POSITIVE), k.hypothesis(BELOW)
    terms = [positive * k.against_psd(LOWEST, G.T), positive * below * k.square(G @ U)]
    terms += [positive * positive * k.against_psd(SMOOTH, U @ U.T @ G.T), *[k.hypothesis(SLACK)] * 2]
    return {"one chain, draw 0": terms}


# -- instances ----------------------------------------------------------------------------------------------
def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Start, orthogonal generator and spectrum of Q, step, slack."""
    m = d["draws"] * d["r"]
    return {"W": (d["n"], m), "O": (m, m), "s": (1, m), "g": (1, 1), "slack": (1, 1)}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """Q = O diag(1 / (1 + s_i^2)) O', gamma in [1/2, 1)."""
    m = d["draws"] * d["r"]
    basis, spectrum = k.skew_orth(t.O), k.zeros(m, m)
    for i in range(m):
        spectrum = spectrum + (1 / (1 + k.sq(k.e(t.s, 0, i)))) * k.unit(m, m, i, i)
    g = k.sq(k.e(t.g, 0, 0))
    lam = k.num(f"1/{d['draws']}")
    static = {name: d[name] for name in ("draws", "r", "chains", "steps")}
    gamma, slack = (g + 1) / (g + 2), k.sq(k.e(t.slack, 0, 0))
    return Instance(
        W=t.W, Q=basis @ spectrum @ basis.T, gamma=gamma, slack=slack, E=lam * k.eye(m), lam=lam, **static
    )


def letters_of(steps: int) -> Any:
    """Letters of every size for one draw of any projector, kept for so many steps."""

    def letters(k: Any) -> Instance:
        numbers = {name: k.number(name) for name in ("gamma", "slack", "lam")}
        Q, E = k.letter("Q", "m", "m", symmetric=True), k.letter("E", "m", "m")
        return Instance(W=k.letter("W", "n", "m"), Q=Q, E=E, draws=1, r="r", chains=1, steps=steps, **numbers)

    return letters


def identity(m: int, value: str = "1") -> list[list[str]]:
    """Value I as JSON."""
    return [[value if i == j else "0" for j in range(m)] for i in range(m)]


def run(chains: int, steps: int, gamma: str, W: Sequence[str] = ("1", "0"), **changes: Any) -> Json:
    """A run on |W|^2 / 2 with n = 1 and one column a block, with changes."""
    m = len(W)
    plain: Json = {
        "W": [list(W)], "Q": identity(m), "gamma": gamma, "slack": "0", "E": identity(m, f"1/{m}" if m > 1 else "1"),
        "lam": f"1/{m}" if m > 1 else "1", "draws": m, "r": 1, "chains": chains, "steps": steps,
    }  # fmt: skip
    return {**plain, **changes}

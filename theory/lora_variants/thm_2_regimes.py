"""Theorem 2 where A is frozen, where A is drawn for each chain, and where it is drawn for each step.

Source: LoRA past, present, future, Theorem 2 (Sections 3.2 and C.2): the mean of |grad L|^2 over the law of A and a
uniformly drawn iterate is at most 2 Delta / (lam gamma T), Delta = L(W0) - L*, lam = lambda_min(E[H]); claimed for
RAC-LoRA, Asymmetric LoRA, random-cLA and c3LA. The statement draws from W_0, ..., W_T, the proof from
W_0, ..., W_(T-1): two readings. Symbols: `descent`.

The proof takes the mean of H at every step as if it were drawn anew and independently of W_t.
- Fresh A at every step: true, for every size, law and smooth loss; 2 / gamma sharpens to 1 / (gamma (1 - gamma L_G / 2)).
- A frozen (Asymmetric LoRA, random-cLA): false from T = 4 on |W|^2 / 2 with m = 2, r = 1: whatever H does not
  see stays. What converges at that rate is the trained part, |grad L H|^2, without lam. On this loss only E[H] = I / 2
  matters, so Gaussian A (m = 2, r = 1) gives the same numbers as the two coordinate blocks, here and for chains.
- A kept for the steps of a chain (RAC-LoRA, c3LA in random order): false for two chains of two steps. True with the
  gradients at the starts of the chains and their number in place of T. The proof is one step, at which H is
  independent of W_t, and a second for the later ones, each a step of thm_2_frozen, which only lowers the loss.
"""

from __future__ import annotations

from typing import Any

from theory.claim import Claim, Control, Reading, Repair, Setting
from theory.evidence import Counterexample
from theory.lora_variants import descent, long_chain
from theory.lora_variants.descent import (
    LOWEST,
    every_iterate,
    iterates_of_the_proof,
    largest_value,
    letters_of,
    plain_factor,
    plain_proof,
    run,
    sharp_factor,
    sharp_proof,
    trained_part,
    trained_part_proof,
)
from theory.lora_variants.setting import source
from theory.partial import StepProof


def regime(*some: tuple[int, int, int, int, int], steps: int, boundary: Any) -> Setting:
    """The setting of one regime, for sizes (n, r, draws, chains, steps); in a proof a draw is kept for `steps`."""
    names = ("n", "r", "draws", "chains", "steps")
    dims = [dict(zip(names, one, strict=True)) for one in some]
    return Setting(
        dims=dims, free=descent.free, build=descent.build, letters=letters_of(steps), boundary=boundary
    )


ONE_BLOCK = run(1, 1, "1/2", ("1",))
NEARLY_ONE = run(1, 1, "99/100", ("1",))

# -- A frozen ---------------------------------------------------------------------------------------------------
FROZEN_ALL, FROZEN_PROOF = run(1, 4, "5/6"), run(1, 4, "4/5")
FROZEN = regime(
    (1, 1, 1, 1, 1),
    (1, 1, 2, 1, 3),
    (1, 1, 2, 1, 4),
    (2, 1, 2, 1, 3),
    (1, 2, 2, 1, 5),
    steps=1,
    boundary=[ONE_BLOCK, NEARLY_ONE, run(1, 3, "9/10")],
)
FROZEN_REPAIR = Repair(
    sentence=(
        "for every draw kept throughout, the mean of |grad L(W_t) H|^2 over t < T is at most "
        "Delta / (gamma (1 - gamma L_G / 2) T) <= 2 Delta / (gamma T), without lam"
    ),
    statement=trained_part,
    evidence=StepProof(trained_part_proof),
    sharp=ONE_BLOCK,
)
FROZEN_CONTROLS = (
    Control(
        "the repair's right side smaller by 1/50", statement=trained_part, tighten="1/50", instance=ONE_BLOCK
    ),
    Control("|grad L|^2 <= 2 L_G Delta throughout", kind="true", statement=largest_value),
)

# -- A kept for a chain -------------------------------------------------------------------------------------------
CHAIN_ALL, CHAIN_PROOF = run(2, 3, "4/5"), run(2, 2, "19/20")
CHAIN = regime(
    (1, 1, 1, 2, 1),
    (1, 1, 2, 1, 2),
    (1, 1, 2, 2, 2),
    (1, 1, 2, 2, 3),
    (2, 1, 2, 2, 2),
    steps=2,
    boundary=[ONE_BLOCK, run(2, 1, "9/10")],
)
CHAIN_REPAIR = Repair(
    sentence=(
        "over c chains, of whatever length, the mean of |grad L|^2 at the starts of the chains is at most "
        "Delta / (lam gamma (1 - gamma L_G / 2) c): the rate is in the number of chains, not of steps"
    ),
    statement=sharp_factor,
    evidence=StepProof(sharp_proof),
    necessary={LOWEST: run(1, 1, "1/2", ("1",), lam="2", E=[["1"]])},
    sharp=ONE_BLOCK,
)
CHAIN_CONTROLS = (
    Control(
        "the repair's right side smaller by 1/50", statement=sharp_factor, tighten="1/50", instance=ONE_BLOCK
    ),
    Control("|grad L|^2 <= 2 L_G Delta throughout", kind="true", statement=largest_value),
)

# -- A drawn at every step ----------------------------------------------------------------------------------------
FRESH = regime(
    (1, 1, 1, 1, 1),
    (1, 1, 2, 2, 1),
    (2, 1, 2, 2, 1),
    (1, 2, 2, 3, 1),
    steps=1,
    boundary=[ONE_BLOCK, NEARLY_ONE],
)
TOO_LARGE = run(1, 1, "1/2", ("1",), lam="4", E=[["1"]])

CLAIMS = (
    Claim(
        id="lora_variants/thm_2_frozen",
        source=source("Theorem 2, Asymmetric LoRA and random-cLA"),
        sentence=(
            "With A drawn once and frozen, the mean of |grad L|^2 over the law of A and the iterates is at most "
            "2 Delta / (lam gamma T)."
        ),
        headline=(
            "False from four steps on: what the frozen A does not see never moves. The trained part of the gradient "
            "does converge, at the rate 1 / T and without lam."
        ),
        defect="false statement",
        setting=FROZEN,
        uses=("lora_variants/prop_4",),
        readings=(
            Reading(
                name="iterates 0 to T, as printed",
                statement=every_iterate,
                evidence=Counterexample(FROZEN_ALL),
                scope="|W|^2 / 2 with n = 1, m = 2, r = 1, two equally likely A, T = 4; the instance is open",
                repair=FROZEN_REPAIR,
                controls=FROZEN_CONTROLS,
            ),
            Reading(
                name="iterates 0 to T - 1, as in the proof",
                statement=iterates_of_the_proof,
                evidence=Counterexample(FROZEN_PROOF),
                scope="the same loss and sizes",
                repair=FROZEN_REPAIR,
                controls=FROZEN_CONTROLS,
            ),
        ),
    ),
    Claim(
        id="lora_variants/thm_2_chain",
        source=source("Theorem 2, RAC-LoRA and c3LA"),
        sentence=(
            "With A drawn for each chain and kept for its steps, the mean of |grad L|^2 over all T iterates is at "
            "most 2 Delta / (lam gamma T)."
        ),
        headline=(
            "False for two chains of two or three steps: the rate is in the number of chains. It holds for the "
            "gradients at the starts of the chains with T replaced by that number."
        ),
        defect="false statement",
        setting=CHAIN,
        uses=("lora_variants/thm_2_frozen",),
        readings=(
            Reading(
                name="iterates 0 to T, as printed",
                statement=every_iterate,
                evidence=Counterexample(CHAIN_ALL),
                scope="|W|^2 / 2 with n = 1, m = 2, r = 1, two chains of three steps; the instance is open",
                repair=CHAIN_REPAIR,
                controls=CHAIN_CONTROLS,
            ),
            Reading(
                name="iterates 0 to T - 1, as in the proof",
                statement=iterates_of_the_proof,
                evidence=Counterexample(CHAIN_PROOF),
                scope="the same loss and sizes, two chains of two steps",
                repair=CHAIN_REPAIR,
                controls=CHAIN_CONTROLS,
            ),
            Reading(
                name="every iterate of long chains",
                sentence=(
                    "Over c chains of s steps the mean of |grad L|^2 over all iterates is at most "
                    "(2 Delta / (gamma (2 - gamma L_G) c)) (2 / lam + gamma^2 L_G^2 s) (ours)."
                ),
                statement=long_chain.statement,
                setting=long_chain.SETTING,
                evidence=StepProof(long_chain.proof),
                scope=(
                    "within a chain, one step after any number of steps, of every smooth loss; the chains add up by "
                    "the repairs of this claim and of thm_2_frozen"
                ),
                sharp=long_chain.start(1),
                controls=(
                    Control(
                        "right side smaller by 3/5",
                        tighten="3/5",
                        only=long_chain.TOTAL,
                        instance=long_chain.start(1),
                    ),
                    Control("the first square alone", kind="true", statement=long_chain.weaker),
                ),
            ),
        ),
    ),
    Claim(
        id="lora_variants/thm_2_fresh",
        source=source("Theorem 2, with an independent A at every step"),
        sentence=(
            "With a fresh independent A at every step, the mean of |grad L|^2 over the iterates is at most "
            "2 Delta / (lam gamma T)."
        ),
        headline=(
            "True for every size, law of A and smooth loss, and with 1 / (gamma (1 - gamma L_G / 2)) in place of "
            "2 / gamma; but no method named in the paper draws A at every step."
        ),
        setting=FRESH,
        readings=(
            Reading(
                name="as printed",
                statement=plain_factor,
                evidence=StepProof(plain_proof),
                scope=(
                    "one step of every smooth loss for every projector H; the mean over H and the sum over the steps "
                    "give the bound for W_0, ..., W_T as well as for W_0, ..., W_(T-1)"
                ),
                unused=("Q psd",),
                sharp=NEARLY_ONE,
                controls=(
                    Control("right side smaller by 1/20", instance=NEARLY_ONE, tighten="1/20"),
                    Control("lam above the smallest eigenvalue", drop=(LOWEST,), instance=TOO_LARGE),
                    Control("the mean over all runs, iterates 0 to T", kind="true", statement=every_iterate),
                ),
            ),
            Reading(
                name="sharpened",
                sentence="The same with Delta / (lam gamma (1 - gamma L_G / 2) T) (ours).",
                statement=sharp_factor,
                evidence=StepProof(sharp_proof),
                scope="one step of every smooth loss for every projector H, as above",
                unused=("Q psd",),
                sharp=ONE_BLOCK,
                controls=(
                    Control("right side smaller by 1/50", instance=ONE_BLOCK, tighten="1/50"),
                    Control("the printed constant", kind="true", statement=plain_factor),
                ),
            ),
        ),
    ),
)

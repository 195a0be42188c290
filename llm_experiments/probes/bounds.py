"""What every generalization and capacity bound of the theory says about a trained model, beside the measured gap.

One loss serves all bounds: cross-entropy clipped at `cap` nats. It lies in [0, cap], so it is sub-Gaussian with constant
cap / 2, and it is sqrt(2) |head| Lipschitz in the last states, |head| the spectral norm of the layer that gives the
scores. A bound of `cap` or more says nothing about such a loss: it is called vacuous.

| name | bounds | holds |
|---|---|---|
| `information` | the mean gap by the bits of all trained numbers | for every model, in the mean over samples |
| `table_1` | the same and `Phi_W0`, as printed | the norms are those of a chain of layers |
| `around_start` | the gap by that of the untuned model and `Phi_dW` | chain |
| `start_printed`, `start_hoeffding` | the same with a bound for the untuned model, chance 1 - 2 delta | chain |
| `rate_full`, `rate_tuned` | sqrt(d / N), sqrt(k / N) up to a constant | the rate alone is stated |
| `capacity_printed`, `capacity_sharp` | how far the output moves, over the largest base output | chain, no biases |

A transformer is no chain of layers without biases (attention, residuals, norms), so those values say how large this style
of bound gets on such weights; `applies` says so beside each. The start must not depend on the sample either, which a
head that was fitted to it does.

Source: LoRA past, present, future, Theorems 1, 4, 5, Lemma 1, Table 1 (claims `lora_variants/thm_1`, `thm_4`, `thm_5`,
`lemma_1`, `table_1`); PEFT against full fine-tuning (arXiv:2505.22355), Theorems 2 and 5 (claims
`peft_vs_fft/thm_2_literal`, `peft_vs_fft/thm_5_slope`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llm_experiments.data import Split
from llm_experiments.learner import Learner, Predictions
from llm_experiments.probes.capacity import capacity
from llm_experiments.probes.effective import base_weights, effective_weights, matrix_names, plain_model
from llm_experiments.probes.on_text import watched
from llm_experiments.probes.spectra import spectral_norm
from llm_experiments.train import Evaluation, Run
from theory.kits.floats import Floats
from theory.lora_variants import gap, index_functions
from theory.protocol import Instance

CAP = 2.0  # nats
DELTA = 0.05

_CHAIN = "no: the norms are multiplied as in a chain of layers, which a transformer is not"
_MEAN = "yes, to the mean over samples; the number of bits is that of the stored numbers"
_CHOSEN = "no: training data chose what trains, and the bits of that choice are not counted"
_RATE = "no: a rate without its constant"


@dataclass(frozen=True)
class Bound:
    """One bound on one model.

    Attributes:
        claim: id of the claim, where its verdict stands.
        of: `gap` (risk less empirical risk, in nats) or `output` (movement over the largest base output).
        log10: decimal logarithm of the value; None for a value of 0. Values can leave the range of floats.
        vacuous: a gap bound of at least the loss's range; a capacity of at least 1.
        applies: whether the statement is about this model, in words.
    """

    claim: str
    of: str
    log10: float | None
    vacuous: bool
    applies: str

    @property
    def value(self) -> float:
        """The value; infinity beyond the range of floats."""
        if self.log10 is None:
            return 0.0
        return 10**self.log10 if self.log10 < 308 else math.inf

    def decades(self, measured: float) -> float | None:
        """By how many decades the bound exceeds a measured value; None unless both are positive."""
        if self.log10 is None or measured <= 0:
            return None
        return self.log10 - math.log10(measured)


def bound_values(
    *,
    trained: int,
    total: int,
    samples: int,
    norms: Sequence[tuple[float, float]],
    loss_range: float = CAP,
    loss_lipschitz: float = 1.0,
    input_norm: float = 1.0,
    bits: int = 32,
    start_gap: float = 0.0,
    delta: float = DELTA,
) -> dict[str, Bound]:
    """Every bound, from the numbers that it needs.

    Args:
        trained: numbers that training may change, k (all links of a chain and the head counted).
        total: numbers that full tuning would change, d.
        samples: training examples N.
        norms: (|W0|, |dW|) of every layer, spectral, input side first; |W0| > 0.
        loss_range: the loss lies in [0, loss_range].
        loss_lipschitz: Lipschitz constant of the loss in the chain's output.
        input_norm: largest norm of an input of the chain, C.
        bits: of one trained number.
        start_gap: measured gap of the untuned model.
        delta: the bounds on the start hold with probability 1 - 2 delta.

    Raises:
        ValueError: a number that must be positive is not.
    """
    positive = {
        "trained": trained,
        "total": total,
        "samples": samples,
        "loss_range": loss_range,
        "bits": bits,
    }
    for name, number in positive.items():
        if number <= 0:
            message = f"{name} must be positive; got {number}"
            raise ValueError(message)
    if not 0 < delta < 0.5 or not norms or any(m <= 0 or phi < 0 for m, phi in norms):
        message = (
            f"0 < delta < 1/2, and norms must be pairs |W0| > 0, |dW| >= 0; got {delta}, {list(norms)[:2]} .."
        )
        raise ValueError(message)
    kit, depth = Floats(), len(norms)
    x = Instance(L=depth)
    for layer, (w, d) in enumerate(norms, 1):
        x |= {f"w{layer}": w, f"d{layer}": d, f"lip{layer}": 1.0, f"s{layer}": 0.0}
    # Without offsets, sigma(0) = 0, the printed index functions sum to the recursion.
    phi = {
        around: 2 * loss_lipschitz * float(index_functions.recursion(kit, x, input_norm, around))
        for around in ("w", "d")
    }
    information = gap.bits_bound(loss_range / 2, bits, trained, samples)

    def on_gap(claim: str, value: float, applies: str) -> Bound:
        log10 = math.log10(value) if 0 < value < math.inf else (math.inf if value else None)
        return Bound(claim, "gap", log10, value >= loss_range, applies)

    moved = capacity(norms)
    printed = gap.start_printed(loss_range, samples, delta, 0.0)
    hoeffding = gap.hoeffding(loss_range, samples, delta)
    start = max(start_gap, 0.0)
    return {
        "information": on_gap("lora_variants/thm_5", information, _MEAN),
        "table_1": on_gap("lora_variants/table_1", information + phi["d"], _CHAIN),
        "around_start": on_gap("lora_variants/thm_1", start + phi["w"], _CHAIN),
        "start_printed": on_gap("lora_variants/thm_4", printed + phi["w"], _CHAIN),
        "start_hoeffding": on_gap("lora_variants/thm_4", hoeffding + phi["w"], _CHAIN),
        "rate_full": on_gap("peft_vs_fft/thm_5_slope", loss_range * math.sqrt(total / samples), _RATE),
        "rate_tuned": on_gap("peft_vs_fft/thm_5_slope", loss_range * math.sqrt(trained / samples), _RATE),
        "capacity_printed": Bound(
            "peft_vs_fft/thm_2_literal",
            "output",
            moved.printed,
            moved.printed is not None and moved.printed >= 0,
            _CHAIN,
        ),
        "capacity_sharp": Bound("peft_vs_fft/thm_2_literal", "output", moved.sharp, moved.vacuous, _CHAIN),
    }


# --- a run -----------------------------------------------------------------------------------------------------


def clipped(found: Predictions, split: Split, cap: float = CAP) -> np.ndarray:
    """The loss of each example, min(cross-entropy, cap): of its label, or a token of its answer in the mean (nats)."""
    if "log_probs" in found.each:
        rows = found.each["log_probs"]
        labels = np.array([item.label for item in split.items[: len(rows)]])
        nats = -rows[np.arange(len(rows)), labels]
    else:
        nats = found.each["answer_nats"] / found.each["answer_tokens"]
    return np.minimum(nats, cap)


def measured_gap(run: Run, evaluation: Evaluation, test: str = "test", cap: float = CAP) -> dict[str, float]:
    """Mean clipped losses on training and test examples, and their difference with its standard error.

    Args:
        run: prepared.
        evaluation: of the run, on enough examples of both splits.
        test: name of the test split.
        cap: of the loss.

    Raises:
        ValueError: there is no such split.
    """
    if test not in evaluation.splits:
        message = f"test must be one of {', '.join(evaluation.splits)}; got {test!r}"
        raise ValueError(message)
    losses = {name: clipped(evaluation.splits[name], run.splits[name], cap) for name in ("train", test)}
    train, held = losses["train"], losses[test]
    error = math.sqrt(train.var(ddof=1) / len(train) + held.var(ddof=1) / len(held))
    return {
        "train": float(train.mean()),
        "test": float(held.mean()),
        "gap": float(held.mean() - train.mean()),
        "stderr": error,
    }


def layer_norms(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[tuple[float, float]]:
    """(|W0|, |dW|), spectral, of every matrix, in the order of the names (lowest block first)."""
    return [(spectral_norm(W0), spectral_norm(after[name] - W0)) for name, W0 in before.items()]


# How many sets of trained numbers a step of a schedule adds; a restart of PESO also puts a new start into the weights.
_SETS = {"link": 1, "turn": 1, "restart": 2}


def trained_numbers(run: Run) -> int:
    """Numbers that training has set so far: those of every link, turn or restart, and the head's.

    At most all numbers of the blocks, since the weights themselves are a description of the result.
    """
    schedule = run.tuned.schedule
    sets = 1 + sum(weight * getattr(schedule, name, 0) for name, weight in _SETS.items())
    return min(sets * run.tuned.counted(), all_numbers(run) - head_numbers(run)) + head_numbers(run)


def all_numbers(run: Run) -> int:
    """Numbers that full tuning of the same blocks would set, the head's included."""
    return max(run.tuned.blocks_total, run.tuned.counted()) + head_numbers(run)


def head_numbers(run: Run) -> int:
    """Parameters of an encoder's head; 0 for a decoder."""
    head = run.learner.head
    return 0 if head is None else sum(p.numel() for p in head.parameters())


def model_bounds(
    run: Run, *, start_gap: float = 0.0, bits: int | None = None, cap: float = CAP
) -> dict[str, Bound]:
    """Every bound for a run's model as it is now.

    Args:
        run: prepared, with a mergeable method; left as it is.
        start_gap: `measured_gap` of the untuned model (of the first evaluation).
        bits: of a trained number; by default those of its type.
        cap: of the loss.

    Raises:
        MethodError: the method has no plain model.
    """
    before, after = base_weights(run), effective_weights(run)
    head = run.learner.head
    scores = run.learner.network.get_output_embeddings() if head is None else head
    found = bound_values(
        trained=trained_numbers(run),
        total=all_numbers(run),
        samples=run.train_count,
        norms=layer_norms(before, after),
        loss_range=cap,
        loss_lipschitz=math.sqrt(2) * spectral_norm(scores.weight.detach().float().cpu()),
        input_norm=largest_input(run),
        bits=bits or 8 * run.optimizer.param_groups[0]["params"][0].element_size(),
        start_gap=start_gap,
    )
    if run.method.calibrated:
        # What trains was chosen by looking at the sample; that choice is information too.
        found["information"] = replace(found["information"], applies=_CHOSEN)
    return found


@torch.no_grad()
def largest_input(run: Run, limit: int = 64, batch: int = 32) -> float:
    """The largest norm of a token's state at the lowest tuned matrix, over some training examples."""
    network = plain_model(run).eval()
    learner = Learner(network, run.encoding, None, run.device)
    largest = 0.0
    for indices in run.splits["train"].by_length(batch, limit):
        inputs = learner.batch(run.splits["train"], indices).inputs
        mask = inputs["attention_mask"].bool().flatten()
        seen: list[Tensor] = []
        with watched(network, matrix_names(network)[:1], lambda name, X, seen=seen: seen.append(X)):
            network(**inputs)
        largest = max(largest, float(seen[0][mask].norm(dim=1).max()))
    return largest


def table(bounds: dict[str, Bound], measured: float) -> list[dict[str, Any]]:
    """Rows for a record: the bounds on the gap beside the measured one, the others by themselves."""
    return [
        {
            "name": name,
            "claim": bound.claim,
            "of": bound.of,
            "log10": bound.log10 if bound.log10 is None or math.isfinite(bound.log10) else None,
            "overflow": bound.log10 == math.inf,
            "vacuous": bound.vacuous,
            "applies": bound.applies,
            "measured": measured if bound.of == "gap" else None,
            "decades": bound.decades(measured) if bound.of == "gap" and bound.value < math.inf else None,
        }
        for name, bound in bounds.items()
    ]

"""How many directions of a layer's loss gradient carry the task, before anything is trained.

For a loss that is `<G, X> + tr(X' Hg X Hx) / 2` in a layer's change X (d_out x d_in), with a Kronecker Hessian of
factors Hg and Hx, the best change of rank r gains half the energy of the r largest singular values of the whitened
gradient `Hg^(-1/2) G Hx^(-1/2)`; so the rank that is worth training is known beforehand. Here Hx is the covariance of the
layer's inputs and Hg, where asked for, that of the gradients at its outputs, each damped:
`Sigma + damping * tr(Sigma) / d * I`. A real loss is no such quadratic; the number is a prediction to be tried.

An average over few examples has noise in all directions, and whitening raises it. Two noise floors say where it ends:

* halves: the parts of the data with random signs, half of each; the mean gradient cancels, its noise does not;
* shuffled: the gradient with labels exchanged among the examples. Besides noise it holds what any wrong label asks for
  (less confidence), so this floor can be too high.

Singular values below the largest one of the floor are not counted.

Source: PEFT against full fine-tuning (arXiv:2505.22355), Theorem 3; claims `peft_vs_fft/thm_3_marginal` and
`peft_vs_fft/thm_3_critical_rank`. Damped Kronecker factors: Martens and Grosse 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from llm_experiments.data import IGNORED
from llm_experiments.learner import Learner
from llm_experiments.probes.effective import matrix_names, plain_model
from llm_experiments.probes.on_text import watched
from llm_experiments.train import Run
from theory.peft_vs_fft.saturation import critical_rank

WHITENINGS = ("none", "input", "both")


@dataclass
class LayerGradients:
    """The mean loss gradient of one matrix, with its noise.

    Attributes:
        G: gradient of the mean loss (d_out x d_in).
        halves: gradients with random signs (draws x d_out x d_in), distributed as the noise of `G`.
        shuffled: gradient with exchanged labels (d_out x d_in).
        Sigma_x: second moments of the inputs over all tokens that are no padding (d_in x d_in).
        Sigma_g: the same of the gradients at the outputs, of the summed loss (d_out x d_out).
        examples: how many training examples were averaged.
    """

    G: Tensor
    halves: Tensor
    shuffled: Tensor
    Sigma_x: Tensor
    Sigma_g: Tensor
    examples: int


@dataclass(frozen=True)
class GradientSpectrum:
    """Singular values of a gradient and what stands out of its noise.

    Attributes:
        whitening: `none`, `input` or `both`.
        damping: of the covariances.
        values: singular values, descending.
        rank_90: smallest rank with 90% of the energy, noise included.
        floor: by name (`halves`, `shuffled`) the largest singular value of the noise.
        above: by name, how many values are larger than the floor.
        critical: by name, the smallest rank with 90% of the energy that values above the floor have beyond it.
    """

    whitening: str
    damping: float
    values: Tensor
    rank_90: int
    floor: dict[str, float]
    above: dict[str, int]
    critical: dict[str, int]

    def gain(self, r: int) -> float:
        """By how much the quadratic model says that rank r lowers the loss (nats): half the energy of r values."""
        return 0.5 * float(self.values[:r].square().sum())


def damped(Sigma: Tensor, damping: float) -> Tensor:
    """`Sigma + damping * tr(Sigma) / d * I`.

    Raises:
        ValueError: the result would be singular: no damping and a covariance of lower rank, or no energy.
    """
    d = len(Sigma)
    result = Sigma + damping * (Sigma.diagonal().sum() / d) * torch.eye(d, dtype=Sigma.dtype)
    if bool(torch.linalg.cholesky_ex(result).info):
        message = f"damping must be larger for this covariance, it is singular with {damping}; try 1e-2"
        raise ValueError(message)
    return result


def whitened(
    G: Tensor, damping: float, Sigma_x: Tensor | None = None, Sigma_g: Tensor | None = None
) -> Tensor:
    """A matrix with the singular values of `Sigma_g^(-1/2) G Sigma_x^(-1/2)` (.. x d_out x d_in).

    Cholesky factors differ from symmetric roots by rotations, which singular values do not see.
    """
    if Sigma_x is not None:
        L = torch.linalg.cholesky(damped(Sigma_x, damping))
        G = torch.linalg.solve_triangular(L, G.mT, upper=False).mT
    if Sigma_g is not None:
        L = torch.linalg.cholesky(damped(Sigma_g, damping))
        G = torch.linalg.solve_triangular(L, G, upper=False)
    return G


def rank_for(energies: Sequence[float], share: float = 0.9) -> int:
    """Smallest rank that holds `share` of the energies (descending); 0 if there are none."""
    left = [sum(energies[r:]) for r in range(len(energies) + 1)]
    # One unit of rounding short of the share counts as reached.
    return critical_rank(left, 1 - share + 1e-12) if left[0] > 0 else 0


def gradient_spectrum(
    layer: LayerGradients, whitening: str = "input", damping: float = 1e-2
) -> GradientSpectrum:
    """The spectrum of one matrix's gradient beside its noise floors.

    Raises:
        ValueError: an unknown whitening, a negative damping, or one too small for the covariance.
    """
    if whitening not in WHITENINGS or damping < 0:
        message = (
            f"whitening must be one of {', '.join(WHITENINGS)} and damping >= 0; got {whitening!r}, {damping}"
        )
        raise ValueError(message)
    Sigma_x = None if whitening == "none" else layer.Sigma_x
    Sigma_g = layer.Sigma_g if whitening == "both" else None
    stack = torch.cat([layer.G[None], layer.shuffled[None], layer.halves]).double()
    values = torch.linalg.svdvals(whitened(stack, damping, Sigma_x, Sigma_g))
    floor = {"halves": float(values[2:, 0].max()), "shuffled": float(values[1, 0])}
    beyond = {name: [v**2 - most**2 for v in values[0].tolist() if v > most] for name, most in floor.items()}
    return GradientSpectrum(
        whitening=whitening,
        damping=damping,
        values=values[0],
        rank_90=rank_for(values[0].square().tolist()),
        floor=floor,
        above={name: len(energies) for name, energies in beyond.items()},
        critical={name: rank_for(energies) for name, energies in beyond.items()},
    )


def signs(parts: int, draws: int, seed: int) -> Tensor:
    """Random signs (draws x parts), as many of each in every draw as the number of parts allows."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.where(torch.arange(parts) % 2 == 0, 1.0, -1.0).double()
    return torch.stack([half[torch.randperm(parts, generator=generator)] for _ in range(draws)])


def gather(
    run: Run, examples: int = 1600, part: int = 16, draws: int = 4, seed: int = 0
) -> dict[str, LayerGradients]:
    """Gradients of all tuned matrices at the run's model as it is now; prepared and not yet trained: untuned.

    One forward and two backward passes over the examples. The run is left as it is.

    Args:
        run: prepared.
        examples: how many of the training examples, in the order of their hashes; all if there are fewer.
        part: examples a forward pass, at most; at least four parts are made.
        draws: how many draws of signs.
        seed: of signs and exchanged labels.

    Raises:
        MethodError: the method has no plain model.
        ValueError: fewer than four examples.
    """
    count = min(examples, run.train_count)
    if count < 4:
        message = f"examples must be at least 4, two a half; got {count}"
        raise ValueError(message)
    part = min(part, count // 4)
    # An even number of parts of one size, so that signs cancel the mean exactly.
    parts = count // part // 2 * 2
    count = parts * part
    network = plain_model(run).eval().requires_grad_(False)
    learner = Learner(network, run.encoding, run.learner.head, run.device)
    split = run.splits["train"]
    batches = [learner.batch(split, list(range(begin, begin + part))) for begin in range(0, count, part)]
    labels = [batch.targets[batch.targets != IGNORED] for batch in batches]
    sizes, joined = [len(each) for each in labels], torch.cat(labels)
    generator = torch.Generator().manual_seed(seed)
    exchanged = joined[torch.randperm(len(joined), generator=generator).to(joined.device)].split(sizes)

    names = matrix_names(network)
    weights = [network.get_parameter(name).requires_grad_(True) for name in names]
    sign = signs(parts, draws, seed)
    gathered = [_empty(weight, draws, count) for weight in weights]
    for number, (batch, wrong) in enumerate(zip(batches, exchanged, strict=True)):
        mask = batch.inputs["attention_mask"].bool()
        outputs: dict[str, Tensor] = {}

        def see(name: str, X: Tensor, mask: Tensor = mask) -> None:
            real = X[mask.flatten()]
            gathered[names.index(name)].Sigma_x += (real.T @ real).double().cpu()

        with watched(network, names, see), _outputs(network, names, outputs):
            scores, targets, _ = learner.scores(batch)
        loss = functional.cross_entropy(scores, targets, reduction="sum")
        right = torch.autograd.grad(loss, [*weights, *(outputs[n] for n in names)], retain_graph=True)
        other = torch.autograd.grad(functional.cross_entropy(scores, wrong, reduction="sum"), weights)
        for i, layer in enumerate(gathered):
            gradient = right[i].float().cpu() / len(joined)
            layer.G += gradient
            for total, each in zip(layer.halves, sign[:, number].tolist(), strict=True):
                total.add_(gradient, alpha=each)
            layer.shuffled += other[i].float().cpu() / len(joined)
            g = right[len(names) + i].flatten(0, -2)[mask.flatten()].float()
            layer.Sigma_g += (g.T @ g).double().cpu()
    tokens = sum(int(batch.inputs["attention_mask"].sum()) for batch in batches)
    for layer in gathered:
        layer.Sigma_x /= tokens
        layer.Sigma_g /= tokens
    return dict(zip(names, gathered, strict=True))


def _empty(weight: Tensor, draws: int, examples: int) -> LayerGradients:
    d_out, d_in = weight.shape
    return LayerGradients(
        G=torch.zeros(d_out, d_in),
        halves=torch.zeros(draws, d_out, d_in),
        shuffled=torch.zeros(d_out, d_in),
        Sigma_x=torch.zeros(d_in, d_in, dtype=torch.float64),
        Sigma_g=torch.zeros(d_out, d_out, dtype=torch.float64),
        examples=examples,
    )


def _outputs(network: nn.Module, names: Sequence[str], into: dict[str, Tensor]) -> ExitStack:
    """While open, the outputs of the layers are put into `into`."""
    stack = ExitStack()
    for name in names:

        def hook(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
            into[name] = output

        module = network.get_submodule(name.removesuffix(".weight"))
        stack.callback(module.register_forward_hook(hook).remove)
    return stack

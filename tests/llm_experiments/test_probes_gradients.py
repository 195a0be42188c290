"""Gradient spectra on a planted linear teacher, where the rank and every gain are known."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from llm_experiments.probes.gradients import (
    LayerGradients,
    damped,
    gather,
    gradient_spectrum,
    rank_for,
    signs,
    whitened,
)

D_OUT, D_IN, RANK = 12, 16, 3


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance():
    """Eigenvalues from 1 to 1/100 in a random basis."""
    Q = torch.linalg.qr(draw(D_IN, D_IN, seed=5)).Q
    return Q @ torch.diag(torch.logspace(0, -2, D_IN, dtype=torch.float64)) @ Q.T


def teacher():
    return draw(D_OUT, RANK, seed=1) @ draw(RANK, D_IN, seed=2)


def planted(examples=4096, noise=0.5, parts=64, strength=1.0) -> LayerGradients:
    """Gradient of |y - W x|^2 / 2 at W = 0 for y = strength * teacher x + noise, with correlated inputs."""
    root = torch.linalg.cholesky(covariance())
    x = draw(examples, D_IN, seed=3) @ root.T
    y = strength * x @ teacher().T + noise * draw(examples, D_OUT, seed=4)
    wrong = y[torch.randperm(examples, generator=torch.Generator().manual_seed(6))]
    pieces = -torch.einsum("pbi,pbj->pij", y.view(parts, -1, D_OUT), x.view(parts, -1, D_IN)) / examples
    sign = signs(parts, 4, 0)
    return LayerGradients(
        G=pieces.sum(0),
        halves=torch.einsum("kp,pij->kij", sign, pieces),
        shuffled=-wrong.T @ x / examples,
        Sigma_x=x.T @ x / examples,
        Sigma_g=y.T @ y / examples,
        examples=examples,
    )


@pytest.mark.parametrize("floor", ["halves", "shuffled"])
@pytest.mark.parametrize("whitening", ["input", "both"])
def test_the_planted_rank_stands_out_of_the_noise(whitening, floor):
    found = gradient_spectrum(planted(), whitening, damping=1e-3)
    assert found.above[floor] == RANK
    assert 1 <= found.critical[floor] <= RANK


def test_noise_alone_has_critical_rank_zero_where_the_raw_count_says_many():
    found = gradient_spectrum(planted(strength=0.0), "input", damping=1e-3)
    assert found.rank_90 > 6
    assert found.above["halves"] <= 1  # at chance one value may pass the largest of four draws


def test_gains_are_those_of_the_best_rank_r_change():
    """For |(Delta - X) x|^2 / 2 the loss left by rank r is half the tail of Delta Sigma^(1/2)."""
    Sigma, Delta = covariance(), teacher()
    layer = planted()
    layer.G, layer.Sigma_x = -Delta @ Sigma, Sigma
    found = gradient_spectrum(layer, "input", damping=0.0)
    root = torch.linalg.cholesky(Sigma)
    best = torch.linalg.svdvals(Delta @ root)
    U, s, Vh = torch.linalg.svd(Delta @ root, full_matrices=False)
    for r in range(RANK + 1):
        X = torch.linalg.solve_triangular(root, (U[:, :r] * s[:r] @ Vh[:r]), upper=False, left=False)
        left = 0.5 * torch.linalg.norm((Delta - X) @ root).square()
        whole = 0.5 * best.square().sum()
        assert found.gain(r) == pytest.approx(float(whole - left), rel=1e-9, abs=1e-12)


def test_the_noise_of_halves_has_the_size_of_the_noise_of_the_mean():
    """Without a signal both are draws of one distribution."""
    layer = planted(strength=0.0, examples=8192, parts=128)
    ratio = layer.halves.square().sum((1, 2)).mean() / layer.G.square().sum()
    assert 0.6 < float(ratio) < 1.6
    assert torch.equal(signs(6, 3, 0).sum(1), torch.zeros(3, dtype=torch.float64))


def test_whitening_is_by_symmetric_roots_up_to_rotation():
    G, Sx, Sg = teacher(), covariance(), draw(D_OUT, D_OUT, seed=8)
    Sg = Sg @ Sg.T

    def root(S):
        values, vectors = torch.linalg.eigh(damped(S, 0.1))
        return vectors @ torch.diag(values**-0.5) @ vectors.T

    expected = torch.linalg.svdvals(root(Sg) @ G @ root(Sx))
    torch.testing.assert_close(torch.linalg.svdvals(whitened(G, 0.1, Sx, Sg))[:RANK], expected[:RANK])


def test_bad_arguments_are_refused():
    layer = planted()
    with pytest.raises(ValueError, match="whitening must be one of"):
        gradient_spectrum(layer, "output")
    layer.Sigma_x = torch.zeros(D_IN, D_IN, dtype=torch.float64)
    with pytest.raises(ValueError, match="damping must be larger"):
        gradient_spectrum(layer, "input")
    assert rank_for([]) == 0 and rank_for([8.0, 1.0, 1.0]) == 2 and rank_for([9.0, 1.0]) == 1


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_llama"])
def test_gathered_gradients_are_those_of_the_mean_loss(model, run_of):
    run, alone = (run_of("lora", steps=0, model=model, cached_lower=1) for _ in range(2))
    found = gather(run, examples=16, part=4, draws=3)
    batch = run.learner.batch(run.splits["train"], list(range(16)))
    parameters = {
        name.replace("base_model.model.", "").replace("base_layer.", ""): p.requires_grad_(True)
        for name, p in run.tuned.model.named_parameters()
        if name.endswith("base_layer.weight")
    }
    summed, count = run.learner.loss(batch)
    expected = torch.autograd.grad(summed / count, [parameters[name] for name in found])
    for (name, layer), gradient in zip(found.items(), expected, strict=True):
        torch.testing.assert_close(layer.G, gradient, rtol=1e-3, atol=1e-6, msg=name)
        assert layer.halves.shape == (3, *gradient.shape) and layer.examples == 16
        assert not torch.equal(layer.shuffled, layer.G)
        for Sigma in (layer.Sigma_x, layer.Sigma_g):
            assert float(torch.linalg.eigvalsh(Sigma)[0]) > -1e-6 * float(Sigma.trace())  # float32 products
        assert gradient_spectrum(layer, "both", 0.1).values[0] > 0
    for p in parameters.values():
        p.requires_grad_(False)
    assert run.step(0) == alone.step(0)
    with pytest.raises(ValueError, match="at least 4"):
        gather(run, examples=3)


def test_padding_is_no_input(run_of):
    """Texts differ in length; the covariance of the first layer's inputs is that over their own tokens."""
    run = run_of("lora", steps=0, model="tiny_bert", cached_lower=1)
    found = gather(run, examples=8, part=2)
    name = next(iter(found))
    states = torch.cat([run.splits["train"].states[i] for i in range(8)]).double()
    torch.testing.assert_close(found[name].Sigma_x, states.T @ states / len(states), rtol=1e-5, atol=1e-7)
    assert (
        functional.cosine_similarity(found[name].G.flatten(), found[name].shuffled.flatten(), dim=0) < 0.999
    )

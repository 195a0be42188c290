"""Lanczos against exact Hessians."""

from __future__ import annotations

import pytest
import torch

from llm_experiments.probes.curvature import (
    difference_product,
    exact_product,
    lanczos,
    run_curvature,
)
from llm_experiments.probes.effective import matrix_names, plain_model


def tiny_net():
    """Weights 3 x 4 and 2 x 3 with tanh between, and a squared loss in two parts; the exact Hessian (18 x 18)."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, y = draw(7, 4), draw(7, 2)
    parameters = [draw(3, 4).requires_grad_(True), draw(2, 3).requires_grad_(True)]

    def loss(rows, W1, W2):
        return ((torch.tanh(x[rows] @ W1.T) @ W2.T - y[rows]) ** 2).sum() / 7

    losses = [lambda rows=rows: loss(rows, *parameters) for rows in (slice(0, 4), slice(4, 7))]

    def of_vector(v):
        W1, W2 = v[:12].view(3, 4), v[12:].view(2, 3)
        return loss(slice(0, 7), W1, W2)

    point = torch.cat([p.detach().flatten() for p in parameters])
    return losses, parameters, torch.autograd.functional.hessian(of_vector, point)


def test_all_steps_give_the_whole_spectrum_of_the_exact_hessian():
    losses, parameters, H = tiny_net()
    exact = torch.linalg.eigvalsh(H).flip(0)
    found = lanczos(exact_product(losses, parameters), 18, steps=18)
    torch.testing.assert_close(torch.tensor(found.values, dtype=torch.float64), exact, rtol=1e-9, atol=1e-9)
    assert found.dimension == 18 and exact[-1] < 0 < exact[0]


def test_few_steps_lie_inside_and_within_their_residuals():
    losses, parameters, H = tiny_net()
    exact = torch.linalg.eigvalsh(H)
    found = lanczos(exact_product(losses, parameters), 18, steps=6)
    assert found.products == 6
    assert exact[0] <= found.values[-1] and found.top <= exact[-1]
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert float((exact - value).abs().min()) <= residual + 1e-12
    assert found.top == pytest.approx(float(exact[-1]), rel=1e-2)


def test_repeated_eigenvalues_end_the_recursion_early():
    """Three different eigenvalues, so three products span an invariant subspace, and nothing appears twice."""
    diagonal = torch.tensor([5.0] * 10 + [2.0] * 20 + [-1.0] * 10, dtype=torch.float64)
    found = lanczos(lambda v: diagonal * v, 40, steps=20)
    assert found.values == pytest.approx((5, 2, -1)) and max(found.residuals) < 1e-9


def test_an_operator_that_is_zero():
    assert lanczos(torch.zeros_like, 5).values == (0.0,)


def test_differences_agree_and_put_the_parameters_back():
    losses, parameters, H = tiny_net()
    before = [p.detach().clone() for p in parameters]
    v = torch.linspace(-1, 1, 18, dtype=torch.float64)
    torch.testing.assert_close(difference_product(losses, parameters)(v), H @ v, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


def test_bad_operators_are_refused():
    with pytest.raises(ValueError, match="finite"):
        lanczos(lambda v: v * float("nan"), 4)
    with pytest.raises(ValueError, match="at least 1"):
        lanczos(lambda v: v, 4, steps=0)


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_llama"])
def test_the_weights_of_a_run(model, run_of):
    """One batch in one or two parts has one curvature, and looking at it leaves the training alone."""
    run, alone = (run_of("lora", steps=2, model=model, cached_lower=1) for _ in range(2))
    found = run_curvature(run, range(6), steps=8, part=4)
    plain = plain_model(run)
    assert found.dimension == sum(plain.get_parameter(name).numel() for name in matrix_names(plain))
    again = run_curvature(run, range(6), steps=8, part=6)
    assert found.values[0] == pytest.approx(again.values[0], rel=1e-3)
    assert run.step(2) == alone.step(2)


@pytest.mark.parametrize("method", ["full", "s2ft_r", "spft", "peso_lora_r"])
def test_the_parameters_of_a_method(method, run_of):
    """Slices of weights have no second derivative of their own; differences serve all methods."""
    run, alone = (run_of(method, steps=2, lr=1e-3) for _ in range(2))
    found = run_curvature(run, range(4), over="trained", steps=4)
    assert found.dimension == run.tuned.counted() and found.top > 0
    assert run.step(2) == alone.step(2)


def test_both_ways_agree_on_one_space(run_of):
    """Full tuning without embeddings, norms frozen: the method's parameters are the matrices."""
    run = run_of("full", steps=1, options={"embeddings": False})
    for parameter in run.tuned.model.parameters():
        parameter.requires_grad_(parameter.requires_grad and parameter.ndim == 2)
    exact = run_curvature(run, range(4), steps=6)
    other = run_curvature(run, range(4), over="trained", steps=6)
    assert exact.dimension == other.dimension
    assert other.top == pytest.approx(exact.top, rel=2e-2)
    with pytest.raises(ValueError, match="over must be"):
        run_curvature(run, [0], over="all")

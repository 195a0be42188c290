"""Measured constants on cases where they are known."""

from __future__ import annotations

import math

import pytest
import torch

from llm_experiments.probes.assumptions import (
    PathSmoothness,
    channel_sparsity,
    eigengap,
    input_moments,
    left_out,
    loss_gradients,
    principal_angles,
    shift,
    subspace_error,
)
from llm_experiments.probes.effective import base_weights, effective_weights


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def diagonal(*values):
    return torch.diag(torch.tensor(values, dtype=torch.float64))


# --- channels ------------------------------------------------------------------------------------


def test_delta_is_the_share_outside_the_best_channels():
    delta_W = diagonal(4, 3, 2, 1)
    found = channel_sparsity(delta_W, [1, 4, 9], rows=[1], columns=[0, 3])
    assert found.rows[1] == found.columns[1] == pytest.approx(math.sqrt(14 / 30))
    assert found.rows[4] == found.rows[9] == 0
    assert found.chosen_rows == pytest.approx(math.sqrt(21 / 30))
    assert found.chosen_columns == pytest.approx(math.sqrt(13 / 30))
    assert found.even_rows == {1: math.sqrt(3 / 4), 4: 0, 9: 0}


def test_rows_are_weighed_by_the_inputs():
    """F.4 looks at the rows of delta_W Sigma^(1/2): a channel that reads inputs without energy counts nothing."""
    found = channel_sparsity(diagonal(1, 1), [1], Sigma_x=diagonal(0, 4))
    assert found.rows[1] == 0 and found.columns[1] == pytest.approx(math.sqrt(1 / 2))
    delta_W, root = draw(5, 4), draw(4, 4, seed=1)
    Sigma = root @ root.T
    values, vectors = torch.linalg.eigh(Sigma)
    seen = delta_W @ vectors @ torch.diag(values.sqrt())
    energies = seen.square().sum(1).sort(descending=True).values
    expected = math.sqrt(float(energies[2:].sum() / energies.sum()))
    assert channel_sparsity(delta_W, [2], Sigma).rows[2] == pytest.approx(expected)


# --- spectra -------------------------------------------------------------------------------------


def test_eigengap():
    found = eigengap(diagonal(1, 8, 4, 3), 2)
    assert (found.gap, found.ratio, found.energy, found.condition) == pytest.approx(
        (1 / 8, 3 / 4, 12 / 16, 8)
    )
    assert eigengap(diagonal(2, 1, 0), 1).condition == math.inf
    with pytest.raises(ValueError, match="1 <= rank < 2"):
        eigengap(diagonal(2, 1), 2)


def test_no_shift_is_measured_as_none():
    root = draw(6, 6)
    found = shift(root @ root.T, root @ root.T)
    assert found.relative == 0 and found.angle == pytest.approx(0, abs=1e-9)
    assert found.whitened == pytest.approx((1, 1, 1))
    assert found.missed == pytest.approx(found.own)


def test_a_known_shift():
    before, after = diagonal(9, 1, 0, 0), diagonal(0, 1, 9, 0)
    found = shift(before, after, damping=1e-9, share=0.9)
    assert found.dimensions == 1 and found.angle == pytest.approx(math.pi / 2)
    assert (
        found.apart == pytest.approx(1)
        and found.missed == pytest.approx(1)
        and found.own == pytest.approx(0.1)
    )
    assert found.relative == pytest.approx(math.sqrt(162 / 82))
    scaled = shift(diagonal(4, 2, 1), 3 * diagonal(4, 2, 1), damping=0.0)
    assert scaled.whitened == pytest.approx((3, 3, 3)) and scaled.angle == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="one shape"):
        shift(before, diagonal(1, 2))


# --- subspaces -----------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [1e-9, 0.3, math.pi / 2 - 1e-9])
def test_principal_angles_are_accurate_at_both_ends(angle):
    frame = torch.linalg.qr(draw(5, 5)).Q
    U = frame[:, :2]
    V = torch.stack([frame[:, 0], math.cos(angle) * frame[:, 1] + math.sin(angle) * frame[:, 2]], 1)
    # The smaller space is turned by any invertible matrix: only its span counts.
    assert principal_angles(U @ draw(2, 2, seed=1), V) == pytest.approx([0, angle], rel=1e-5, abs=1e-14)
    assert subspace_error(U, V) == pytest.approx(math.sin(angle), rel=1e-5)


def test_a_line_inside_a_plane_has_no_error():
    assert subspace_error(torch.eye(4)[:, :1], torch.eye(4)[:, :2]) == pytest.approx(0, abs=1e-12)
    assert len(principal_angles(torch.eye(4)[:, :3], torch.eye(4)[:, 1:2])) == 1


def test_what_a_subspace_leaves_of_a_gradient():
    G = diagonal(3, 4, 0)
    rows = torch.eye(3)[:1]
    assert left_out(G, A=rows) == pytest.approx(4 / 5)
    assert left_out(G, B=rows.T) == pytest.approx(4 / 5)
    assert left_out(G, A=rows, B=torch.eye(3)[:, 1:2]) == pytest.approx(0, abs=1e-12)
    assert left_out(G) == 1 and left_out(torch.zeros(2, 2)) == 0


# --- smoothness ----------------------------------------------------------------------------------


def test_a_quadratics_constant_is_found_from_below_and_attained():
    H = diagonal(5, 2, 1)
    path = PathSmoothness()
    assert path.constant() is None
    for w in ([0.0, 0, 0], [0, 1, 0], [1, 1, 0]):
        point = torch.tensor(w, dtype=torch.float64)
        path.add({"w": point}, {"w": H @ point})
    assert path.ratios() == pytest.approx({(0, 1): 2, (0, 2): math.sqrt(29 / 2), (1, 2): 5})
    assert path.constant() == pytest.approx(5)


# --- runs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["tiny_bert", "tiny_llama"])
def test_a_run_is_measured_and_goes_on(model, run_of):
    run, alone = (run_of("lora", steps=2, model=model, cached_lower=1) for _ in range(2))
    before, after = (
        input_moments(run, run.splits[name], limit=8, batch=3) for name in ("train", "validation")
    )
    weights, gradients = effective_weights(run), loss_gradients(run, range(6), part=4)
    assert weights.keys() == gradients.keys() == before.keys()
    whole = loss_gradients(run, range(6), part=6)
    for name, W in weights.items():
        assert before[name].shape == (W.shape[1],) * 2 and gradients[name].shape == W.shape
        assert shift(before[name], after[name], damping=1e-2).relative > 0
        torch.testing.assert_close(gradients[name], whole[name], rtol=1e-3, atol=1e-6)
    path = PathSmoothness()
    path.add(weights, gradients)
    path.add(base_weights(run), gradients)
    assert path.constant() == 0
    assert run.step(2) == alone.step(2)

"""The probes of `measure`, each on two tensors, against constructions whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from llm_experiments.probes import distance, spectra
from llm_experiments.probes.capacity import capacity
from llm_experiments.probes.intruders import intruders
from llm_experiments.probes.merge_error import merge_errors
from llm_experiments.probes.on_text import whitened_row


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def orthogonal(n: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(gaussian(n, n, seed=seed).double()).Q


def with_values(values: list[float], n: int, m: int) -> torch.Tensor:
    """An n x m matrix with these singular values."""
    k = len(values)
    return (
        orthogonal(n)[:, :k]
        @ torch.diag(torch.tensor(values, dtype=torch.float64))
        @ orthogonal(m, 1)[:, :k].T
    )


# --- spectra -------------------------------------------------------------------------------------


def test_the_spectrum_of_a_known_matrix():
    found = spectra.spectrum(with_values([3.0, 2.0, 1.0], 12, 9))
    assert found.exact and found.values[:3].tolist() == pytest.approx([3, 2, 1])
    assert found.stable_rank == pytest.approx(14 / 9)
    share = [3 / 6, 2 / 6, 1 / 6]
    assert found.effective_rank == pytest.approx(math.exp(-sum(p * math.log(p) for p in share)))
    assert found.rank_for(0.9) == 2 and found.rank_for(0.99) == 3  # 13 / 14 = 0.93
    assert found.relative_tail(1) == pytest.approx(math.sqrt(5 / 14))
    assert found.relative_tail(3) < 1e-12


def test_no_change_has_rank_zero():
    found = spectra.spectrum(torch.zeros(5, 7))
    assert (found.stable_rank, found.effective_rank, found.rank_for(0.99), found.relative_tail(0)) == (
        0,
        0,
        0,
        0,
    )


@pytest.mark.parametrize("shape", [(80, 120), (120, 80)])
def test_a_sketch_bounds_the_truth_on_the_promised_side(shape):
    matrix = gaussian(*shape)
    exact = spectra.spectrum(matrix)
    sketch = spectra.spectrum(matrix, exact_side=1, sketch=20)
    assert not sketch.exact and len(sketch.values) == 20 and sketch.effective_rank is None
    assert (sketch.values <= exact.values[:20] * (1 + 1e-6)).all()
    for rank in (1, 5, 20):
        assert exact.relative_tail(rank) <= sketch.relative_tail(rank) + 1e-9
    assert sketch.rank_for(0.99) is None
    assert sketch.rank_for(0.1) >= exact.rank_for(0.1)


@pytest.mark.parametrize("shape", [(30, 50), (50, 30)])
def test_values_from_the_gram_matrix_are_those_of_the_matrix(shape, monkeypatch):
    matrix = gaussian(*shape)
    direct = spectra.spectrum(matrix)
    monkeypatch.setattr(spectra, "_DIRECT_SIDE", 1)
    gram = spectra.spectrum(matrix, exact_side=50)
    assert gram.exact and torch.allclose(gram.values, direct.values, rtol=1e-10)


def test_a_sketch_of_low_rank_is_exact():
    matrix = (gaussian(90, 5) @ gaussian(5, 110, seed=1)).float()
    exact, sketch = spectra.spectrum(matrix), spectra.spectrum(matrix, exact_side=1, sketch=20)
    assert torch.allclose(exact.values[:5], sketch.values[:5], rtol=1e-5)
    assert sketch.relative_tail(5) < 1e-3


def test_the_spectral_norm_of_a_large_matrix_comes_from_below():
    matrix = gaussian(60, 40)
    exact = float(torch.linalg.matrix_norm(matrix, 2))
    assert exact * 0.98 < spectra.spectral_norm(matrix, exact_side=1) <= exact * (1 + 1e-6)
    assert spectra.spectral_norm(matrix) == pytest.approx(exact)


# --- distance ------------------------------------------------------------------------------------


def measured(delta_W: torch.Tensor, ranks: list[int]):
    found = spectra.spectrum(delta_W)
    energies = distance.energies(delta_W)
    return distance.distances(delta_W, found, energies, ranks), distance.needed(found, energies, 0.0)


def test_each_method_reaches_its_own_changes():
    n, m, r = 12, 8, 1
    size = r * (n + m)
    low = gaussian(n, r) @ gaussian(r, m, seed=1)
    columns, rows, block, first = (torch.zeros(n, m) for _ in range(4))
    columns[:, [2]] = gaussian(n, 1)
    rows[[1, 7]] = gaussian(2, m)
    block[:, [3]] = gaussian(n, 1)
    first[:, :1] = gaussian(n, 1)
    entries = torch.zeros(n * m)
    entries[torch.randperm(n * m, generator=torch.Generator().manual_seed(2))[:size]] = 1.0
    made = {
        "lora": low,
        "s2ft_columns": columns,
        "s2ft_rows": rows,
        "random_cla": block,
        "cla": first,
        "spft": entries.view(n, m),
    }
    for method, delta_W in made.items():
        ((row,), _) = measured(delta_W, [r])
        assert row[method] < 1e-6, method
    dense = measured(gaussian(n, m), [r])[0][0]
    assert all(dense[method] > 0.2 for method in made)


def test_distances_are_the_energy_that_is_left():
    delta_W = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    ((row,), need) = measured(delta_W, [1])  # 8 parameters: 2 columns, 2 rows, all 4 entries
    assert row["columns"] == row["rows"] == 2
    assert row["lora"] == pytest.approx(math.sqrt(14 / 30))
    assert row["s2ft_columns"] == row["s2ft_rows"] == row["cla"] == pytest.approx(math.sqrt(5 / 30))
    assert row["asym_lora"] == pytest.approx(math.sqrt(1 / 2))
    assert row["spft"] == 0
    assert need == {"lora": 4, "columns": 4, "rows": 4, "entries": 4, "cla": 4}


def test_a_frozen_random_row_space_holds_its_share_on_average():
    delta_W, m, k = gaussian(10, 20), 20, 6
    squared = []
    for seed in range(400):
        A = gaussian(k, m, seed=seed + 10)
        rest = delta_W - delta_W @ torch.linalg.pinv(A) @ A
        squared.append(float(rest.square().sum() / delta_W.square().sum()))
    mean, spread = torch.tensor(squared).mean(), torch.tensor(squared).std() / 20
    assert abs(mean - (1 - k / m)) < 4 * spread


def test_a_block_of_columns_wraps_only_where_the_method_does():
    columns = torch.tensor([1.0, 0, 0, 0, 1.0])
    assert distance.best_window(columns, 2) == 0  # 2 does not divide 5: any offset, cyclic
    assert distance.best_window(torch.tensor([1.0, 0, 0, 1.0]), 2) == pytest.approx(math.sqrt(1 / 2))


def test_a_rank_is_seen_through_the_rounding_of_16_bits():
    W0 = gaussian(60, 50).bfloat16()
    delta_W = 0.1 * gaussian(60, 3, seed=1) @ gaussian(3, 50, seed=2)
    tuned = (W0.float() + delta_W).bfloat16()
    change = tuned.float() - W0.float()
    found, energies = spectra.spectrum(change), distance.energies(change)
    noise = distance.rounding(tuned, torch.bfloat16)
    assert spectra.norm(change - delta_W) <= noise
    assert distance.needed(found, energies, noise)["lora"] <= 3
    assert distance.needed(found, energies, 0.0)["lora"] == 50


# --- intruders -----------------------------------------------------------------------------------


def test_another_choice_of_equal_singular_vectors_counts_as_printed_and_not_by_spaces():
    # A turn from the right leaves the left singular spaces alone, but not the computed vectors.
    W0 = torch.diag(torch.tensor([2.0, 2, 2, 2, 1, 1, 1, 1], dtype=torch.float64))
    (count,) = intruders(W0, W0 @ orthogonal(8, 5), [0.9])
    assert count.printed > 0
    assert count.spaces == count.undecided == 0


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (6, 6)])
def test_an_unchanged_matrix_has_no_intruders(shape):
    W0 = gaussian(*shape).double()
    (count,) = intruders(W0, W0 @ orthogonal(shape[1], 3), [0.99])
    assert count.printed == count.spaces == count.undecided == 0


def test_a_large_rank_one_change_in_a_spread_direction_is_one_intruder():
    n = 64
    W0 = torch.diag(torch.linspace(1, 2, n, dtype=torch.float64))
    u = torch.full((n, 1), n**-0.5, dtype=torch.float64)
    far, near = intruders(W0, W0 + 1000 * u @ u.T, [0.4, 1 / 8])
    # Its inner products with all pretrained vectors are near 1/8 = 1 / sqrt(64).
    assert far.top >= 1 and far.possible
    assert near.printed == near.spaces == 0 and not near.possible


def test_a_plane_that_is_partly_near_is_undecided():
    W0 = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64))
    s = 0.5**0.5
    turned = torch.tensor([[1.0, 0, 0, 0], [0, s, s, 0], [0, -s, s, 0], [0, 0, 0, 1]], dtype=torch.float64)
    tuned = turned @ torch.diag(torch.tensor([5.0, 5.0, 2.0, 1.0], dtype=torch.float64))
    (count,) = intruders(W0, tuned, [0.9])
    assert (count.spaces, count.undecided) == (1, 2)


def test_the_left_kernel_is_a_space_of_its_own():
    W0 = torch.eye(5, 2, dtype=torch.float64) * torch.tensor([2.0, 1.0])
    tuned = torch.zeros(5, 2, dtype=torch.float64)
    tuned[3, 0], tuned[4, 1] = 3.0, 1.0  # both directions lie in the kernel of W0'
    (count,) = intruders(W0, tuned, [0.5])
    assert count.printed == 2 and count.spaces == 0


# --- merging and bounds --------------------------------------------------------------------------


def test_merging_loses_what_lies_below_half_a_unit():
    W0 = torch.ones(4, 4)
    float32, bfloat16, float16 = merge_errors(W0, torch.full((4, 4), 2.0**-10))
    assert (float32.error, float32.lost, float32.not_restored) == (0, 0, 0)
    assert (bfloat16.error, bfloat16.lost) == (1, 1)  # bfloat16 steps by 2^-7 above 1
    assert (float16.error, float16.lost) == (0, 0)


def test_an_overflow_is_named_and_unmerging_is_not_exact():
    bad = merge_errors(torch.full((2, 2), 6e4), torch.full((2, 2), 6e4))[2]
    assert bad.dtype == "float16" and bad.error is None
    assert merge_errors(gaussian(50, 50), gaussian(50, 50, seed=1))[0].not_restored > 0


def test_the_bound_is_attained_by_positive_numbers():
    norms = [(2.0, 0.5), (3.0, 1.0), (0.5, 0.25)]
    base = math.prod(m for m, _ in norms)
    exact = math.prod(m + p for m, p in norms) - base
    found = capacity(norms)
    assert 10**found.sharp == pytest.approx(exact / base)
    assert found.vacuous == (exact >= base)
    printed = sum(3.0 ** (3 - k) * p for k, (_, p) in enumerate(norms, 1))
    assert 10**found.printed == pytest.approx(printed / base)


def test_the_bound_of_many_layers_stays_finite_and_no_change_is_not_vacuous():
    assert capacity([(50.0, 50.0)] * 2000).sharp == pytest.approx(2000 * math.log10(2))
    tiny = capacity([(1.0, 1e-12)] * 3)
    assert 10**tiny.sharp == pytest.approx(3e-12) and not tiny.vacuous
    assert capacity([(1.0, 0.0)]).sharp is None


# --- on text -------------------------------------------------------------------------------------


def test_the_whitened_spectrum_is_that_of_the_change_times_the_root():
    X, delta_W = gaussian(40, 6) * torch.tensor([9.0, 5, 1, 1, 1, 0.1]), gaussian(5, 6, seed=1)
    Sigma = X.double().T @ X.double() / 40
    values, vectors = torch.linalg.eigh(Sigma)
    root = vectors @ torch.diag(values.sqrt()) @ vectors.T
    expected = spectra.spectrum(delta_W.double() @ root)
    row = whitened_row(delta_W, X, [1, 2])
    assert row["stable_rank"] == pytest.approx(expected.stable_rank, rel=1e-4)
    assert row["effective_rank"] == pytest.approx(expected.effective_rank, rel=1e-4)
    assert row["lora"]["1"] == pytest.approx(expected.relative_tail(1), rel=1e-4)
    energies = (delta_W.double() @ root).square().sum(1).sort(descending=True).values
    # LoRA rank 2 on 5 x 6 has 22 numbers: 3 rows of 6.
    assert row["s2ft_rows"]["2"] == pytest.approx(
        float((energies[3:].sum() / energies.sum()).sqrt()), rel=1e-4
    )
    assert 0 < row["bound_used"] <= 1

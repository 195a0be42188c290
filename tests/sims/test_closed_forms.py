"""The closed forms that the simulators use, against brute-force optimisation and exact cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from sims import networks, ood_sections
from sims.networks import Task
from sims.ood_sections import Run
from theory.kits.floats import Floats
from theory.protocol import Instance
from theory.s2ft import risks, setting

TINY = Task(widths=(4, 3, 4, 3), tuned=2, rank=1, residual_rank=3, decay=0.7, channels=2)


def tiny(seed=0, **change):
    batch = networks.draw(replace(TINY, **change), np.random.default_rng(seed), 1)
    k = Floats()
    return k, batch, batch.instance(k)


def test_lora_closed_form_is_the_best_that_optimisation_finds():
    k, batch, x = tiny()
    H, L, D, Si = (batch[name][0] for name in ("H", "L", "D", "Si"))
    m, n = H.shape[1], L.shape[0]

    def risk(flat):
        U, V = flat[:m, None], flat[m:, None]
        residual = (D - H @ U @ V.T @ L) @ Si
        G = -2 * H.T @ residual @ Si @ L.T
        return (residual**2).sum(), np.concatenate([(G @ V).ravel(), (G.T @ U).ravel()])

    rng = np.random.default_rng(1)
    found = [minimize(risk, rng.standard_normal(m + n), jac=True, method="BFGS").fun for _ in range(12)]
    ours = risks.risk_in(k, x, setting.lora(k, x, setting.quantities(k, x)))[0]
    assert min(found) == pytest.approx(ours, rel=1e-7)


@pytest.mark.parametrize("method", ["S2FT", "full"])
def test_linear_closed_forms_are_least_squares(method):
    k, batch, x = tiny()
    H, L, D, Si = (batch[name][0] for name in ("H", "L", "D", "Si"))
    above = H[:, : TINY.s] if method == "S2FT" else H
    design = np.kron(above, (L @ Si).T)  # row-major vec of above @ T @ (L Si)
    T, *_ = np.linalg.lstsq(design, (D @ Si).ravel(), rcond=None)
    ours = risks.FITS[method](k, x, setting.quantities(k, x)).data[0]
    np.testing.assert_allclose(ours @ Si, (design @ T).reshape(D.shape), atol=1e-10)


def test_finite_sample_solution_is_least_squares_on_the_samples():
    k, batch, x = tiny()
    rng = np.random.default_rng(2)
    X = rng.standard_normal((4, 9))
    Y = rng.standard_normal((3, 9))  # what the pretrained network misses
    y = risks.empirical(k, x, k.mat(X @ X.T / 9), k.mat(Y @ X.T / 9))
    ours = setting.s2ft(k, y, setting.quantities(k, y)).data[0]
    above, inputs = batch["H"][0][:, : TINY.s], batch["L"][0] @ X
    T, *_ = np.linalg.lstsq(np.kron(above, inputs.T), Y.ravel(), rcond=None)
    np.testing.assert_allclose(ours, above @ T.reshape(TINY.s, -1) @ batch["L"][0], atol=1e-9)


NARROW = Task(widths=(6, 3, 6, 6, 3, 6), tuned=3, rank=1, residual_rank=1)  # H and A of rank 3 of 6


def test_least_norm_change_is_the_pseudo_inverse_of_the_map():
    k = Floats()
    batch = networks.draw(NARROW, np.random.default_rng(6), 4)
    x = batch.instance(k)
    s = setting.quantities(k, x)
    F = setting.lora(k, x, s).data
    expected = np.linalg.pinv(batch["H"], rcond=1e-9) @ F @ np.linalg.pinv(batch["L"], rcond=1e-9)
    np.testing.assert_allclose(risks.least_norm_change(k, x, s).data, expected, atol=1e-6)


def test_gradient_descent_finds_the_least_norm_from_a_small_balanced_start_only():
    distance = {}
    for how in ("balanced", "usual"):
        got = ood_sections.compute(
            ood_sections.change_of_layer, Run(seeds=8, steps=(3000,), start=how), NARROW, 1
        )
        assert got["effect"].max() < 1e-3
        distance[how] = got["distance"]
    assert distance["balanced"].max() < 0.02 < 0.1 < distance["usual"].min()


def test_phase_law_is_exact_for_a_shift_and_its_mirror_image():
    k, batch, x = tiny()
    s = setting.quantities(k, x)
    sparse, low_rank = setting.s2ft(k, x, s), setting.lora(k, x, s)
    gains = [k.fro2(F @ x.Si) for F in (sparse, low_rank)]
    for t in (-0.5, 0.0, 0.3, 0.5, 1.0):
        gaps = []
        for sign in (1, -1):
            y = Instance({**x, "Bo": x.W + t * x.D + sign * x.Z})
            gaps.append(risks.risk_out(k, y, sparse) - risks.risk_out(k, y, low_rank))
        np.testing.assert_allclose(sum(gaps) / 2, risks.mean_gap(t, *gains), atol=1e-12)


def test_law_of_unfinished_fits_is_exact_too_and_contains_the_phase_law():
    k, batch, x = tiny()
    rng = np.random.default_rng(4)
    F, E = (k.mat(rng.standard_normal((1, 3, 4))) for _ in range(2))
    moved = tuple(k.fro2(A @ x.Si) for A in (F, E))
    gained = tuple(k.fro2(x.D @ x.Si) - risks.risk_in(k, x, A) for A in (F, E))
    y = Instance({**x, "Bo": x.W + 0.3 * x.D})
    gap = risks.risk_out(k, y, F) - risks.risk_out(k, y, E)
    np.testing.assert_allclose(gap, risks.mean_gap_of_fits(0.3, moved, gained))
    np.testing.assert_allclose(risks.mean_gap_of_fits(0.3, gained, gained), risks.mean_gap(0.3, *gained))


def test_methods_tie_exactly_at_the_predicted_alignment():
    k, batch, x = tiny(rank=3, residual_rank=3)
    s = setting.quantities(k, x)
    sparse, low_rank = setting.s2ft(k, x, s), setting.lora(k, x, s)
    t = risks.crossover_alignment(k, x, sparse, low_rank)
    for shift, winner in ((0.0, 0), (-0.01, -1), (0.01, 1)):
        y = Instance({**x, "Bo": x.W + (t + shift) * x.D + x.Z})
        gap = (risks.risk_out(k, y, sparse) - risks.risk_out(k, y, low_rank))[0]
        left, right = (side[0] for side in risks.crossover_sides(k, y, s))
        assert np.sign(round(gap, 12)) == winner
        assert left - right == pytest.approx(gap, abs=1e-12)


def variance_z(task, n, seeds=1500):
    """z of the observed means against the exact ones, for every prediction that is exact."""
    got = ood_sections.compute(ood_sections.finite, Run(seed=9, seeds=seeds, steps=()), task, 1, n)
    means = [name for name in got if name.endswith(".mean") and not name.startswith("LoRA")]
    assert len(means) == 4
    z = []
    for name in means:
        difference = got[name.removesuffix(".mean")] - got[name]
        z.append(difference.mean() / (difference.std(ddof=1) / np.sqrt(seeds)))
    return np.abs(z)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"covariate_shift": 0.6},
        {"widths": (6, 4, 5, 3, 6), "tuned": 3, "unreachable": 0.4},
    ],
)
def test_gaussian_variances_are_exact(change):
    """False-alarm rate: |z| > 4.5 for one of four correlated means about once in 40,000 runs."""
    task = Task(
        **{"widths": (6, 4, 5, 6), "tuned": 2, "rank": 2, "residual_rank": 2, "channels": 2, **change}
    )
    assert variance_z(task, n=20).max() < 4.5


def test_a_variance_without_its_correction_is_noticed():
    """The exact law has n - rank(A) - 1 below; the test above must see the difference to n."""
    task = Task(widths=(6, 4, 5, 6), tuned=2, rank=2, residual_rank=2, channels=2)
    got = ood_sections.compute(ood_sections.finite, Run(seed=9, seeds=1500, steps=()), task, 1, 20)
    floor = ood_sections.compute(ood_sections.closed, Run(seed=9, seeds=1500), task, 1)["S2FT.in"]
    wrong = floor + (got["S2FT.in.mean"] - floor) * (20 - 4 - 1) / 20
    difference = got["S2FT.in"] - wrong
    assert abs(difference.mean()) > 4.5 * difference.std() / np.sqrt(len(difference))


@pytest.mark.parametrize("change", [{"residual_rank": 2}, {"residual_rank": 4, "decay": 1.5, "noise": 0.05}])
def test_lora_variance_has_the_leading_order_claimed(change):
    """One network with a clear gap, 3000 data sets: within 4.5 standard errors (about 2%) plus 1% for O(1/n)."""
    task = Task(**{"widths": (6, 5, 6), "tuned": 1, "rank": 2, "condition": 1.5, **change})
    one = networks.draw(task, np.random.default_rng(11), 1)
    k, n, draws = Floats(), 800, 3000
    x = one.instance(k)
    s = setting.quantities(k, x)
    leading = risks.variance_lora_leading(k, x, s, task.rank, task.residual_rank, 6)[0]
    best = risks.risk_in(k, x, setting.lora(k, x, s))[0]
    many = networks.Batch(task, {name: np.broadcast_to(a, (draws, *a.shape[1:])) for name, a in one.items()})
    y = risks.empirical(k, x, *map(k.mat, networks.moments(many, np.random.default_rng(12), n)))
    excess = n * (risks.risk_in(k, x, setting.lora(k, y, setting.quantities(k, y))) - best)
    assert abs(excess.mean() / leading - 1) < 4.5 * excess.std() / excess.mean() / np.sqrt(draws) + 0.01


def test_repaired_bounds_hold_and_printed_ones_break_where_they_should():
    broken: dict[str, int] = {}
    for change in ({}, {"covariate_shift": 0.5}, {"widths": (6, 4, 6, 4, 6), "tuned": 3, "unreachable": 0.3}):
        task = Task(
            **{"widths": (6, 5, 6), "tuned": 1, "rank": 1, "residual_rank": 3, "channels": 3, **change}
        )
        got = ood_sections.compute(ood_sections.closed, Run(seeds=128), task, 1)
        for name, pair in got.items():
            if name.startswith("bound"):
                sign = 1 if name.startswith("bound.") else -1
                over = sign * (pair[:, 0] - pair[:, 1]) > ood_sections.TOLERANCE * (1 + np.abs(pair[:, 1]))
                broken[name] = broken.get(name, 0) + int(over.sum())
    assert len(broken) == 26
    assert broken["bound.lemma_f14_left|printed"] > 0
    assert broken["bound-.thm_f8_lora|printed"] > 0
    held = [name for name in broken if "repaired" in name or "identity" in name]
    assert len(held) == 11 and not any(broken[name] for name in held)


def test_bound_on_lora_bias_is_sharp_for_a_flat_spectrum():
    """(1 - r/R)(E_pre - E_full) is attained when all R singular values of M are equal."""
    k = Floats()
    one = k.eye(4)
    x = Instance(H=one, L=one, D=0.5 * one, Si=one, So=one, W=one, Wl=one, Bo=one, S=(0,), r=1)
    bounds = risks.bounds(
        k, x, setting.quantities(k, x), rank_D=4, rank_M=4, covariate_shift=False, realisable=True
    )
    (repaired,) = [b for b in bounds if b.claim == "thm_f10_bias" and b.form == "repaired"]
    np.testing.assert_allclose(repaired.value, repaired.limit)

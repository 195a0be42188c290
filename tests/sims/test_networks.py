"""What is drawn has the properties that its names promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sims import networks
from sims.networks import BadSetting, Task
from theory.kits.floats import Floats
from theory.s2ft import setting

SIZE = 40


def drawn(**change):
    return networks.draw(Task(**change), np.random.default_rng(3), SIZE)


@pytest.mark.parametrize("selection", networks.SELECTIONS)
def test_pretrained_risk_is_one_and_the_network_is_the_product_of_its_parts(selection):
    batch = drawn(selection=selection, residual_rank=6, decay=1.0)
    risk = ((batch["D"] @ batch["Si"]) ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(risk, 1.0)
    np.testing.assert_allclose(batch["W"], batch["H"] @ batch["Wl"] @ batch["L"])
    np.testing.assert_allclose(batch["Si"], batch["Si"].mT, atol=1e-12)


def test_residual_has_its_rank_and_can_be_removed_by_the_layer():
    batch = drawn(residual_rank=5)
    assert (np.linalg.matrix_rank(batch["D"]) == 5).all()
    k = Floats()
    x = batch.instance(k)
    assert np.abs(setting.quantities(k, x).E_full).max() < 1e-10


def test_unreachable_share_is_exactly_what_full_tuning_leaves():
    batch = drawn(widths=(12, 8, 12, 8, 12), tuned=3, unreachable=0.3)
    k = Floats()
    np.testing.assert_allclose(setting.quantities(k, batch.instance(k)).E_full, 0.3)


def test_unreachable_is_refused_where_the_layers_hide_nothing():
    with pytest.raises(BadSetting, match="unreachable must be 0"):
        drawn(unreachable=0.5)


def test_selected_channels_hold_the_share_that_was_asked_for():
    everything, nothing = drawn(on_selected=1.0), drawn(on_selected=0.0)
    k = Floats()
    for batch, low, high in ((everything, 0.999, 1.001), (nothing, 0.0, 0.6)):
        x = batch.instance(k)
        s = setting.quantities(k, x)
        gain = k.fro2(setting.s2ft(k, x, s) @ x.Si)
        assert low <= gain.min() and gain.max() <= high


def test_selection_by_energy_and_by_weight_put_the_largest_first():
    batch = drawn(selection="weight")
    rows = (batch["Wl"] ** 2).sum(axis=2)
    assert (np.diff(rows, axis=1) <= 1e-12).all()
    batch = drawn(selection="energy")
    energy = ((np.linalg.pinv(batch["H"]) @ batch["D"] @ batch["Si"]) ** 2).sum(axis=2)
    assert (np.diff(energy, axis=1) <= 1e-9).all()


@pytest.mark.parametrize("law", networks.LAWS)
def test_shift_has_mean_zero_and_its_size(law):
    """False-alarm rate: |z| > 4.5 once in 150,000 for each law."""
    task = Task(widths=(4, 4), tuned=1, rank=1, residual_rank=1, shift_law=law, shift_size=2.0)
    batch = networks.draw(task, np.random.default_rng(5), 20_000)
    moved = batch["Z"] @ batch["Si"]
    mean, size = moved.mean(axis=0), (moved**2).sum(axis=(1, 2))
    z = mean / (moved.std(axis=0) / np.sqrt(len(moved)))
    assert np.abs(z).max() < 4.5
    if law == "sign":
        np.testing.assert_allclose(size, 4.0)
    elif law == "gaussian":  # the heavy law's squares have no variance, so no standard error
        assert abs(size.mean() - 4.0) < 4.5 * size.std() / np.sqrt(len(size))


def test_moments_have_the_population_as_their_mean():
    """False-alarm rate: the largest of 32 |z| exceeds 5 about once in 50,000 runs."""
    task = Task(widths=(4, 4, 4), tuned=1, rank=1, residual_rank=2, noise=0.3)
    one = networks.draw(task, np.random.default_rng(0), 1)
    many = networks.Batch(task, {name: np.repeat(array, 4000, axis=0) for name, array in one.items()})
    Sxx, Syx = networks.moments(many, np.random.default_rng(1), 6)
    Sig = one["Si"][0] @ one["Si"][0]
    for sample, mean in ((Sxx, Sig), (Syx, one["D"][0] @ Sig)):
        z = (sample.mean(axis=0) - mean) / (sample.std(axis=0) / np.sqrt(len(sample)))
        assert np.abs(z).max() < 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths": (16,)}, "widths must be at least two positive sizes"),
        ({"widths": (16, 0, 16)}, "widths must be at least two positive sizes"),
        ({"tuned": 4}, "tuned must satisfy 1 <= tuned <= 3; got 4"),
        ({"rank": 0}, "rank must satisfy 1 <= rank <= 16; got 0"),
        ({"rank": 17}, "rank must satisfy 1 <= rank <= 16; got 17"),
        ({"residual_rank": 0}, "residual_rank must satisfy"),
        ({"channels": 17}, "channels must satisfy"),
        ({"noise": float("nan")}, "noise must satisfy"),
        ({"alignment": float("inf")}, "alignment must satisfy"),
        ({"shift_law": "cauchy"}, "shift_law must be one of"),
        ({"on_selected": 0.5, "selection": "energy"}, "on_selected needs selection random"),
    ],
)
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(BadSetting, match=message):
        Task(**change)


def test_parity_counts_the_parameters_of_lora():
    assert Task(widths=(16, 64, 16), tuned=1, rank=3).s == 3 * (64 + 16) // 16
    assert replace(Task(), channels=3).s == 3

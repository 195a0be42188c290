"""Planes and slices on a quadratic, where every value is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llm_experiments.probes.effective import base_weights, effective_weights
from llm_experiments.probes.landscape import (
    around,
    flatten,
    grid,
    plane_through,
    principal_plane,
    random_plane,
    run_loss,
    unflatten,
)


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(3, 4, generator=generator, dtype=torch.float64),
        "b.weight": torch.randn(2, 3, generator=generator, dtype=torch.float64),
    }


NAMES = tuple(weights(0))
MINIMUM = flatten(weights(9), NAMES)
SCALES = torch.linspace(1, 5, 18, dtype=torch.float64)


def quadratic(at) -> float:
    return float((SCALES * (flatten(at, NAMES) - MINIMUM).square()).sum() / 2)


def test_flattening_and_back():
    found = unflatten(flatten(weights(1), NAMES), weights(1), NAMES)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights(1).items())


def test_a_slice_of_a_quadratic_is_the_quadratic_on_the_plane():
    plane = plane_through(weights(0), weights(1), weights(2))
    xs, ys = np.linspace(-1, 2, 4), np.linspace(-2, 1, 3)
    found = grid(plane, xs, ys, quadratic)
    start = flatten(weights(0), NAMES) - MINIMUM
    u, v = plane.directions
    for i, y in enumerate(ys):
        for j, x in enumerate(xs):
            point = start + x * u + y * v
            assert found.loss[i, j] == pytest.approx(float((SCALES * point.square()).sum() / 2), rel=1e-12)


def test_a_plane_through_three_points_holds_them():
    base, first, second = weights(0), weights(1), weights(2)
    plane = plane_through(base, first, second)
    torch.testing.assert_close(plane.directions @ plane.directions.T, torch.eye(2, dtype=torch.float64))
    assert plane.project(base) == pytest.approx((0, 0), abs=1e-12)
    assert plane.project(first)[1] == pytest.approx(0, abs=1e-12)
    for point in (first, second):
        assert plane.outside(point) < 1e-12
        again = plane.at(*plane.project(point))
        assert all(torch.allclose(again[name], point[name]) for name in point)
    assert plane.outside(weights(3)) > 0.3
    with pytest.raises(ValueError, match="must not lie on a line"):
        plane_through(base, first, plane.at(0.5, 0))
    with pytest.raises(ValueError, match="must not lie on a line"):
        plane_through(base, base, first)


def test_random_directions_have_the_norm_of_every_filter():
    origin = {**weights(0), "a.bias": torch.ones(3, dtype=torch.float64)}
    plane = random_plane(origin, seed=1)
    assert plane.names == NAMES
    for direction in plane.directions:
        for name, part in unflatten(direction, origin, plane.names).items():
            torch.testing.assert_close(part.norm(dim=1), origin[name].norm(dim=1))
    x, y = plane.project(plane.at(0.3, -0.7))
    assert (x, y) == pytest.approx((0.3, -0.7), rel=1e-9)
    assert not torch.equal(plane.directions, random_plane(origin, seed=2).directions)
    with pytest.raises(ValueError, match="must hold matrices"):
        random_plane({"bias": torch.ones(3)})


def test_a_trajectory_in_a_plane_is_found_and_projected():
    """Points on an ellipse: the long axis comes first, and the shares are those of its axes."""
    frame = plane_through(weights(0), weights(1), weights(2))
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    points = [frame.at(3 * np.cos(t), np.sin(t)) for t in angles]
    plane = principal_plane(points, origin=weights(0))
    assert plane.explained == pytest.approx((0.9, 0.1), rel=1e-9)
    assert abs(float(plane.directions[0] @ frame.directions[0])) == pytest.approx(1, rel=1e-9)
    path = plane.path(points)
    assert np.abs(path[:, 0]) == pytest.approx(np.abs(3 * np.cos(angles)), abs=1e-9)
    assert path[:, 2].max() < 1e-9
    xs, ys = around(path, 5)
    assert xs[0] < -3 and xs[-1] > 3 and ys[0] < -1 and ys[-1] > 1 and len(xs) == len(ys) == 5
    with pytest.raises(ValueError, match="must span a plane"):
        principal_plane([frame.at(t, 0) for t in (1.0, 2.0, 3.0)], origin=weights(0))


def test_an_overflow_is_shown_as_infinity():
    found = grid(plane_through(weights(0), weights(1), weights(2)), [0.0], [0.0], lambda _: float("nan"))
    assert found.loss.tolist() == [[np.inf]]


def test_two_methods_on_one_plane(run_of):
    """The slice holds the losses of both methods at their ends, and neither training notices."""
    lora, s2ft = (run_of(method, steps=3, model="tiny_bert", head_lr=0.0) for method in ("lora", "s2ft_r"))
    alone = run_of("lora", steps=3, model="tiny_bert", head_lr=0.0)
    base, ends = base_weights(lora), [effective_weights(lora), effective_weights(s2ft)]
    plane = plane_through(base, *ends)
    loss = run_loss(lora, limit=8, batch=5)
    for run, end in zip((lora, s2ft), ends, strict=True):
        batch = run.learner.batch(run.splits["train"], list(range(8)))
        with torch.no_grad():
            summed, count = run.learner.loss(batch)
        assert loss(plane.at(*plane.project(end))) == pytest.approx(float(summed) / count, rel=1e-4)
    assert lora.step(3) == alone.step(3)

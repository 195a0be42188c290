"""The loss on a plane through weights: random directions, the plane of a trajectory, one plane for several methods.

Weights are dictionaries, name -> tensor, and everything here is linear algebra on them; the loss is a callback, so a
plane can be laid through any model. Two methods are compared on one plane through the weights of both (their plain
weights, see `effective`), never each on its own: pictures of different planes say nothing about each other.

Random directions are normalised filter by filter: each row of a direction gets the norm of the same row of the
weights, since a network of the ReLU family can be rescaled without changing what it computes, and what looks sharp
would depend on that scale. Vectors (biases, norms) are not moved.

A plane shows two of very many dimensions; `Plane.outside` says how much of a point is not on it.

Source: Li et al. 2018, Visualizing the loss landscape of neural nets (arXiv:1712.09913): filter normalisation in
Section 4, the plane of principal components of a trajectory in Section 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llm_experiments.learner import Learner
from llm_experiments.probes.effective import plain_model
from llm_experiments.train import Run

Weights = Mapping[str, Tensor]
Loss = Callable[[dict[str, Tensor]], float]


def flatten(weights: Weights, names: Sequence[str]) -> Tensor:
    """All weights in one vector (p), float64, in the order of `names`."""
    return torch.cat([weights[name].detach().double().cpu().flatten() for name in names])


def unflatten(vector: Tensor, like: Weights, names: Sequence[str]) -> dict[str, Tensor]:
    """The weights in a vector, in the shapes and dtypes of `like`."""
    parts = vector.split([like[name].numel() for name in names])
    return {name: part.view(like[name].shape).to(like[name]) for name, part in zip(names, parts, strict=True)}


@dataclass(frozen=True)
class Plane:
    """`origin + x * u + y * v`.

    Attributes:
        names: the weights that move, in the order of the vectors.
        origin: a point of the plane, by name.
        directions: u and v (2 x p), float64; orthonormal, but for random directions, which have the weights' scale.
        explained: for principal components the share of the energy about the origin that each direction holds.
    """

    names: tuple[str, ...]
    origin: dict[str, Tensor]
    directions: Tensor
    explained: tuple[float, float] | None = None

    def at(self, x: float, y: float) -> dict[str, Tensor]:
        """The weights at a point of the plane."""
        move = x * self.directions[0] + y * self.directions[1]
        return unflatten(flatten(self.origin, self.names) + move, self.origin, self.names)

    def project(self, weights: Weights) -> tuple[float, float]:
        """Coordinates of the nearest point of the plane."""
        x, y = (
            torch.linalg.lstsq(self.directions.T, self._from_origin(weights)[:, None]).solution[:, 0].tolist()
        )
        return x, y

    def outside(self, weights: Weights) -> float:
        """Distance from the plane over distance from the origin; 0 for the origin itself."""
        away = self._from_origin(weights)
        x, y = self.project(weights)
        rest = away - x * self.directions[0] - y * self.directions[1]
        return float(rest.norm() / away.norm()) if float(away.norm()) else 0.0

    def path(self, snapshots: Sequence[Weights]) -> np.ndarray:
        """One row (x, y, share outside) for each snapshot of a trajectory."""
        return np.array([(*self.project(weights), self.outside(weights)) for weights in snapshots])

    def _from_origin(self, weights: Weights) -> Tensor:
        return flatten(weights, self.names) - flatten(self.origin, self.names)


def random_plane(origin: Weights, seed: int = 0) -> Plane:
    """Two random directions, filter-normalised at the origin.

    Args:
        origin: weights d_out x d_in, whose rows are filters; vectors stay where they are.
        seed: of the directions.

    Raises:
        ValueError: no matrix among the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    names = tuple(name for name, weight in origin.items() if weight.ndim == 2)
    if not names:
        message = f"origin must hold matrices for a filter-normalised direction; got {sorted(origin)}"
        raise ValueError(message)
    directions = []
    for _ in range(2):
        rows = []
        for name in names:
            d = torch.randn(origin[name].shape, generator=generator, dtype=torch.float64)
            scale = origin[name].double().cpu().norm(dim=1, keepdim=True) / d.norm(dim=1, keepdim=True)
            rows.append((d * scale).flatten())
        directions.append(torch.cat(rows))
    return Plane(names, _copied(origin, names), torch.stack(directions))


def principal_plane(snapshots: Sequence[Weights], origin: Weights | None = None) -> Plane:
    """The plane of the two largest principal components of snapshots about an origin.

    Snapshots of several methods together give the plane that they share.

    Args:
        snapshots: of one model, at least two that differ from the origin in different directions.
        origin: by default the last snapshot (the end of one trajectory).

    Raises:
        ValueError: the snapshots span no plane.
    """
    origin = snapshots[-1] if origin is None else origin
    names = tuple(origin)
    start = flatten(origin, names)
    moves = torch.stack([flatten(weights, names) - start for weights in snapshots])
    # Right singular vectors through the small Gram matrix: p is large, the number of snapshots is not.
    energies, vectors = torch.linalg.eigh(moves @ moves.T)
    first, second = float(energies[-1]), float(energies[-2]) if len(energies) > 1 else 0.0
    if second <= 1e-12 * first or first <= 0:
        message = (
            "snapshots must span a plane about the origin; they lie on a line, give two that differ more"
        )
        raise ValueError(message)
    directions = vectors[:, [-1, -2]].T @ moves
    directions /= directions.norm(dim=1, keepdim=True)
    # An eigenvector's sign is arbitrary: the largest move counts as positive.
    lead = (moves @ directions.T).T
    directions *= torch.sign(lead.gather(1, lead.abs().argmax(1, keepdim=True)))
    total = float(energies.clamp(min=0).sum())
    return Plane(names, _copied(origin, names), directions, (first / total, second / total))


def plane_through(base: Weights, first: Weights, second: Weights) -> Plane:
    """The plane through the base model and the ends of two methods; x points from the base to the first end.

    Raises:
        ValueError: the three points lie on a line.
    """
    names = tuple(base)
    start = flatten(base, names)
    u, v = flatten(first, names) - start, flatten(second, names) - start
    size = v.norm()
    u = u / u.norm() if float(u.norm()) else u
    for _ in range(2):
        v = v - (v @ u) * u
    if not float(u.norm()) or float(v.norm()) <= 1e-9 * float(size):
        message = "base and both ends must not lie on a line; the two methods made the same change, or none"
        raise ValueError(message)
    return Plane(names, _copied(base, names), torch.stack([u, v / v.norm()]))


@dataclass(frozen=True)
class Slice:
    """A loss on a grid of a plane: `loss[i, j]` at `(xs[j], ys[i])`."""

    xs: np.ndarray
    ys: np.ndarray
    loss: np.ndarray


def grid(plane: Plane, xs: Sequence[float], ys: Sequence[float], loss: Loss) -> Slice:
    """The loss at every point of a grid; one call of `loss` a point. Losses that overflow are stored as infinity."""
    values = np.array([[loss(plane.at(x, y)) for x in xs] for y in ys], dtype=float)
    return Slice(
        np.array(xs, dtype=float), np.array(ys, dtype=float), np.where(np.isnan(values), np.inf, values)
    )


def around(path: np.ndarray, points: int, margin: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Grid coordinates that hold a path (rows x, y, ..) with a margin, relative to its larger extent."""
    low, high = path[:, :2].min(0), path[:, :2].max(0)
    room = margin * float((high - low).max() or 1.0)
    xs, ys = (np.linspace(low[i] - room, high[i] + room, points) for i in (0, 1))
    return xs, ys


def run_loss(run: Run, split: str = "train", limit: int = 64, batch: int = 32) -> Loss:
    """The mean loss (nats a label or token) of a run's examples at given weights, as a callback for `grid`.

    A plain copy of the run's model as it is now stands behind it: parameters that a plane does not move (biases,
    norms, embeddings, the head) are those of that moment. The run itself is not touched.

    Args:
        run: prepared.
        split: name of the examples.
        limit: how many of them.
        batch: examples a forward pass.

    Raises:
        MethodError: the method has no plain model.
    """
    plain = plain_model(run).eval().requires_grad_(False)
    judge = Learner(plain, run.encoding, _frozen(run.learner.head), run.device)
    examples = run.splits[split]
    batches = [judge.batch(examples, indices) for indices in examples.by_length(batch, limit)]

    @torch.no_grad()
    def loss(weights: dict[str, Tensor]) -> float:
        for name, tensor in weights.items():
            plain.get_parameter(name).copy_(tensor)
        parts = [judge.loss(each) for each in batches]
        return float(sum(summed for summed, _ in parts)) / sum(count for _, count in parts)

    return loss


def _frozen(head: torch.nn.Linear | None) -> torch.nn.Linear | None:
    if head is None:
        return None
    twin = torch.nn.Linear(head.in_features, head.out_features).to(head.weight)
    twin.load_state_dict(head.state_dict())
    return twin.requires_grad_(False)


def _copied(weights: Weights, names: Sequence[str]) -> dict[str, Tensor]:
    return {name: weights[name].detach().clone() for name in names}

"""Random deep linear networks with one tuned layer, and the shifted regression tasks they are tuned on.

Source of the setting: S2FT, Appendix F.2; symbols as in `theory.s2ft.setting`. A batch holds one network and
one task for each seed; the tuned layer's channels are renumbered so that the selected ones come first, which
changes nothing (claim s2ft/coupled_ffn) and lets a whole batch share one selection S = (0, ..., s - 1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.random import Generator

from theory.kits.floats import Floats
from theory.protocol import Instance

Array = np.ndarray
SELECTIONS = ("random", "energy", "weight")
LAWS = ("gaussian", "sign", "heavy")


class BadSetting(ValueError):
    """A setting that describes no network or no task; one line: name, condition, value."""


@dataclass(frozen=True)
class Task:
    """What is drawn: network, residual, shift, data.

    Attributes:
        widths: d_0, ..., d_L; the network maps d_0 inputs to d_L outputs.
        tuned: which layer is tuned, 1 to L.
        rank: LoRA's rank r.
        channels: how many channels S2FT tunes; 0 means as many as give LoRA's parameter count.
        selection: how S2FT's channels are chosen: at random, by residual energy, or by weight norm.
        residual_rank: rank R of what the tuned layer can still learn.
        decay: its j-th singular value is j^-decay.
        on_selected: share of the residual that is put on the selected channels (needs selection "random");
            negative: left as drawn.
        unreachable: share of the pretrained risk that no change of the tuned layer can remove.
        condition: ratio of largest to smallest singular value of each layer.
        input_decay: the j-th eigenvalue of the input covariance is proportional to j^-input_decay.
        covariate_shift: share of a second, rotated covariance in the one out of distribution.
        alignment: t in Bo = W + t D + Z.
        shift_size: root mean square of |Z Si|_F relative to |D Si|_F.
        shift_law: law of Z: Gaussian, one random direction with a random sign, or Student t with 3 degrees.
        noise: variance of each output's noise relative to the pretrained risk of each output.
    """

    widths: tuple[int, ...] = (16, 16, 16, 16)
    tuned: int = 2
    rank: int = 4
    channels: int = 0
    selection: str = "random"
    residual_rank: int = 4
    decay: float = 0.0
    on_selected: float = -1.0
    unreachable: float = 0.0
    condition: float = 2.0
    input_decay: float = 0.5
    covariate_shift: float = 0.0
    alignment: float = 0.25
    shift_size: float = 1.0
    shift_law: str = "gaussian"
    noise: float = 0.5

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            msg = f"widths must be at least two positive sizes; got {list(self.widths)}"
            raise BadSetting(msg)
        need = self._need
        need("tuned", self.tuned, 1, len(self.widths) - 1)
        need("rank", self.rank, 1, min(self.m, self.k))
        need("channels", self.channels, 0, self.m)
        need("residual_rank", self.residual_rank, 1, min(self.widths))
        need("on_selected", self.on_selected, -1, 1)
        need("unreachable", self.unreachable, 0, 1)
        need("covariate_shift", self.covariate_shift, 0, 1)
        need("condition", self.condition, 1, 1e6)
        for name in ("decay", "input_decay", "shift_size", "noise"):
            need(name, getattr(self, name), 0, 1e6)
        need("alignment", self.alignment, -1e6, 1e6)
        for name, known in (("selection", SELECTIONS), ("shift_law", LAWS)):
            if getattr(self, name) not in known:
                msg = f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}"
                raise BadSetting(msg)
        if self.on_selected >= 0 and (self.selection != "random" or self.s == self.m):
            msg = "on_selected needs selection random and fewer selected channels than all"
            raise BadSetting(msg)

    @staticmethod
    def _need(name: str, value: float, low: float, high: float) -> None:
        if not low <= value <= high:
            msg = f"{name} must satisfy {low:g} <= {name} <= {high:g}; got {value}"
            raise BadSetting(msg)

    @property
    def q(self) -> int:
        """Outputs of the network."""
        return self.widths[-1]

    @property
    def p(self) -> int:
        """Inputs of the network."""
        return self.widths[0]

    @property
    def m(self) -> int:
        """Outputs (channels) of the tuned layer."""
        return self.widths[self.tuned]

    @property
    def k(self) -> int:
        """Inputs of the tuned layer."""
        return self.widths[self.tuned - 1]

    @property
    def s(self) -> int:
        """Channels that S2FT tunes; by default floor(r (m + k) / k), LoRA's parameter count (F.2)."""
        return self.channels or min(self.m, self.rank * (self.m + self.k) // self.k)

    @property
    def realisable(self) -> bool:
        """Whether tuning the layer can remove the whole residual."""
        return self.unreachable == 0

    def as_dict(self) -> dict[str, object]:
        """The fields, for a record."""
        plain: dict[str, object] = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**plain, "widths": list(self.widths), "channels": self.s}


class Batch(dict[str, Array]):
    """Arrays (seeds, rows, columns): H, L, Wl, W, D, Si, So, Z, and Se; `task` is what they were drawn for."""

    def __init__(self, task: Task, arrays: dict[str, Array]) -> None:
        super().__init__(arrays)
        self.task = task

    def instance(self, kit: Floats, alignment: float | None = None) -> Instance:
        """The batch as an instance of the theory's setting, at this shift alignment t."""
        t = self.task.alignment if alignment is None else alignment
        maps = {name: kit.mat(array) for name, array in self.items()}
        Bo = maps["W"] + t * maps["D"] + maps["Z"]
        return Instance(**maps, Bo=Bo, S=tuple(range(self.task.s)), r=self.task.rank)


def orthogonal(rng: Generator, size: int, n: int) -> Array:
    """Random orthogonal matrices, uniformly distributed: (size, n, n)."""
    Q, R = np.linalg.qr(rng.standard_normal((size, n, n)))
    return Q * np.sign(np.diagonal(R, axis1=1, axis2=2))[:, None, :]


def matrix(rng: Generator, size: int, rows: int, columns: int, singular_values: Array) -> Array:
    """Random matrices with these singular values and uniformly distributed singular vectors."""
    r = len(singular_values)
    left, right = orthogonal(rng, size, rows), orthogonal(rng, size, columns)
    return (left[:, :, :r] * singular_values) @ right[:, :, :r].mT


def covariance_root(rng: Generator, size: int, p: int, decay: float) -> Array:
    """Symmetric roots of random covariances with trace p and eigenvalues proportional to j^-decay."""
    values = np.arange(1, p + 1) ** -float(decay)
    Q = orthogonal(rng, size, p)
    return (Q * np.sqrt(values * p / values.sum())) @ Q.mT


def root(S: Array) -> Array:
    """The symmetric root of symmetric positive semidefinite matrices."""
    values, Q = np.linalg.eigh(S)
    return (Q * np.sqrt(np.maximum(values, 0))[:, None, :]) @ Q.mT


def norm(A: Array) -> Array:
    """Frobenius norms, shaped to divide by."""
    return np.sqrt((A * A).sum(axis=(1, 2), keepdims=True))


def draw(task: Task, rng: Generator, size: int) -> Batch:
    """Draw one network and one task for each of `size` seeds."""
    layers = []
    for d_in, d_out in zip(task.widths[:-1], task.widths[1:], strict=True):
        spectrum = np.geomspace(1.0, 1.0 / task.condition, min(d_in, d_out)) * np.sqrt(task.condition)
        layers.append(matrix(rng, size, d_out, d_in, spectrum))
    Wl = layers[task.tuned - 1]
    H = product(layers[task.tuned :], size, task.m)
    L = product(layers[: task.tuned - 1], size, task.p)
    Si = covariance_root(rng, size, task.p, task.input_decay)
    other = covariance_root(rng, size, task.p, task.input_decay)
    c = task.covariate_shift
    So = root((1 - c) * Si @ Si + c * other @ other) if c else Si
    T = matrix(rng, size, task.m, task.k, np.arange(1, task.residual_rank + 1) ** -float(task.decay))
    order = _order(task, rng, T, H, L, Si, Wl)
    T, Wl = np.take_along_axis(T, order[:, :, None], 1), np.take_along_axis(Wl, order[:, :, None], 1)
    H = np.take_along_axis(H, order[:, None, :], 2)
    if task.on_selected >= 0:
        T = np.concatenate(
            [
                np.sqrt(task.on_selected) * T[:, : task.s] / norm(T[:, : task.s]),
                np.sqrt(1 - task.on_selected) * T[:, task.s :] / norm(T[:, task.s :]),
            ],
            axis=1,
        )
    D = H @ T @ L
    D /= norm(D @ Si)
    if task.unreachable:
        D = np.sqrt(1 - task.unreachable) * D + np.sqrt(task.unreachable) * _unreachable(rng, H, L, Si)
    Z = _shift(task, rng, size, D.shape[1:], Si)
    Se = np.broadcast_to(np.eye(task.q) * task.noise / task.q, (size, task.q, task.q))
    return Batch(
        task, {"H": H, "L": L, "Wl": Wl, "W": H @ Wl @ L, "D": D, "Si": Si, "So": So, "Z": Z, "Se": Se}
    )


def product(layers: list[Array], size: int, width: int) -> Array:
    """The product of consecutive layers (the last one leftmost); the identity if there is none."""
    total = np.broadcast_to(np.eye(width), (size, width, width))
    for layer in layers:
        total = layer @ total
    return total


def _order(task: Task, rng: Generator, T: Array, H: Array, L: Array, Si: Array, Wl: Array) -> Array:
    """The channels of the tuned layer in the order in which S2FT would select them: (size, m)."""
    if task.selection == "energy":
        energy = np.linalg.pinv(H) @ H @ T @ L @ Si
        return np.argsort(-(energy**2).sum(axis=2), axis=1, kind="stable")
    if task.selection == "weight":
        return np.argsort(-(Wl**2).sum(axis=2), axis=1, kind="stable")
    return np.argsort(rng.random((T.shape[0], task.m)), axis=1, kind="stable")


def _unreachable(rng: Generator, H: Array, L: Array, Si: Array) -> Array:
    """Maps of risk 1 that tuning the layer cannot approach at all; the layers must leave room for them."""
    free = rng.standard_normal((H.shape[0], H.shape[1], L.shape[2]))
    seen = L @ Si
    learnt = H @ np.linalg.pinv(H) @ free @ Si @ np.linalg.pinv(seen) @ seen
    rest = (free @ Si - learnt) @ np.linalg.inv(Si)
    size = norm(rest @ Si)
    if (size < 1e-6 * norm(free @ Si)).any():
        msg = "unreachable must be 0 where the other layers hide nothing; narrow a layer's width"
        raise BadSetting(msg)
    return rest / size


def _shift(task: Task, rng: Generator, size: int, shape: tuple[int, ...], Si: Array) -> Array:
    """Z with mean zero, independent of everything else, and E |Z Si|^2 = shift_size^2 (tr Si^2 = p)."""
    scale = task.shift_size / np.sqrt(shape[0] * shape[1])
    if task.shift_law == "sign":
        direction = rng.standard_normal((size, *shape))
        direction *= task.shift_size / norm(direction @ Si)
        return direction * rng.choice([-1.0, 1.0], (size, 1, 1))
    if task.shift_law == "heavy":
        return scale / np.sqrt(3.0) * rng.standard_t(3, (size, *shape))
    return scale * rng.standard_normal((size, *shape))


def moments(batch: Batch, rng: Generator, samples: int) -> tuple[Array, Array]:
    """Sample moments of n fresh Gaussian samples a seed: X X'/n (p x p) and (Y - W X) X'/n (q x p).

    Training never touches samples again: both methods' gradients depend on the data through these alone.
    """
    size, p = batch["Si"].shape[:2]
    X = batch["Si"] @ rng.standard_normal((size, p, samples))
    noise = np.sqrt(batch["Se"][:, :1, :1]) * rng.standard_normal((size, batch["D"].shape[1], samples))
    missed = batch["D"] @ X + noise
    return X @ X.mT / samples, missed @ X.mT / samples

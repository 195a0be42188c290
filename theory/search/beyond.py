"""Beyond what `build` makes: the same statement over instances whose entries are free.

A setting's `build` may make less than the hypotheses allow (definite matrices where semidefinite ones are
allowed, say), and a search inside it then misses what lies outside. `widen` frees every matrix and number of
the instance, keeping only shapes, symmetry and semidefiniteness that every built instance shows; the stated
hypotheses alone decide which instances count. What is found so satisfies every stated hypothesis: either the
statement is false, or a hypothesis that `build` respects was never stated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from theory.claim import Setting
from theory.instances import count, gram
from theory.kits.floats import Floats
from theory.protocol import Instance, Kit, Mat, NotHere

DRAWS = 8


def _built(setting: Setting, d: dict[str, Any]) -> Instance:
    """A batch of built instances."""
    kit, shapes = Floats(), setting.free(d)
    z = np.random.default_rng(0).standard_normal((DRAWS, count(shapes)))
    t, at = Instance(), 0
    for name, (m, n) in shapes.items():
        t[name] = kit.wrap(z[:, at : at + m * n].reshape(-1, m, n))
        at += m * n
    with np.errstate(all="ignore"):
        return setting.build(kit, t, d)


def _kind(data: Any) -> str:
    """What every matrix of a batch (batch, m, n) is: "psd", "symmetric" or "free"."""
    if data.shape[1] != data.shape[2] or not np.isfinite(data).all():
        return "free"
    size = np.abs(data).max() + 1e-300
    if data.shape[1] > 1 and np.abs(data - np.swapaxes(data, 1, 2)).max() > 1e-9 * size:
        return "free"
    return "psd" if np.linalg.eigvalsh(data).min() > -1e-9 * size else "symmetric"


def _plan(
    setting: Setting, d: dict[str, Any]
) -> tuple[dict[str, tuple[str, tuple[int, int]]], dict[str, Any]]:
    """Free parts of the instance as {name: (kind, shape)}, and its static data."""
    free: dict[str, tuple[str, tuple[int, int]]] = {}
    static: dict[str, Any] = {}
    for name, value in _built(setting, d).items():
        if isinstance(value, Mat):
            free[name] = (_kind(value.data), value.shape)
        elif isinstance(value, (float, np.ndarray)):
            free[name] = ("number", (1, 1))
        elif isinstance(value, (int, tuple)):
            static[name] = value
        else:
            msg = f"{name} of the instance is {type(value).__name__}"
            raise NotHere(msg)
    return free, static


def widen(setting: Setting) -> Setting:
    """A setting over free instances of the same shapes, symmetry and static data."""
    plans: dict[str, tuple[dict[str, tuple[str, tuple[int, int]]], dict[str, Any]]] = {}

    def plan(d: dict[str, Any]) -> tuple[dict[str, tuple[str, tuple[int, int]]], dict[str, Any]]:
        key = repr(sorted(d.items()))
        if key not in plans:
            plans[key] = _plan(setting, dict(d))
        return plans[key]

    def free(d: dict[str, Any]) -> Mapping[str, tuple[int, int]]:
        return {name: shape for name, (_, shape) in plan(d)[0].items()}

    def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
        kinds, static = plan(d)
        out = Instance(static)
        for name, (kind, _) in kinds.items():
            if kind == "number":
                out[name] = k.e(t[name], 0, 0)
            elif kind == "psd":
                out[name] = gram(t[name])
            else:
                out[name] = t[name] + t[name].T if kind == "symmetric" else t[name]
        return out

    return replace(setting, free=free, build=build, letters=None, families=None, inner=None, grow=())

"""A search problem: a statement over a setting, scored in batches of floats and turned into candidates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from theory import instances
from theory.claim import Setting
from theory.kits.floats import Floats
from theory.protocol import Instance, Mat, Statement
from theory.search.certify import Candidate, roundings
from theory.search.scoring import Scored, Scores

Array = Any
BLOCK_BYTES = 1 << 17  # about what a core's second cache holds beside the intermediate results


class Problem:
    """What is searched: the text, how instances are made, and the changes of a control."""

    def __init__(self, statement: Statement, setting: Setting, changes: Mapping[str, Any]) -> None:
        self.statement, self.setting, self.changes = statement, setting, dict(changes)

    def shapes(self, d: Mapping[str, Any]) -> instances.Shapes:
        """Shapes of the free parameters at sizes d."""
        return self.setting.free(dict(d))

    def groups(self, d: Mapping[str, Any]) -> list[slice]:
        """The coordinates of each free parameter in a flat point."""
        out, at = [], 0
        for m, n in self.shapes(d).values():
            if m * n:
                out.append(slice(at, at + m * n))
            at += m * n
        return out

    def block(self, d: Mapping[str, Any]) -> int:
        """How many instances are evaluated at once: fixed by the problem, not by the machine."""
        shapes = self.shapes(d)
        largest = max([m * n for m, n in shapes.values()] + [max(s) ** 2 for s in shapes.values()], default=1)
        return int(np.clip(BLOCK_BYTES // (8 * max(largest, 1)), 16, 2048))

    def floats(self, d: Mapping[str, Any], z: Array) -> Instance:
        """A batch of instances in plain floats, inner maximisations solved; z is (batch, total)."""
        kit = Floats()
        t, at = Instance(), 0
        for name, (m, n) in self.shapes(d).items():
            t[name] = kit.wrap(z[:, at : at + m * n].reshape(-1, m, n))
            at += m * n
        with np.errstate(all="ignore"):
            x = self.setting.build(kit, t, dict(d))
            return self.setting.inner(kit, x) if self.setting.inner else x

    def score(self, d: Mapping[str, Any], z: Array, mode: str = "ratio", most: int | None = None) -> Scores:
        """Scores of a batch of any length, evaluated block by block, each in at most `most` operations."""
        size, parts = self.block(d), []
        for start in range(0, len(z), size):
            block = z[start : start + size]
            kit = Scored(mode, most)
            parts.append(
                kit.scores(self.statement, kit.adopt(self.floats(d, block)), len(block), **self.changes)
            )
        if not parts:
            nothing = np.zeros(0, bool)
            return Scores(np.zeros(0), nothing, nothing, nothing, [])
        if len(parts) == 1:
            return parts[0]
        kinds = min(len(p.critical) for p in parts)
        return Scores(
            np.concatenate([p.objective for p in parts]),
            np.concatenate([p.meets for p in parts]),
            np.concatenate([p.clear for p in parts]),
            np.concatenate([p.near for p in parts]),
            [np.concatenate([p.critical[i] for p in parts]) for i in range(kinds)],
        )

    def candidates(self, d: Mapping[str, Any], point: Array, thin: bool = False) -> Iterator[Candidate]:
        """Exact candidates near a float point."""
        if self.setting.inner is None:
            for values in roundings(point, thin):
                yield Candidate(d, values)
            return
        for values in roundings(point, thin):
            yield Candidate(d, values, self._replaced(d, np.array([[float(v) for v in values]])))

    def _replaced(self, d: Mapping[str, Any], z: Array) -> dict[str, tuple[tuple[Fraction, ...], ...]]:
        """Entries of the instance that the inner maximisation sets, to three digits of the largest entry."""
        setting, kit = self.setting, Floats()
        t, at = Instance(), 0
        for name, (m, n) in self.shapes(d).items():
            t[name] = kit.wrap(z[:, at : at + m * n].reshape(-1, m, n))
            at += m * n
        with np.errstate(all="ignore"):
            before = setting.build(kit, t, dict(d))
            after = setting.inner(kit, Instance(before)) if setting.inner else before
        out = {}
        for name, value in after.items():
            if isinstance(value, Mat) and (name not in before or value.data is not before[name].data):
                rows = np.broadcast_to(value.data, (1, *value.shape))[0]
                largest = float(np.abs(rows).max(initial=0.0))
                scale = (
                    Fraction(10) ** (3 - int(np.floor(np.log10(largest)))) if largest > 1e-12 else Fraction(1)
                )
                out[name] = tuple(tuple(round(Fraction(float(v)) * scale) / scale for v in r) for r in rows)
        return out

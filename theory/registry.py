"""Which claims there are: every `CLAIM` or `CLAIMS` of the modules `theory/<paper>/<name>.py`.

Adding a claim is adding a file; adding a paper is adding a folder. Standard library only.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from theory.claim import Claim

ROOT = Path(__file__).resolve().parent
NOT_PAPERS = frozenset({"kits", "search", "__pycache__"})


class UnknownClaim(KeyError):
    """No claim has that id; the message names the nearest ones."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Registered:
    """A claim with the module that defines it."""

    claim: Claim
    module: str

    @property
    def path(self) -> Path:
        """The claim's file."""
        return ROOT.parent / (self.module.replace(".", "/") + ".py")


def papers() -> list[str]:
    """The folders of papers."""
    return sorted(p.name for p in ROOT.iterdir() if (p / "__init__.py").exists() and p.name not in NOT_PAPERS)


def claims_of(module: ModuleType) -> tuple[Claim, ...]:
    """The claims that a module defines; none if it is a shared part such as a setting."""
    if hasattr(module, "CLAIMS"):
        return tuple(module.CLAIMS)
    return (module.CLAIM,) if hasattr(module, "CLAIM") else ()


@cache
def registered() -> dict[str, Registered]:
    """Every claim by id, in the order of papers and files.

    Raises:
        ValueError: Two files define one id, or an id does not begin with its folder.
    """
    found: dict[str, Registered] = {}
    for paper in papers():
        for path in sorted((ROOT / paper).glob("*.py")):
            if path.stem == "__init__":
                continue
            name = f"theory.{paper}.{path.stem}"
            for claim in claims_of(importlib.import_module(name)):
                if not claim.id.startswith(f"{paper}/"):
                    msg = f"{name}: the id {claim.id!r} must begin with {paper}/"
                    raise ValueError(msg)
                if claim.id in found:
                    msg = f"{claim.id} is defined in {found[claim.id].module} and in {name}"
                    raise ValueError(msg)
                found[claim.id] = Registered(claim, name)
    return found


def claim_ids() -> list[str]:
    """All ids."""
    return list(registered())


def find(claim_id: str) -> Registered:
    """The claim of that id.

    Raises:
        UnknownClaim: There is none; the message names what is near.
    """
    known = registered()
    if claim_id in known:
        return known[claim_id]
    near = [name for name in known if name.endswith(f"/{claim_id}")]
    if len(near) == 1:
        return known[near[0]]
    import difflib

    close = near or difflib.get_close_matches(claim_id, known, 3, 0.4)
    hint = f"; did you mean {', '.join(close)}?" if close else "; see `python -m theory list`"
    msg = f"there is no claim {claim_id!r}{hint}"
    raise UnknownClaim(msg)

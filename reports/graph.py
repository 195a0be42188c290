"""Draw what rests on what: the claims' `uses` as a mermaid graph, with what falls with a fallen claim."""

from __future__ import annotations

import re

from reports.layout import Record

# Defects that take nothing with them: the statement that others rest on is the one that was meant.
_HARMLESS = ("misprint", "text uncertain")


def is_refuted(claim: Record) -> bool:
    """Return whether some reading of the claim is refuted."""
    return any(verdict["status"] == "refuted" for verdict in claim["verdicts"])


def has_fallen(claim: Record) -> bool:
    """Return whether the claim is refuted in every reading that follows the print, and by more than a misprint.

    A reading follows the print when its name contains "printed"; a claim without such a reading falls when all
    of its readings do. What rests on a claim that stands in some printed reading may rest on that one.
    """
    verdicts = claim["verdicts"]
    printed = [verdict for verdict in verdicts if "printed" in verdict["reading"]] or verdicts
    refuted = all(verdict["status"] == "refuted" for verdict in printed)
    return refuted and claim["defect"] not in _HARMLESS


def shaken(claims: dict[str, Record]) -> dict[str, list[str]]:
    """Return for each claim that rests on fallen ones, directly or not, the ids of those.

    Args:
        claims: all claims by id; ids in `uses` without a record are passed over.
    """
    found = {}
    for name in claims:
        seen: set[str] = set()
        waiting = list(claims[name]["uses"])
        while waiting:
            below = waiting.pop()
            if below in seen or below not in claims:
                continue
            seen.add(below)
            waiting.extend(claims[below]["uses"])
        fallen = sorted(below for below in seen - {name} if has_fallen(claims[below]))
        if fallen:
            found[name] = fallen
    return found


def mermaid(claims: dict[str, Record], paper: str) -> str:
    """Return a mermaid graph of one paper's dependencies, or nothing when none rests on another.

    An arrow runs from a claim to what rests on it. Refuted claims and what rests on them are marked.
    """
    edges = sorted(
        (below, name)
        for name, claim in claims.items()
        for below in set(claim["uses"])
        if paper in (name.split("/")[0], below.split("/")[0])
    )
    if not edges:
        return ""
    reached = shaken(claims)
    names = sorted({name for edge in edges for name in edge})
    lines = ["graph LR"]
    for name in names:
        label = name.removeprefix(f"{paper}/")
        if name not in claims:
            mark = "missing"
        elif has_fallen(claims[name]):
            mark = "fallen"
        elif name in reached:
            mark = "shaken"
        else:
            mark = "partly" if is_refuted(claims[name]) else "stands"
        lines.append(f'  {_node(name)}["{label}"]:::{mark}')
    lines += [f"  {_node(below)} --> {_node(name)}" for below, name in edges]
    lines += [
        "  classDef stands fill:#e8f4ec,stroke:#2d7d46,color:#123",
        "  classDef fallen fill:#fbe3e0,stroke:#b3261e,color:#411,stroke-width:2px",
        "  classDef partly fill:#fdeee9,stroke:#b3261e,color:#411,stroke-dasharray:4 3",
        "  classDef shaken fill:#fdf3d8,stroke:#a67c00,color:#321,stroke-dasharray:4 3",
        "  classDef missing fill:#eeeeee,stroke:#999999,color:#444,stroke-dasharray:2 2",
    ]
    return "\n".join(lines)


def _node(name: str) -> str:
    return re.sub(r"\W", "_", name)

"""Gather what experiments said of the theory: predictions by outcome, a calibration by claim, assumptions measured."""

from __future__ import annotations

from reports.claim_pages import link
from reports.run_pages import TIERS, declared_experiments
from reports.store import Record

OUTCOMES = ("agrees", "contradicts", "undecided")


def summary(records: dict[str, Record], claims: dict[str, Record]) -> Record:
    """Return what the page of theory against practice shows.

    Args:
        records: experiments by name, `<row>/<tier>`.
        claims: claim records by id.
    """
    rows = _predictions(records, claims)
    tiers = [
        {
            "name": tier,
            "rows": sum(name.endswith(f"/{tier}") for name in records),
            "of": len(declared_experiments()),
            **{
                outcome: sum(r["outcome"] == outcome for r in rows if r["tier"] == tier)
                for outcome in OUTCOMES
            },
        }
        for tier in TIERS
    ]
    return {
        "tiers": tiers,
        "predictions": {outcome: [r for r in rows if r["outcome"] == outcome] for outcome in OUTCOMES},
        "calibration": _calibration(records, claims),
        "assumptions": [
            {**entry, "claims": _links(entry.get("claims", []), claims), "row": name.split("/")[0]}
            for name, record in sorted(records.items())
            for entry in record.get("assumptions", [])
        ],
        "not_run": [
            name for name in declared_experiments() if not any(n.startswith(f"{name}/") for n in records)
        ],
    }


def _predictions(records: dict[str, Record], claims: dict[str, Record]) -> list[Record]:
    found = []
    for name, record in sorted(records.items()):
        row, _, tier = name.partition("/")
        # an assumption that fails leaves the theorem right and without application
        role = "assumed by " if record.get("assumptions") else ""
        for score in record.get("predictions", []):
            smallest = score.get("smallest_effect")
            found.append(
                {
                    "row": row,
                    "tier": tier,
                    "says": score["says"],
                    "source": score["source"],
                    "claims": role * bool(score["claims"]) + _links(score["claims"], claims),
                    "measured": score["measured"],
                    "outcome": score["outcome"],
                    "smallest": "-" if smallest is None else f"{smallest:.2g}",
                }
            )
    return found


def _calibration(records: dict[str, Record], claims: dict[str, Record]) -> list[Record]:
    """Return for every claim that was put to models: its verdicts, and how its predictions fared.

    An experiment that measures assumptions says whether theorems apply, not whether they are right.
    """
    counted: dict[str, dict[str, int]] = {}
    for record in records.values():
        if record.get("assumptions"):
            continue
        for score in record.get("predictions", []):
            for claim in score["claims"]:
                counted.setdefault(claim, dict.fromkeys(OUTCOMES, 0))[score["outcome"]] += 1
    return [
        {
            "claim": link(name, claims, "") if name in claims else f"`{name}`",
            "verdicts": ", ".join(dict.fromkeys(v["status"] for v in claims[name]["verdicts"]))
            if name in claims
            else "no record",
            **counts,
        }
        for name, counts in sorted(counted.items())
    ]


def _links(names: list[str], claims: dict[str, Record]) -> str:
    return ", ".join(link(name, claims, "") if name in claims else f"`{name}`" for name in names)

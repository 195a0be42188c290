"""What the pages say of claims: every value of a record turned into words, LaTeX and links."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from reports import graph, notation
from reports.layout import STATUSES
from reports.store import Record, pretty, reports_root

TITLES = {
    "s2ft": "S2FT: structured sparse fine-tuning",
    "lora_variants": "LoRA: the past, present, and future",
    "peft_vs_fft": "Parameter-efficient against full fine-tuning",
    "peso": "PESO: subspace optimisation",
}
LABELS = {
    "proved": "✔ **proved**",
    "proved_within": "◐ **proved within** what is named here",
    "refuted": "✘ **refuted**",
    "supported": "○ **supported**, not proved",
    "undecided": "? **undecided**",
}
SHORT = {
    "proved": "✔ proved",
    "proved_within": "◐ proved within",
    "refuted": "✘ refuted",
    "supported": "○ supported",
    "undecided": "? undecided",
}
# A certificate longer than this is linked, not printed.
LONGEST_CERTIFICATE = 600


def _texts(value: Any) -> tuple[str, list[str]]:
    """Return the words and the LaTeX lines of a statement, which may be a text or {text, latex}."""
    if isinstance(value, str):
        return value, []
    words = str(value.get("text") or value.get("sentence") or "") if value else ""
    latex = (value.get("latex") or []) if value else []
    return words, [latex] if isinstance(latex, str) else [str(line) for line in latex]


def _formal(latex: Any) -> Record:
    """Return the LaTeX of a reading's text in three parts; empty lists where the record has none."""
    parts = latex if isinstance(latex, dict) else {}
    return {
        name: [str(line) for line in parts.get(name, [])]
        for name in ("definitions", "hypotheses", "conclusions")
    }


def _place(source: Any) -> str:
    if isinstance(source, dict):
        return str(source.get("place") or source.get("paper") or "")
    return str(source)


def _certificate(part: Record, record: str) -> Record:
    """Return how a certificate is shown: its text when short, its length when long, nothing when absent."""
    certificate = part["certificate"]
    # A counterexample is on the page already, in matrices.
    shown = isinstance(certificate, dict) and certificate.get("kind") == "counterexample"
    text = pretty(certificate) if certificate and not shown else ""
    short = len(text) <= LONGEST_CERTIFICATE
    return {
        "certificate_text": text if short else "",
        "certificate_long": 0 if short else len(text),
        "record": record,
    }


def _reason(verdict: Record) -> str:
    """Return why a reading is not settled."""
    evidence = verdict["evidence"]
    return str(
        verdict.get("reason")
        or evidence.get("reason")
        or notation.words(verdict["scope"])
        or "no reason recorded"
    )


def _about(certificate: Record) -> str:
    """Return what kind of argument it is, and whose word it rests on where that is a solver's."""
    return (
        f"rests on {certificate['rests_on']}"
        if "rests_on" in certificate
        else str(certificate.get("about", ""))
    )


def _sides(certificate: Any) -> list[Record]:
    sides = certificate.get("sides") if isinstance(certificate, dict) else None
    return [
        {
            "name": name,
            "left": notation.number(left),
            "right": notation.number(right),
            "ratio": notation.ratio(left, right),
        }
        for name, (left, right) in (sides or {}).items()
    ]


def _tightness(verdict: Record) -> str:
    """Return how tight a bound is: the exact ratio of its sides on the instance that the record keeps."""
    tightness = verdict["tightness"]
    if not tightness or tightness["ratio"] is None:
        return ""
    if tightness["sharp"]:
        where = "on the sharpest instance known"
    else:
        where = "on the counterexample" if verdict["status"] == "refuted" else "at most, as far as found"
    return f"left / right is {notation.number(tightness['ratio'])} {where}."


def _controls(controls: Iterable[Record]) -> list[Record]:
    return [
        {
            "variant": control["variant"],
            "kind": "must survive" if control["kind"] in (True, "true") else "must be refuted",
            "said": "refuted" if control["refuted"] else "not refuted",
        }
        for control in controls
    ]


def _equations(instance: Any) -> list[str]:
    return notation.equations(instance) if isinstance(instance, dict) else []


def _search(search: Any) -> Record:
    """Return how hard a counterexample was looked for: lines of (what, value), and a row for each stage."""
    if not isinstance(search, dict):
        return {"lines": [], "stages": []}
    if "stages" not in search:
        return {"lines": [(name, notation.words(value)) for name, value in search.items()], "stages": []}
    lines = [
        ("instances looked at", f"{search['evaluations']} (budget {search['budget']}, seed {search['seed']})")
    ]
    best, classes = search.get("best"), search.get("classes") or {}
    if best:
        place = f"{best['conclusion']}; {best['stage']}, {notation.words(best['sizes'])}"
        lines.append(("largest left / right, exactly", f"{notation.number(best['ratio'])} ({place})"))
    labels = {
        "hit": "classes hit",
        "allowed_never_hit": "classes that the hypotheses allow, never hit",
        "never_hit": "classes never hit",
    }
    for name, label in labels.items():
        if classes.get(name):
            lines.append((label, ", ".join(classes[name])))
    return {"lines": lines, "stages": _stages(search["stages"])}


def _stages(stages: list[Record]) -> list[Record]:
    """Return one row for each stage of a search, its sizes taken together."""
    rows: dict[str, Record] = {}
    for part in stages:
        row = rows.setdefault(part["stage"], {"sizes": 0, "tried": 0, "exact": 0, "answers": {}})
        row["sizes"] += 1
        row["tried"] += part["tried"]
        row["exact"] += part["exact"]
        if part.get("answer"):
            row["answers"][part["answer"]] = row["answers"].get(part["answer"], 0) + 1
    return [{"stage": name, **row, "answers": notation.words(row["answers"])} for name, row in rows.items()]


def _verdict(verdict: Record, claim: Record, record: str) -> Record:
    certificate = verdict["certificate"] if isinstance(verdict["certificate"], dict) else {}
    refuted = verdict["status"] == "refuted"
    sentence = verdict.get("sentence") or ""
    instances = verdict["evidence"]["instances"]
    further = instances.get("open counterexample") if isinstance(instances, dict) else None
    repair = verdict["repair"]
    shown: Record = {
        "reading": verdict["reading"],
        "label": LABELS[verdict["status"]],
        "scope": notation.words(verdict["scope"]) if verdict["scope"] else "",
        "about": _about(certificate),
        "text": sentence if sentence != _texts(claim["statement"])[0] else "",
        "formal": _formal((claim.get("latex") or {}).get(verdict["reading"])),
        "vacuous": verdict["vacuous"] or "",
        "why": _reason(verdict) if verdict["status"] in ("supported", "undecided") else "",
        "instance": _equations(certificate.get("instance")) if refuted else [],
        "breaks": certificate.get("breaks", []),
        "sides": _sides(certificate) if refuted else [],
        "open_instance": _equations(further),
        "tightness": _tightness(verdict),
        "sharp": _equations((verdict["tightness"] or {}).get("sharp")),
        "unused": verdict.get("unused_hypotheses") or [],
        "search": _search(verdict["evidence"]["search"]),
        "controls": _controls(verdict["controls"]),
        "repair": None,
        **_certificate(verdict, record),
    }
    if repair:
        text, latex = _texts(repair["statement"])
        shown["repair"] = {
            "label": SHORT[repair["status"]],
            "why": repair.get("reason") or "",
            "ratio": notation.number(repair.get("ratio")),
            "necessary": {name: _equations(at) for name, at in (repair.get("necessary") or {}).items()},
            "text": text,
            "latex": latex,
            **_certificate(repair, record),
        }
    return shown


def _verdict_in_short(claim: Record) -> str:
    """Return a claim's statuses: one when its readings agree, else each with how often it occurs."""
    statuses = [verdict["status"] for verdict in claim["verdicts"]]
    if len(set(statuses)) == 1:
        short = SHORT[statuses[0]]
    else:
        short = ", ".join(f"{SHORT[s]} ({statuses.count(s)})" for s in STATUSES if s in statuses)
    repairs = [verdict["repair"] for verdict in claim["verdicts"] if verdict["repair"]]
    if repairs:
        short += f"; repair {', '.join(dict.fromkeys(SHORT[repair['status']] for repair in repairs))}"
    return short


def link(name: str, claims: dict[str, Record], here: str, up: str = "") -> str:
    """Return a link to a claim's place on its paper's page, or its name where there is no record."""
    paper, _, short = name.partition("/")
    if name not in claims:
        return f"`{name}` (no record)"
    if paper == here:
        return f"[{short}](#{_anchor(short)})"
    return f"[{name}]({up}{paper}.md#{_anchor(short)})"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))


def _claim(name: str, claims: dict[str, Record], reached: dict[str, list[str]]) -> Record:
    claim = claims[name]
    paper, _, short = name.partition("/")
    words, latex = _texts(claim["statement"])
    record = f"records/claims/{name}.json"
    return {
        "id": name,
        "short": short,
        "anchor": _anchor(short),
        "place": _place(claim["source"]),
        "defect": claim["defect"] or "",
        "headline": claim["headline"],
        "verdict": _verdict_in_short(claim),
        "text": words,
        "latex": latex,
        "uses": [link(used, claims, paper) for used in claim["uses"]],
        "shaken": [link(below, claims, paper) for below in reached.get(name, [])],
        "brings_down": [link(above, claims, paper) for above, below in reached.items() if name in below],
        "verdicts": [_verdict(verdict, claim, record) for verdict in claim["verdicts"]],
        "refuted": graph.is_refuted(claim),
        "record": record,
        "objection": _objection(name),
    }


def _objection(name: str) -> str:
    """Return the objection filed against a claim, its headings made small enough to stand inside the page."""
    path = reports_root() / "objections" / f"{name}.md"
    if not path.exists():
        return ""
    return re.sub(r"^#+ +", "##### ", path.read_text(encoding="utf-8").strip(), flags=re.MULTILINE)


def paper_page(paper: str, claims: dict[str, Record]) -> Record:
    """Return all that the page of one paper says."""
    reached = graph.shaken(claims)
    own = [_claim(name, claims, reached) for name in sorted(claims) if name.startswith(f"{paper}/")]
    sections = [
        {"title": "Refuted in some reading", "claims": [claim for claim in own if claim["refuted"]]},
        {"title": "Not refuted", "claims": [claim for claim in own if not claim["refuted"]]},
    ]
    counts = count(paper, claims)
    summary = ", ".join(f"{counts[s]} {s.replace('_', ' ')}" for s in STATUSES if counts[s])
    return {
        "name": paper,
        "title": TITLES.get(paper, paper),
        "claims": own,
        "sections": [section for section in sections if section["claims"]],
        "summary": f"readings: {summary}",
        "graph": graph.mermaid(claims, paper),
    }


def count(paper: str, claims: dict[str, Record]) -> Record:
    """Return how many claims of a paper there are, and how many of their readings have each status."""
    own = [claim for name, claim in claims.items() if name.startswith(f"{paper}/")]
    statuses = [verdict["status"] for claim in own for verdict in claim["verdicts"]]
    counts = {status: statuses.count(status) for status in STATUSES}
    return {"name": paper, "title": TITLES.get(paper, paper), "claims": len(own), **counts}


def not_settled(claims: dict[str, Record]) -> list[Record]:
    """Return the readings that are neither proved nor refuted, each with its reason."""
    rows = []
    for name in sorted(claims):
        paper, _, short = name.partition("/")
        for verdict in claims[name]["verdicts"]:
            if verdict["status"] in ("supported", "undecided"):
                rows.append(
                    {
                        "id": name,
                        "link": f"{paper}.md#{_anchor(short)}",
                        "reading": verdict["reading"],
                        "status": verdict["status"],
                        "why": _reason(verdict),
                    }
                )
    return rows

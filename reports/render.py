"""Make the pages from the records: an index, a page for each paper, simulator and experiment, README's block.

Pages hold only what the records say, in a fixed order, so that making them again changes nothing. Nobody
edits them: a generated page begins with a marker, and a page whose records are gone is removed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports import figures, format, graph, sources
from reports.items import checkout
from reports.layout import STATUSES
from reports.store import (
    Record,
    RecordError,
    iter_record_paths,
    pretty,
    read_record,
    records_root,
    reports_root,
    write_text,
)

MARKER = "<!-- made from reports/records by `python -m reports`; do not edit -->"
README_BEGIN, README_END = "<!-- verdicts:begin -->", "<!-- verdicts:end -->"
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
LONGEST_CERTIFICATE = 3000
TIERS = ("cpu", "gpu")


# --- claims ------------------------------------------------------------------------------------------


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


def _words(value: Any) -> str:
    """Return any small value in words: numbers short, lists joined, objects as name: value."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_words(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(_words(entry) for entry in value)
    return value if isinstance(value, str) and format.exact(value) is None else format.number(value)


def _certificate(part: Record, record: str) -> Record:
    """Return how a certificate is shown: its text when short, its length when long, nothing when absent."""
    text = pretty(part["certificate"]) if part["certificate"] else ""
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
        verdict.get("reason") or evidence.get("reason") or _words(verdict["scope"]) or "no reason recorded"
    )


def _sides(certificate: Any) -> list[Record]:
    sides = certificate.get("sides") if isinstance(certificate, dict) else None
    return [
        {
            "name": name,
            "left": format.number(left),
            "right": format.number(right),
            "ratio": format.ratio(left, right),
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
    return f"left / right is {format.number(tightness['ratio'])} {where}."


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
    return format.equations(instance) if isinstance(instance, dict) else []


def _verdict(verdict: Record, claim: Record, record: str) -> Record:
    certificate = verdict["certificate"] if isinstance(verdict["certificate"], dict) else {}
    refuted = verdict["status"] == "refuted"
    sentence = verdict.get("sentence") or ""
    instances = verdict["evidence"]["instances"]
    further = instances.get("open counterexample") if isinstance(instances, dict) else None
    search = verdict["evidence"]["search"]
    repair = verdict["repair"]
    shown: Record = {
        "reading": verdict["reading"],
        "label": LABELS[verdict["status"]],
        "scope": _words(verdict["scope"]) if verdict["scope"] else "",
        "about": f"rests on {certificate['rests_on']}"
        if "rests_on" in certificate
        else str(certificate.get("about", "")),
        "text": sentence if sentence != _texts(claim["statement"])[0] else "",
        "formal": _formal((claim.get("latex") or {}).get(verdict["reading"])),
        "vacuous": (
            "the statement holds for want of content" if verdict["vacuous"] is True else verdict["vacuous"]
        )
        or "",
        "why": _reason(verdict) if verdict["status"] in ("supported", "undecided") else "",
        "instance": _equations(certificate.get("instance")) if refuted else [],
        "breaks": certificate.get("breaks", []),
        "sides": _sides(certificate) if refuted else [],
        "open_instance": _equations(further),
        "tightness": _tightness(verdict),
        "sharp": _equations((verdict["tightness"] or {}).get("sharp")),
        "unused": verdict.get("unused_hypotheses") or [],
        "search": [(name, _words(value)) for name, value in search.items()]
        if isinstance(search, dict)
        else [],
        "controls": _controls(verdict["controls"]),
        "repair": None,
        **_certificate(verdict, record),
    }
    if repair:
        words, latex = _texts(repair["statement"])
        shown["repair"] = {
            "label": SHORT[repair["status"]],
            "why": repair.get("reason") or "",
            "ratio": format.number(repair.get("ratio")),
            "necessary": {name: _equations(at) for name, at in (repair.get("necessary") or {}).items()},
            "text": words,
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


def _link(name: str, claims: dict[str, Record], here: str, up: str = "") -> str:
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
        "uses": [_link(used, claims, paper) for used in claim["uses"]],
        "shaken": [_link(below, claims, paper) for below in reached.get(name, [])],
        "brings_down": [_link(above, claims, paper) for above, below in reached.items() if name in below],
        "verdicts": [_verdict(verdict, claim, record) for verdict in claim["verdicts"]],
        "fallen": graph.has_fallen(claim),
        "record": record,
        "objection": _objection(name),
    }


def _objection(name: str) -> str:
    """Return the objection filed against a claim, its headings made small enough to stand inside the page."""
    path = reports_root() / "objections" / f"{name}.md"
    if not path.exists():
        return ""
    return re.sub(r"^#+ +", "##### ", path.read_text(encoding="utf-8").strip(), flags=re.MULTILINE)


def _paper(paper: str, claims: dict[str, Record]) -> Record:
    reached = graph.shaken(claims)
    own = [_claim(name, claims, reached) for name in sorted(claims) if name.startswith(f"{paper}/")]
    fallen = [claim for claim in own if claim["fallen"]]
    others = [claim for claim in own if not claim["fallen"]]
    sections = [
        {"title": "Refuted in some reading", "claims": fallen},
        {"title": "Not refuted", "claims": others},
    ]
    counts = _count(paper, claims)
    summary = ", ".join(f"{counts[s]} {s.replace('_', ' ')}" for s in STATUSES if counts[s])
    return {
        "name": paper,
        "title": TITLES.get(paper, paper),
        "claims": own,
        "sections": [section for section in sections if section["claims"]],
        "summary": f"readings: {summary}",
        "graph": graph.mermaid(claims, paper),
    }


def _count(paper: str, claims: dict[str, Record]) -> Record:
    own = [claim for name, claim in claims.items() if name.startswith(f"{paper}/")]
    statuses = [verdict["status"] for claim in own for verdict in claim["verdicts"]]
    counts = {status: statuses.count(status) for status in STATUSES}
    return {"name": paper, "title": TITLES.get(paper, paper), "claims": len(own), **counts}


def _not_settled(claims: dict[str, Record]) -> list[Record]:
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


# --- simulations and experiments ---------------------------------------------------------------------


def _figure_path(kind: str, identity: str, figure: Record) -> Path:
    return Path("figures") / kind / f"{format.slug(identity)}-{figure['name']}.png"


def _run(kind: str, name: str, record: Record, claims: dict[str, Record]) -> Record:
    """Return one record of a simulation or an experiment, ready for its template."""
    return {
        "title": record["id"],
        "headline": record.get("headline", ""),
        "question": record.get("question", ""),
        "claims": [_link(claim, claims, "", up="../") for claim in record.get("claims", [])],
        "figures": [
            {
                "title": figure["title"],
                "caption": figure.get("caption") or "",
                "link": f"../{_figure_path(kind, name, figure).as_posix()}",
            }
            for figure in record.get("figures", [])
        ],
        "notes": [str(note) for note in record.get("notes", [])],
        "record": f"../records/{kind}/{name}.json",
    }


def _simulators(records: dict[str, Record], claims: dict[str, Record]) -> list[Record]:
    """Return the simulators with their runs; one that is declared but has no record is shown as not run."""
    folder = checkout() / "sims"
    declared = [f.stem for f in sorted(folder.glob("*.py")) if sources.literal(f, "AUDIT") is not None]
    groups: dict[str, list[Record]] = {name: [] for name in declared}
    for name in sorted(records):
        own = [stem for stem in declared if re.match(rf"{re.escape(stem)}(\W|_|$)", name)]
        word = re.match(r"\w+", name)
        group = max(own, key=len) if own else (word[0] if word else name)
        record = records[name]
        run = _run("sims", name, record, claims)
        run["settings"] = pretty(record["settings"])
        run["table"] = [
            {
                "quantity": row["quantity"],
                "setting": _words(row["setting"]),
                **{field: format.number(row[field]) for field in ("predicted", "simulated", "stderr")},
                "z": f"{row['z']:.2f}" if isinstance(row["z"], float) else format.number(row["z"]),
            }
            for row in record["table"]
        ]
        groups.setdefault(group, []).append(run)
    return [
        {"name": name, "runs": runs, "headline": runs[0]["headline"] if runs else "not run"}
        for name, runs in sorted(groups.items())
    ]


def _experiments(records: dict[str, Record], claims: dict[str, Record]) -> list[Record]:
    """Return the experiments with their runs; a declared one without a record of a tier was not run there."""
    folder = checkout() / "llm_experiments" / "experiments"
    rows: dict[str, list[tuple[str, Record]]] = {
        f.stem: [] for f in sorted(folder.glob("*.py")) if sources.literal(f, "AUDIT") is not None
    }
    for name in sorted(records):
        record = records[name]
        run = _run("llm", name, record, claims)
        shown = ("id", "headline", "question", "claims", "figures", "notes", "table", "schema", "digest")
        run["settings"] = pretty({field: value for field, value in record.items() if field not in shown})
        table = [row for row in record.get("table", []) if isinstance(row, dict)]
        run["columns"] = list(dict.fromkeys(column for row in table for column in row))
        run["table"] = [[format.cell(_words(row.get(column))) for column in run["columns"]] for row in table]
        tier = record.get("tier") or record.get("settings", {}).get("tier") or "cpu"
        rows.setdefault(name.split("/")[0], []).append((str(tier), run))
    return [
        {"name": name, "tiers": runs, "runs": [run for _, run in runs]} for name, runs in sorted(rows.items())
    ]


def _experiment_lines(experiments: list[Record]) -> list[Record]:
    lines = []
    for row in experiments:
        for tier in TIERS:
            headlines = [run["headline"] for t, run in row["tiers"] if t == tier and run["headline"]]
            ran = any(t == tier for t, _ in row["tiers"])
            headline = " ".join(headlines) or ("run" if ran else "not run")
            lines.append({"name": row["name"], "tier": tier, "headline": headline, "page": bool(row["runs"])})
    return lines


# --- pages -------------------------------------------------------------------------------------------


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML; `md` and `cell` escape what needs it
    )
    environment.filters["cell"] = format.cell
    environment.filters["md"] = format.markdown
    return environment


def _load(kind: str) -> dict[str, Record]:
    root = records_root() / kind
    return {
        path.relative_to(root).as_posix().removesuffix(".json"): read_record(path)
        for path in iter_record_paths(kind)
    }


def build() -> tuple[dict[Path, str], dict[Path, Record]]:
    """Return the text of every page and the data of every figure, by absolute path.

    Raises:
        RecordError: a record cannot be believed, or README has no place for its block.
    """
    claims, sims, llm = _load("claims"), _load("sims"), _load("llm")
    names = [*[paper for paper in TITLES], *sorted({n.split("/")[0] for n in claims} - set(TITLES))]
    papers = [_paper(name, claims) for name in names if any(n.startswith(f"{name}/") for n in claims)]
    simulators, experiments = _simulators(sims, claims), _experiments(llm, claims)
    counts = [_count(paper["name"], claims) for paper in papers]
    shared = {"marker": MARKER, "counts": counts, "simulators": simulators}
    environment, root = _environment(), reports_root()
    pages = {
        root / "index.md": environment.get_template("index.md.j2").render(
            **shared,
            total=len(claims),
            readings=sum(len(claim["verdicts"]) for claim in claims.values()),
            open=_not_settled(claims),
            papers=papers,
            experiments=_experiment_lines(experiments),
        )
    }
    for paper in papers:
        template = environment.get_template("paper.md.j2")
        pages[root / f"{paper['name']}.md"] = template.render(**shared, paper=paper)
    for sim in simulators:
        if sim["runs"]:
            template = environment.get_template("simulator.md.j2")
            pages[root / "sims" / f"{sim['name']}.md"] = template.render(**shared, sim=sim)
    for row in experiments:
        if row["runs"]:
            template = environment.get_template("experiment.md.j2")
            pages[root / "llm" / f"{row['name']}.md"] = template.render(**shared, row=row)
    pages = {path: _tidy(text) for path, text in pages.items()}
    readme = root.parent / "README.md"
    if readme.exists():
        block = _tidy(environment.get_template("readme.md.j2").render(**shared))
        pages[readme] = _with_block(readme.read_text(encoding="utf-8"), block)
    drawn = {
        root / _figure_path(kind, name, figure): figure
        for kind, group in (("sims", sims), ("llm", llm))
        for name, record in group.items()
        for figure in record.get("figures", [])
    }
    return pages, drawn


def _tidy(text: str) -> str:
    """Return text with single blank lines and one newline at its end; code blocks hold no blank lines."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+\n", "\n", text)).strip() + "\n"


def _with_block(readme: str, block: str) -> str:
    before, begin, rest = readme.partition(README_BEGIN)
    _, end, after = rest.partition(README_END)
    if not begin or not end:
        msg = (
            f"README.md: the lines {README_BEGIN} and {README_END} are missing; put them where the table goes"
        )
        raise RecordError(msg)
    return f"{before}{README_BEGIN}\n{block}{README_END}{after}"


def _stale(pages: dict[Path, str], drawn: dict[Path, Record]) -> tuple[list[Path], list[Path], list[Path]]:
    """Return (pages to write, figures to draw, files to remove)."""
    root = reports_root()
    write = [p for p, text in pages.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    draw = [path for path, figure in drawn.items() if not figures.is_drawn(figure, path)]
    made = [p for p in sorted(root.rglob("*.md")) if p.read_text(encoding="utf-8").startswith(MARKER)]
    kept = {*drawn, *(path.with_suffix(".sha256") for path in drawn)}
    pictures = [p for p in sorted((root / "figures").rglob("*")) if p.suffix in (".png", ".sha256")]
    remove = [p for p in made if p not in pages] + [p for p in pictures if p not in kept]
    return write, draw, remove


def _name(path: Path) -> str:
    return path.relative_to(reports_root().parent).as_posix()


def render() -> int:
    """Write every page and figure that is not current, remove those without records; return 0."""
    pages, drawn = build()
    write, draw, remove = _stale(pages, drawn)
    try:
        for path in write:
            write_text(path, pages[path])
        for path in draw:
            figures.draw(drawn[path], path)
        for path in remove:
            path.unlink(missing_ok=True)
    except OSError as error:
        msg = f"{error.filename}: cannot be written ({error.strerror}); check permissions and disk space"
        raise RecordError(msg) from None
    changed = len(write) + len(draw) + len(remove)
    print(f"{len(pages)} pages, {len(drawn)} figures: {changed or 'none'} changed")
    return 0


def check() -> int:
    """Name every page and figure that is not what the records say; return 1 when there is one, else 0."""
    write, draw, remove = _stale(*build())
    for path in write + draw:
        print(f"{_name(path)}: stale; run `python -m reports`", file=sys.stderr)
    for path in remove:
        print(f"{_name(path)}: made from records that are gone; run `python -m reports`", file=sys.stderr)
    return 1 if write or draw or remove else 0

"""Make the pages from the records: an index, a page for each paper, simulator and experiment, README's block.

Pages hold only what the records say, in a fixed order, so that making them again changes nothing. Nobody
edits them: a generated page begins with a marker, and a page whose records are gone is removed.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from reports import claim_pages, figures, notation, practice, questions, run_pages
from reports.store import (
    Record,
    RecordError,
    iter_record_paths,
    read_record,
    records_root,
    reports_root,
    write_text,
)

MARKER = "<!-- made from reports/records by `python -m reports`; do not edit -->"
README_BEGIN, README_END = "<!-- verdicts:begin -->", "<!-- verdicts:end -->"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML; `md` and `cell` escape what needs it
    )
    environment.filters["cell"] = notation.cell
    environment.filters["md"] = notation.markdown
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
    claims, sims = _load("claims"), _load("sims")
    measured = {kind: _load(kind) for kind in ("llm", "bench")}
    names = [
        *[paper for paper in claim_pages.TITLES],
        *sorted({n.split("/")[0] for n in claims} - set(claim_pages.TITLES)),
    ]
    papers = [
        claim_pages.paper_page(name, claims)
        for name in names
        if any(n.startswith(f"{name}/") for n in claims)
    ]
    simulators = run_pages.simulators(sims, claims)
    rows = [
        row for kind, records in measured.items() for row in run_pages.measurements(kind, records, claims)
    ]
    counts = [claim_pages.count(paper["name"], claims) for paper in papers]
    shared = {"marker": MARKER, "counts": counts, "simulators": simulators}
    environment, root = _environment(), reports_root()
    pages = {
        root / "index.md": environment.get_template("index.md.j2").render(
            **shared,
            total=len(claims),
            readings=sum(len(claim["verdicts"]) for claim in claims.values()),
            open=claim_pages.not_settled(claims),
            papers=papers,
            experiments=run_pages.index_lines([row for row in rows if row["kind"] == "llm"]),
            benchmarks=run_pages.index_lines([row for row in rows if row["kind"] == "bench"]),
        )
    }
    asked = questions.answers(claims, simulators)
    pages[root / "what_holds.md"] = environment.get_template("what_holds.md.j2").render(
        **shared, questions=asked
    )
    template = environment.get_template("theory_vs_practice.md.j2")
    gathered = practice.summary(measured["llm"], claims)
    pages[root / "theory_vs_practice.md"] = template.render(**shared, practice=gathered)
    for paper in papers:
        template = environment.get_template("paper.md.j2")
        pages[root / f"{paper['name']}.md"] = template.render(**shared, paper=paper)
    for sim in simulators:
        if sim["runs"]:
            template = environment.get_template("simulator.md.j2")
            pages[root / "sims" / f"{sim['name']}.md"] = template.render(**shared, sim=sim)
    for row in rows:
        if row["tiers"]:
            template = environment.get_template("experiment.md.j2")
            pages[root / row["kind"] / f"{row['name']}.md"] = template.render(**shared, row=row)
    pages = {path: _tidy(text) for path, text in pages.items()}
    readme = root.parent / "README.md"
    if readme.exists():
        block = _tidy(environment.get_template("readme.md.j2").render(**shared))
        pages[readme] = _with_block(readme.read_text(encoding="utf-8"), block)
    drawn = {
        root / run_pages.figure_path(kind, name, figure): figure
        for kind, group in {"sims": sims, **measured}.items()
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

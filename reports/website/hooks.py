"""What mkdocs calls while it builds the site; `.ci/mkdocs.yml` names this file.

The site is the Markdown of `reports/` and two pages that only a browser can show: all verdicts with filters, and
the phase diagram with sliders. Formulas become MathML and graphs become SVG while the site is built, so that a
page needs no script from elsewhere and opens from the file system.
"""

from __future__ import annotations

import re
from typing import Any

from mkdocs.structure.files import File, Files

from reports.store import iter_record_paths, read_record, records_root
from reports.website import drawing, formulas, phase, table

ORDER = ("index.md", "verdicts.md", "what_holds.md", "phase.md")


def _claims() -> dict[str, dict[str, Any]]:
    root = records_root() / "claims"
    return {
        path.relative_to(root).as_posix().removesuffix(".json"): read_record(path)
        for path in iter_record_paths("claims")
    }


def on_files(files: Files, config: Any) -> Files:
    """Add the two pages, and put the pages that a reader wants first in front."""
    files.append(File.generated(config, "verdicts.md", content=table.page(_claims())))
    files.append(File.generated(config, "phase.md", content=phase.page()))
    if config.nav is None:
        config.nav = _navigation([file.src_uri for file in files.documentation_pages()])
    return files


def _navigation(pages: list[str]) -> list[Any]:
    """Single pages as they are, the pages of a folder under its name."""
    folders: dict[str, list[str]] = {}
    for page in sorted(pages):
        folders.setdefault(page.rpartition("/")[0], []).append(page)
    top = folders.pop("", [])
    papers = [page for page in top if page not in ORDER]
    titles = {
        "sims": "Simulators",
        "llm": "Language models",
        "bench": "Benchmarks",
        "objections": "Objections",
        "guides": "Guides",
    }
    groups = [{titles.get(name, name): inside} for name, inside in sorted(folders.items())]
    return [*(page for page in ORDER if page in top), {"Papers": papers}, *groups]


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Formulas and graphs of a page, ready to be shown; its first heading is its title in the navigation."""
    heading = re.search(r"^# (.+)$", markdown, re.MULTILINE)
    if heading:
        page.meta.setdefault("title", heading[1])
    return drawing.drawn(formulas.shown(markdown))

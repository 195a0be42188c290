"""The page of all verdicts: a row for each reading, filtered by paper, status and defect."""

from __future__ import annotations

from html import escape
from typing import Any

from reports.claim_pages import SHORT, TITLES

Record = dict[str, Any]

NO_DEFECT = "none"
WIDE = ("---", "hide: [toc]", "---", "")  # the table takes the room of the table of contents


def rows(claims: dict[str, Record]) -> list[dict[str, str]]:
    """A row for each reading of each claim, in the order of the ids."""
    found = []
    for name in sorted(claims):
        paper, _, short = name.partition("/")
        for verdict in claims[name]["verdicts"]:
            found.append(
                {
                    "paper": paper,
                    "claim": short,
                    "reading": verdict["reading"],
                    "status": verdict["status"],
                    "defect": claims[name]["defect"] or NO_DEFECT,
                    "headline": claims[name]["headline"],
                    "link": f"{paper}.html#{short}",
                }
            )
    return found


def page(claims: dict[str, Record]) -> str:
    """The page; it is Markdown with one block of HTML, and readable without scripts, then unfiltered."""
    found = rows(claims)
    lines = [
        *WIDE,
        "# All verdicts",
        "",
        "One line for each reading of each claim. The filters act together; a word searches claim, reading and sentence.",
        "",
        '<form id="verdict-filters" class="filters">'
        + _choice("paper", "Paper", {p: TITLES.get(p, p) for p in _values(found, "paper")})
        + _choice("status", "Status", {s: SHORT[s] for s in SHORT if s in _values(found, "status")})
        + _choice("defect", "Defect", {d: d for d in _values(found, "defect")})
        + '<label>Word <input type="search" name="word" placeholder="rank"></label>'
        + f'<output id="verdict-count" aria-live="polite">{len(found)} of {len(found)} readings</output></form>',
        "",
        '<table id="verdicts"><thead><tr><th>claim</th><th>reading</th><th>verdict</th><th>defect</th>'
        "<th>in words</th></tr></thead><tbody>" + "".join(map(_row, found)) + "</tbody></table>",
    ]
    return "\n".join(lines) + "\n"


def _values(found: list[dict[str, str]], name: str) -> list[str]:
    return sorted({row[name] for row in found})


def _choice(name: str, title: str, options: dict[str, str]) -> str:
    inside = "".join(
        f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options.items()
    )
    return f'<label>{title} <select name="{name}"><option value="">all</option>{inside}</select></label>'


def _row(row: dict[str, str]) -> str:
    data = " ".join(f'data-{name}="{escape(row[name])}"' for name in ("paper", "status", "defect"))
    cells = (
        f'<a href="{escape(row["link"])}">{escape(row["claim"])}</a><br><small>{escape(row["paper"])}</small>',
        escape(row["reading"]),
        f'<span class="status {row["status"]}">{SHORT[row["status"]]}</span>',
        "" if row["defect"] == NO_DEFECT else escape(row["defect"]),
        escape(row["headline"]),
    )
    return f"<tr {data}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"

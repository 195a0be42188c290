"""What the pages say of simulations, experiments and benchmarks: tables, figures, what was not run."""

from __future__ import annotations

import re
from pathlib import Path

from reports import notation, sources
from reports.claim_pages import link
from reports.store import Record, pretty, reports_root

TIERS = ("cpu", "gpu")


def figure_path(kind: str, identity: str, figure: Record) -> Path:
    """Return where a record's figure lies, relative to the reports folder."""
    return Path("figures") / kind / f"{notation.slug(identity)}-{figure['name']}.png"


def _run(kind: str, name: str, record: Record, claims: dict[str, Record]) -> Record:
    """Return one record of a simulation or an experiment, ready for its template."""
    return {
        "title": record["id"],
        "headline": str(record.get("headline") or ""),
        "question": str(record.get("question") or ""),
        "claims": _claims_behind(record.get("claims", []), claims),
        "figures": [
            {
                "title": figure["title"],
                "caption": figure.get("caption") or "",
                "link": f"../{figure_path(kind, name, figure).as_posix()}",
            }
            for figure in record.get("figures", [])
        ],
        "notes": [str(note) for note in record.get("notes", [])],
        "record": f"../records/{kind}/{name}.json",
    }


def _claims_behind(names: list[str], claims: dict[str, Record]) -> str:
    """Return links to the claims that a run rests on, those without a record last."""
    linked = ", ".join(link(name, claims, "", up="../") for name in names if name in claims)
    missing = ", ".join(f"`{name}`" for name in names if name not in claims)
    return "; ".join(filter(None, [linked, f"without a record: {missing}" if missing else ""]))


def _agreement(table: list[Record]) -> str:
    """Return how well simulation agrees with theory over a whole table, in one line."""
    scored = [row for row in table if isinstance(row["z"], (int, float))]
    said = f"{len(table)} comparisons"
    if not scored:
        return said
    worst = max(scored, key=lambda row: abs(row["z"]))
    place = f"{worst['quantity']}, {notation.words(worst['setting'])}"
    return f"{said}, {len(scored)} with a standard error; the largest |z| is {abs(worst['z']):.2f} ({place})"


def simulators(records: dict[str, Record], claims: dict[str, Record]) -> list[Record]:
    """Return the simulators with their runs; one that is declared but has no record is shown as not run."""
    folder = reports_root().parent / "sims"
    declared = [f.stem for f in sorted(folder.glob("*.py")) if sources.literal(f, "AUDIT") is not None]
    groups: dict[str, list[Record]] = {name: [] for name in declared}
    for name in sorted(records):
        own = [stem for stem in declared if re.match(rf"{re.escape(stem)}(\W|_|$)", name)]
        word = re.match(r"\w+", name)
        group = max(own, key=len) if own else (word[0] if word else name)
        record = records[name]
        run = _run("sims", name, record, claims)
        run["settings"] = pretty(record["settings"])
        run["agreement"] = _agreement(record["table"])
        run["table"] = [
            {
                "quantity": row["quantity"],
                "setting": notation.words(row["setting"]),
                **{field: notation.number(row[field]) for field in ("predicted", "simulated", "stderr")},
                "z": f"{row['z']:.2f}" if isinstance(row["z"], float) else notation.number(row["z"]),
            }
            for row in record["table"]
        ]
        groups.setdefault(group, []).append(run)
    return [
        {"name": name, "runs": runs, "headline": runs[0]["headline"] if runs else "not run"}
        for name, runs in sorted(groups.items())
    ]


def declared_experiments() -> list[str]:
    """Return the names of all experiments, run or not."""
    folder = reports_root().parent / "llm_experiments" / "experiments"
    return [f.stem for f in sorted(folder.glob("*.py")) if sources.literal(f, "AUDIT") is not None]


def measurements(kind: str, records: dict[str, Record], claims: dict[str, Record]) -> list[Record]:
    """Return the rows of one kind (experiments, benchmarks), each with its results and its single runs.

    A record with tables or figures is a result and gets a section; any other is a single run and gets a line. An
    experiment that is declared but has no record is returned without runs.
    """
    rows: dict[str, Record] = {}
    for name in [*(declared_experiments() if kind == "llm" else []), *sorted(records)]:
        row = name.split("/")[0]
        rows.setdefault(row, {"name": row, "kind": kind, "results": [], "runs": [], "tiers": {}})
        if name not in records:
            continue
        record = records[name]
        tier = str(record.get("tier") or record.get("settings", {}).get("tier") or "cpu")
        rows[row]["tiers"].setdefault(tier, []).append(str(record.get("headline") or ""))
        if record.get("table") or record.get("tables") or record.get("figures"):
            rows[row]["results"].append(_result(kind, name, record, claims))
        else:
            rows[row]["runs"].append({"name": name.partition("/")[2] or name, **_outcome(kind, name, record)})
    return [rows[row] for row in sorted(rows)]


def _result(kind: str, name: str, record: Record, claims: dict[str, Record]) -> Record:
    """Return one result: its tables as they stand in the record, whatever their columns."""
    result = _run(kind, name, record, claims)
    shown = (
        "id",
        "headline",
        "question",
        "claims",
        "figures",
        "notes",
        "table",
        "tables",
        "schema",
        "digest",
        "predictions",
        "reported",
        "assumptions",
        "trainings",
    )
    result["settings"] = pretty({field: value for field, value in record.items() if field not in shown})
    tables = {"": record.get("table") or [], **(record.get("tables") or {})}
    result["tables"] = [_table(title, rows) for title, rows in tables.items() if rows]
    return result


def _table(title: str, rows: list[Record]) -> Record:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [[notation.cell(notation.words(row.get(column))) for column in columns] for row in rows]
    return {"title": title, "columns": [notation.cell(column) for column in columns], "lines": lines}


def _outcome(kind: str, name: str, record: Record) -> Record:
    """Return what a single run measured, in one line: its headline, else the numbers of its `metrics`."""
    said = record.get("headline") or notation.words(record.get("metrics") or {})
    return {"record": f"../records/{kind}/{name}.json", "outcome": said}


def index_lines(rows: list[Record]) -> list[Record]:
    """Return the index's lines: an experiment has one for each tier, a benchmark one."""
    lines = []
    for row in rows:
        for tier in TIERS if row["kind"] == "llm" else sorted(row["tiers"]):
            headlines = row["tiers"].get(tier)
            said = " ".join(filter(None, headlines or []))
            lines.append(
                {
                    "name": row["name"],
                    "link": f"{row['kind']}/{row['name']}.md" if row["tiers"] else "",
                    "tier": tier if row["kind"] == "llm" else "",
                    "headline": said or ("run" if headlines else "not run"),
                }
            )
    return lines

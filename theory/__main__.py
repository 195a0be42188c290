"""The command line of the theory: check, list, show, recheck; falsify, new and bench come from the search."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from reports.store import (
    RecordError,
    compare_records,
    pretty,
    read_record,
    record_path,
    write_record,
    write_run,
)
from theory import cluster, registry
from theory import recheck as rechecker
from theory.claim import Claim, Json, Reading
from theory.derive import Derived, Task, derive

BUDGET = 6_000  # evaluations per statement that a check with --write spends on looking for a counterexample

app = typer.Typer(
    help="""Settle claims: derive verdicts, re-check certificates, look for counterexamples.

    One claim, and why its verdict is what it is:

        python -m theory show s2ft/lemma_f14_left
        python -m theory check s2ft/lemma_f14_left

    A lemma of your own:

        python -m theory new my_lemma.py
        python -m theory falsify my_lemma.py
    """,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console(soft_wrap=True, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
COLOURS = {
    "proved": "green",
    "proved_within": "green",
    "refuted": "red",
    "supported": "yellow",
    "undecided": "magenta",
}


def fail(message: str, status: int = 2) -> typer.Exit:
    """One clear line on standard error and the exit status to raise."""
    print(message, file=sys.stderr)
    return typer.Exit(status)


def find(claim_id: str) -> registry.Registered:
    """The claim of that id, or exit 2 with the nearest names."""
    try:
        return registry.find(claim_id)
    except registry.UnknownClaim as error:
        raise fail(str(error)) from None


@app.command()
def check(
    claim_ids: Annotated[
        list[str] | None, typer.Argument(help="Claims, for example s2ft/lemma_f14_left; all if none.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Search for counterexamples and write the record.")
    ] = False,
    search: Annotated[
        bool, typer.Option(help="With --write: search, or keep the search of the old record.")
    ] = True,
    budget: Annotated[int, typer.Option(min=1, help="Evaluations per statement in the search.")] = BUDGET,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Claims at a time, on processes of this machine.")] = 1,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help=cluster.HELP)] = None,
    as_json: AsJson = False,
) -> None:
    """Derive the verdict of claims anew and compare it with the record.

    Exit status 0: as recorded (a recorded refutation too); 1: it differs or evidence fails; 2: bad input; 3:
    interrupted, with the records kept that were finished.
    """
    entries = [find(name) for name in claim_ids or registry.claim_ids()]
    rows, status = [], 0
    try:
        tasks = [
            Task(entry.claim.id, _stored(entry), write, write and search, budget, seed) for entry in entries
        ]
        for entry, task, done in zip(
            entries, tasks, cluster.run(derive, tasks, jobs, scheduler), strict=True
        ):
            rows.append(_judged(entry, task, done))
            status = max(status, int(not rows[-1]["as_recorded"]))
            if not as_json:
                _print_check(rows[-1])
    except (RecordError, cluster.ClusterError) as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:
        msg = f"interrupted after {len(rows)} of {len(entries)} claims; what was finished is kept"
        raise fail(msg, 3) from None
    if as_json:
        print(json.dumps(rows if len(rows) != 1 else rows[0], indent=1))
    raise typer.Exit(status)


def _stored(entry: registry.Registered) -> Json | None:
    path = record_path("claims", entry.claim.id)
    return read_record(path) if path.exists() else None


def _judged(entry: registry.Registered, task: Task, done: Derived) -> Json:
    """Write a fresh record where that is asked for, else compare it with the stored one."""
    if done.record is None:
        return {"id": entry.claim.id, "as_recorded": False, "differences": [done.failure], "verdicts": []}
    if task.write:
        path = record_path("claims", entry.claim.id)
        write_record(path, done.record)
        write_run(path, done.seconds)
    differences = [] if task.write else _differences(task.stored, done.record)
    shown = [
        {"reading": v["reading"], "status": v["status"], "repair": (v["repair"] or {}).get("status")}
        for v in done.record["verdicts"]
    ]
    return {
        "id": entry.claim.id,
        "as_recorded": not differences,
        "differences": differences,
        "verdicts": shown,
    }


def _differences(stored: Json | None, fresh: Json) -> list[str]:
    if stored is None:
        return ["there is no record yet; run with --write"]
    plain = json.loads(json.dumps(fresh))
    ignored = ("key", "digest", "schema")  # an older record with the same content is as recorded
    trimmed = [{n: v for n, v in r.items() if n not in ignored} for r in (stored, plain)]
    return [str(d) for d in compare_records(trimmed[0], trimmed[1]) if not getattr(d, "information", False)]


def _print_check(row: Json) -> None:
    shown = "  ".join(
        f"{v['reading']}: [{COLOURS[v['status']]}]{v['status']}[/]"
        + (f" (repair {v['repair']})" if v["repair"] else "")
        for v in row["verdicts"]
    )
    out.print(f"{row['id']}  {shown}")
    for difference in row["differences"]:
        out.print(f"  [red]differs[/] {difference}", markup=True)


@app.command(name="list")
def list_claims(
    pattern: Annotated[str, typer.Argument(help="Part of an id.")] = "",
    status: Annotated[str | None, typer.Option(help="Only readings with this recorded status.")] = None,
    as_json: AsJson = False,
) -> None:
    """List claims with their recorded verdicts."""
    rows = []
    for name, entry in registry.registered().items():
        if pattern in name:
            rows += [row for row in _recorded_rows(entry) if status in (None, row["status"])]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table("claim", "reading", "status", "defect", "headline", box=None)
    for row in rows:
        colour = COLOURS.get(row["status"], "white")
        table.add_row(
            row["id"], row["reading"], f"[{colour}]{row['status']}[/]", row["defect"] or "", row["headline"]
        )
    out.print(table)


def _recorded_rows(entry: registry.Registered) -> list[Json]:
    claim = entry.claim
    try:
        stored = {v["reading"]: v["status"] for v in read_record(record_path("claims", claim.id))["verdicts"]}
    except RecordError:
        stored = {}
    shared = {"id": claim.id, "defect": claim.defect, "headline": claim.headline}
    return [{**shared, "reading": r.name, "status": stored.get(r.name, "not run")} for r in claim.readings]


@app.command()
def show(
    claim_id: Annotated[str, typer.Argument(help="A claim, for example s2ft/lemma_f14_left.")],
    script: Annotated[
        bool, typer.Option("--script", help="Print a stand-alone program that shows the refutation.")
    ] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print the statement as LaTeX.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a claim: what it says, the verdict and its evidence."""
    entry = find(claim_id)
    if script:
        from theory.script import stand_alone

        print(stand_alone(entry))
        return
    if latex:
        _show_latex(entry.claim)
        return
    try:
        record = read_record(record_path("claims", entry.claim.id))
    except RecordError as error:
        msg = f"{error}; `python -m theory check {entry.claim.id} --write` makes the record"
        raise fail(msg) from None
    if as_json:
        print(pretty(record))
        return
    _show_text(entry.claim, record)


def _show_latex(claim: Claim) -> None:
    from theory.kits.latex import to_latex

    for reading in claim.readings:
        setting = claim.setting_of(reading)
        if reading.statement is None or setting is None:
            print(f"% {reading.name}: the statement lies outside the protocol: {claim.sentence}")
            continue
        shown = to_latex(reading.statement, setting)
        print(f"% {reading.name}")
        for part in ("definitions", "hypotheses", "conclusions"):
            for line in shown[part]:
                print(f"% {part[:-1]}\n{line}")


def _show_text(claim: Claim, record: Json) -> None:
    out.print(f"[bold]{claim.id}[/]  {claim.source.paper}, {claim.source.place}")
    out.print(claim.sentence)
    out.print(f"[bold]{claim.headline}[/]")
    for v in record["verdicts"]:
        _show_reading(claim.reading(v["reading"]), v)
    if claim.uses:
        out.print(f"rests on: {', '.join(claim.uses)}")


def _show_reading(reading: Reading, v: Json) -> None:
    out.print(
        f"\n[{COLOURS[v['status']]}]{v['status']}[/]  {v['reading']}"
        + (f": {reading.sentence}" if reading.sentence else "")
    )
    for label, value in (
        ("scope", v["scope"]),
        ("vacuous", v["vacuous"]),
        ("reason", v["evidence"].get("reason")),
    ):
        if value:
            out.print(f"  {label}: {value}")
    for name, instance in v["evidence"]["instances"].items():
        out.print(f"  {name}:")
        for symbol, value in instance.items():
            out.print(f"    {symbol} = {_readable(value)}")
    for name, (left, right) in ((v["certificate"] or {}).get("sides") or {}).items():
        out.print(f"  {name}: left {left}, right {right}")
    if v["tightness"]:
        out.print(f"  left/right attained: {v['tightness']['ratio']}")
    if v["repair"]:
        out.print(f"  repair ({v['repair']['status']}): {v['repair']['statement']}")


def _readable(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[" + "; ".join(" ".join(str(e) for e in row) for row in value) + "]"
    return str(value)


@app.command()
def recheck(
    files: Annotated[list[Path] | None, typer.Argument(help="Records; all claims if none.")] = None,
) -> None:
    """Decide stored certificates again; the same as `python -I -S theory/recheck.py`.

    Exit status 0: every certificate earns the recorded status; 1: one does not; 2: a record cannot be read.
    """
    chosen = [str(f) for f in files or []] or [
        str(record_path("claims", name)) for name in registry.claim_ids()
    ]
    raise typer.Exit(rechecker.main(chosen))


def main() -> None:
    """Run the command line."""
    from theory.search import cli

    cli.register(app)
    app()


if __name__ == "__main__":
    main()

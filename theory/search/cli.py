"""The commands of the search: `falsify`, `new` and `bench`."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
INTERRUPTED = 3


def register(app: typer.Typer) -> None:
    """Add the commands to the theory's command line."""
    app.command("falsify")(falsify)
    app.command("new")(new)
    app.command("bench")(bench)


def _fail(message: str) -> typer.Exit:
    print(message, file=sys.stderr)
    return typer.Exit(2)


def falsify(
    file: Annotated[
        Path,
        typer.Argument(
            help="A claim file (with CLAIM, or with DIMS, free, build, statement), or a claim's id."
        ),
    ],
    budget: Annotated[int, typer.Option(min=1, help="Evaluations allowed (a count).")] = 200_000,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same outcome, for any number of jobs.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Worker processes.")] = max(1, min(2, os.cpu_count() or 1)),
    beyond: Annotated[
        bool, typer.Option("--beyond", help="Free every entry of the instance: only stated hypotheses bind.")
    ] = False,
    reading: Annotated[
        str | None, typer.Option(help="Search only statements whose name contains this.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", help="Write the report as JSON to this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look for a counterexample; shrink and certify it, or say how hard it was looked.

    A lemma of your own, or a claim that is here:

        python -m theory falsify my_lemma.py
        python -m theory falsify s2ft/lemma_f14_left --beyond

    Exit status 0: nothing found; 1: a counterexample; 2: bad input; 3: interrupted, partial result printed.
    """
    from theory.search.beyond import widen
    from theory.search.engine import falsify as search
    from theory.search.loader import BadFile, load

    try:
        targets = load(_file_of(file))
    except BadFile as error:
        raise _fail(str(error)) from None
    chosen = [t for t in targets if reading is None or reading in t.name]
    if not chosen:
        msg = f"{file.name}: no statement named like {reading!r}; there are {[t.name for t in targets]}"
        raise _fail(msg)
    console = Console(soft_wrap=True, highlight=False, stderr=as_json)
    reports: dict[str, Any] = {}
    status = 0
    for target in chosen:
        with console.status(f"searching {target.name}") as bar:

            def progress(part: Any, bar: Any = bar, name: str = target.name) -> None:
                bar.update(f"searching {name}: {part.stage} at {_sizes(part.sizes)}")

            report = search(
                target.statement,
                widen(target.setting) if beyond else target.setting,
                budget=budget,
                seed=seed,
                jobs=jobs,
                progress=progress if sys.stderr.isatty() else None,
                outside=not beyond,
            )
        reports[target.name] = report.to_json()
        if not as_json:
            _print(console, target.name, report)
        status = max(status, 1 if report.found else 0)
        if report.interrupted:
            status = INTERRUPTED
            break
    text = json.dumps(reports if len(chosen) > 1 else next(iter(reports.values())), indent=1)
    if output is not None:
        try:
            output.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            msg = f"{output}: {error.strerror}; give a file that can be written"
            raise _fail(msg) from None
    if as_json:
        print(text)
    raise typer.Exit(status)


def _file_of(named: Path) -> Path:
    """The file itself, or that of the registered claim of this id (with all statements it holds)."""
    from theory import registry

    if named.suffix or named.exists():
        return named
    try:
        return registry.find(named.as_posix()).path
    except registry.UnknownClaim:
        return named  # the loader says what is wrong with it


def _sizes(sizes: dict[str, Any]) -> str:
    return ", ".join(f"{n} = {v}" for n, v in sizes.items()) or "its only sizes"


def _print(console: Console, name: str, report: Any) -> None:
    """The report as a person reads it."""
    if report.found:
        found = report.found
        console.print(
            f"{escape(name)}: [red]refuted[/red] by {found['stage']} at {_sizes(found['sizes'])}", markup=True
        )
        for part, value in found["instance"].items():
            console.print(f"  {part} = {_shown(value)}", markup=False)
        for label, rows in found["witnesses"].items():
            console.print(f"  {label} = {_shown(rows)}  (witness)", markup=False)
        for conclusion in found["breaks"]:
            console.print(f"  breaks: {conclusion}", markup=False)
        for conclusion, (left, right) in found["sides"].items():
            console.print(f"  sides of {conclusion}: {left} and {right}", markup=False)
        for row in (found.get("searched_box") or {"sizes": []})["sizes"]:
            if row["decided"]:
                console.print(
                    f"  {_sizes(row['sizes'])}: {row['decided']} instances with parameters -1, 0, 1, at most "
                    f"{row['non_zeros']} not zero, decided: {row['counterexamples']} counterexamples"
                    + (f", {row['undecided']} undecided" if row["undecided"] else ""),
                    markup=False,
                )
        if found.get("open") is False:
            extra = found.get("open_instance")
            shown = "; ".join(f"{n} = {_shown(v)}" for n, v in extra.items()) if extra else "none was found"
            console.print(
                f"  small perturbations of it are no counterexamples; one that survives them: {shown}",
                markup=False,
            )
    else:
        console.print(f"{name}: no counterexample in {report.evaluations} evaluations", markup=False)
    best = report.best
    if best:
        console.print(
            f"  largest left/right ratio, exact: {best['ratio']} ({best['conclusion']}; {best['stage']} at "
            f"{_sizes(best['sizes'])})",
            markup=False,
        )
    totals: dict[str, list[int]] = {}
    for stage in report.stages:
        row = totals.setdefault(stage.stage, [0, 0, 0])
        for i, value in enumerate((stage.tried, stage.exact, stage.uncertified)):
            row[i] += value
        if stage.answer:
            console.print(
                f"  {stage.stage} at {_sizes(stage.sizes)}: the solver answers {stage.answer}", markup=False
            )
    for stage_name, (tried, exact, uncertified) in totals.items():
        doubtful = f", {uncertified} points looked broken in floats only" if uncertified else ""
        console.print(f"  {stage_name}: {tried} tried, {exact} decided exactly{doubtful}", markup=False)
    reasons = sorted({r for s in report.stages for r in s.reasons})
    for reason in reasons[:6]:
        console.print(f"  could not be used somewhere: {reason}", markup=False)
    for error, count in report.errors.items():
        console.print(f"  [red]fault[/red] of the statement, {count} times: {escape(error)}", markup=True)
    allowed = report.classes.get("allowed_never_hit", [])
    if allowed:
        console.print(
            "  never hit, though the hypotheses allow it (see --beyond): " + "; ".join(allowed), markup=False
        )
    others = [name for name in report.classes["never_hit"] if name not in allowed]
    if others and not report.found:
        console.print("  never hit (excluded or missed): " + "; ".join(others), markup=False)
    for note in report.notes:
        console.print(
            f"  note: outside {note['outside']} there is a counterexample; it meets every hypothesis that the file states:",
            markup=False,
        )
        for part, value in note["instance"].items():
            console.print(f"    {part} = {_shown(value)}", markup=False)
        for conclusion in note["breaks"]:
            console.print(f"    breaks: {conclusion}", markup=False)
        console.print(
            "    so the statement is false as stated, or a hypothesis is missing in it; as a finding: "
            + ("--beyond" if note["outside"] == "what build makes" else "put these sizes into DIMS, or GROW"),
            markup=False,
        )
    for line in report.trend:
        values = ", ".join(f"{p['value']}: {p['about']:.4f}" for p in line["points"])
        word = "still growing" if line["growing"] else "standing still"
        console.print(f"  ratio along {line['size']} ({word}): {values}", markup=False)
    console.print(f"  {report.seconds:.1f} s", markup=False)
    if report.interrupted:
        console.print("  interrupted; this is what was known", markup=False)


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[" + "; ".join(" ".join(str(v) for v in row) for row in value) + "]"
    return str(value)


def new(
    file: Annotated[
        Path | None, typer.Argument(help="The claim file to write; must not exist yet.", show_default=False)
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(help="Instead: a folder theory/NAME for a paper, with a claim that has its verdict."),
    ] = None,
) -> None:
    """Write a commented claim file to start from, or the folder of a paper.

    A lemma of your own needs no more than a file anywhere: `new my_lemma.py`, then `falsify my_lemma.py`. A paper
    is a folder in theory/ whose files each hold a claim: `new --paper my_paper`. Its page appears with the others.
    """
    if (file is None) == (paper is None):
        msg = "give either a FILE or --paper NAME"
        raise _fail(msg)
    if paper is not None:
        _new_paper(paper)
        return
    assert file is not None
    from theory.search import template

    if file.suffix != ".py":
        msg = f"{file}: a claim file is a Python file; give a name that ends in .py"
        raise _fail(msg)
    _create(file, template.text(file.name))
    print(f"wrote {file}; now: python -m theory falsify {file}")


def _new_paper(name: str) -> None:
    from theory import registry
    from theory.search import template

    folder = registry.ROOT / name
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        msg = f"--paper must be lower-case letters, digits and underscores, as in my_paper; got {name!r}"
        raise _fail(msg)
    if folder.exists() or name in registry.NOT_PAPERS:
        msg = f"theory/{name} exists already; give another name"
        raise _fail(msg)
    try:
        folder.mkdir()
    except OSError as error:
        msg = f"theory/{name}: {error.strerror}; run this in a checkout that you may write to"
        raise _fail(msg) from None
    for file, text in template.paper_files(name).items():
        _create(folder / file, text)
    print(f"wrote theory/{name}: merging.py is a claim with its verdict, to be replaced by your own; now:")
    print(f"  python -m theory check {name}/merging --write")
    print(f"  python -m pytest theory/{name}")
    print("  python -m reports")


def _create(file: Path, text: str) -> None:
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        msg = f"{file}: exists already; give another name"
        raise _fail(msg) from None
    except OSError as error:
        msg = f"{file}: {error.strerror}; give a file that can be written"
        raise _fail(msg) from None


def bench(
    as_json: AsJson = False,
    write: Annotated[bool, typer.Option(help="Write the record bench/theory.")] = True,
) -> None:
    """Measure, as ratios in one run: batches against loops, exact libraries, the stages of a search."""
    from theory.search import bench as measures

    record = measures.run()
    if write:
        measures.store(record)
    print(json.dumps(record, indent=1) if as_json else measures.text(record))

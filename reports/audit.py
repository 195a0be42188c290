"""Compute every record again on this machine, and compare with the committed ones.

An item is one command that writes records: the check of a claim, a simulator with fixed arguments, an
experiment small enough for a processor. Items run as separate processes, several at a time, one thread of
linear algebra each.

What counts as done is what this checkout has computed itself. Its cache (`.cache/audit/` beside `reports/`)
keeps for each item a key (sha256 of its command, of its source file, of all project modules that it
imports, of the records' schema) and the digests of the records that came out; committed records alone never
count. An item's effort is a fixed number of steps; the budget of time only decides how many items are
started.

Everything on disk is written by rename, so an audit may be killed at any moment, or run twice at once: the
next one goes on where it ended and makes the same records.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

from reports.baseline import committed_texts
from reports.cache import Cache, in_order
from reports.items import Item, checkout, find_items, last_line
from reports.progress import Progress
from reports.store import (
    LOG_VARIABLE,
    RecordError,
    compare_records,
    iter_record_paths,
    parse_record,
    read_record,
    records_root,
    reports_root,
    write_text,
)

COMPLETE, DIFFERENT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 3

_ONE_THREAD = {
    name: "1"
    for name in (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    )
}


@dataclass
class _Running:
    item: Item
    key: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    records: Path
    start: float


# Seconds that an item may take although the budget may end before it.
_SHORT = 60.0


@dataclass
class Outcome:
    """What an audit did.

    Attributes:
        done: items whose records stand, computed by this checkout now or earlier.
        owner: record's place to the name of the item that makes it.
        remaining: items that the budget did not start.
        failed: item name to the reason, one line.
        interrupted: True when a person stopped it.
    """

    done: list[Item] = field(default_factory=list)
    owner: dict[str, str] = field(default_factory=dict)
    remaining: list[Item] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


def run_items(
    items: Sequence[Item], cache: Cache, jobs: int, budget: float | None, progress: Progress
) -> Outcome:
    """Run what is not done yet, `jobs` processes at a time, and start nothing after `budget` seconds.

    An item that takes minutes is started only if it is expected to end within the budget; shorter ones behind it are.
    """
    outcome = Outcome()
    waiting: list[tuple[Item, str]] = []
    for item in items:
        key = cache.key(item)
        if cache.is_done(item, key):
            outcome.done.append(item)
            outcome.owner |= dict.fromkeys(cache.entry(item)["outputs"], item.name)
        else:
            waiting.append((item, key))
    progress.begin(total=len(items), done=len(outcome.done))
    deadline = None if budget is None else time.monotonic() + budget
    running: list[_Running] = []
    try:
        while waiting or running:
            late = deadline is not None and time.monotonic() >= deadline
            while waiting and len(running) < jobs and not late:
                place = _next(waiting, cache, deadline)
                if place is None:
                    break
                running.append(_start(*waiting.pop(place), cache))
                progress.started(running[-1].item.name)
                late = deadline is not None and time.monotonic() >= deadline
            if not running:
                break
            for task in [task for task in running if task.process.poll() is not None]:
                running.remove(task)
                _finish(task, cache, outcome, progress)
            time.sleep(0.02)
    except KeyboardInterrupt:
        outcome.interrupted = True
    finally:
        for task in running:
            task.process.terminate()
        for task in running:
            _wait_or_kill(task.process)
            task.output.close()
            task.records.unlink(missing_ok=True)
        progress.end()
    outcome.remaining = [item for item, _ in waiting] + [task.item for task in running]
    return outcome


def _next(waiting: Sequence[tuple[Item, str]], cache: Cache, deadline: float | None) -> int | None:
    """Return the place of the first item that is short, or is expected to end before the deadline."""
    if deadline is None:
        return 0
    left = deadline - time.monotonic()
    return next((i for i, (item, _) in enumerate(waiting) if cache.seconds(item) <= max(left, _SHORT)), None)


def _start(item: Item, key: str, cache: Cache) -> _Running:
    folder = cache.folder / "running"
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=folder)
    os.close(handle)
    environment = {**os.environ, **_ONE_THREAD, LOG_VARIABLE: name, "PYTHONHASHSEED": "0"}
    output = tempfile.TemporaryFile()
    process = subprocess.Popen(
        [sys.executable, *item.command],
        cwd=cache.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    return _Running(item, key, process, output, Path(name), time.monotonic())


def _wait_or_kill(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was asked to end; after ten seconds it is not asked any more."""
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _finish(task: _Running, cache: Cache, outcome: Outcome, progress: Progress) -> None:
    """Judge an item that has ended: failed, or done with the records that it has written."""
    seconds = time.monotonic() - task.start
    task.output.seek(0)
    printed = task.output.read().decode("utf-8", errors="replace")
    task.output.close()
    written = sorted(set(task.records.read_text(encoding="utf-8").split("\n")) - {""})
    task.records.unlink(missing_ok=True)
    code = task.process.returncode
    reason = ""
    outputs: dict[str, str] = {}
    if code != 0:
        ended = f"exit {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
        reason = f"{ended}: {last_line(printed)}"
    elif not written:
        reason = "ended well but wrote no record"
    else:
        try:
            for path in written:
                outputs[Path(path).relative_to(records_root()).as_posix()] = read_record(path)["digest"]
        except (RecordError, ValueError) as error:
            reason = str(error)
        shared = [name for name in outputs if outcome.owner.get(name, task.item.name) != task.item.name]
        if shared:
            reason = f"writes {shared[0]}, which {outcome.owner[shared[0]]} writes too"
    if reason:
        log = cache.log(task.item)
        write_text(log, printed)
        outcome.failed[task.item.name] = reason
        progress.finished(task.item.name, f"FAILED: {reason}", seconds)
        return
    cache.store(task.item, task.key, outputs, seconds)
    outcome.owner |= dict.fromkeys(outputs, task.item.name)
    outcome.done.append(task.item)
    progress.finished(task.item.name, _summary(outputs), seconds)


def _summary(outputs: dict[str, str]) -> str:
    """Return what the first of some records says, in one line."""
    record = read_record(records_root() / next(iter(outputs)))
    statuses = list(dict.fromkeys(v["status"] for v in record.get("verdicts", [])))
    return ": ".join(filter(None, [", ".join(statuses), str(record.get("headline", ""))]))


def compare_with_baseline(outcome: Outcome, cache: Cache) -> tuple[list[str], list[str]]:
    """Return (differences, information), a line each, over the records that this checkout has computed.

    A record without a committed counterpart is information, so is a search that went another way.
    """
    baseline = committed_texts(cache.root, cache.folder / "baseline")
    differences: list[str] = []
    information: list[str] = []
    unknown: list[str] = []
    for item in sorted(outcome.done, key=lambda item: item.name):
        for name in cache.entry(item).get("outputs", {}):
            if name not in baseline:
                unknown.append(name)
                continue
            try:
                before = parse_record(baseline[name], records_root() / name)
            except RecordError as error:
                differences.append(f"{name}: the committed record cannot be read ({error})")
                continue
            after = read_record(records_root() / name)
            for difference in compare_records(before, after, measured=item.kind == "llm"):
                (information if difference.information else differences).append(f"{name}: {difference}")
    if unknown:
        named = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        information.insert(0, f"records not committed yet: {len(unknown)} ({named})")
    return differences, information


def parse_budget(text: str) -> float | None:
    """Return a budget in seconds: `90s`, `15m`, `2h`, a number of seconds, or None for `none`.

    Raises:
        ValueError: the text is nothing of these.
    """
    if text == "none":
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        msg = f"budget must look like 90s, 15m, 2h or none; got {text!r}"
        raise ValueError(msg)
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def select(items: Sequence[Item], pattern: str | None) -> list[Item]:
    """Return the items whose name matches a shell pattern, or holds it as a part."""
    if pattern is None:
        return list(items)
    return [i for i in items if pattern in i.name or fnmatch.fnmatchcase(i.name, pattern)]


def audit(
    budget: str = "15m", jobs: int | None = None, only: str | None = None, root: Path | None = None
) -> int:
    """Run an audit and say how it ended; return the exit status.

    0: all is computed, or the budget ended, and nothing differs. 1: a difference or a failed item, each
    named. 2: bad input. 3: interrupted, with everything finished so far kept.

    Args:
        budget: how long items may be started, as `parse_budget` reads it.
        jobs: processes at a time; the number of cores by default.
        only: pattern of item names.
        root: the checkout to audit; by default the one that holds this file.
    """
    root = (root or checkout()).resolve()
    cache = Cache(reports_root().parent / ".cache" / "audit", root)
    try:
        limit = parse_budget(budget)
        jobs = os.cpu_count() or 1 if jobs is None else jobs
        if jobs < 1:
            _refuse(f"jobs must be at least 1; got {jobs}")
        broken = _unreadable_records()
        if broken:
            _refuse("\n".join(broken))
        items = in_order(select(find_items(root), only), cache)
        if only is not None and not items:
            _refuse(f"no item matches {only!r}; `python -m reports audit --list` names them all")
        # Taken before anything is written: where there is no git, the first audit's records are the baseline.
        committed_texts(root, cache.folder / "baseline")
    except ValueError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        return _unwritable(error)
    _sweep(cache)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        outcome = run_items(items, cache, jobs, limit, Progress())
        return _report(outcome, cache, len(items), only)
    except RecordError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        return _unwritable(error)
    except KeyboardInterrupt:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)


def _report(outcome: Outcome, cache: Cache, total: int, only: str | None) -> int:
    scope = f" (only {only!r})" if only is not None else ""
    if outcome.interrupted:
        left = len(outcome.remaining)
        print(f"interrupted: {len(outcome.done)} of {total} items done, {left} remain{scope}; run it again")
        return INTERRUPTED
    drawn = _render(cache.root)
    differences, information = compare_with_baseline(outcome, cache)
    for line in information:
        print(f"information  {line}")
    for line in differences:
        print(f"DIFFERENT    {line}")
    for name, reason in outcome.failed.items():
        print(f"FAILED       {name}: {reason}")
    if drawn:
        print(f"FAILED       pages: {drawn}")
    done = len(outcome.done)
    if outcome.remaining:
        print(
            f"{len(outcome.remaining)} of {total} items remain{scope}; run it again to go on (none is lost)"
        )
    elif outcome.failed or drawn:
        print(f"not complete: {done} of {total} items{scope}, {len(outcome.failed)} failed")
    else:
        print(f"complete: {done} items{scope}, {len(differences)} differences from the committed records")
    return DIFFERENT if differences or outcome.failed or drawn else COMPLETE


def _render(root: Path) -> str:
    """Make the pages from the records; return the reason when that failed."""
    done = subprocess.run(
        [sys.executable, "-m", "reports"], cwd=root, capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else last_line(done.stderr)


def _unreadable_records() -> list[str]:
    broken = []
    for path in iter_record_paths():
        try:
            read_record(path)
        except RecordError as error:
            broken.append(str(error))
    return broken


def _sweep(cache: Cache) -> None:
    """Remove temporary files that a killed process left more than an hour ago."""
    for folder in (records_root(), cache.folder):
        for path in folder.rglob(".*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > 3600:
                    path.unlink()


def _unwritable(error: OSError) -> int:
    place = error.filename or "the audit's cache"
    print(f"{place}: cannot be used ({error.strerror}); check permissions and disk space", file=sys.stderr)
    return BAD_INPUT


def _refuse(message: str) -> NoReturn:
    raise RecordError(message)


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt

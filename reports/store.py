"""Write, read and compare records: the JSON files that every verdict, simulation and training leaves behind.

A record is one JSON file under `reports/records/<kind>/`, with `schema` (the layout's number) and `digest`
(the sha256 of everything else in it). It is written atomically and validated both when written and when read,
so a half-written, foreign, newer or hand-edited file is named and refused instead of being believed.

    records/claims/<paper>/<claim>.json     verdicts with certificates; no time, no machine
    records/sims/<simulator>[...].json      theory beside simulation; no time, no machine
    records/llm/<row>/....json              training experiments
    records/bench/....json                  benchmarks, where time is the outcome
    <record>.run.json                       beside a record: seconds, versions, processor; compared by nothing

Only the standard library is imported, so every package of the project may use this module.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reports.compare import Difference, compare_records
from reports.layout import KINDS, SCHEMA, STATUSES, Record, RecordError, kind_of, validate
from reports.machine import machine

__all__ = [
    "KINDS",
    "LOG_VARIABLE",
    "RECORDS",
    "REPORTS_VARIABLE",
    "SCHEMA",
    "STATUSES",
    "Difference",
    "Record",
    "RecordError",
    "canonical",
    "compare_records",
    "digest_of",
    "iter_record_paths",
    "kind_of",
    "machine",
    "parse_record",
    "pretty",
    "read_record",
    "record_path",
    "records_root",
    "reports_root",
    "run_path",
    "validate",
    "write_bytes",
    "write_record",
    "write_run",
    "write_text",
]

# Environment variable that moves records, pages and figures elsewhere; used by tests and trial runs.
REPORTS_VARIABLE = "PEFTPROOF_REPORTS"

# Environment variable that names a file to which every write of a record adds a line; the audit reads there
# which records an item has made, so that no item has to declare them.
LOG_VARIABLE = "PEFTPROOF_RECORD_LOG"


def reports_root() -> Path:
    """Return the reports folder: this package's own, or the one named by `PEFTPROOF_REPORTS`."""
    override = os.environ.get(REPORTS_VARIABLE)
    return Path(override).resolve() if override else Path(__file__).resolve().parent


def records_root() -> Path:
    """Return the folder that holds all records, as the environment says at the time of the call."""
    return reports_root() / "records"


# The same folder, resolved once at import.
RECORDS = records_root()


def record_path(kind: str, name: str) -> Path:
    """Return the file of a record, for example `record_path("claims", "s2ft/lemma_f9")`.

    Raises:
        RecordError: the kind is unknown, or the name would leave the folder of its kind.
    """
    if kind not in KINDS:
        msg = f"kind must be one of {', '.join(KINDS)}; got {kind!r}"
        raise RecordError(msg)
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        msg = f"record name must be a relative path without '..'; got {name!r}"
        raise RecordError(msg)
    return records_root() / kind / f"{name}.json"


def run_path(path: str | Path) -> Path:
    """Return the sidecar of a record: `x.json` has `x.run.json`."""
    path = Path(path)
    return path.with_name(path.name.removesuffix(".json") + ".run.json")


def iter_record_paths(kind: str | None = None) -> Iterator[Path]:
    """Yield the files of all stored records in sorted order, sidecars left out."""
    root = records_root() / kind if kind else records_root()
    for path in sorted(root.rglob("*.json")):
        if not path.name.endswith(".run.json") and not path.name.startswith("."):
            yield path


# --- digest and text -------------------------------------------------------------------------------


def canonical(value: Any) -> str:
    """Return the one JSON text of a value on which digests are computed: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(record: Record) -> str:
    """Return the sha256 of a record without its field `digest`."""
    body = {name: value for name, value in record.items() if name != "digest"}
    return hashlib.sha256(canonical(body).encode("ascii")).hexdigest()


def pretty(value: Any, indent: int = 0, width: int = 100) -> str:
    """Return readable JSON: whatever fits on a line stays on it, so matrices keep their rows."""
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, (dict, list)) or not value or len(flat) + indent <= width:
        return flat
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        lines = [
            f"{json.dumps(name, ensure_ascii=False)}: {pretty(v, indent + 1, width)}"
            for name, v in value.items()
        ]
    else:
        lines = [pretty(v, indent + 1, width) for v in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(pad + line for line in lines) + "\n" + " " * indent + closing


# --- reading and writing ---------------------------------------------------------------------------


def read_record(path: str | Path) -> Record:
    """Return the record in a file.

    Raises:
        RecordError: the file is missing, truncated, no record of ours, of a newer schema, edited by hand, or
            breaks the layout; one line that names the file and what to do.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        msg = f"{path}: not UTF-8 text, so no record of this project; move it away"
        raise RecordError(msg) from None
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); check the name and its permissions"
        raise RecordError(msg) from None
    return parse_record(text, path)


def parse_record(text: str, path: str | Path) -> Record:
    """Return the record in a text; `path` names it in errors and tells its kind (see `read_record`)."""
    remedy = "delete it and run `make audit`, or restore it with `git checkout`"
    try:
        record = json.loads(text, parse_constant=_refuse_constant)
    except RecordError as error:
        msg = f"{path}: {error}; {remedy}"
        raise RecordError(msg) from None
    except ValueError as error:
        msg = f"{path}: truncated or not JSON ({error}); {remedy}"
        raise RecordError(msg) from None
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int) or "digest" not in record:
        msg = f"{path}: foreign file, not a record of this project (no schema and digest); move it away"
        raise RecordError(msg)
    if record["schema"] > SCHEMA:
        msg = f"{path}: schema {record['schema']} is newer than {SCHEMA}; update this checkout to read it"
        raise RecordError(msg)
    if record["schema"] < 1:
        msg = f"{path}: foreign file, schema must be at least 1; got {record['schema']}; move it away"
        raise RecordError(msg)
    if record["digest"] != digest_of(record):
        msg = f"{path}: digest does not match, so it was edited by hand or damaged; {remedy}"
        raise RecordError(msg)
    try:
        return validate(record, path)
    except RecordError as error:
        msg = f"{path}: {error}; {remedy}"
        raise RecordError(msg) from None


def _refuse_constant(name: str) -> float:
    msg = f"{name} is not a number that a record may hold"
    raise RecordError(msg)


def write_record(path: str | Path, record: Record) -> None:
    """Write a record atomically, with `schema` and `digest` added; nothing is touched when it is not valid.

    An existing file at the path is replaced only when it is itself a readable record: whatever else lies
    there may be somebody's work.

    Raises:
        RecordError: the record is not valid, the file at the path is not a record, or the folder is not
            writable.
    """
    path = Path(path)
    if record.get("schema", SCHEMA) != SCHEMA:
        msg = f"{path}: schema must be {SCHEMA}; got {record['schema']!r}; leave it out"
        raise RecordError(msg)
    body = {name: value for name, value in record.items() if name not in ("schema", "digest")}
    try:
        plain = validate({"schema": SCHEMA, **body}, path)
    except RecordError as error:
        msg = f"{path}: {error}"
        raise RecordError(msg) from None
    if path.exists():
        read_record(path)
    head = {"schema": SCHEMA, "id": plain["id"], "digest": digest_of(plain)}
    write_text(path, pretty({**head, **plain}) + "\n")
    log = os.environ.get(LOG_VARIABLE)
    if log:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{path.resolve()}\n")


def write_text(path: str | Path, text: str) -> None:
    """Replace a text file atomically: unique temporary file in the same folder, fsync, rename.

    Raises:
        RecordError: the folder cannot be made or written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Replace a file atomically (see `write_text`)."""
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files; a record is as readable as any other file of the checkout.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        msg = f"{path}: cannot be written ({error.strerror}); check permissions and disk space"
        raise RecordError(msg) from None
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    with contextlib.suppress(
        OSError
    ):  # some file systems refuse to sync a folder; the rename stands all the same
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_run(path_of_record: str | Path, seconds: float) -> None:
    """Write `<record>.run.json`: how long the record took (seconds), and on what; no page prints it."""
    write_text(run_path(path_of_record), pretty({"seconds": round(seconds, 3), **machine()}) + "\n")

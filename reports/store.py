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
import importlib.metadata
import json
import math
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA = 1
KINDS = ("claims", "sims", "llm", "bench")
STATUSES = ("proved", "proved_within", "refuted", "supported", "undecided")
DECIDED_BY_CERTIFICATE = ("proved", "refuted")
RELATIVE_TOLERANCE = 1e-6

Record = dict[str, Any]

# Environment variable that moves records, pages and figures elsewhere; used by tests and trial runs.
REPORTS_VARIABLE = "PEFTPROOF_REPORTS"

_FOLDERS = "home|root|tmp|work|usr|var|opt|mnt|srv|Users|private|etc|proc|run|scratch"
_ABSOLUTE_PATH = re.compile(
    rf"(?:^|[^\w.)}}\]])/(?:{_FOLDERS})/\w|\b[A-Z]:\\(?:Users|Windows|Program)|file://"
)
_PERSONAL_KEYS = frozenset({"host", "hostname", "user", "username", "cwd"})
_MACHINE_KEYS = frozenset({"seconds", "elapsed", "timestamp", "processor", "cores"})
_PACKAGES = (
    "peftproof numpy scipy sympy pandas matplotlib python-flint z3-solver "
    "torch transformers peft safetensors cvxpy PEPit"
).split()


class RecordError(ValueError):
    """A record that cannot be written or believed; the message is one line: file, condition, remedy."""


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


# --- validation ------------------------------------------------------------------------------------


def kind_of(path: str | Path, record: Record) -> str:
    """Return the kind of a record: from its folder below `records/`, else from its fields.

    A file outside any `records/` folder with neither `verdicts` nor `table` counts as an experiment (`llm`).
    """
    parts = Path(path).parts
    for before, after in zip(parts[-2::-1], parts[:0:-1], strict=False):
        if before == "records" and after in KINDS:
            return after
    if "verdicts" in record:
        return "claims"
    return "sims" if "table" in record else "llm"


def _plain(value: Any, place: str, forbidden: frozenset[str]) -> Any:
    """Return `value` as plain JSON data; name the place of anything that a record must not hold."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        _refuse_traces_of_a_machine(value, place)
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            msg = f"{place} must be finite; got {value}; store null with a reason beside it"
            raise RecordError(msg)
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(entry, f"{place}[{i}]", forbidden) for i, entry in enumerate(value)]
    if isinstance(value, dict):
        plain = {}
        for name, entry in value.items():
            if not isinstance(name, str):
                msg = f"{place} must have text keys; got {name!r}"
                raise RecordError(msg)
            if name in forbidden:
                msg = f"{place}.{name} must not be in this record; times and machines go to .run.json"
                raise RecordError(msg)
            _refuse_traces_of_a_machine(name, f"{place} key")
            plain[name] = _plain(entry, f"{place}.{name}" if place else name, forbidden)
        return plain
    msg = f'{place} must be JSON data; got {type(value).__name__}; write exact numbers as "p/q"'
    raise RecordError(msg)


def _refuse_traces_of_a_machine(text: str, place: str) -> None:
    if _ABSOLUTE_PATH.search(text):
        msg = f"{place} must not hold an absolute path; got {text[:60]!r}; store a package name or hash"
        raise RecordError(msg)
    host = platform.node()
    # Only names that cannot be ordinary words: "node-17", "db2.example"; never "main" or "theory".
    if len(host) >= 6 and re.search(r"[\d.-]", host) and host in text:
        msg = f"{place} must not hold the name of this machine; remove it"
        raise RecordError(msg)


def _need(record: Any, place: str, **types: tuple[type, ...]) -> None:
    """Raise unless `record` is an object that has every named field with one of its types."""
    if not isinstance(record, dict):
        msg = f"{place or 'record'} must be an object; got {type(record).__name__}"
        raise RecordError(msg)
    for name, allowed in types.items():
        where = f"{place}.{name}" if place else name
        if name not in record:
            msg = f"{where} is missing"
            raise RecordError(msg)
        value = record[name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            wanted = " or ".join("null" if t is type(None) else t.__name__ for t in allowed)
            msg = f"{where} must be {wanted}; got {type(value).__name__}"
            raise RecordError(msg)


_NULL = type(None)


def _check_claim(record: Record) -> None:
    _need(
        record,
        "",
        key=(str,),
        id=(str,),
        source=(str, dict),
        paper_version=(str, _NULL),
        statement=(str, dict),
        defect=(str, _NULL),
        uses=(list,),
        headline=(str,),
        verdicts=(list,),
        settings=(dict,),
    )
    if not record["verdicts"]:
        msg = "verdicts must hold at least one reading; got none"
        raise RecordError(msg)
    if not all(isinstance(name, str) for name in record["uses"]):
        msg = "uses must be a list of claim ids"
        raise RecordError(msg)
    for i, verdict in enumerate(record["verdicts"]):
        _check_verdict(verdict, f"verdicts[{i}]")


def _check_status(part: Record, place: str) -> None:
    if part["status"] not in STATUSES:
        msg = f"{place}.status must be one of {', '.join(STATUSES)}; got {part['status']!r}"
        raise RecordError(msg)
    if part["status"] in DECIDED_BY_CERTIFICATE and not part["certificate"]:
        msg = f"{place}.certificate is missing: {part['status']} needs one that recheck can decide"
        raise RecordError(msg)


def _check_verdict(verdict: Any, place: str) -> None:
    _need(
        verdict,
        place,
        reading=(str,),
        status=(str,),
        scope=(str, dict, _NULL),
        vacuous=(bool, str, _NULL),
        evidence=(dict,),
        certificate=(dict, list, _NULL),
        tightness=(dict, _NULL),
        controls=(list,),
        repair=(dict, _NULL),
    )
    _check_status(verdict, place)
    _need(verdict["evidence"], f"{place}.evidence", kind=(str,), instances=(int, dict, list, _NULL))
    _need(verdict["evidence"], f"{place}.evidence", search=(dict, list, _NULL))
    if verdict["tightness"] is not None:
        _need(verdict["tightness"], f"{place}.tightness", ratio=(str, float, int, _NULL))
        if "sharp" not in verdict["tightness"]:
            msg = f"{place}.tightness.sharp is missing"
            raise RecordError(msg)
    for j, control in enumerate(verdict["controls"]):
        where = f"{place}.controls[{j}]"
        _need(control, where, variant=(str,), kind=(bool, str), refuted=(bool,))
        if control["kind"] not in (True, False, "true", "false"):
            msg = f"{where}.kind must be true or false; got {control['kind']!r}"
            raise RecordError(msg)
    if verdict["repair"] is not None:
        _need(
            verdict["repair"],
            f"{place}.repair",
            statement=(str, dict),
            status=(str,),
            scope=(str, dict, _NULL),
        )
        _need(verdict["repair"], f"{place}.repair", certificate=(dict, list, _NULL))
        _check_status(verdict["repair"], f"{place}.repair")


def _check_simulation(record: Record) -> None:
    _need(
        record,
        "",
        id=(str,),
        headline=(str,),
        question=(str,),
        settings=(dict,),
        table=(list,),
        figures=(list,),
    )
    _need(record, "", notes=(list,), claims=(list,))
    numbers = (int, float, str, _NULL)
    for i, row in enumerate(record["table"]):
        _need(row, f"table[{i}]", quantity=(str,), setting=(str, dict), predicted=numbers, simulated=numbers)
        _need(row, f"table[{i}]", stderr=numbers, z=numbers)
    for i, figure in enumerate(record["figures"]):
        _need(figure, f"figures[{i}]", name=(str,), title=(str,), kind=(str,))


def validate(record: Any, path: str | Path) -> Record:
    """Return the record as plain JSON data after checking every field; the path tells which kind it must be.

    Raises:
        RecordError: a field is missing, has the wrong type or says more than it may; the message names it.
    """
    _need(record, "", id=(str,))
    kind = kind_of(path, record)
    forbidden = _PERSONAL_KEYS | (_MACHINE_KEYS if kind in ("claims", "sims") else frozenset())
    plain: Record = _plain(record, "", forbidden)
    if kind == "claims":
        _check_claim(plain)
    elif kind == "sims":
        _check_simulation(plain)
    parts = Path(path).parts
    if kind in ("claims", "sims") and "records" in parts:
        below = Path(*parts[len(parts) - 1 - parts[::-1].index("records") + 2 :]).as_posix()
        if below != f"{plain['id']}.json":
            msg = f"id must be the file's place {below.removesuffix('.json')!r}; got {plain['id']!r}"
            raise RecordError(msg)
    return plain


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


# --- the machine, beside the record ----------------------------------------------------------------


def machine() -> Record:
    """Return what may be said of this machine: versions, processor or GPU, cores, memory (GiB), OS family.

    Never a host, a user or a path.
    """
    packages = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    described: Record = {
        "python": platform.python_version(),
        "packages": packages,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "os": platform.system(),
    }
    torch = sys.modules.get("torch")  # reported only when the run has loaded it; this module never does
    if torch is not None and torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    return described


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def write_run(path_of_record: str | Path, seconds: float) -> None:
    """Write `<record>.run.json`: how long the record took (seconds), and on what; no page prints it."""
    write_text(run_path(path_of_record), pretty({"seconds": round(seconds, 3), **machine()}) + "\n")


# --- comparison ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """One place where two records disagree.

    Attributes:
        where: the place, for example `verdicts[0].status`.
        before: the value in the first record, shortened for reading.
        after: the value in the second one.
        information: True when the place may differ between machines (a search's counts and best ratios).
    """

    where: str
    before: str
    after: str
    information: bool = False

    def __str__(self) -> str:
        note = " (information: the search went another way)" if self.information else ""
        return f"{self.where}: {self.before} -> {self.after}{note}"


def compare_records(before: Record, after: Record) -> list[Difference]:
    """Return every difference between two records of the same thing, in the order of their fields.

    Statuses, certificates and exact values must be equal; floats agree to a relative 1e-6. What lies under an
    `evidence.search`, and an attained ratio kept as a float, is what a search met on the way: reported as
    information. `key` and `digest` follow from the rest and are not compared.
    """
    skipped = ("key", "digest")
    found: list[Difference] = []
    _compare(
        {name: value for name, value in before.items() if name not in skipped},
        {name: value for name, value in after.items() if name not in skipped},
        "",
        found,
    )
    return found


_ABSENT = object()


def _compare(before: Any, after: Any, place: str, found: list[Difference]) -> None:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            inner = f"{place}.{name}" if place else name
            _compare(before.get(name, _ABSENT), after.get(name, _ABSENT), inner, found)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (left, right) in enumerate(zip(before, after, strict=True)):
            _compare(left, right, f"{place}[{i}]", found)
    elif not _same(before, after):
        numbers = isinstance(before, float) or isinstance(after, float)
        information = ".evidence.search" in f".{place}" or (place.endswith("tightness.ratio") and numbers)
        found.append(Difference(place, _short(before), _short(after), information))


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, bool) or isinstance(after, bool):
        return before is after
    numbers = (int, float)
    if isinstance(before, numbers) and isinstance(after, numbers):
        if isinstance(before, int) and isinstance(after, int):
            return before == after
        return math.isclose(before, after, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-300)
    return type(before) is type(after) and bool(before == after)


def _short(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = canonical(value)
    return text if len(text) <= 60 else text[:57] + "..."

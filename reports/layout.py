"""Say what a record may hold: fields, types, statuses; and refuse what breaks that, by name.

Only the standard library is imported, so every package of the project may use this module.
"""

from __future__ import annotations

import math
import platform
import re
from pathlib import Path
from typing import Any

SCHEMA = 1
KINDS = ("claims", "sims", "llm", "bench")
STATUSES = ("proved", "proved_within", "refuted", "supported", "undecided")
DECIDED_BY_CERTIFICATE = ("proved", "refuted")
FIGURE_KINDS = ("line", "scatter", "heatmap")
CURVE_ROLES = ("simulated", "predicted", "bound")
SCALES = ("linear", "log")
Z_SCALES = ("linear", "log", "diverging")

Record = dict[str, Any]

_FOLDERS = "home|root|tmp|work|usr|var|opt|mnt|srv|Users|private|etc|proc|run|scratch"
_ABSOLUTE_PATH = re.compile(
    rf"(?:^|[^\w.)}}\]])/(?:{_FOLDERS})/\w|\b[A-Z]:\\(?:Users|Windows|Program)|file://"
)
_PERSONAL_KEYS = frozenset({"host", "hostname", "user", "username", "cwd"})
_MACHINE_KEYS = frozenset({"seconds", "elapsed", "timestamp", "processor", "cores"})


class RecordError(ValueError):
    """A record that cannot be written or believed; the message is one line: file, condition, remedy."""


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
        vacuous=(str, _NULL),
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
    for figure in record["figures"]:
        check_figure(figure)


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


def check_figure(figure: Any) -> Record:
    """Return the figure unchanged after checking it against the layout that `reports.figures` documents.

    Raises:
        RecordError: the first thing wrong, by the figure's name and the field.
    """
    if not isinstance(figure, dict) or not isinstance(figure.get("name"), str):
        msg = "figure must be an object with a name"
        raise RecordError(msg)
    place = f"figure {figure['name']!r}"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", figure["name"]):
        msg = f"{place}: name must be letters, digits, '_' and '-'"
        raise RecordError(msg)
    _one_of(place, "kind", figure.get("kind"), FIGURE_KINDS)
    heatmap = figure["kind"] == "heatmap"
    if not isinstance(figure.get("title"), str) or not figure["title"]:
        msg = f"{place}: title must be a sentence"
        raise RecordError(msg)
    for axis in ("x", "y"):
        _check_axis(figure.get(axis), f"{place}: {axis}", heatmap)
    series = figure.get("series", [])
    if not isinstance(series, list) or not (series or heatmap):
        msg = f"{place}: series must be a list with at least one curve"
        raise RecordError(msg)
    for i, curve in enumerate(series):
        _check_curve(curve, f"{place}: series[{i}]")
    if heatmap:
        _check_grid(figure, place)
    for mark in figure.get("lines", []):
        if not isinstance(mark, dict) or not _numbers([mark.get("x", mark.get("y"))]):
            msg = f"{place}: each of lines needs a number x or y; got {mark!r}"
            raise RecordError(msg)
    return figure


def _one_of(place: str, name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        msg = f"{place}: {name} must be one of {', '.join(allowed)}; got {value!r}"
        raise RecordError(msg)


def _numbers(values: Any, holes: bool = False) -> bool:
    return isinstance(values, list) and all(
        (holes and v is None) or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in values
    )


def _check_axis(axis: Any, place: str, heatmap: bool) -> None:
    if not isinstance(axis, dict) or not isinstance(axis.get("label"), str):
        msg = f"{place} must be an object with a label"
        raise RecordError(msg)
    _one_of(place, "scale", axis.get("scale", "linear"), SCALES)
    if "limits" in axis and (not _numbers(axis["limits"]) or len(axis["limits"]) != 2):
        msg = f"{place}: limits must be two numbers; got {axis['limits']!r}"
        raise RecordError(msg)
    if heatmap and (not _numbers(axis.get("values")) or axis["values"] != sorted(axis["values"])):
        msg = f"{place}: values must be ascending numbers"
        raise RecordError(msg)


def _check_curve(curve: Any, place: str) -> None:
    if not isinstance(curve, dict) or not isinstance(curve.get("label"), str):
        msg = f"{place} must be an object with a label"
        raise RecordError(msg)
    _one_of(place, "role", curve.get("role", "simulated"), CURVE_ROLES)
    x, y = curve.get("x"), curve.get("y")
    if not _numbers(x) or not _numbers(y, holes=True) or len(x or []) != len(y or []):
        msg = f"{place} ({curve['label']}): x and y must be lists of numbers of equal length"
        raise RecordError(msg)
    if "stderr" in curve and (
        not _numbers(curve["stderr"], holes=True) or len(curve["stderr"]) != len(x or [])
    ):
        msg = f"{place} ({curve['label']}): stderr must be as long as x"
        raise RecordError(msg)


def _check_grid(figure: Record, place: str) -> None:
    z = figure.get("z")
    if (
        not isinstance(z, dict)
        or not isinstance(z.get("label"), str)
        or not isinstance(z.get("values"), list)
    ):
        msg = f"{place}: z must be an object with label and values"
        raise RecordError(msg)
    _one_of(f"{place}: z", "scale", z.get("scale", "linear"), Z_SCALES)
    rows, columns = len(figure["y"]["values"]), len(figure["x"]["values"])
    if len(z["values"]) != rows or any(not _numbers(r, holes=True) or len(r) != columns for r in z["values"]):
        msg = f"{place}: z.values must be {rows} rows (along y) of {columns} numbers (along x)"
        raise RecordError(msg)

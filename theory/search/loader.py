"""Claim files of anybody: ours with `CLAIM`, or a bare file with `DIMS`, `free`, `build` and `statement`.

What is wrong with a file is said in one line that names its own line, never with a traceback.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from theory import instances
from theory.claim import Claim, Setting
from theory.kits.exact import Exact
from theory.kits.floats import Floats
from theory.protocol import NotHere, Statement, Undecided

BARE = ("DIMS", "free", "build", "statement")
OPTIONAL = {"BOUNDARY": "boundary", "VARS": "raw", "FAMILIES": "families", "INNER": "inner", "GROW": "grow"}


class BadFile(Exception):
    """A claim file that cannot be searched; the message is one line: file, line, condition, remedy."""


@dataclass(frozen=True)
class Target:
    """One statement to search: its name, text, setting and whether a repair or a reading."""

    name: str
    statement: Statement
    setting: Setting


def load(path: str | Path) -> list[Target]:
    """The statements of a file, each tried once at its first sizes.

    Raises:
        BadFile: The file cannot be read, run or searched.
    """
    path = Path(path)
    module = _module(path)
    targets = _targets(path, module)
    if not targets:
        msg = f"{path.name}: no statement(k, x) to search; its claims are checked by code of their own"
        raise BadFile(msg)
    for target in targets:
        _try(path, target)
    return targets


def _module(path: Path) -> ModuleType:
    if not path.exists():
        msg = f"{path}: no such file; give the path of a claim file (`python -m theory new FILE` writes one)"
        raise BadFile(msg)
    if path.suffix != ".py" or path.is_dir():
        msg = f"{path}: a claim file is a Python file; its name must end in .py"
        raise BadFile(msg)
    package = _package_name(path.resolve())
    name = package or f"claim_file_{path.stem}"
    try:
        if package:
            return importlib.import_module(package)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as error:  # a stranger's file may do anything, sys.exit included
        raise BadFile(_located(path, error)) from None


def _package_name(path: Path) -> str | None:
    """The dotted name of a file of this project's theory/ folder: such files import each other."""
    root = Path(__file__).resolve().parents[2]
    if root / "theory" in path.parents:
        return ".".join(path.relative_to(root).with_suffix("").parts)
    return None


def _located(path: Path, error: BaseException) -> str:
    """File, line and text of an error, in one line."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{path.name}, line {error.lineno}: {error.msg}"
    lines = [
        f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == path.name
    ]
    where = f", line {lines[-1]}" if lines else ""
    return f"{path.name}{where}: {type(error).__name__}: {text}"


def _targets(path: Path, module: ModuleType) -> list[Target]:
    claims: Sequence[Any] = getattr(module, "CLAIMS", None) or [
        c for c in [getattr(module, "CLAIM", None)] if c
    ]
    if claims:
        return [t for claim in claims for t in _of_claim(path, claim)]
    missing = [name for name in BARE if not hasattr(module, name)]
    if missing:
        msg = f"{path.name}: {', '.join(missing)} missing; a claim file defines CLAIM, or {', '.join(BARE)}"
        raise BadFile(msg)
    dims = module.DIMS
    if not isinstance(dims, Sequence) or not dims or not all(isinstance(d, Mapping) for d in dims):
        msg = f"{path.name}: DIMS must be a list of dicts of sizes, smallest first; got {dims!r}"
        raise BadFile(msg)
    extra = {field: getattr(module, name) for name, field in OPTIONAL.items() if hasattr(module, name)}
    if "raw" in extra and not callable(extra["raw"]):
        constant = extra["raw"]
        extra["raw"] = lambda d: constant
    return [Target("statement", module.statement, Setting(dims, module.free, module.build, **extra))]


def _of_claim(path: Path, claim: Any) -> list[Target]:
    if not isinstance(claim, Claim):
        msg = f"{path.name}: CLAIM must be a theory.claim.Claim; got {type(claim).__name__}"
        raise BadFile(msg)
    out = []
    for reading in claim.readings:
        setting = claim.setting_of(reading)
        if reading.statement is not None and setting is not None:
            out.append(Target(f"{claim.id} [{reading.name}]", reading.statement, setting))
        repair = reading.repair
        if repair is not None and repair.statement is not None and (repair.setting or setting) is not None:
            own = repair.setting or setting
            assert own is not None
            out.append(Target(f"{claim.id} [{reading.name}: repair]", repair.statement, own))
    return out


def _try(path: Path, target: Target) -> None:
    """Evaluate once, in floats and exactly, so that faults of the file show at once and with their line."""
    for d in (dict(d) for d in target.setting.dims):
        try:
            shapes = target.setting.free(d)
            if not all(isinstance(s, tuple) and len(s) == 2 and min(s) >= 0 for s in shapes.values()):
                msg = f"free({d}) must map names to shapes (rows, columns); got {shapes}"
                raise ValueError(msg)
            total = instances.count(shapes)
            for kit in (Floats(), Exact()):
                parameters = instances.parameters(kit, shapes, [(i * i + 1) % 3 - 1 for i in range(total)])
                try:
                    kit.run(target.statement, target.setting.build(kit, parameters, d))
                except (NotHere, Undecided, ZeroDivisionError):
                    continue
        except (KeyboardInterrupt, MemoryError):
            raise
        except Exception as error:
            at = f"{target.name} at sizes {d}"
            msg = f"{_located(path, error)} ({at})"
            raise BadFile(msg) from None

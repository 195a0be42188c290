"""Find the project files that a source file rests on, without importing anything."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGES = ("theory", "sims", "llm_experiments", "reports")

# Machinery that cannot change an outcome: a page drawn otherwise asks for no other proof.
_PRESENTATION = ("reports",)
_DATA = (".lock", ".json", ".toml", ".csv")


def closure(files: Iterable[Path], root: Path) -> list[Path]:
    """Return the given files and every project module that they import, directly or not, sorted.

    Imports inside functions count too; the packages' `__init__.py` on the way count; `reports` does not,
    since it only stores and shows. Names built at run time are invisible: give such files as starting
    points.

    Args:
        files: starting points, below `root`.
        root: the checkout, the folder that holds the packages.

    Raises:
        SyntaxError: a file on the way is no Python.
        OSError: a starting point cannot be read.
    """
    seen: set[Path] = set()
    waiting = [file.resolve() for file in files]
    root = root.resolve()
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        waiting.extend(_direct(file, root, _stamp(file)))
    return sorted(seen)


def hashes(files: Iterable[Path], root: Path) -> dict[str, str]:
    """Return the sha256 of each file's bytes by its path relative to `root`."""
    root = root.resolve()
    return {file.relative_to(root).as_posix(): _sha256(file, _stamp(file)) for file in files}


def literal(file: Path, name: str) -> object:
    """Return the literal that a module assigns to `name` at its top level, or None; nothing is imported.

    Raises:
        ValueError: the name is assigned something that is no literal.
    """
    for node in ast.parse(file.read_bytes(), filename=str(file)).body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = getattr(node, "value", None)
            try:
                return ast.literal_eval(value) if value is not None else None
            except ValueError:
                msg = f"{file.name}: {name} must be a literal, so that it can be read without importing"
                raise ValueError(msg) from None
    return None


# Many claims share most of their sources: within a process a file is read again only when its stamp changes.
_Stamp = tuple[int, int]


def _stamp(file: Path) -> _Stamp:
    status = file.stat()
    return status.st_mtime_ns, status.st_size


@cache
def _sha256(file: Path, stamp: _Stamp) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def _direct(file: Path, root: Path, stamp: _Stamp) -> tuple[Path, ...]:
    """Return what a file rests on at first hand: its packages, what it imports, the data beside it."""
    if file.suffix != ".py":
        return ()
    package = file.relative_to(root).parts[:-1]
    tree = ast.parse(file.read_bytes(), filename=str(file))
    names = {".".join(package), *_imported(tree, package)}
    found = {path for name in names for path in _files_of(name, root)}
    # Data read by a module lies beside it under its name: `assets.lock` belongs to `assets.py`.
    found |= {path for path in file.parent.glob(f"{file.stem}.*") if path.suffix in _DATA}
    return tuple(sorted(found))


def _imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _files_of(name: str, root: Path) -> Iterator[Path]:
    """Yield the files that importing a dotted name reads; none for what is not ours."""
    parts = name.split(".")
    if parts[0] not in PACKAGES or parts[0] in _PRESENTATION:
        return
    for length in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:length])
        for candidate in (place.with_suffix(".py"), place / "__init__.py"):
            if candidate.is_file():
                yield candidate.resolve()

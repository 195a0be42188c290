"""List the commands whose records an audit computes: claims, simulators, small experiments."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reports import sources
from reports.store import RecordError


@dataclass(frozen=True)
class Item:
    """One command that writes records.

    Attributes:
        name: what the person sees and what `--only` matches, for example `s2ft/lemma_f9`.
        kind: the kind of its records.
        command: arguments after the Python interpreter.
        files: source files on which the outcome rests, their imports left to be found.
        expected: seconds that it says it takes on a fresh checkout; None if it says nothing.
    """

    name: str
    kind: str
    command: tuple[str, ...]
    files: tuple[Path, ...]
    expected: float | None = None


def checkout() -> Path:
    """Return the folder that holds the packages of this project."""
    return Path(__file__).resolve().parent.parent


def find_items(root: Path) -> list[Item]:
    """Return every item of a checkout: claims, simulators, experiments, in this order.

    A simulator lists its runs in a module-level literal `AUDIT = [[], ["--weights", "minilm"]]`, one list of
    arguments a run; a file in `llm_experiments/experiments/` likewise, as arguments of `python -m
    llm_experiments`, and beside it `AUDIT_SECONDS`, how long each run takes where nothing has been trained yet.

    Raises:
        RecordError: the claims cannot be listed, or an `AUDIT` is no list of lists of texts.
    """
    return [*_claim_items(root), *_script_items(root)]


def _claim_items(root: Path) -> Iterator[Item]:
    main = root / "theory" / "__main__.py"
    if not main.exists():
        return
    listing = "from theory.registry import registered; [print(n, e.path) for n, e in registered().items()]"
    done = subprocess.run(
        [sys.executable, "-c", listing], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        msg = f"theory.registry cannot list the claims: {last_line(done.stderr)}; run `python -m theory list`"
        raise RecordError(msg)
    for line in done.stdout.splitlines():
        name, _, path = line.partition(" ")
        yield Item(name, "claims", ("-m", "theory", "check", name, "--write"), (Path(path), main))


def _script_items(root: Path) -> Iterator[Item]:
    for folder, kind in (("sims", "sims"), ("llm_experiments/experiments", "llm")):
        for file in sorted((root / folder).glob("*.py")):
            for arguments in _audit_list(file):
                if kind == "sims":
                    name, command = f"sims/{file.stem}", (f"sims/{file.name}", *arguments)
                    yield Item(" ".join([name, *arguments]), kind, command, (file,))
                else:
                    main = root / "llm_experiments" / "__main__.py"
                    command = ("-m", "llm_experiments", *arguments)
                    said = sources.literal(file, "AUDIT_SECONDS")
                    expected = float(said) if isinstance(said, int | float) else None
                    # the registry of methods imports its rows by name
                    recipes = sorted((root / "llm_experiments" / "recipes").glob("*.py"))
                    yield Item(" ".join(["llm", *arguments]), kind, command, (file, main, *recipes), expected)


def _audit_list(file: Path) -> list[list[str]]:
    try:
        runs = sources.literal(file, "AUDIT")
    except (ValueError, SyntaxError) as error:
        raise RecordError(str(error)) from None
    if runs is None:
        return []
    if not isinstance(runs, list) or not all(
        isinstance(run, list) and all(isinstance(word, str) for word in run) for run in runs
    ):
        msg = (
            f"{file.name}: AUDIT must be a list of lists of texts, one list of arguments a run; got {runs!r}"
        )
        raise RecordError(msg)
    return runs


def last_line(text: str) -> str:
    """Return the last line of a program's output that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing printed"

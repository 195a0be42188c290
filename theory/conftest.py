"""Makes every claim file a test file: `pytest theory/s2ft/lemma_f14_left.py::certificate_rechecks` works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from theory import checks, registry
from theory.claim import Reading
from theory.evidence import CheckFails
from theory.registry import Registered


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> ClaimFile | None:
    """Collect the files that define claims."""
    if file_path.suffix != ".py" or file_path.parent.name not in registry.papers():
        return None
    entries = [e for e in registry.registered().values() if e.path == file_path]
    return ClaimFile.from_parent(parent, path=file_path, entries=entries) if entries else None


class ClaimFile(pytest.File):
    """The proof-checks of one claim file."""

    def __init__(self, *, entries: list[Registered], **more: Any) -> None:
        super().__init__(**more)
        self.entries = entries

    def collect(self) -> Iterator[ProofCheck]:
        """One item per check and reading."""
        for entry in self.entries:
            for check in checks.CHECKS:
                for reading in entry.claim.readings:
                    several = len(self.entries) > 1 or len(entry.claim.readings) > 1
                    name = (
                        f"{check.__name__}[{entry.claim.id}: {reading.name}]" if several else check.__name__
                    )
                    yield ProofCheck.from_parent(self, name=name, check=check, entry=entry, reading=reading)


class ProofCheck(pytest.Item):
    """One check of one reading."""

    def __init__(self, *, check: checks.Check, entry: Registered, reading: Reading, **more: Any) -> None:
        super().__init__(**more)
        self.check, self.entry, self.reading = check, entry, reading

    def runtest(self) -> None:
        """Run the check."""
        self.check(self.entry, self.reading)

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Show claim, statement and offending instance instead of a traceback."""
        if isinstance(excinfo.value, CheckFails):
            return f"{self.entry.claim.id}\n  {self.entry.claim.sentence}\n  {excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where and what."""
        return self.path, 0, f"{self.entry.claim.id}: {self.name}"

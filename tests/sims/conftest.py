"""Running a simulator in a test: records go to a temporary folder."""

from __future__ import annotations

import pytest

from reports import store
from sims import present


@pytest.fixture
def simulate(tmp_path, monkeypatch):
    """A function (module, arguments) -> the text of the record written."""

    def run(module, arguments):
        place = tmp_path / "reports"
        monkeypatch.setenv(store.REPORTS_VARIABLE, str(place))
        before = _records(place)
        for path in before:
            path.unlink()
        assert present.guarded(lambda: module.main(arguments)) == 0
        (path,) = _records(place)
        store.read_record(path)
        return path.read_text(encoding="utf-8")

    return run


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """A function (module, arguments) -> the single line on stderr; nothing may have been written."""

    def run(module, arguments):
        monkeypatch.setenv(store.REPORTS_VARIABLE, str(tmp_path / "reports"))
        try:
            status = present.guarded(lambda: module.main(arguments))
        except SystemExit as stop:
            status = stop.code
        error = capsys.readouterr().err
        assert status == 2
        assert error.count("\n") == 1
        assert not (tmp_path / "reports").exists()
        return error

    return run


def _records(place):
    return [p for p in (place / "records" / "sims").glob("*.json") if not p.name.endswith(".run.json")]

"""What a file rests on: found from the text of its imports, without importing."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports import sources


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "theory/__init__.py": "",
        "theory/claim.py": "import math\nfrom reports.store import read_record\n",
        "theory/s2ft/__init__.py": "",
        "theory/s2ft/a.py": "from theory.claim import Claim\nfrom . import setting\n",
        "theory/s2ft/setting.py": "from .deep.part import thing\n",
        "theory/s2ft/deep/__init__.py": "",
        "theory/s2ft/deep/part.py": "def f():\n    import sims.assets\n",
        "theory/s2ft/unrelated.py": "",
        "sims/__init__.py": "",
        "sims/assets.py": "",
        "sims/assets.lock": "",
        "reports/store.py": "import theory.s2ft.unrelated\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_closure_holds_all_that_is_imported_and_no_more(root: Path) -> None:
    files = sources.closure([root / "theory/s2ft/a.py"], root)
    assert {file.relative_to(root.resolve()).as_posix() for file in files} == {
        "theory/__init__.py",
        "theory/claim.py",
        "theory/s2ft/__init__.py",
        "theory/s2ft/a.py",
        "theory/s2ft/setting.py",
        "theory/s2ft/deep/__init__.py",
        "theory/s2ft/deep/part.py",
        "sims/__init__.py",
        "sims/assets.py",
        "sims/assets.lock",
    }


def test_hashes_follow_the_text(root: Path) -> None:
    files = sources.closure([root / "theory/s2ft/a.py"], root)
    before = sources.hashes(files, root)
    (root / "sims/assets.lock").write_text("other")
    after = sources.hashes(files, root)
    assert {name for name in before if before[name] != after[name]} == {"sims/assets.lock"}


def test_literals_are_read_without_running_the_file(tmp_path: Path) -> None:
    file = tmp_path / "s.py"
    file.write_text('import nothing_like_this\nAUDIT: list = [["--quick"], []]\n')
    assert sources.literal(file, "AUDIT") == [["--quick"], []]
    assert sources.literal(file, "OTHER") is None
    file.write_text("AUDIT = list(range(3))\n")
    with pytest.raises(ValueError, match="must be a literal"):
        sources.literal(file, "AUDIT")

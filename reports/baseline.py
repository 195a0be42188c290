"""The records to compare with: those committed in git; without git, those found at the first audit."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from reports.store import iter_record_paths, records_root


def committed_texts(root: Path, snapshot: Path) -> dict[str, str]:
    """Return the text of every baseline record by its path below `records/`.

    In a git checkout these are the records of `HEAD`. Elsewhere (an unpacked archive) the records found at
    the first call are copied to `snapshot`, and later calls read that copy.

    Args:
        root: the checkout.
        snapshot: folder for the copy, inside the audit's cache.
    """
    texts = _from_git(root)
    return _from_snapshot(snapshot) if texts is None else texts


def _git(root: Path, *arguments: str, stdin: str = "") -> bytes | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], input=stdin.encode(), capture_output=True, check=False
        )
    except OSError:  # no git on this machine
        return None
    return done.stdout if done.returncode == 0 else None


def _from_git(root: Path) -> dict[str, str] | None:
    top = _git(root, "rev-parse", "--show-toplevel")
    try:
        below = records_root().relative_to(root.resolve()).as_posix()
    except ValueError:
        return None  # records kept outside the checkout have no committed counterpart
    if top is None or Path(top.decode().strip()).resolve() != root.resolve():
        return None
    listing = _git(root, "ls-tree", "-r", "-z", "--name-only", "HEAD", "--", below)
    if listing is None:
        return None
    names = [n for n in listing.decode().split("\0") if n.endswith(".json") and not n.endswith(".run.json")]
    answer = _git(root, "cat-file", "--batch", stdin="".join(f"HEAD:{name}\n" for name in names)) or b""
    texts = {}
    for name in names:
        header, _, answer = answer.partition(b"\n")
        size = int(header.split()[-1])
        texts[name.removeprefix(f"{below}/")] = answer[:size].decode("utf-8", errors="replace")
        answer = answer[size + 1 :]
    return texts


def _from_snapshot(snapshot: Path) -> dict[str, str]:
    if not snapshot.exists():
        snapshot.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=".baseline.", dir=snapshot.parent))
        for path in iter_record_paths():
            target = fresh / path.relative_to(records_root())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        try:
            fresh.rename(snapshot)
        except OSError:  # another audit took its snapshot first, and that one holds
            shutil.rmtree(fresh)
    return {
        p.relative_to(snapshot).as_posix(): p.read_text("utf-8") for p in sorted(snapshot.rglob("*.json"))
    }

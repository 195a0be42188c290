"""Make the environment that the Makefile works in, or do nothing when it is the right one already.

    python3 .ci/environment.py .venv

The right one: built by this file from the present `requirements.lock` and `pyproject.toml` with the present
Python. An installation that was interrupted is started afresh; two calls at once wait for each other.
Standard library only; the Makefile has seen to it that Python is 3.11 or later.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"


def key() -> str:
    """A hash of all that the environment is made from."""
    digest = hashlib.sha256(sys.version.encode())
    for file in (LOCK, ROOT / "pyproject.toml", Path(__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def works(python: Path) -> bool:
    """Whether this interpreter still starts (it does not when the Python it was made from has gone)."""
    try:
        return subprocess.run([python, "-c", ""], capture_output=True).returncode == 0
    except OSError:
        return False


def build(venv: Path, python: Path, quietly: bool) -> None:
    """Create the environment and install the locked versions and this checkout into it."""
    unfinished = venv / "unfinished"
    if venv.exists() and (unfinished.exists() or not works(python)):
        if not (venv / "pyvenv.cfg").is_file():  # somebody else's folder: not ours to delete
            msg = f"error: {venv} is no Python environment: delete it or name another with VENV=..."
            raise SystemExit(msg)
        shutil.rmtree(venv)
    print(f"environment: making {venv} with Python {sys.version.split()[0]}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    unfinished.touch()
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, *(["--quiet"] if quietly else []), "--requirement", LOCK], check=True)
    subprocess.run([*pip, "--quiet", "--no-deps", "--no-build-isolation", "--editable", ROOT], check=True)
    unfinished.unlink()


def ensure(venv: Path) -> None:
    """Build the environment unless its stamp says that it is the right one."""
    python = venv / "bin" / "python"
    stamp = venv / "complete"
    with (ROOT / ".environment.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = key()
        if stamp.is_file() and stamp.read_text() == wanted and works(python):
            return
        started = time.monotonic()
        was_complete = stamp.is_file()
        stamp.unlink(missing_ok=True)
        build(venv, python, quietly=was_complete)  # little to install: pip need not tell of each package
        stamp.write_text(wanted)
        print(f"environment: ready after {time.monotonic() - started:.0f} s", flush=True)


def main() -> int:
    """Return the exit status; say in one line on stderr why there is no environment."""
    try:
        ensure((ROOT / sys.argv[1]).absolute())
    except subprocess.CalledProcessError as error:
        step = " ".join(str(part) for part in error.cmd[1:4])
        remedy = "see the lines above; then run the same command again"
        if "venv" in error.cmd:
            remedy = "Debian and Ubuntu keep this module in the package python3-venv"
        print(f"error: `{step}` failed while the environment was made: {remedy}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: the environment cannot be made: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; the same command starts the installation afresh", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())

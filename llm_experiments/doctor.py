"""`doctor`: is this environment fit for training, and which command fixes what is not."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from reports.machine import machine
from sims import assets

GOOD, NOTE, BAD = "ok", "note", "missing"
# package, oldest version that the code was run with
PACKAGES = {
    "torch": "2.11",
    "transformers": "5.17",
    "peft": "0.21.0",
    "tokenizers": "0.22",
    "safetensors": "0.4.5",
    "numpy": "2.0",
    "rich": "13.7",
    "typer": "0.12",
}
FREE_GB = 2.0  # converted SmolLM2 (0.54 GB), downloads, cached states
MEMORY_GIB = 4.0  # full tuning of SmolLM2 peaks at 3.3 GB


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, how it stands, in words, and the command that fixes it."""

    name: str
    state: str
    words: str
    remedy: str = ""


def _numbers(version: str) -> tuple[int, ...]:
    """The numeric parts of a version: `2.13.0+cpu` -> (2, 13, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def packages() -> Iterator[Finding]:
    """Python and the packages on the path of training."""
    version = ".".join(map(str, sys.version_info[:3]))
    fit = sys.version_info >= (3, 11)
    yield Finding("python", GOOD if fit else BAD, version, "" if fit else "install Python 3.11 or later")
    for name, oldest in PACKAGES.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, BAD, f"not installed, {oldest} or later needed", "pip install -e '.[llm]'")
            continue
        fit = _numbers(found) >= _numbers(oldest)
        words = found if fit else f"{found}, older than {oldest}"
        yield Finding(name, GOOD if fit else BAD, words, "" if fit else "pip install -U -e '.[llm]'")


def hardware() -> Iterator[Finding]:
    """Cores, threads, memory, GPU."""
    described = machine()
    cores, memory = described["cores"], described["memory_gib"]
    yield Finding("processor", GOOD, f"{described['processor']}, {cores} cores")
    asked = os.environ.get("OMP_NUM_THREADS")
    yield Finding(
        "threads", GOOD, f"OMP_NUM_THREADS={asked}" if asked else "set by --threads (default 1 a seed)"
    )
    if memory is not None:
        enough = memory >= MEMORY_GIB
        remedy = "" if enough else "use --cached-lower, a smaller batch, or minilm"
        yield Finding("memory", GOOD if enough else NOTE, f"{memory} GiB", remedy)
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        words = f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
        yield Finding("gpu", GOOD, words)
    else:
        yield Finding("gpu", NOTE, "none; everything in the CPU tier runs without one")


def storage() -> Iterator[Finding]:
    """The cache folder: writable, with room."""
    root = assets.cache_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        remedy = "set PEFTPROOF_CACHE to a folder that can be written"
        yield Finding("cache", BAD, f"cannot be written ({error.strerror})", remedy)
        return
    free = shutil.disk_usage(root).free / 1e9
    enough = free >= FREE_GB
    yield Finding(
        "cache", GOOD if enough else NOTE, f"writable, {free:.0f} GB free", "" if enough else "free some disk"
    )


def prepared() -> Iterator[Finding]:
    """Models and data, and what only Debian packages carry."""
    from llm_experiments.models import MODELS
    from llm_experiments.prepare import needs
    from llm_experiments.tasks import TASKS

    for name, packages in needs().items():
        if name in TASKS and TASKS[name].optional:
            continue
        missing = not all(map(assets.is_present, packages))
        if name in MODELS:
            missing = MODELS[name].missing() is not None
        command = f"python -m llm_experiments prepare --only {name}" if missing else ""
        yield Finding(name, NOTE if missing else GOOD, "not prepared" if missing else "prepared", command)
    there = assets.is_present("bigbench")
    words = "prepared" if there else "optional, not prepared (tasks for evaluation only, 358 MB)"
    command = "" if there else "python -m llm_experiments prepare --only mathqa"
    yield Finding("bigbench", GOOD if there else NOTE, words, command)
    thesaurus = Path("/usr/share/mythes/th_en_US_v2.dat").is_file()
    optional = {
        "wordnet": (TASKS["wordnet"].missing() is None, "wordnet-base", "task wordnet"),
        "thesaurus": (thesaurus, "mythes-en-us", "list of synonyms"),
    }
    for name, (there, package, use) in optional.items():
        words = "installed" if there else f"optional, not installed ({use})"
        yield Finding(name, GOOD if there else NOTE, words, "" if there else f"apt-get install {package}")


def examine() -> list[Finding]:
    """Everything; stops after the packages when one of them is missing, since the rest needs them."""
    findings = list(packages())
    if all(finding.state != BAD for finding in findings):
        for part in (hardware, storage, prepared):
            findings += part()
    return findings


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> int:
    """Check the environment: versions, threads, memory, cache, models and data.

    Exit status 0 when training can start, 1 when something is missing. Each line names the command that
    fixes it.
    """
    findings = examine()
    if as_json:
        import json

        print(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            remedy = f"   -> {finding.remedy}" if finding.remedy else ""
            print(f"{finding.state:<8} {finding.name:<13} {finding.words}{remedy}")
    return int(any(finding.state == BAD for finding in findings))

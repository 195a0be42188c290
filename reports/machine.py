"""Describe the machine of a run, as far as a public file may: never a host, a user or a path."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from reports.layout import Record

_PACKAGES = (
    "peftproof numpy scipy sympy pandas matplotlib python-flint z3-solver "
    "torch transformers peft safetensors cvxpy PEPit"
).split()


def machine() -> Record:
    """Return what may be said of this machine: versions, processor or GPU, cores, memory (GiB), OS family."""
    packages = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    described: Record = {
        "python": platform.python_version(),
        "packages": packages,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "os": platform.system(),
    }
    torch = sys.modules.get("torch")  # reported only when the run has loaded it; this module never does
    if torch is not None and torch.cuda.is_available():
        described["gpu"] = torch.cuda.get_device_name()
    return described


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None

"""Small valid records, a reports folder of its own for every test, and a small project to audit."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

_CLAIM: dict[str, Any] = {
    "key": "0" * 64,
    "id": "toy/square_is_convex",
    "source": {"paper": "A toy paper", "place": "Lemma 1"},
    "paper_version": "1",
    "statement": "xy is at most x squared plus y squared.",
    "latex": {
        "as printed": {
            "definitions": [],
            "hypotheses": [r"x, y \in \mathbb{R}"],
            "conclusions": [r"x y \le x^2 + y^2"],
        }
    },
    "defect": None,
    "uses": [],
    "headline": "The square is convex, as stated.",
    "verdicts": [
        {
            "reading": "as printed",
            "sentence": "xy is at most x squared plus y squared.",
            "status": "proved",
            "scope": "all real x and y",
            "vacuous": None,
            "evidence": {
                "kind": "words",
                "instances": {"sharp": {"x": "1", "y": "1"}},
                "search": {"tried": 100, "best_ratio": 0.5},
                "reason": None,
            },
            "certificate": {"kind": "squares", "terms": [["1", "-1/2"], ["0", "3/4"]]},
            "tightness": {"ratio": "1/2", "sharp": {"x": "1", "y": "1"}},
            "controls": [{"variant": "constant 1/3", "kind": "false", "refuted": True}],
            "repair": None,
        }
    ],
    "settings": {"seed": 0, "tolerance": 1e-9},
}

_FALLEN: dict[str, Any] = {
    **_CLAIM,
    "id": "toy/product_is_small",
    "statement": "AB has norm at most |A|.",
    "latex": {
        "as printed": {
            "definitions": ["C = A B"],
            "hypotheses": [],
            "conclusions": [r"\left\|C\right\|_F^2 \le \left\|A\right\|_F^2"],
        }
    },
    "defect": "missing hypothesis",
    "uses": ["toy/square_is_convex"],
    "headline": "Multiplying by B can make A larger, so the bound needs |B| <= 1.",
    "verdicts": [
        {
            **_CLAIM["verdicts"][0],
            "sentence": "AB has norm at most |A|.",
            "status": "refuted",
            "certificate": {
                "kind": "counterexample",
                "instance": {"A": [["1", "0"], ["0", "1"]], "B": [["2", "0"], ["0", "1/3"]], "r": "1"},
                "witnesses": {},
                "breaks": ["the product is small"],
                "sides": {"the product is small": ["37/9", "2"]},
            },
            "repair": {
                "statement": "|AB| <= |A| |B|",
                "status": "proved",
                "scope": "all sizes",
                "certificate": {"kind": "words"},
                "reason": None,
                "ratio": "1",
                "necessary": {},
            },
        }
    ],
}

_SIMULATION: dict[str, Any] = {
    "id": "coin",
    "headline": "Ten thousand tosses agree with one half.",
    "question": "Is the mean of fair tosses one half?",
    "settings": {"seeds": 10000},
    "table": [
        {
            "quantity": "mean",
            "setting": "p = 1/2",
            "predicted": 0.5,
            "simulated": 0.502,
            "stderr": 0.005,
            "z": 0.4,
        }
    ],
    "figures": [
        {
            "name": "mean",
            "title": "Mean of the tosses",
            "kind": "line",
            "x": {"label": "tosses"},
            "y": {"label": "mean"},
            "series": [{"label": "simulated", "x": [1, 10, 100], "y": [1.0, 0.4, 0.52]}],
        }
    ],
    "notes": ["One seed is one coin."],
    "claims": ["toy/square_is_convex"],
}


@pytest.fixture
def claim() -> dict[str, Any]:
    return copy.deepcopy(_CLAIM)


@pytest.fixture
def fallen() -> dict[str, Any]:
    return copy.deepcopy(_FALLEN)


@pytest.fixture
def simulation() -> dict[str, Any]:
    return copy.deepcopy(_SIMULATION)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reports folder of this test alone."""
    folder = tmp_path / "project" / "out"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PEFTPROOF_REPORTS", str(folder))
    return folder


_REGISTRY = """
from pathlib import Path
from types import SimpleNamespace


def registered():
    files = sorted((Path(__file__).parent / "toy").glob("c*.py"))
    return {"toy/" + file.stem: SimpleNamespace(path=file.resolve()) for file in files}
"""

_MAIN = """
import importlib
import sys
import time

from reports.store import record_path, write_record

name = sys.argv[2]
module = importlib.import_module("theory." + name.replace("/", "."))
time.sleep(module.SLEEP)
if module.COMPLAINT:
    print("first line", file=sys.stderr)
    sys.exit(module.COMPLAINT)
write_record(record_path("claims", name), {**module.RECORD, "id": name})
"""

_SIMULATOR = """
import json
import sys

from reports.store import record_path, write_record

AUDIT = [[], ["--weights", "real"]]
RECORD = json.loads(%r)
name = "-".join(["coin", *(word.strip("-") for word in sys.argv[1:])])
write_record(record_path("sims", name), {**RECORD, "id": name})
"""


class Project:
    """A checkout in miniature: three claims that take `sleep` seconds each, one simulator with two runs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.toy = root / "theory" / "toy"
        self.toy.mkdir(parents=True)
        (root / "sims").mkdir()
        (root / "theory" / "__init__.py").touch()
        (self.toy / "__init__.py").touch()
        (root / "theory" / "registry.py").write_text(_REGISTRY)
        (root / "theory" / "__main__.py").write_text(_MAIN)
        (root / "sims" / "coin.py").write_text(_SIMULATOR % json.dumps(_SIMULATION))
        for name in ("c1", "c2", "c3"):
            self.write_claim(name)

    def write_claim(self, name: str, sleep: float = 0, complaint: str = "", **changes: Any) -> None:
        """Write a claim's file; `changes` replace fields of its first verdict."""
        record = copy.deepcopy(_CLAIM)
        record["verdicts"][0] |= changes
        text = f"SLEEP = {sleep!r}\nCOMPLAINT = {complaint!r}\nRECORD = {record!r}\n"
        (self.toy / f"{name}.py").write_text(text)

    def records(self) -> dict[str, bytes]:
        """The bytes of every record by its path."""
        folder = self.root / "out" / "records"
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.json"))}


@pytest.fixture
def project(out: Path) -> Project:
    return Project(out.parent)

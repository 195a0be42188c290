"""Small valid records for the tests of this folder."""

from __future__ import annotations

import copy
from typing import Any

_CLAIM: dict[str, Any] = {
    "key": "0" * 64,
    "id": "toy/square_is_convex",
    "source": {"paper": "A toy paper", "place": "Lemma 1"},
    "paper_version": "1",
    "statement": {"text": "xy is at most x squared plus y squared.", "latex": r"xy \le x^2 + y^2"},
    "defect": None,
    "uses": [],
    "headline": "The square is convex, as stated.",
    "verdicts": [
        {
            "reading": "as printed",
            "status": "proved",
            "scope": "all real x and y",
            "vacuous": None,
            "evidence": {"kind": "identity", "instances": 3, "search": {"tried": 100, "best_ratio": 0.5}},
            "certificate": {"kind": "squares", "terms": [["1", "-1/2"], ["0", "3/4"]]},
            "tightness": {"ratio": "1/2", "sharp": False},
            "controls": [{"variant": "constant 1/3", "kind": "false", "refuted": True}],
            "repair": None,
        }
    ],
    "settings": {"seed": 0, "tolerance": 1e-9},
}

_FALLEN: dict[str, Any] = {
    **_CLAIM,
    "id": "toy/product_is_small",
    "statement": {"text": "AB has norm at most |A|.", "latex": r"\|AB\|_F \le \|A\|_F"},
    "defect": "missing hypothesis",
    "uses": ["toy/square_is_convex"],
    "headline": "Multiplying by B can make A larger, so the bound needs |B| <= 1.",
    "verdicts": [
        {
            **_CLAIM["verdicts"][0],
            "status": "refuted",
            "certificate": {
                "kind": "instance",
                "instance": {"A": [["1", "0"], ["0", "1"]], "B": [["2", "0"], ["0", "1/3"]], "r": "1"},
                "left": "37/9",
                "right": "2",
            },
            "repair": {
                "statement": {"text": "|AB| <= |A| |B|", "latex": r"\|AB\|_F \le \|A\|_F \|B\|"},
                "status": "proved",
                "scope": "all sizes",
                "certificate": {"kind": "identity"},
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


def claim() -> dict[str, Any]:
    return copy.deepcopy(_CLAIM)


def fallen() -> dict[str, Any]:
    return copy.deepcopy(_FALLEN)


def simulation() -> dict[str, Any]:
    return copy.deepcopy(_SIMULATION)

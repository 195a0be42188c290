"""The page of theory against practice: every prediction once, where its outcome belongs, beside its claim's verdict."""

from __future__ import annotations

from typing import Any

from reports import practice
from reports.__main__ import main
from reports.store import record_path, write_record


def _score(name: str, outcome: str, claims: list[str], smallest: float | None = 0.02) -> dict[str, Any]:
    return {
        "name": name,
        "says": f"{name} is so",
        "source": "a paper, Table 1",
        "claims": claims,
        "measured": "+0.1 ± 0.02",
        "smallest_effect": smallest,
        "outcome": outcome,
    }


def _record(row: str, tier: str, scores: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    body = {"id": f"{row}/{tier}", "tier": tier, "headline": "h.", "question": "q?", "claims": []}
    return {
        **body,
        "predictions": scores,
        "tables": {"Predictions": [{"prediction": "x"}]},
        "figures": [],
        **more,
    }


def test_outcomes_are_counted_by_tier_and_by_claim(claim: dict[str, Any]) -> None:
    name = claim["id"]
    records = {
        "few_shot/cpu": _record(
            "few_shot",
            "cpu",
            [
                _score("a", "agrees", [name]),
                _score("b", "contradicts", [name]),
                _score("c", "undecided", [], None),
            ],
        ),
        "few_shot/gpu": _record("few_shot", "gpu", [_score("a", "undecided", [name])]),
    }
    found = practice.summary(records, {name: claim})
    cpu, gpu = found["tiers"]
    assert (cpu["rows"], cpu["agrees"], cpu["contradicts"], cpu["undecided"]) == (1, 1, 1, 1)
    assert (gpu["rows"], gpu["agrees"], gpu["undecided"]) == (1, 0, 1)
    (row,) = found["calibration"]
    assert (row["agrees"], row["contradicts"], row["undecided"]) == (1, 1, 1)
    assert [p["smallest"] for p in found["predictions"]["undecided"]] == ["-", "0.02"]
    assert "few_shot" not in found["not_run"] and "intruders" in found["not_run"]


def test_the_page_shows_every_prediction_and_says_what_was_not_run(out: Any, claim: dict[str, Any]) -> None:
    assumption = {"assumption": "no shift", "claims": [], "value": "3 times chance", "applies": "no"}
    body = _record("few_shot", "cpu", [_score("lead", "agrees", [])], assumptions=[assumption])
    write_record(record_path("llm", "few_shot/cpu"), body)
    declared = out.parent / "llm_experiments" / "experiments" / "ood_forgetting.py"
    declared.parent.mkdir(parents=True)
    declared.write_text("AUDIT = []\n")
    assert main([]) == 0
    page = (out / "theory_vs_practice.md").read_text("utf-8")
    assert page.count("lead is so") == 1
    assert "| gpu | not run | - | - | - |" in page
    assert "| no shift |" in page and "3 times chance" in page
    assert "## Not run" in page and "ood_forgetting" in page.partition("## Not run")[2]

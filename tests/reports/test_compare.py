"""Comparing records: exact where exact, tolerant to rounding, lenient to what a search met on its way."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from reports.compare import compare_records

Record = dict[str, Any]


def _changed(record: Record, place: list[Any], value: Any) -> Record:
    other = copy.deepcopy(record)
    inner = other
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    return other


def test_equal_records_have_no_difference(claim: Record) -> None:
    assert compare_records(claim, copy.deepcopy(claim)) == []


FAILURES = [
    (["verdicts", 0, "status"], "supported"),
    (["verdicts", 0, "certificate", "terms", 0, 1], "-1/3"),
    (["verdicts", 0, "tightness", "ratio"], "2/3"),
    (["settings", "seed"], 1),
    (["settings", "seed"], False),
    (["settings", "tolerance"], 1.00001e-9),
    (["settings", "tolerance"], "1e-9"),
    (["settings", "added"], 1),
    (["uses"], ["toy/other"]),
]


@pytest.mark.parametrize(("place", "value"), FAILURES)
def test_a_difference_that_matters_is_named(claim: Record, place: list[Any], value: Any) -> None:
    for pair in (claim, _changed(claim, place, value)), (_changed(claim, place, value), claim):
        [difference] = compare_records(*pair)
        assert str(place[0]) in difference.where and not difference.information


def test_floats_may_differ_by_rounding(claim: Record) -> None:
    assert compare_records(claim, _changed(claim, ["settings", "tolerance"], 1e-9 * (1 + 5e-7))) == []


def test_what_a_search_met_is_information(claim: Record) -> None:
    [difference] = compare_records(claim, _changed(claim, ["verdicts", 0, "evidence", "search", "tried"], 7))
    assert difference.information and "tried" in str(difference)
    claim["verdicts"][0]["controls"][0]["search"] = {"tried": 1}
    changed = _changed(claim, ["verdicts", 0, "controls", 0, "search", "tried"], 2)
    assert [d.information for d in compare_records(claim, changed)] == [True]


def test_what_rounding_leaves_of_zero_is_information() -> None:
    said = compare_records({"a": 2e-29, "b": 1e-8, "c": 0.5}, {"a": -3e-17, "b": 2e-8, "c": 1e-12})
    assert [(d.where, d.information) for d in said] == [("a", True), ("b", False), ("c", False)]


def test_measured_floats_and_machines_are_information() -> None:
    before = {"accuracy": 0.81, "correct": 81, "environment": {"processor": "one", "threads": 2}}
    after = {"accuracy": 0.82, "correct": 82, "environment": {"processor": "two", "threads": 2}}
    said = {d.where: d.information for d in compare_records(before, after, measured=True)}
    assert said == {"accuracy": True, "correct": False, "environment.processor": True}
    assert not any(d.information for d in compare_records(before, after))


def test_key_and_digest_are_not_compared(claim: Record) -> None:
    assert compare_records(claim, claim | {"key": "1" * 64, "digest": "x"}) == []


def test_floats_of_a_part_marked_sensitive_to_rounding_are_information() -> None:
    before = {"id": "x", "table": [{"simulated": 1.0, "sensitive": True}, {"simulated": 1.0}]}
    after = {"id": "x", "table": [{"simulated": 1.2, "sensitive": True}, {"simulated": 1.2}]}
    found = compare_records(before, after)
    assert [(d.where, d.information) for d in found] == [
        ("table[0].simulated", True),
        ("table[1].simulated", False),
    ]


def _experiment(mean: float, outcome: str, shown: str) -> dict[str, object]:
    score = {"name": "a", "mean": mean, "half_width_seeds": 0.02, "measured": shown, "outcome": outcome}
    return {"id": "row/cpu", "headline": shown, "predictions": [score], "tables": {"": [{"loss": shown}]}}


def test_an_experiment_may_differ_in_numbers_but_not_in_outcomes_nor_leave_its_interval() -> None:
    before = _experiment(0.10, "agrees", "+0.1")
    near = compare_records(before, _experiment(0.11, "agrees", "+0.11"), measured=True)
    assert near and all(d.information for d in near)
    far = compare_records(before, _experiment(0.13, "agrees", "+0.13"), measured=True)
    assert [d.where for d in far if not d.information] == ["predictions[0].mean"]
    other = compare_records(before, _experiment(0.11, "undecided", "+0.11"), measured=True)
    assert [d.where for d in other if not d.information] == ["predictions[0].outcome"]
    fewer = compare_records(before, {**before, "predictions": []}, measured=True)
    assert any(not d.information for d in fewer)

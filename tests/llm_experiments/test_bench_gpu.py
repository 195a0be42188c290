"""The GPU programme, walked at tiny sizes on the processor."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest
import torch

from llm_experiments.__main__ import main
from llm_experiments.gpu import work
from llm_experiments.gpu.units import MODEL, PARTS, REHEARSAL, Part, Unit
from reports import store
from sims import assets

REHEARSE = ["gpu", "--tiny", "--device", "cpu"]


@pytest.fixture
def places(tmp_path, monkeypatch):
    fetched = assets.cache_root() / "assets"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "assets").symlink_to(fetched, target_is_directory=True)
    monkeypatch.setenv("PEFTPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PEFTPROOF_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def rehearsed(places) -> list[str]:
    folder = places / "cache" / "llm_experiments" / "gpu_rehearsal" / "records" / "bench" / "gpu"
    return sorted(p.stem for p in folder.glob("*.json") if not p.name.endswith(".run.json"))


def test_the_whole_road_is_walked_and_not_walked_twice(places, capsys):
    assert main(REHEARSE) == 0
    done = ["experiment-ood_forgetting", "ood_risk", "overview", "switching", "tiny-steps", "training"]
    assert rehearsed(places) == done
    assert "all finished" in capsys.readouterr().err
    assert main(REHEARSE) == 0
    said = capsys.readouterr().err
    assert said.count("finished earlier") == 5 and "preparing" not in said and "loading" not in said
    overview = store.read_record(store.record_path("bench", "gpu/overview"))
    states = [row["state"] for row in overview["tables"]["Units"]]
    assert len(states) == 5 and all(state.startswith("run on ") for state in states)
    trained = list((places / "cache").rglob("records/llm/gpu_training/*.json"))
    kept = [store.read_record(p) for p in trained if not p.name.endswith(".run.json")]
    assert len(kept) == 4 and {record["tier"] for record in kept} == {"gpu"}
    assert not (places / "reports").exists()  # a rehearsal leaves the reports alone


def test_one_part_and_again(places, capsys):
    assert main([*REHEARSE, "--part", "4"]) == 0
    assert rehearsed(places) == ["ood_risk", "overview"]
    overview = store.read_record(store.record_path("bench", "gpu/overview"))
    assert [row["state"] == "not run" for row in overview["tables"]["Units"]] == [
        True,
        True,
        True,
        True,
        False,
    ]
    assert overview["headline"].startswith("1 of 5 units run")


def counting(monkeypatch, bodies):
    """Units whose outcome is scripted; returns the list of those that were run."""
    made = []

    def scripted(unit, place, until):
        made.append(unit.name)
        outcome = bodies(unit)
        if outcome is None:
            raise work.TimeIsUp
        return {"headline": unit.name, "question": "?", "settings": {}, "tables": {"": [{"a": 1}]}, **outcome}

    monkeypatch.setitem(work.KINDS, "scripted", scripted)
    return made


TWO = Part("two units", (Unit("first", "-", "scripted"), Unit("second", "-", "scripted", {"x": 1})))


def place(hardware: str = "one GPU", model: str = "smollm2") -> work.Place:
    return work.Place("cpu", model, hardware)


def test_a_part_goes_on_where_time_ran_out(places, monkeypatch):
    answers = iter([{}, None, {}])
    made = counting(monkeypatch, lambda unit: next(answers))
    later = time.monotonic() + 60
    assert work.run(TWO, place(), later) is False
    assert made == ["first", "second"]
    assert work.run(TWO, place(), later) is True
    assert made == ["first", "second", "second"]
    assert work.run(TWO, place(), later) is True
    assert len(made) == 3


def test_a_unit_out_of_memory_is_recorded_as_failed_and_the_next_one_runs(places, monkeypatch, capsys):
    def outcome(unit):
        if unit.name == "first":
            raise torch.OutOfMemoryError
        return {}

    made = counting(monkeypatch, outcome)
    later = time.monotonic() + 60
    assert work.run(TWO, place(), later) is False
    assert made == ["first", "second"]
    assert "gpu/first: out of memory on one GPU; recorded as failed" in capsys.readouterr().err
    found = store.read_record(store.record_path("bench", "gpu/first"))
    assert (found["failed"], found["complete"]) == ("out of memory", False)
    rows = work.overview((TWO,), place())["tables"]["Units"]
    assert [row["state"].split(" on ")[0] for row in rows] == ["failed", "run"]
    assert rows[0]["state"].endswith(": out of memory")
    work.run(TWO, place(), later)
    assert made[2:] == ["first"], "what failed is tried again, what is finished is not"


def test_no_unit_starts_after_the_time(places, monkeypatch):
    made = counting(monkeypatch, lambda unit: {})
    assert work.run(TWO, place(), time.monotonic() - 1) is False
    assert made == []


def test_other_hardware_or_settings_run_again_and_so_does_an_incomplete_unit(places, monkeypatch):
    made = counting(monkeypatch, lambda unit: {"complete": unit.name == "second"})
    later = time.monotonic() + 60
    assert work.run(TWO, place(), later) is False
    assert work.run(TWO, place(), later) is False  # the first is tried again, the second is kept
    assert made == ["first", "second", "first"]
    work.run(TWO, place("another GPU"), later)
    assert made[3:] == ["first", "second"]
    changed = Part("", (Unit("second", "-", "scripted", {"x": 2}),))
    work.run(changed, place("another GPU"), later)
    assert made[5:] == ["second"]
    work.run(changed, place("another GPU"), later, again=True)
    assert made[6:] == ["second"]


def test_steps_that_ran_out_of_time_are_not_complete(places):
    unit = REHEARSAL[0].units[0]
    body = work._steps(unit, place(), until=0.0)
    assert body["complete"] is False
    assert {row["step ms"] for row in body["tables"]["Arms"]} == {"not run: time was up"}


def test_training_that_ran_out_of_time_is_continued(places, monkeypatch):
    unit = REHEARSAL[1].units[0]
    with pytest.raises(work.TimeIsUp):
        work._training(unit, place(model="tiny_llama"), until=0.0)
    body = work._training(unit, place(model="tiny_llama"), until=time.monotonic() + 600)
    assert {row["method"] for rows in body["tables"].values() for row in rows} == set(work.TRAINED)


def test_the_difference_of_two_simulations_is_the_largest_relative_one():
    def run(*values):
        return {"table": [{"quantity": "q", "setting": i, "simulated": v} for i, v in enumerate(values)]}

    assert work._difference(run(1.0, 20.0), run(1.5, 10.0)) == 1.0
    assert work._difference(run(1.0), None).startswith("not compared")
    assert work._difference(run(None), run(1.0)) == "not compared: no common rows"


def test_units_have_distinct_names_and_no_path_reaches_them():
    somewhere = work.Place("cuda", "/somewhere/else/My-Model.Q4_1.gguf", "GPU")
    names = [somewhere.record(unit) for part in PARTS for unit in part.units]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"gpu/[\w.-]+", name) for name in names)
    models = {unit.settings["model"] for part in PARTS for unit in part.units if unit.kind == "steps"}
    assert models == {MODEL, "1b"}
    asked = {base for part in PARTS for unit in part.units for base in unit.settings.get("bases", [])}
    assert {"plain", "compiled"} <= asked


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU; this one has one")
def test_without_a_gpu_it_is_one_line(places, capsys):
    assert main(["gpu"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "machine with a CUDA GPU" in said[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--part", "99"], "--part must satisfy 0 <= part <="),
        (["--minutes", "0"], "--minutes must be positive"),
        (["--part", "1", "--all"], "exclude each other"),
        (["--device", "cpu"], "add --tiny"),
    ],
)
def test_bad_input_is_one_line(places, capsys, arguments, said):
    assert main(["gpu", *arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_a_missing_model_says_what_to_bring(places):
    from llm_experiments.errors import UserError
    from llm_experiments.gpu.command import _check_model

    with pytest.raises(
        UserError, match=r"prepare --only smollm2, or give --model FOLDER or --model FILE.gguf"
    ):
        _check_model("smollm2")
    with pytest.raises(UserError, match="is not there"):
        _check_model("nowhere.gguf")
    _check_model("tiny_llama")


def test_a_dry_run_lists_and_writes_nothing_and_a_status_writes_the_overview(places, capsys):
    assert main(["gpu", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("not run") == sum(len(part.units) for part in PARTS)
    assert not (places / "reports").exists()
    assert main(["gpu", "--status"]) == 0
    overview = store.read_record(store.record_path("bench", "gpu/overview"))
    assert {row["state"] for row in overview["tables"]["Units"]} == {"not run"}
    assert "not run" in overview["headline"]


def test_nothing_on_the_road_imports_what_a_gpu_environment_lacks(places):
    """Every import of these fails; the road and the simulator at its end are walked all the same."""
    barred = ("gguf", "flint", "z3", "PEPit", "cvxpy", "datasets", "bitsandbytes")
    script = f"import sys\nsys.modules.update(dict.fromkeys({barred!r}))\n"
    root = str(work.Path(work.__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", f"{script}import runpy; sys.argv[1:] = {REHEARSE!r}; "
         "runpy.run_module('llm_experiments', run_name='__main__')"],
        cwd=root, capture_output=True, text=True, check=False, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    simulate = ["--quick", "--seeds", "4", "--steps", "20", "--jobs", "1"]
    check = f"{script}import llm_experiments.gguf_decode, sims.ood_risk; sims.ood_risk.main({simulate!r})"
    subprocess.run([sys.executable, "-c", check], cwd=root, check=True)
    record = next((places / "cache").rglob("gpu/tiny-steps.json"))
    assert json.loads(record.read_text())["machine"]["processor"]

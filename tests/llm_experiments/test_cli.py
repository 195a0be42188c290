"""The command line: what it prints, its exit statuses, and runs that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_experiments import doctor
from llm_experiments.__main__ import COMMANDS, main
from llm_experiments.train_command import options
from reports import store
from sims import assets

TINY = [
    "--task",
    "chain_sum",
    "--model",
    "tiny_llama",
    "--batch",
    "4",
    "--eval-items",
    "4",
    "--final-items",
    "4",
]


def arguments(method: str, *more: str) -> list[str]:
    return ["train", method, *TINY, "--budget", "10%", "--train-size", "16", *more]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PEFTPROOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PEFTPROOF_REPORTS", str(tmp_path / "reports"))
    return tmp_path / "cache"


def records_in(cache: Path) -> list[Path]:
    return sorted(cache.glob("llm_experiments/runs/*/record.json"))


# --- train ---------------------------------------------------------------------------------------


def test_train_prints_a_table_and_keeps_a_record(cache, capsys):
    assert main(arguments("lora", "--steps", "4", "--eval-every", "2")) == 0
    shown = capsys.readouterr()
    assert "lora on tiny random Llama (all 2), task chain_sum" in shown.out
    assert "near 3 digits" in shown.out.replace("_", " ")
    assert "step 2/4: answer loss" in shown.err
    (path,) = records_in(cache)
    assert store.read_record(path)["settings"]["steps"] == 4
    assert (path.parent / "adapter" / "adapter_model.safetensors").is_file()

    before = path.read_bytes()
    assert main(arguments("lora", "--steps", "4", "--eval-every", "2")) == 0
    assert "finished earlier" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_seeds_in_parallel_give_the_records_of_seeds_one_by_one(cache, tmp_path, capsys, monkeypatch):
    asked = arguments("cla", "--steps", "3", "--seeds", "2", "--eval-every", "0", "--json")
    assert main([*asked, "--jobs", "2"]) == 0
    together = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("PEFTPROOF_CACHE", str(tmp_path / "other"))
    assert main([*asked, "--jobs", "1"]) == 0
    assert json.loads(capsys.readouterr().out) == together
    assert [record["settings"]["seed"] for record in together] == [0, 1]


def test_a_row_is_kept_among_the_reports(cache, tmp_path):
    assert main(arguments("lora", "--steps", "1", "--row", "tried")) == 0
    (path,) = (tmp_path / "reports" / "records" / "llm" / "tried").glob("*seed0-????????????.json")
    assert store.read_record(path)["id"] == f"tried/{path.stem}"
    assert records_in(cache) == []


def test_several_seeds_are_summarised_with_an_interval(cache, capsys):
    assert main(arguments("lora", "--steps", "1", "--seeds", "2", "--jobs", "1")) == 0
    out = capsys.readouterr().out
    assert "2 seeds" in out
    assert "±" in out


def test_killed_runs_continue_bit_for_bit(tmp_path):
    """`kill -9` in the middle of a chain of adapters, then the same command: an undisturbed run's record."""
    asked = arguments(
        "c3la", "--steps", "120", "--checkpoint-every", "5", "--eval-every", "50", "--set", "every=7"
    )
    command = [sys.executable, "-m", "llm_experiments", *asked]

    def environment(name: str) -> dict[str, str]:
        return {**os.environ, "PEFTPROOF_CACHE": str(tmp_path / name), "OMP_NUM_THREADS": "1"}

    killed = subprocess.Popen(
        command, env=environment("killed"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("llm_experiments/runs/*/checkpoint.pt")):
        assert killed.poll() is None, "the run ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert records_in(tmp_path / "killed") == []

    again = subprocess.run(command, env=environment("killed"), capture_output=True, text=True, check=True)
    assert "continuing from step" in again.stderr
    subprocess.run(command, env=environment("whole"), capture_output=True, check=True)
    (resumed,), (whole,) = records_in(tmp_path / "killed"), records_in(tmp_path / "whole")
    assert resumed.read_bytes() == whole.read_bytes()
    assert not (resumed.parent / "checkpoint.pt").exists()
    adapters = [path.parent / "adapter" / "adapter_model.safetensors" for path in (resumed, whole)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["frobnicate"], "command must be one of"),
        (["train"], "Missing argument"),
        (["train", "lora", "--steps", "many"], "Invalid value for '--steps'"),
        (["train", "lora", "--frob"], "No such option"),
        (arguments("lorra"), "did you mean"),
        (arguments("lora", "--task", "nothing"), "task must be one of"),
        (arguments("lora", "--model", "nowhere"), "model must be one of"),
        (arguments("lora", "--budget", "much"), "budget must be"),
        (arguments("lora", "--lr", "-1"), "lr must be positive; got -1.0"),
        (arguments("lora", "--seeds", "0"), "--seeds must be at least 1; got 0"),
        (arguments("lora", "--set", "r"), "NAME=VALUE"),
        (arguments("lora", "--set", "frob=1"), "lora:"),
        (arguments("bitfit"), "bias"),
        (arguments("lora", "--cached-lower", "2"), "1 <= cached_lower < 2"),
        (arguments("lora", "--model", "tiny_bert"), "needs a decoder"),
        (["prepare", "--only", "nothing"], "--only must name one of"),
    ],
)
def test_bad_input_is_one_line_and_status_2(given, words, cache, capsys):
    assert main(given) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    assert lines[-1] == errors[0]
    assert words in errors[0]
    assert records_in(cache) == []


def test_data_that_is_not_prepared_names_the_command(cache, capsys):
    assert main(["train", "lora", "--model", "tiny_bert", "--task", "sentiment"]) == 2
    assert "fetch snippets" in capsys.readouterr().err


def test_a_damaged_record_is_refused_not_overwritten(cache, capsys):
    assert main(arguments("lora", "--steps", "1")) == 0
    (path,) = records_in(cache)
    path.write_text(path.read_text()[:-40])
    assert main(arguments("lora", "--steps", "1")) == 2
    assert "record.json" in capsys.readouterr().err


def test_options_of_a_method_are_read_as_json_where_possible():
    assert options(["r=8", "alpha=0.5", "layout=gather", "flag=true"]) == {
        "r": 8,
        "alpha": 0.5,
        "layout": "gather",
        "flag": True,
    }


# --- the other commands --------------------------------------------------------------------------


def test_help_teaches(capsys):
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert all(name in overview for name in COMMANDS)
    for name in ("prepare", "list", "train", "doctor"):
        assert main([name, "--help"]) == 0
        assert f"python -m llm_experiments {name}" in capsys.readouterr().out
    assert main([]) == 2


def test_help_of_a_command_does_not_load_torch():
    code = (
        "import sys; from llm_experiments.__main__ import main; "
        "main(['train', '--help']); main(['doctor', '--help']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_the_path_of_training_needs_no_optional_package():
    """The machine with the GPU has no gguf, python-flint or z3."""
    code = (
        "import sys\n"
        "for name in ('gguf', 'flint', 'z3'): sys.modules[name] = None\n"
        "import llm_experiments.train, llm_experiments.train_command, llm_experiments.gguf_decode\n"
        "from llm_experiments import methods; methods.names()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_list_shows_all_three_registries(capsys):
    from llm_experiments import methods, models
    from llm_experiments.tasks import TASKS

    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["methods"]] == methods.names()
    assert [row["name"] for row in found["tasks"]] == list(TASKS)
    assert [row["name"] for row in found["models"]] == list(models.MODELS)
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*methods.names(), *TASKS, *models.MODELS))


def test_list_says_what_is_not_prepared(cache, capsys):
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    state = {row["name"]: row["prepared"] for row in [*found["tasks"], *found["models"]]}
    assert state["chain_sum"]
    assert state["tiny_bert"]
    assert not state["minilm"]
    assert not state["sentiment"]


def test_prepare_is_quick_and_quiet_when_all_is_there(capsys):
    assets.fetch(["minilm", "snippets"])
    wanted = ["prepare", "--only", "minilm", "--only", "sentiment", "--verify"]
    assert main(wanted) == 0
    assert capsys.readouterr().out.splitlines() == ["minilm: ready", "sentiment: ready"]


def test_an_altered_file_is_found_by_prepare(cache, capsys, monkeypatch):
    """A changed byte in the cached data is named, and nothing is called ready."""
    monkeypatch.delenv("PEFTPROOF_CACHE")
    assets.fetch(["snippets"])
    source = assets.locked()["snippets"].folder
    monkeypatch.setenv("PEFTPROOF_CACHE", str(cache))
    target = assets.locked()["snippets"].folder
    shutil.copytree(source, target)
    victim = next(target.rglob("tweets_GroundTruth.txt"))
    victim.write_bytes(victim.read_bytes().replace(b"a", b"b", 1))
    assert main(["prepare", "--only", "sentiment", "--verify"]) == 2
    shown = capsys.readouterr()
    assert "altered" in shown.err
    assert "ready" not in shown.out


def test_doctor_is_content_here_and_names_what_is_missing(cache, capsys):
    assert main(["doctor", "--json"]) == 0
    findings = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert findings["torch"]["state"] == "ok"
    assert findings["minilm"]["remedy"] == "python -m llm_experiments prepare --only minilm"


def test_doctor_reports_a_missing_and_an_old_package(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "PACKAGES", {"no-such-package": "1.0", "torch": "99.0"})
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("missing") and "no-such-package" in line and "pip install" in line for line in lines
    )
    assert any(line.startswith("missing") and "older than 99.0" in line for line in lines)


def test_doctor_names_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PEFTPROOF_CACHE", str(tmp_path / "file" / "below"))
    (finding,) = doctor.storage()
    assert finding.state == doctor.BAD
    assert "PEFTPROOF_CACHE" in finding.remedy

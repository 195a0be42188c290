"""A dask cluster on this machine: two workers, one killed during the sweep; the record is that of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from theory import cluster

ROOT = Path(__file__).resolve().parents[2]

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

SWEEP = ["sims/few_shot_crossover.py", "--quick", "--seeds", "40"]


def _start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    command = [
        sys.executable,
        "-m",
        f"distributed.cli.{program}",
        "--no-dashboard",
        "--host",
        "127.0.0.1",
        *arguments,
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=quiet, stderr=quiet)


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """The scheduler's address and its two workers as processes."""
    file = tmp_path_factory.mktemp("cluster") / "scheduler.json"
    running = [_start("dask_scheduler", "--port", "0", "--scheduler-file", str(file))]
    running += [
        _start(
            "dask_worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-nanny", "--name", f"w{i}"
        )
        for i in (1, 2)
    ]
    try:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline, "the scheduler did not start"
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield address, running[1:]
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PEFTPROOF_REPORTS": str(folder)}


def _record(folder: Path) -> bytes:
    (path,) = (path for path in folder.glob("records/sims/*.json") if not path.name.endswith(".run.json"))
    return path.read_bytes()


def test_checks_on_the_cluster_are_as_recorded(workers):
    claims = ["s2ft/lemma_f12", "s2ft/lemma_f14_left"]  # one proved, one refuted
    command = [sys.executable, "-m", "theory", "check", *claims, "--scheduler", workers[0]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    alone = subprocess.run(command[:-2], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (alone.returncode, alone.stdout), done.stderr[-500:]
    assert "proved" in done.stdout


def test_a_worker_with_other_sources_is_refused(workers, monkeypatch):
    monkeypatch.setattr(cluster, "fingerprint", lambda: "something else")
    with pytest.raises(cluster.ClusterError, match="other sources"):
        list(cluster.run(abs, [1, -2], scheduler=workers[0]))


def test_a_worker_killed_during_the_sweep_loses_nothing(workers, tmp_path):
    address, (first, _) = workers
    alone, together = tmp_path / "alone", tmp_path / "together"
    command = [sys.executable, *SWEEP]
    subprocess.run(
        [*command, "--jobs", "1"], cwd=ROOT, env=_environment(alone), check=True, capture_output=True
    )
    # Halted, the worker holds on to what it is given: the sweep cannot end before the worker is killed.
    first.send_signal(signal.SIGSTOP)
    sweep = subprocess.Popen(
        [*command, "--scheduler", address],
        cwd=ROOT,
        env=_environment(together),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with distributed.Client(address, set_as_default=False) as client:
        names = {info["id"]: place for place, info in client.scheduler_info()["workers"].items()}
        deadline = time.monotonic() + 60
        while not client.processing().get(names["w1"]):
            assert time.monotonic() < deadline and sweep.poll() is None, "the halted worker was given nothing"
            time.sleep(0.05)
        first.kill()
    _, errors = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, errors[-1000:]
    assert _record(together) == _record(alone)


def test_an_address_that_is_none_is_one_line_and_exit_2():
    command = [sys.executable, *SWEEP, "--scheduler", "nonsense"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: --scheduler must be an address such as tcp://HOST:8786; got 'nonsense'\n"


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 1)
    with pytest.raises(
        cluster.ClusterError, match="no dask scheduler answers at tcp://127.0.0.1:1; start one with"
    ):
        list(cluster.run(abs, [1], scheduler="tcp://127.0.0.1:1"))

"""Two processes under `accelerate launch` (gloo) learn what one process learns from the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

SCRIPT = Path(__file__).with_name("two_processes.py")
METHODS = ("full", "lora", "s2ft_r", "cla", "c3la", "cola", "spft", "dora")


def launch(processes: int, out: Path) -> None:
    """Runs the script under accelerate's launcher, without a GPU.

    The launcher starts several processes only under its flag for several GPUs; the script itself asks for the
    processor, and so for gloo.
    """
    out.mkdir()
    several = ["--multi_gpu"] if processes > 1 else ["--cpu"]
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        *several,
        "--num_processes",
        str(processes),
    ]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", "0", "--num_cpu_threads_per_process", "1"]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, str(SCRIPT), str(out), *METHODS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def read(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    with safe_open(path, framework="pt") as stream:
        return {key: stream.get_tensor(key) for key in stream.keys()}, stream.metadata()["processes"]  # noqa: SIM118


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    for processes in (1, 2):
        launch(processes, tmp_path / str(processes))
    for name in METHODS:
        one, count = read(tmp_path / "1" / f"{name}.safetensors")
        two, other = read(tmp_path / "2" / f"{name}.safetensors")
        assert (count, other) == ("1", "2")
        assert one.keys() == two.keys() and one
        for key, tensor in one.items():
            torch.testing.assert_close(two[key], tensor, rtol=1e-9, atol=1e-11, msg=f"{name}: {key}")

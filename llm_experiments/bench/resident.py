"""Peak resident memory of one arm in a process of its own, as the operating system counts it.

    python -m llm_experiments.bench.resident ARM --model anchor --base plain --batch 4 --seq 128 ...

prints one JSON object. Called by the benchmark, which cannot measure this itself: memory that one arm has let
go stays with the process and would be used by the next.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
from pathlib import Path

STEPS = 3


def over_model(arm: str, model: str, base: str, batch: int, length: int, threads: int) -> dict[str, int]:
    """Runs the measurement in a process of its own.

    Returns:
        Bytes: `built` (resident with model and method in place) and `over` (peak of three steps beyond it).

    Raises:
        RuntimeError: the process failed; its last line of output.
    """
    arguments = [sys.executable, "-m", __name__, arm, "--model", model, "--base", base]
    arguments += ["--batch", str(batch), "--seq", str(length), "--threads", str(threads)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        msg = f"measuring resident memory of {arm} failed: {lines[-1]}"
        raise RuntimeError(msg)
    return json.loads(done.stdout.strip().splitlines()[-1])


def status(field: str) -> int:
    """A field of this process's status, bytes: `VmRSS` now, `VmHWM` at its highest."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    msg = f"the operating system gives no {field}"
    raise RuntimeError(msg)


def available() -> bool:
    """Whether the operating system counts resident memory and lets the highest value be reset (Linux)."""
    return Path("/proc/self/clear_refs").exists()


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m llm_experiments.bench.resident", description=__doc__)
    parser.add_argument("arm")
    parser.add_argument("--model", default="anchor")
    parser.add_argument("--base", default="plain")
    for name, default in (("batch", 4), ("seq", 128), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()

    import torch

    from llm_experiments.bench.arms import ARMS
    from llm_experiments.bench.shapes import source
    from llm_experiments.bench.step import Step

    torch.set_num_threads(given.threads)
    network = source(given.model, torch.float32).build()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(network.config.vocab_size, (given.batch, given.seq), generator=generator)
    step = Step(ARMS[given.arm], network, given.base, ids)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    built = status("VmRSS")
    for _ in range(STEPS):
        step()
    print(json.dumps({"built": built, "over": status("VmHWM") - built}))


if __name__ == "__main__":
    _main()

"""Rounds of steps in random interleaved order."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from llm_experiments.bench.arms import ARMS
from llm_experiments.bench.shapes import Source
from llm_experiments.bench.step import Memory, Step, flops, gpu_peak, memory

LEAST_ROUNDS = 3
TIME_IS_UP = "not run: time was up"


@dataclass
class Measured:
    """What was measured of one arm on one base.

    Attributes:
        wall, cpu: seconds of each round, wall clock and processor time of the process.
        trainable: how many numbers train.
        flops: see `step.flops`; None under torch.compile, whose operators torch does not count.
        memory: see `step.memory`; None under torch.compile for the same reason.
        gpu_peak: bytes, on a GPU.
        failed: why there are no numbers, if there are none.
    """

    arm: str
    base: str
    trainable: int = 0
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    flops: dict[str, int] | None = None
    memory: Memory | None = None
    gpu_peak: int | None = None
    failed: str = ""


def measure(
    model: Source,
    arms: Sequence[str],
    bases: Sequence[str],
    *,
    batch: int,
    length: int,
    rounds: int,
    device: str,
    seed: int = 0,
    until: float = float("inf"),
    say: Callable[[str], None] = lambda line: None,
) -> list[Measured]:
    """Measures all arms on all bases together.

    Every pair of arm and base has a model of its own, built from the same weights. Each round takes one step of
    every pair, in a random order that differs from round to round.

    Args:
        model: what to build.
        arms: keys of `ARMS`.
        bases: keys of `BASES`.
        batch: sequences a step.
        length: tokens a sequence.
        rounds: steps that are timed, after two that are not.
        device: `cpu`, `cuda` or `cuda:N`.
        seed: of tokens, order and methods.
        until: value of `time.monotonic()` after which no further arm or round starts (three rounds are made).
        say: receives a line of text at each stage.
    """
    generator = torch.Generator().manual_seed(seed)
    steps: dict[tuple[str, str], Step] = {}
    found: dict[tuple[str, str], Measured] = {}
    ids: torch.Tensor | None = None
    for base in bases:
        for name in arms:
            result = found[name, base] = Measured(name, base)
            if time.monotonic() > until:
                result.failed = TIME_IS_UP
                continue
            say(f"preparing {name} ({base})")
            try:
                network = model.build().to(device)
                if ids is None:
                    vocabulary = network.config.vocab_size
                    ids = torch.randint(vocabulary, (batch, length), generator=generator).to(device)
                step = Step(ARMS[name], network, base, ids, seed)
                result.trainable = step.built.trainable
                if "compiled" in base:
                    step()
                    step()
                else:
                    result.flops, result.memory = flops(step), memory(step)
                if device.startswith("cuda"):
                    result.gpu_peak = gpu_peak(step)
                steps[name, base] = step
            except torch.OutOfMemoryError:
                result.failed = "out of memory"
            except RuntimeError as error:
                if "compiled" not in base:
                    raise
                # The record gets the kind alone: the message holds paths of this machine.
                result.failed = f"torch.compile failed ({type(error).__name__})"
                say(f"{name} ({base}): {error}")
            if result.failed:
                network = step = None
                gc.collect()
                if device.startswith("cuda"):
                    torch.cuda.empty_cache()
    order = list(steps)
    shuffle = random.Random(seed)
    for number in range(rounds):
        if number >= LEAST_ROUNDS and time.monotonic() > until:
            say(f"time is up after {number} of {rounds} rounds")
            break
        shuffle.shuffle(order)
        for key in order:
            wall, cpu = steps[key].timed()
            found[key].wall.append(wall)
            found[key].cpu.append(cpu)
    return list(found.values())

"""Gradient steps a second: batched on sufficient statistics, beside the loop that one writes first."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from sims import descent, networks, ood_sections, parallel
from sims.networks import Task
from sims.ood_sections import Run


def bench(task: Task, run: Run) -> None:
    """Print gradient steps of LoRA a second, all processes together, beside a plain loop over seeds."""
    steps = 3000
    seeds = 256 * run.jobs
    measured = replace(run, seeds=seeds, steps=(steps,))
    work = ood_sections.blocks(measured, task, 900)
    parallel.run(_descend, work[: run.jobs], run.jobs)  # starts the processes
    begun = time.perf_counter()
    parallel.run(_descend, work, run.jobs)
    rate = seeds * steps / (time.perf_counter() - begun)
    plain = _plain_rate(task)
    print(f"batched, {run.jobs} processes: {rate:,.0f} seed-steps/s")
    print(f"plain loop over seeds, one process: {plain:,.0f} seed-steps/s; gain {rate / plain:.1f}")


def _problem(block: ood_sections.Block) -> tuple[networks.Batch, descent.Quadratic, descent.Factors]:
    rng = parallel.stream(block.run.seed, block.part, block.index)
    batch = networks.draw(block.task, rng, block.size)
    Sig = batch["Si"] @ batch["Si"]
    problem = descent.quadratic(batch["H"], batch["L"], Sig, batch["D"] @ Sig)
    return batch, problem, descent.start(problem, block.task.rank, "usual", rng)


def _descend(block: ood_sections.Block) -> float:
    """Seed-steps a second of one block."""
    _, problem, factors = _problem(block)
    begun = time.perf_counter()
    for _ in descent.low_rank(problem, factors, block.run.steps):
        pass
    return block.size * block.run.steps[-1] / (time.perf_counter() - begun)


def _plain_rate(task: Task, seeds: int = 8, steps: int = 200) -> float:
    """Seed-steps a second of the loop that one writes first: each seed alone, gradients by hand."""
    batch, _, _ = _problem(ood_sections.Block(Run(), task, 901, 0, seeds))
    rng = np.random.default_rng(0)
    begun = time.perf_counter()
    for i in range(seeds):
        H, L, D, Sig = batch["H"][i], batch["L"][i], batch["D"][i], batch["Si"][i] @ batch["Si"][i]
        U, V = np.zeros((task.m, task.rank)), rng.standard_normal((task.k, task.rank)) / 10
        for _ in range(steps):
            G = H.T @ ((H @ U @ V.T @ L - D) @ Sig) @ L.T
            U, V = U - 0.01 * G @ V, V - 0.01 * G.T @ U
    return seeds * steps / (time.perf_counter() - begun)

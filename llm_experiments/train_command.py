"""`train`: one method on one model and task, over seeds, with a table at the end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_experiments import ranks
from llm_experiments.errors import UserError
from llm_experiments.settings import LEARNING_RATE, LEARNING_RATES, Settings

Record = dict[str, Any]


def command(
    method: Annotated[str, typer.Argument(help="Method of `list`, such as full, lora, s2ft_r, cla.")],
    task: Annotated[str, typer.Option(help="Task of `list`.")] = "sentiment",
    model: Annotated[
        str, typer.Option(help="Model of `list`, a transformers folder, or a GGUF file.")
    ] = "minilm",
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 120,
    seeds: Annotated[int, typer.Option(help="How many seeds, from --seed on.")] = 1,
    seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    budget: Annotated[
        str, typer.Option(help="Trainable parameters: share of the tuned layers (1.4%) or count (147000).")
    ] = "1.4%",
    lr: Annotated[
        float | None,
        typer.Option(help="Peak learning rate. Default: 1e-4 where whole layers train, else mostly 2e-3."),
    ] = None,
    head: Annotated[str, typer.Option(help="Start of an encoder's head: probe or random.")] = "probe",
    head_lr: Annotated[float, typer.Option(help="Peak learning rate of an encoder's head.")] = 1e-3,
    batch: Annotated[int, typer.Option(help="Examples a step.")] = 16,
    micro_batch: Annotated[int, typer.Option(help="Examples a forward pass; 0: no accumulation.")] = 0,
    schedule: Annotated[str, typer.Option(help="Learning rate: linear, cosine or constant.")] = "linear",
    warmup: Annotated[float, typer.Option(help="Share of the steps for warm-up.")] = 0.05,
    weight_decay: Annotated[float, typer.Option(help="Decoupled weight decay.")] = 0.0,
    clip: Annotated[float, typer.Option(help="Largest gradient norm; 0: none.")] = 1.0,
    precision: Annotated[str, typer.Option(help="fp32, bf16-mixed or bf16.")] = "fp32",
    train_size: Annotated[int, typer.Option(help="Training examples (few-shot: a class); 0: default.")] = 0,
    max_length: Annotated[int, typer.Option(help="Longest sequence in tokens; 0: the task's default.")] = 0,
    cached_lower: Annotated[
        int | None,
        typer.Option(
            help="Lower layers run once and kept frozen. Default on a CPU: 3 of minilm, 20 of smollm2."
        ),
    ] = None,
    eval_every: Annotated[int, typer.Option(help="Steps between evaluations; 0: start and end only.")] = 40,
    eval_items: Annotated[int, typer.Option(help="Items of each split in those.")] = 100,
    final_items: Annotated[int, typer.Option(help="Items of each split at the end; 0: all.")] = 300,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Processor threads of each seed.")] = 1,
    jobs: Annotated[int, typer.Option(help="Seeds at a time; 0: one a core (one on a GPU).")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Option of the method, NAME=VALUE; may be repeated.")
    ] = None,
    row: Annotated[
        str | None,
        typer.Option(help="Keep the records among the reports as llm/ROW/...; default: cache only."),
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """Tune a model by one method; the first numbers appear within a minute on a CPU.

    A run that was interrupted, even killed, goes on from its last checkpoint when the same command is given
    again; a run that is finished is not repeated. Two methods with one seed see the same data in the same
    order.

        python -m llm_experiments train s2ft_r
        python -m llm_experiments train lora --seeds 3 --budget 1.4% --lr 2e-3
        python -m llm_experiments train cla --task chain_sum --model smollm2 --steps 60 --batch 8
        python -m llm_experiments train lora --set r=8 --set lora_alpha=16

    Each run leaves record, adapter (safetensors) and per-item predictions in .cache/llm_experiments/runs/. Seeds can be
    spread over GPUs and machines: llm_experiments/configs/*.yaml say how.
    """
    if seeds < 1:
        message = f"--seeds must be at least 1; got {seeds}"
        raise UserError(message)
    if jobs < 0:
        message = f"--jobs must not be negative; got {jobs}"
        raise UserError(message)
    if checkpoint_every < 1:
        message = f"--checkpoint-every must be at least 1; got {checkpoint_every}"
        raise UserError(message)
    common = {
        "method": method, "task": task, "model": model, "steps": steps, "budget": budget, "head": head,
        "lr": lr if lr is not None else LEARNING_RATES.get(method, LEARNING_RATE),
        "head_lr": head_lr, "batch": batch, "micro_batch": micro_batch, "schedule": schedule, "warmup":
        warmup, "weight_decay": weight_decay, "clip": clip, "precision": precision, "train_size": train_size,
        "max_length": max_length, "eval_every": eval_every, "eval_items": eval_items,
        "final_items": final_items, "device": device, "threads": threads, "options": options(set_ or []),
        "cached_lower": _default_lower(model, device) if cached_lower is None else cached_lower,
    }  # fmt: skip
    own = ranks.rank()
    runs = own.share([Settings(seed=seed + index, **common) for index in range(seeds)])
    if not runs:
        print(f"process {own.number} of {own.world}: no seed is left for it", file=sys.stderr)
        return
    ranks.take_gpu(device, own)
    cores = os.cpu_count() or 1
    together = jobs or (1 if device != "cpu" else max(1, cores // threads))
    parallel = 1 if own.world > 1 else min(together, seeds)
    records = list(execute(runs, parallel, checkpoint_every, row))
    if as_json:
        print(json.dumps(records, indent=1))
    else:
        show(records)


def options(pairs: list[str]) -> dict[str, Any]:
    """`["r=8", "layout=gather"]` -> `{"r": 8, "layout": "gather"}`; values are JSON where they can be."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not name or not separator:
            message = f"--set must have the form NAME=VALUE; got {pair!r}"
            raise UserError(message)
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def _default_lower(model: str, device: str) -> int:
    from llm_experiments.models import MODELS

    return MODELS[model].cpu_lower if device == "cpu" and model in MODELS else 0


def execute(runs: list[Settings], parallel: int, checkpoint_every: int, row: str | None) -> Iterator[Record]:
    """The records of all runs, in order; each is written as soon as it is there."""
    if parallel == 1:
        for settings in runs:
            yield one(settings, checkpoint_every, row, bars=True)
        return
    with ProcessPoolExecutor(parallel, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(one, s, checkpoint_every, row): index for index, s in enumerate(runs)}
        done: dict[int, Record] = {}
        try:
            for future in as_completed(waiting):
                done[waiting[future]] = future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    yield from (done[index] for index in range(len(runs)))


def one(settings: Settings, checkpoint_every: int, row: str | None, bars: bool = False) -> Record:
    """One run, from its checkpoint or its finished record where there is one."""
    import torch

    from llm_experiments import records
    from llm_experiments.methods import MethodError
    from llm_experiments.models import cache_folder
    from llm_experiments.train import Run
    from reports import store

    prefix = f"seed {settings.seed}: "
    with _progress(settings, bars) as (say, advance):
        try:
            folder = cache_folder("runs")
            run = Run(
                settings, folder=folder, checkpoint_every=checkpoint_every, say=lambda t: say(prefix + t)
            )
            path = records.path(run, row)
            if path.is_file():
                say(f"{prefix}finished earlier, record {_shown(path)}")
                return store.read_record(path)
            body = run.train(
                on_step=advance,
                on_evaluation=lambda _, found: say(prefix + _line(found.row(), settings.steps)),
            )
        except MethodError as error:
            raise UserError(str(error)) from error
        except torch.OutOfMemoryError as error:
            message = (
                f"{settings.method} at batch {settings.batch} ran out of memory on {settings.device}; take a "
                "smaller --micro-batch or --max-length, or --precision bf16"
            )
            raise UserError(message) from error
        run.save()
        records.write(run, body, row)
        (run.folder / "checkpoint.pt").unlink(missing_ok=True)  # full tuning leaves gigabytes
        say(f"{prefix}record {_shown(path)}")
        return store.read_record(path)


def _line(row: Record, steps: int) -> str:
    """An evaluation in one line: the measure to look at first, split by split."""
    parts = []
    for name, measures in row["splits"].items():
        main = next(m for m in ("rho", "answer_loss", "accuracy") if measures.get(m) is not None)
        parts.append(f"{name} {measures[main]:.3f}")
    kind = main.replace("_", " ")
    return f"step {row['step']}/{steps}: {kind}: {', '.join(parts)}"


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


@contextmanager
def _progress(settings: Settings, bars: bool) -> Iterator[tuple[Any, Any]]:
    """Two functions: one prints a line on stderr, one moves the bar (only on a terminal)."""
    if not (bars and sys.stderr.isatty()):
        yield (lambda text: print(text, file=sys.stderr, flush=True)), (lambda step: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(f"{settings.method} seed {settings.seed}", total=settings.steps)

        def advance(step: Record) -> None:
            text = f"{settings.method} seed {settings.seed}, loss {step['loss']:.3f}"
            progress.update(bar, completed=step["step"] + 1, description=text)

        def say(text: str) -> None:
            progress.console.print(text, highlight=False, soft_wrap=True, markup=False)

        yield say, advance


def show(found: list[Record]) -> None:
    """Table of the final measures: mean and 95% interval over seeds."""
    from rich.console import Console
    from rich.table import Table

    from llm_experiments import records

    rows = records.summary(found)
    measures = list(dict.fromkeys(name for row in rows for name in row if name not in ("split", "n")))
    first, console = found[0], Console()
    counts = first["method"]["parameters"]
    console.print(
        f"{first['method']['name']} on {first['model']['label']} ({first['model']['tuned_layers']}), task "
        f"{first['data']['task']}: {counts['trainable']:,} parameters, {counts['share_of_blocks']:.2%} of "
        f"the tuned layers; {first['settings']['steps']} steps, {len(found)} seed{'s' if len(found) > 1 else ''}",
        highlight=False,
    )
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("split", "items", *measures):
        table.add_column(column.replace("_", " "), justify="left" if column == "split" else "right")
    for row in rows:
        table.add_row(row["split"], str(row["n"]), *(_cell(row.get(measure)) for measure in measures))
    console.print(table)
    if "note" in counts:
        console.print(f"note: {counts['note']}", highlight=False)
    note = "mean ± half-width of the 95% interval over seeds" if len(found) > 1 else "one seed: no interval"
    console.print(
        f"{note}; loss in nats. Settings, prompt and loss mask are in the records.", highlight=False
    )


def _cell(value: tuple[float, float | None] | None) -> str:
    if value is None:
        return "-"
    mean, half = value
    return f"{mean:.3f}" if half is None else f"{mean:.3f} ± {half:.3f}"

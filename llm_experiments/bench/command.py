"""`bench`: training steps side by side, switching of adapters, and the record."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated, Any

import typer

from llm_experiments.errors import UserError

DEFAULT_ARMS = ("full", "floor", "lora", "dora", "dora_lean", "s2ft", "lora16", "cla_factor", "cla")
BUSY = 0.5  # load average of the minute before, above which the record says that the machine was not free
SWITCH_SIZES = (1024, 2048, 4096, 8192)


def command(
    model: Annotated[
        str, typer.Option(help="anchor, tiny, 1b (random weights), smollm2, a folder, or a GGUF file.")
    ] = "anchor",
    methods: Annotated[
        str, typer.Option(help="Arms, with commas: " + ",".join((*DEFAULT_ARMS, "lora_f32")) + ".")
    ] = ",".join(DEFAULT_ARMS),
    base: Annotated[
        str, typer.Option(help="Base-model code, with commas: plain, lean, compiled, lean+compiled.")
    ] = "plain,lean",
    rounds: Annotated[int, typer.Option(help="Steps that are timed, of every arm.")] = 15,
    seq: Annotated[int, typer.Option(help="Tokens a sequence.")] = 128,
    batch: Annotated[int, typer.Option(help="Sequences a step.")] = 4,
    threads: Annotated[int, typer.Option(help="Processor threads; 0: all cores.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Weights: float32 or bfloat16.")] = "float32",
    resident: Annotated[
        bool, typer.Option(help="Also peak resident memory, each arm in a process of its own.")
    ] = True,
    switching: Annotated[bool, typer.Option(help="Also the cost of fusing an adapter into a weight.")] = True,
    every: Annotated[
        bool, typer.Option("--every", help="Instead: every method of the registry beside LoRA and full.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --every: tiny sizes, four rounds, no record.")
    ] = False,
    record: Annotated[bool, typer.Option(help="Keep the records among the reports, in bench/.")] = True,
    seed: Annotated[int, typer.Option(help="Of tokens, order of the rounds and methods.")] = 0,
) -> None:
    """Time, arithmetic and memory of a training step under each method.

    All arms run in one process, one step of each in every round, in random order; what counts are the ratios
    of neighbours. On a machine that does other work, more rounds help, absolute times do not mean much, and
    processor time with one thread is the steadier clock.

        python -m llm_experiments bench
        python -m llm_experiments bench --methods lora,s2ft --rounds 5 --no-switching --no-resident
        python -m llm_experiments bench --base plain,compiled --threads 1
        python -m llm_experiments bench --every --quick

    The record lies in reports/records/bench/; `python -m reports` makes its page.
    """
    if quick and not every:
        msg = "--quick is for --every; alone, take --model tiny --rounds 2"
        raise UserError(msg)
    arms, bases = _names(methods, "--methods"), _names(base, "--base")
    check(arms, bases, rounds, seq, batch, threads, device, dtype)

    import torch

    torch.set_num_threads(threads or os.cpu_count() or 1)
    begun = time.monotonic()
    if every:
        size, rounds = ("tiny", 4) if quick else ("small", rounds)
        _keep(every_method(size, rounds, seed), record and not quick, begun)
        return
    body = training_steps(
        model,
        arms,
        bases,
        rounds=rounds,
        length=seq,
        batch=batch,
        device=device,
        dtype=dtype,
        seed=seed,
        resident=resident,
    )
    _keep(body, record, begun)
    if switching:
        begun = time.monotonic()
        _keep(adapter_switching(SWITCH_SIZES, rounds=rounds, device=device, dtype=dtype), record, begun)


def _names(text: str, option: str) -> list[str]:
    names = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not names:
        msg = f"{option} must name at least one; got {text!r}"
        raise UserError(msg)
    return names


def check(
    arms: list[str],
    bases: list[str],
    rounds: int,
    length: int,
    batch: int,
    threads: int,
    device: str,
    dtype: str,
) -> None:
    """Refuses bad input before anything is built.

    Raises:
        UserError: one line that names the option, its condition and the value.
    """
    from llm_experiments.bench.arms import ARMS
    from llm_experiments.bench.step import BASES
    from llm_experiments.models import DTYPES

    for option, given, known in (
        ("--methods", arms, ARMS),
        ("--base", bases, BASES),
        ("--dtype", [dtype], DTYPES),
    ):
        for name in given:
            if name not in known:
                msg = f"{option} must be among {', '.join(known)}; got {name!r}"
                raise UserError(msg)
    for option, value, least in (
        ("--rounds", rounds, 1),
        ("--seq", length, 2),
        ("--batch", batch, 1),
        ("--threads", threads, 0),
    ):
        if value < least:
            msg = f"{option} must be at least {least}; got {value}"
            raise UserError(msg)
    check_device(device)


def check_device(device: str) -> None:
    """Refuses a device that is not there.

    Raises:
        UserError: one line with the remedy.
    """
    import torch

    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        msg = f"--device must be cpu, cuda or cuda:N; got {device!r}"
        raise UserError(msg)
    if kind == "cuda" and not torch.cuda.is_available():
        msg = f"device {device} is not there; use --device cpu or a machine with a CUDA GPU"
        raise UserError(msg)


def training_steps(
    model: str,
    arms: list[str],
    bases: list[str],
    *,
    rounds: int,
    length: int,
    batch: int,
    device: str = "cpu",
    dtype: str = "float32",
    seed: int = 0,
    resident: bool = False,
    until: float = float("inf"),
) -> dict[str, Any]:
    """Measures one comparison; returns the record's content.

    Args:
        model: see `shapes.source`.
        arms: keys of `ARMS`.
        bases: keys of `BASES`.
        rounds: steps that are timed.
        length: tokens a sequence.
        batch: sequences a step.
        device: `cpu`, `cuda` or `cuda:N`.
        dtype: of the weights.
        resident: measure peak resident memory too (processor and float32 only).
        seed: of tokens, order of the rounds and methods.
        until: value of `time.monotonic()` after which no further round starts.
    """
    import torch

    from llm_experiments.bench import report
    from llm_experiments.bench.rounds import measure
    from llm_experiments.bench.shapes import source
    from llm_experiments.models import DTYPES
    from llm_experiments.records import environment

    load = os.getloadavg()[0]
    origin = source(model, DTYPES[dtype], seed)
    found = measure(
        origin,
        arms,
        bases,
        batch=batch,
        length=length,
        rounds=rounds,
        device=device,
        seed=seed,
        until=until,
        say=say,
    )
    machine = environment(device, torch.get_num_threads()) | {"load_before": round(load, 1)}
    settings = {
        "model": origin.label, "batch": batch, "seq": length, "rounds": rounds, "dtype": dtype, "device": device,
        "threads": torch.get_num_threads(), "seed": seed,
    }  # fmt: skip
    hardware = machine.get("gpu") or machine["processor"]
    busy = device == "cpu" and load > BUSY
    where = f"{origin.label}, {batch} x {length} tokens, {dtype}, {hardware}{' (busy)' if busy else ''}"
    identity = f"training_step/{origin.name}-batch{batch}-seq{length}-{dtype}-{device.partition(':')[0]}"
    body = report.body(found, identity, settings, origin.provenance, machine, where)
    if busy:
        body["notes"].insert(0, _busy(load))
    if resident:
        body["tables"]["Peak resident memory, a process for each arm"] = _resident(
            found, model, batch, length, torch.get_num_threads(), device, dtype
        )
    return body


def every_method(size: str, rounds: int, seed: int = 0) -> dict[str, Any]:
    """Measures a step of every method on the processor; returns the record's content."""
    import torch

    from llm_experiments import methods
    from llm_experiments.bench import every
    from llm_experiments.records import environment

    load = os.getloadavg()[0]
    found = every.measure(methods.names(), every.SIZES[size], rounds=rounds, seed=seed, say=say)
    machine = environment("cpu", torch.get_num_threads()) | {"load_before": round(load, 1)}
    settings = {
        "sizes": every.SIZES[size], "rounds": rounds, "threads": torch.get_num_threads(), "seed": seed,
    }  # fmt: skip
    where = f"a random {size} Llama, float32, {machine['processor']}{' (busy)' if load > BUSY else ''}"
    body = every.body(found, size, settings, machine, where)
    if load > BUSY:
        body["notes"].insert(0, _busy(load))
    return body


def _resident(
    found: list[Any], model: str, batch: int, length: int, threads: int, device: str, dtype: str
) -> list[dict[str, Any]]:
    from llm_experiments.bench import resident
    from llm_experiments.bench.report import MIB

    if device != "cpu" or dtype != "float32" or not resident.available():
        return [
            {"arm": "not run", "why": "resident memory is measured on Linux, on the processor, in float32"}
        ]
    rows = []
    for m in found:
        if "compiled" in m.base or m.failed:
            continue
        say(f"resident memory of {m.arm} ({m.base})")
        bytes_ = resident.over_model(m.arm, model, m.base, batch, length, threads)
        rows.append(
            {
                "base": m.base,
                "arm": m.arm,
                "built MiB": round(bytes_["built"] / MIB, 1),
                "peak over built MiB": round(bytes_["over"] / MIB, 1),
            }
        )
    return rows


def adapter_switching(
    sizes: tuple[int, ...],
    *,
    rounds: int,
    device: str = "cpu",
    dtype: str = "float32",
) -> dict[str, Any]:
    """Measures what fusing an adapter costs; returns the record's content."""
    import torch

    from llm_experiments.bench.switching import CHANNELS, FORMS, RANK, measure_switching
    from llm_experiments.models import DTYPES
    from llm_experiments.records import environment

    load = os.getloadavg()[0]
    say("switching adapters")
    table = measure_switching(sizes, rounds=rounds, device=device, dtype=DTYPES[dtype])
    machine = environment(device, torch.get_num_threads()) | {"load_before": round(load, 1)}
    hardware, busy = machine.get("gpu") or machine["processor"], device == "cpu" and load > BUSY
    last = table[-1]
    identity = f"switching/{dtype}-{device.partition(':')[0]}"
    body = {
        "id": identity,
        "headline": (
            f"Fusing an adapter into a {last['d']} x {last['d']} weight: S2FT's slice is {last['gain_best']:.0f} "
            f"times faster than LoRA's in-place product, {last['gain_as_published']:.0f} times in the published "
            f"form of both ({hardware}{', busy' if busy else ''})."
        ),
        "question": "What does switching an adapter cost: LoRA's d x d product, or S2FT's slice?",
        "settings": {
            "rank": RANK, "channels": CHANNELS, "rounds": rounds, "dtype": dtype, "device": device,
            "threads": torch.get_num_threads(),
        },
        "machine": machine,
        "tables": {"Microseconds of one fuse, median": table},
        "figures": [
            {
                "name": "fuse",
                "kind": "line",
                "title": "One fuse of an adapter into a d x d weight",
                "caption": "LoRA's product grows with d squared, S2FT's slice with d.",
                "x": {"label": "d", "scale": "log"},
                "y": {"label": "microseconds, median", "scale": "log"},
                "series": [
                    {"label": form, "x": [row["d"] for row in table], "y": [row[form] for row in table]}
                    for form in FORMS
                ],
            }
        ],
        "notes": [
            "lora_matmul_add computes B A and adds it; lora_addmm does both in one call in place. s2ft_index_add "
            "adds s rows at random places, s2ft_slice_add s neighbouring rows. r = 16 and s = 32: equal bytes.",
            "Forms alternate in random order; gains are medians of ratios within a round.",
            *([_busy(load)] if busy else []),
        ],
        "claims": ["s2ft/switch_exactness"],
    }  # fmt: skip
    return body


def _busy(load: float) -> str:
    return (
        f"The machine did other work (load {load:.1f} before the start): absolute times are inflated and quartiles "
        "wide; repeat on a free machine for times."
    )


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def show(body: dict[str, Any]) -> None:
    """The record's tables on the terminal."""
    from rich.console import Console
    from rich.table import Table

    # Wide tables are cut by a narrow terminal; a file or a pipe gets them whole.
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(body["headline"], highlight=False)
    for title, rows in body["tables"].items():
        table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
        columns = list(dict.fromkeys(column for row in rows for column in row))
        for column in columns:
            table.add_column(
                column,
                justify="right" if column not in ("base", "arm", "ratio", "method", "on", "note") else "left",
            )
        for row in rows:
            table.add_row(*(str(row.get(column, "-")) for column in columns))
        console.print(table)


def _keep(body: dict[str, Any], record: bool, begun: float) -> None:
    """Prints the tables and, with `record`, writes the record and its sidecar."""
    from reports import store

    show(body)
    if record:
        path = store.record_path("bench", body["id"])
        store.write_record(path, body)
        store.write_run(path, seconds=time.monotonic() - begun)
        say(f"record bench/{body['id']}.json; `python -m reports` makes its page")

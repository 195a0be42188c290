"""`gpu`: everything that wants a GPU, in parts of minutes."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from llm_experiments.bench.command import check_device, say
from llm_experiments.errors import UserError


def command(
    part: Annotated[
        int, typer.Option(help="Only this part, counted from 1; 0: all that are unfinished.")
    ] = 0,
    all_: Annotated[bool, typer.Option("--all", help="All parts, finished ones too.")] = False,
    model: Annotated[
        str, typer.Option(help="Decoder: smollm2, a transformers folder of the Llama family, or a GGUF file.")
    ] = "smollm2",
    device: Annotated[str, typer.Option(help="cuda, cuda:N; cpu only with --tiny.")] = "cuda",
    minutes: Annotated[
        float, typer.Option(help="After so many minutes a part stops, to be continued.")
    ] = 8.0,
    tiny: Annotated[
        bool, typer.Option(help="Rehearse the road at tiny sizes; records go to the cache.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the parts and what is finished; run nothing.")
    ] = False,
    status: Annotated[
        bool, typer.Option(help="Write the overview of what was run and what was not; run nothing.")
    ] = False,
) -> None:
    """Bench, training and simulators on a GPU, the most telling first.

    Each part takes eight minutes at most and leaves records in reports/records/bench/gpu/; what is finished on this
    hardware is not repeated, what was cut off is continued. Needs torch, transformers, peft and a CUDA GPU, no
    network. The decoder is a folder or a GGUF file that you bring, or SmolLM2-135M once
    `python -m llm_experiments prepare --only smollm2` has made it.

        python -m llm_experiments gpu --dry-run
        python -m llm_experiments gpu --part 1 --model SmolLM2-135M.Q4_1.gguf
        python -m llm_experiments gpu --tiny --device cpu
    """
    from llm_experiments.gpu.units import PARTS, REHEARSAL

    parts = REHEARSAL if tiny else PARTS
    if not 0 <= part <= len(parts):
        msg = f"--part must satisfy 0 <= part <= {len(parts)}; got {part}"
        raise UserError(msg)
    if minutes <= 0:
        msg = f"--minutes must be positive; got {minutes}"
        raise UserError(msg)
    if part and all_:
        msg = "--part and --all exclude each other; leave one out"
        raise UserError(msg)
    if tiny:
        from llm_experiments.models import cache_folder
        from reports.store import REPORTS_VARIABLE

        os.environ[REPORTS_VARIABLE] = str(cache_folder("gpu_rehearsal"))
    chosen = {part} if part else set(range(1, len(parts) + 1))
    if dry_run or status:
        _list(chosen, tiny, model, device, minutes, write=status)
        return
    if device.partition(":")[0] == "cpu" and not tiny:
        msg = "device cpu is for rehearsal; add --tiny, or use `python -m llm_experiments bench`"
        raise UserError(msg)
    check_device(device)
    if not tiny:
        _check_model(model)

    from llm_experiments.gpu import work

    place = work.Place(device, model, _hardware(device))
    left = []
    for number, one in enumerate(parts, 1):
        if number not in chosen:
            continue
        say(f"part {number} of {len(parts)}: {one.title}")
        done = work.run(one, place, time.monotonic() + 60 * minutes, again=all_)
        _write_overview(parts, place)
        if not done:
            left.append(number)
    if left:
        say(f"unfinished: part {', '.join(map(str, left))}; the same command goes on from there")
    else:
        say("all finished; `python -m reports` makes the pages")


def _list(chosen: set[int], tiny: bool, model: str, device: str, minutes: float, write: bool) -> None:
    from llm_experiments.gpu import work
    from llm_experiments.gpu.units import PARTS, REHEARSAL

    parts = REHEARSAL if tiny else PARTS
    place = work.Place(device, model, "")
    body = work.overview(parts, place)
    for number, one in enumerate(parts, 1):
        if number in chosen:
            print(f"part {number} of {len(parts)}, at most {minutes:g} minutes: {one.title}")
            for row in body["tables"]["Units"]:
                if row["part"] == number:
                    print(f"  {row['what']}: {row['state']}")
    if write:
        _write_overview(parts, place)


def _write_overview(parts: tuple, place: object) -> None:
    from llm_experiments.gpu import work
    from reports import store

    store.write_record(store.record_path("bench", "gpu/overview"), work.overview(parts, place))


def _check_model(model: str) -> None:
    """Refuses a decoder that is not there, before any minutes are spent.

    Raises:
        UserError: one line that says what to bring.
    """
    from pathlib import Path

    from llm_experiments.models import MODELS

    if model in MODELS:
        command = MODELS[model].missing()
        if command and not Path(model).exists():
            msg = (
                f"model {model} is not prepared; run: {command}, or give --model FOLDER or --model FILE.gguf"
            )
            raise UserError(msg)
    elif not Path(model).expanduser().exists():
        msg = f"--model must be {', '.join(MODELS)}, a transformers folder or a GGUF file; {model!r} is not there"
        raise UserError(msg)


def _hardware(device: str) -> str:
    from reports.store import machine

    described = machine()
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return str(described["processor"])

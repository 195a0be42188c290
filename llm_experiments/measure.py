"""`measure`: what fine-tuning did to a checkpoint, matrix by matrix, as a page with figures and as JSON."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_experiments.errors import UserError

Row = dict[str, Any]

RANKS = (1, 2, 4, 8, 16, 32, 64)
EPS = (0.4, 0.8)  # the two thresholds of the paper's tables
RECORD, PAGE, PARTIAL = "measure.json", "measure.md", "measure.partial.jsonl"


def command(
    base: Annotated[str, typer.Argument(help="Folder of the pretrained model (config.json, *.safetensors).")],
    tuned: Annotated[str, typer.Argument(help="Folder of the tuned model, or of a peft adapter for BASE.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Your text, one a line, or .jsonl with a field text: adds what it sees."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for page, figures and JSON.")] = Path("measured"),
    rank: Annotated[
        list[int] | None,
        typer.Option(help="LoRA rank to compare at; may be repeated. Default: 1, 2, 4 ... 64."),
    ] = None,
    eps: Annotated[
        list[float] | None, typer.Option(help="Threshold of intruders; may be repeated. Default: 0.4, 0.8.")
    ] = None,
    layers: Annotated[str, typer.Option(help="Regular expression: only matrices whose names hold it.")] = "",
    exact: Annotated[
        bool, typer.Option("--exact", help="Full decompositions of large matrices too (minutes each).")
    ] = False,
    max_tokens: Annotated[int, typer.Option(help="Tokens of --data that are used.")] = 1024,
    threads: Annotated[int, typer.Option(help="Processor threads; 0: as torch chooses.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record too.")] = False,
) -> None:
    """Compare a tuned model with the model it came from; no GPU, no network, one matrix in memory at a time.

    For every matrix of the blocks: spectrum and effective rank of the change, the rank that holds 90% and 99%
    of it, how near LoRA, S2FT, cLA and others of equal size could have come, intruder dimensions, and the error
    of merging in 16 bits. With --data: the same as your text sees it, and how much of it was forgotten (this loads
    the models whole). Matrices whose smaller side exceeds 1024 are sketched unless --exact is given; the page
    says what that leaves open. Interrupted, the same command goes on where it stopped.

        python -m llm_experiments measure BASE TUNED --out measured
        python -m llm_experiments measure BASE ADAPTER --data my_text.txt
    """
    import torch

    from llm_experiments.probes.on_text import read_texts
    from llm_experiments.probes.pair import open_pair

    ranks = sorted(set(rank or RANKS))
    thresholds = sorted(set(eps or EPS))
    _check(ranks, thresholds, max_tokens, threads)
    if threads:
        torch.set_num_threads(threads)
    texts = read_texts(data) if data else None
    pair = open_pair(base, tuned)
    pair.names = _chosen(pair.names, layers)
    _refuse_early(pair, out, bool(data))
    started = time.monotonic()
    settings = {"ranks": ranks, "eps": thresholds, "exact": exact, "layers": layers, "max_tokens": max_tokens}
    record = measured(pair, settings, texts, out)
    from llm_experiments.probes.page import write
    from reports import store

    store.write_record(out / RECORD, record)
    store.write_run(out / RECORD, time.monotonic() - started)
    write(record, out, PAGE)
    (out / PARTIAL).unlink(missing_ok=True)
    if as_json:
        print(json.dumps(record, indent=1))
    else:
        print("\n".join(record["summary"]))
    print(f"page {out / PAGE}, record {out / RECORD}", file=sys.stderr)


def _check(ranks: list[int], thresholds: list[float], max_tokens: int, threads: int) -> None:
    wrong = None
    if ranks[0] < 1:
        wrong = f"--rank must be at least 1; got {ranks[0]}"
    elif not (0 < thresholds[0] and thresholds[-1] <= 1):
        wrong = (
            f"--eps must satisfy 0 < eps <= 1; got {thresholds[0] if thresholds[0] <= 0 else thresholds[-1]}"
        )
    elif max_tokens < 2:
        wrong = f"--max-tokens must be at least 2; got {max_tokens}"
    elif threads < 0:
        wrong = f"--threads must not be negative; got {threads}"
    if wrong:
        raise UserError(wrong)


def _refuse_early(pair: Any, out: Path, with_text: bool) -> None:
    """What would only fail at the end: a foreign file in the way, no tokenizer for the text."""
    from reports import store

    if (out / RECORD).exists():
        store.read_record(out / RECORD)
    if with_text and not (pair.base / "tokenizer.json").is_file():
        message = (
            f"{pair.base.name} must hold tokenizer.json for --data; save the fast tokenizer with the model"
        )
        raise UserError(message)


def _chosen(names: list[str], pattern: str) -> list[str]:
    try:
        found = [name for name in names if re.search(pattern, name)]
    except re.error as error:
        message = f"--layers must be a regular expression; got {pattern!r} ({error})"
        raise UserError(message) from None
    if not found:
        message = f"--layers must match a matrix of a block such as {names[0]}; {pattern!r} matches none"
        raise UserError(message)
    return found


def measured(pair: Any, settings: Row, texts: list[str] | None, out: Path) -> Row:
    """The record of a comparison; rows of matrices are kept in `out` as they come, for a run that is cut off."""
    from llm_experiments.models import weights_digest
    from llm_experiments.probes.capacity import capacity
    from llm_experiments.probes.page import summary

    about = pair.about()
    about["base_sha256"] = weights_digest(pair.base)
    about["tuned_sha256"] = weights_digest(pair.tuned_folder)
    rows = list(_rows(pair, settings, about, out))
    outside = []
    for name in pair.elsewhere:
        moved = pair.moved(name)
        if moved:
            outside.append({"name": name, "moved": moved})
    bound = capacity([(row["norm_W0"], row["norm"]) for row in rows if row["norm_W0"] > 0])
    record = {
        "id": f"measure/{about['tuned']}",
        "kind": "measure",
        "models": about,
        "settings": settings,
        "layers": rows,
        "elsewhere": {"compared": len(pair.elsewhere), "changed": outside, "on_one_side": pair.alone},
        "capacity": asdict(bound),
        "text": _on_text(pair, settings, texts) if texts else None,
    }
    record["summary"] = summary(record)
    return record


def _rows(pair: Any, settings: Row, about: Row, out: Path) -> Iterator[Row]:
    """One row a matrix; those of an earlier run with the same models and settings are read, not measured."""
    head = json.dumps({"models": about, "settings": settings}, sort_keys=True)
    partial = out / PARTIAL
    done: dict[str, Row] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        if partial.is_file():
            first, *lines = partial.read_text("utf-8").split("\n")
            if first == head:
                # Only lines that end were written whole; the last piece is a line that was cut off, or empty.
                done = {row["name"]: row for row in map(json.loads, lines[:-1])}
        text = "".join(f"{line}\n" for line in (head, *map(json.dumps, done.values())))
        partial.write_text(text, "utf-8")
        with partial.open("a", encoding="utf-8") as stream:
            for number, name in enumerate(pair.names, 1):
                if name not in done:
                    done[name] = row_of(pair.matrix(name), settings)
                    stream.write(json.dumps(done[name]) + "\n")
                    stream.flush()
                _say(f"{number}/{len(pair.names)} {name}")
                yield done[name]
    except OSError as error:
        message = f"--out {out} must be a folder that can be written ({error.strerror})"
        raise UserError(message) from None
    if sys.stderr.isatty():
        print(file=sys.stderr)


def _say(text: str) -> None:
    """Progress on one line of a terminal; nothing in a log."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def row_of(matrix: Any, settings: Row) -> Row:
    """All that is measured of one matrix, from its weights alone."""
    from llm_experiments.probes import distance, spectra
    from llm_experiments.probes.intruders import intruders
    from llm_experiments.probes.merge_error import merge_errors

    delta_W, tuned = matrix.delta_W, matrix.tuned
    side = min(delta_W.shape) if settings["exact"] else spectra.EXACT_SIDE
    found = spectra.spectrum(delta_W, exact_side=side)
    energies = distance.energies(delta_W)
    noise = distance.rounding(tuned, matrix.stored)
    row = {
        "name": matrix.name,
        "shape": list(delta_W.shape),
        "moved": spectra.norm(delta_W) / (spectra.norm(matrix.W0) or 1.0),
        "norm_W0": spectra.spectral_norm(matrix.W0.to(delta_W.dtype), side),
        "norm": float(found.values[0]),
        "exact": found.exact,
        "missed": found.missed / found.energy if found.energy else 0.0,
        "spectrum": found.values[: spectra.SKETCH].tolist(),
        "stable_rank": found.stable_rank,
        "effective_rank": found.effective_rank,
        "rank_90": found.rank_for(0.9),
        "rank_99": found.rank_for(0.99),
        "rounding": min(1.0, noise / found.energy**0.5) if found.energy else 0.0,
        "needed": distance.needed(found, energies, noise),
        "distances": distance.distances(delta_W, found, energies, settings["ranks"]),
        "merge": [asdict(error) for error in merge_errors(matrix.W0, delta_W)],
        "intruders": None,
    }
    if min(delta_W.shape) <= side:
        row["intruders"] = [asdict(count) for count in intruders(matrix.W0, tuned, settings["eps"])]
    return row


def _on_text(pair: Any, settings: Row, texts: list[str]) -> Row:
    from llm_experiments.probes import on_text

    base = on_text.load_base(pair)
    ids = on_text.sequences(base, texts, _longest(pair.config), settings["max_tokens"])
    before = on_text.run(base, ids)
    rows = on_text.whitened(pair, base, ids, settings["ranks"])
    kind = base.kind
    if pair.kind == "folder":
        base = None  # frees its memory before the tuned model is loaded
    tuned = on_text.load_tuned(pair, base)
    if tuned.kind != kind:
        message = f"both models must be of one kind to be compared on text; got {kind} and {tuned.kind}"
        raise UserError(message)
    return {
        "kind": kind,
        "forgetting": on_text.forgetting(before, on_text.run(tuned, ids), ids, kind),
        "layers": rows,
    }


def _longest(config: Row) -> int:
    """Longest text in tokens: 512, or what the model's positions allow."""
    return min(512, config.get("max_position_embeddings") or 512)

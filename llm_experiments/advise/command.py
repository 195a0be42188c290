"""`advise`: which method for this model, this task and this memory, with the evidence for every line."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_experiments.errors import UserError

Row = dict[str, Any]

METHODS = ("full", "lora", "dora", "asym_lora", "s2ft_r", "cla", "bitfit", "ia3")
PREFERENCES = ("reach", "memory", "time")
UNITS = {"": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
UNKNOWN = (
    "Accuracy after training: nothing here predicts it. The reach is that of a quadratic model of each layer alone.",
    "Learning rates: each method needs its own; compare methods only after a sweep of each.",
    "Steps until the reach is attained, and how much is forgotten on other text.",
    "Time and memory on a GPU, where kernels and allocator differ.",
)


def command(
    model: Annotated[str, typer.Option(help="Transformers folder, GGUF file, or a model of `list`.")],
    task_sample: Annotated[
        Path,
        typer.Option(help="Your task: one text a line, or .jsonl with text and perhaps answer or label."),
    ],
    memory: Annotated[str, typer.Option(help="Memory for training, such as 8GiB.")] = "8GiB",
    batch: Annotated[int, typer.Option(help="Examples a step for which memory is counted.")] = 8,
    length: Annotated[int, typer.Option(help="Longest example in tokens.")] = 128,
    budget: Annotated[
        str, typer.Option(help="Trainable parameters: share of the blocks (1.4%) or count (147000).")
    ] = "1.4%",
    method: Annotated[
        list[str] | None,
        typer.Option(help=f"Method to consider; may be repeated. Default: {', '.join(METHODS)}."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="The result must be a plain model, with no cost when it runs.")
    ] = False,
    switch: Annotated[
        bool, typer.Option("--switch", help="Several tasks must share one base, each with a small adapter.")
    ] = False,
    prefer: Annotated[str, typer.Option(help=f"Rank by {', '.join(PREFERENCES)}.")] = "reach",
    max_tokens: Annotated[int, typer.Option(help="Tokens of the sample that are used.")] = 2048,
    steps: Annotated[int, typer.Option(help="Steps that are timed for each method; 0: none.")] = 3,
    threads: Annotated[int, typer.Option(help="Processor threads; 0: as torch chooses.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Write the advice as Markdown to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Rank methods for your model, your task and your memory; each line names its evidence.

    Three things are computed here, on your model and your text. Memory: what a training step keeps, counted. Time: a
    few steps on this machine. Reach: how much of the gain of tuning all weights a method can have, from
    whitened gradients of a few batches, found on one half of the sample and measured on the other; this also gives
    the critical rank. Everything else is a recorded verdict or benchmark. What nobody knows is listed as unknown.

        python -m llm_experiments advise --model minilm --task-sample reviews.jsonl --memory 2GiB
        python -m llm_experiments advise --model ./my-llama --task-sample notes.txt --memory 8GiB --merge

    An encoder needs labels (`.jsonl` with text and label). A decoder learns the answers where the sample has them, else
    every next token.
    """
    _check(
        batch=(batch, 1),
        length=(length, 4),
        max_tokens=(max_tokens, 16),
        steps=(steps, 0),
        threads=(threads, 0),
    )
    if prefer not in PREFERENCES:
        message = f"--prefer must be one of {', '.join(PREFERENCES)}; got {prefer!r}"
        raise UserError(message)
    allowed = size(memory)
    from llm_experiments.advise import images, sample
    from llm_experiments.train import parse_budget

    parsed = parse_budget(budget)
    chosen = [images.known(name) for name in dict.fromkeys(method or METHODS)]
    examples = sample.read(task_sample)
    import torch

    if threads:
        torch.set_num_threads(threads)
    from llm_experiments import models
    from llm_experiments.advise import page

    loaded = models.load(model)
    longest = getattr(loaded.model.config, "max_position_embeddings", None) or length
    encoded = sample.encode(loaded, examples, min(length, longest), max_tokens)
    advice = _advice(loaded, encoded, chosen, parsed, allowed, batch, steps)
    needs = {"merge": merge, "switch": switch}
    advice |= {"memory": allowed, "batch": batch, "budget": budget, "needs": needs, "prefer": prefer}
    advice["methods"] = ranked(advice["methods"], needs, prefer)
    advice["unknown"] = list(UNKNOWN)
    if out is not None:
        try:
            out.write_text(page.markdown(advice), encoding="utf-8")
        except OSError as error:
            message = f"--out {out} cannot be written ({error.strerror})"
            raise UserError(message) from None
    print(json.dumps(advice, indent=1) if as_json else page.text(advice))


def _check(**values: tuple[int, int]) -> None:
    for name, (value, least) in values.items():
        if value < least:
            message = f"--{name.replace('_', '-')} must be at least {least}; got {value}"
            raise UserError(message)


def size(text: str) -> int:
    """`8GiB`, `500MB` or a number as bytes.

    Raises:
        UserError: it is none of these, or not positive.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = UNITS.get(found[2].upper()) if found else None
    if not found or unit is None or float(found[1]) * unit < 1:
        message = f"--memory must be a size such as 8GiB or 500MB; got {text!r}"
        raise UserError(message)
    return int(float(found[1]) * unit)


def _advice(
    loaded: Any, encoded: Any, chosen: list[Any], budget: Any, allowed: int, batch: int, steps: int
) -> Row:
    """Everything that is measured, method by method."""
    from llm_experiments.advise import cost, reach

    say = _say if sys.stderr.isatty() else lambda line: None
    say(f"whitened gradients of {len(encoded.ids)} examples")
    layers = reach.measured(loaded.model, encoded)
    loaded.model.zero_grad(set_to_none=True)
    loaded.model.requires_grad_(True)
    weights = cost.held(loaded.model)
    rows = []
    for method in chosen:
        say(f"a few steps of {method.name}")
        rows.append(_row(method, loaded.model, encoded, budget, layers, weights, allowed, batch, steps))
    critical = reach.critical_rank(layers)
    return {
        "model": loaded.label,
        "loss": encoded.loss_on,
        "examples": len(encoded.ids),
        "tokens": sum(map(len, encoded.ids)),
        "length": encoded.longest,
        "critical_rank": None if critical is None else {"rank": critical.rank, "share": critical.share},
        "methods": rows,
    }


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _row(
    method: Any,
    model: Any,
    encoded: Any,
    budget: Any,
    layers: Any,
    weights: int,
    allowed: int,
    batch: int,
    steps: int,
) -> Row:
    from llm_experiments.advise import cost, evidence, images
    from llm_experiments.methods import MethodError

    row: Row = {
        "method": method.name,
        "trains": method.trains,
        "mergeable": method.mergeable,
        "switchable": method.name not in ("full", "galore", "lisa"),
    }
    try:
        found = images.reach(method, model, budget, layers)
        if method.name == "full" and 4 * weights > allowed:
            # weights, gradients and two moments: no activation is needed to know that this does not fit
            used = cost.Cost(
                sum(p.numel() for p in model.parameters()),
                weights,
                0,
                weights,
                2 * weights,
                0,
                0,
                encoded.longest,
                None,
            )
        else:
            tuned = images.put_on(method, model, budget)
            used = cost.measured(tuned, encoded, weights, encoded.longest, steps)
    except MethodError as error:
        return row | {"refused": str(error)}
    bench = evidence.benchmark(method.name)
    behind = [name for kind in found.kinds for name in images.BEHIND[kind]]
    return row | {
        "reach": found.share,
        "reach_note": found.note,
        "trainable": used.trains,
        "bytes": used.total(batch),
        "activations_counted": used.per_example > 0,
        "largest_batch": used.largest_batch(allowed) if used.per_example else 0,
        "fits": used.total(batch) <= allowed,
        "seconds": used.seconds,
        "benchmark": None if bench is None else {"record": bench[0], "time_over_full": bench[1]},
        "reach_rests_on": [evidence.claim(name) for name in behind],
        "claims": [evidence.claim(name) for name in method.claims if name not in behind],
    }


def ranked(rows: list[Row], needs: dict[str, bool], prefer: str) -> list[Row]:
    """The rows, best first: those that fit memory and needs, by the preference; the others with the reason."""
    for row in rows:
        row["obstacles"] = obstacles(row, needs)
    unknown = float("inf")

    def order(row: Row) -> tuple[Any, ...]:
        reach = row.get("reach")
        of = {
            "reach": unknown if reach is None else -round(reach, 2),
            "memory": row.get("bytes", unknown),
            "time": row.get("seconds") or unknown,
        }
        rest = [of[name] for name in PREFERENCES if name != prefer]
        return (bool(row["obstacles"]), of[prefer], *rest, row["method"])

    return sorted(rows, key=order)


def obstacles(row: Row, needs: dict[str, bool]) -> list[str]:
    """Why a method cannot be used here; empty if it can."""
    if "refused" in row:
        return [row["refused"]]
    found = []
    if not row["fits"]:
        found.append(
            f"fits with batch {row['largest_batch']} at most"
            if row["largest_batch"]
            else "does not fit the memory"
        )
    if needs["merge"] and row["mergeable"] is not True:
        found.append(f"cannot be merged: {row['mergeable']}")
    if needs["switch"] and not row["switchable"]:
        found.append("leaves a whole model for every task")
    return found

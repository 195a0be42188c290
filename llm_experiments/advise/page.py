"""The advice as a person reads it: a table on the terminal, or Markdown."""

from __future__ import annotations

from typing import Any

from llm_experiments.advise import evidence

Row = dict[str, Any]

MEMORY = (
    "memory: storages of one training step (weights, gradients, moments, activations), counted on this model"
)
TIME = "time: a step with one example on this machine, median; beside it what the benchmark's record has"
REACH = (
    "reach: gain of the method over the gain of all weights, in the quadratic model of each layer; found on one half "
    "of the sample, measured on the other"
)


def size(count: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def _cells(row: Row) -> list[str]:
    if "refused" in row:
        return [row["method"], "-", "-", "-", "-", "-"]
    reach = row["reach"]
    known = f"{reach:.0%}" + (" *" if row["reach_note"] else "") if reach is not None else "unknown"
    seconds = "-" if row["seconds"] is None else f"{1000 * row['seconds']:.0f} ms"
    if row["benchmark"]:
        seconds += f" ({row['benchmark']['time_over_full']:.2f} of full)"
    memory = size(row["bytes"]) if row["activations_counted"] else f"over {size(row['bytes'])}"
    merge = "yes" if row["mergeable"] is True else "no"
    return [row["method"], known, memory, f"{row['trainable']:,}", seconds, merge]


HEAD = ["method", "reach", "memory", "trains", "time", "merges"]


def opening(advice: Row) -> list[str]:
    """What was looked at, and the critical rank."""
    lines = [
        f"{advice['model']}: {advice['examples']} examples, {advice['tokens']} tokens, {advice['loss']}; "
        f"budget {advice['budget']}, batch {advice['batch']} x {advice['length']} tokens, "
        f"memory {size(advice['memory'])}."
    ]
    critical = advice["critical_rank"]
    if critical is None:
        lines.append(
            "Critical rank: unknown; the halves of the sample share no direction, so give more examples."
        )
    else:
        lines.append(
            f"Critical rank: {critical['rank']} in every layer holds {critical['share']:.0%} of what any rank gains on the "
            f"other half of the sample ({evidence.claim('peft_vs_fft/thm_3_critical_rank')})."
        )
    return lines


def _reasons(row: Row) -> list[str]:
    """What stands behind one line of the table, and what is not known."""
    lines = []
    if row["obstacles"]:
        lines.append("not here: " + "; ".join(row["obstacles"]))
    if "refused" in row:
        return lines
    if row["reach_note"]:
        lines.append(f"reach: {row['reach_note']}")
    if row["mergeable"] is not True:
        lines.append(f"merging: {row['mergeable']}")
    if row["fits"]:
        lines.append(f"largest batch that fits: {row['largest_batch']}")
    for title, names in (("reach rests on", row["reach_rests_on"]), ("claims about it", row["claims"])):
        if names:
            lines.append(f"{title}: " + "; ".join(names))
    if row["benchmark"]:
        lines.append(f"benchmark: {row['benchmark']['record']}")
    return lines


def _serving(advice: Row) -> list[str]:
    if not advice["needs"]["switch"]:
        return []
    measured = evidence.switching()
    return [
        f"switching: {evidence.claim(evidence.SWITCHING)}",
        *([f"switching: {measured}"] if measured else []),
    ]


def text(advice: Row) -> str:
    """The table with its evidence, for a terminal."""
    rows = [HEAD, *map(_cells, advice["methods"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    lines = [*opening(advice), ""]
    for number, row in enumerate(rows):
        rank = "  " if number == 0 or advice["methods"][number - 1]["obstacles"] else f"{number:>2}"
        lines.append(
            f"{rank}  "
            + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
        if number:
            lines += [f"      {reason}" for reason in _reasons(advice["methods"][number - 1])]
    lines += ["", REACH, MEMORY, TIME, *_serving(advice), "", "Unknown:"]
    return "\n".join([*lines, *(f"  - {line}" for line in advice["unknown"])])


def markdown(advice: Row) -> str:
    """The same as a page."""
    lines = ["# Which method?", "", *(f"{line}\n" for line in opening(advice))]
    lines += ["| " + " | ".join(["rank", *HEAD, "evidence"]) + " |", "|" + "---|" * (len(HEAD) + 2)]
    for number, row in enumerate(advice["methods"], 1):
        rank = "-" if row["obstacles"] else str(number)
        cells = [rank, *_cells(row), "<br>".join(_reasons(row))]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", *(f"- {line}" for line in (REACH, MEMORY, TIME, *_serving(advice))), "", "## Unknown", ""]
    return "\n".join([*lines, *(f"- {line}" for line in advice["unknown"])]) + "\n"

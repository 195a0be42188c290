"""The page of `measure`: a few sentences, figures, and one table of matrices, all from its record."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

METHODS = {
    "lora": "LoRA",
    "asym_lora": "asymmetric LoRA (mean over its random A)",
    "s2ft_columns": "S2FT, best columns",
    "s2ft_rows": "S2FT, best rows",
    "cla": "cLA, first columns",
    "random_cla": "random-cLA, best block",
    "spft": "SpFT, best entries",
}


def median(values: Iterable[float | None]) -> float | None:
    """Median of what is known; None if nothing is."""
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def median_rank(ranks: Iterable[int | None]) -> float | None:
    """Median of ranks, those beyond a sketch counting as large; None if the median is one of them."""
    found = statistics.median(float("inf") if rank is None else rank for rank in ranks)
    return None if found == float("inf") else found


def number(value: float | None, digits: int = 3) -> str:
    """A number for reading; a dash where none is known."""
    return "-" if value is None else f"{value:.{digits}g}"


def _kind(name: str) -> str:
    """The layer's name inside its block."""
    parts = name.removesuffix(".weight").split(".")
    last = max(i for i, part in enumerate(parts) if part.isdigit())
    return ".".join(parts[last + 1 :])


def summary(record: Row) -> list[str]:
    """The sentences that stand on top of the page and on the terminal."""
    rows, models = record["layers"], record["models"]
    changed = [row for row in rows if row["norm"] > 0]
    lines = [
        f"{models['tuned']} against {models['base']}: {len(changed)} of {len(rows)} matrices in blocks changed."
    ]
    moved = record["elsewhere"]["changed"]
    if moved:
        lines.append(f"Outside of these, {len(moved)} tensors changed, first {moved[0]['name']}.")
    if not changed:
        return [*lines, "Nothing to measure: the two sides hold the same matrices."]
    ranks = [row["needed"]["lora"] for row in changed]
    if None in ranks:
        lines.append("LoRA: some changes exceed the ranks that a sketch shows; --exact would tell the rank.")
    else:
        lines.append(f"LoRA could have made every change from rank {max(ranks)} on (rounding allowed for).")
    columns, widths = (
        [f(row) for row in changed] for f in (lambda r: r["needed"]["columns"], lambda r: r["shape"][1])
    )
    lines.append(
        f"S2FT on columns: {max(columns)} a matrix hold every change exactly"
        + (" (all of them: no column was spared)." if columns == widths else ".")
    )
    lines.append(
        f"Medians over the changed matrices: moved by {median(r['moved'] for r in changed):.2%} of its norm; rank "
        f"{_known(median_rank(r['rank_90'] for r in changed))} holds 90% of the change, "
        f"{_known(median_rank(r['rank_99'] for r in changed))} holds 99%."
    )
    merge = {m["dtype"]: m for m in _worst_merge(changed)}
    half = merge["bfloat16"]
    lines.append(
        f"Merging in bfloat16 is off by at most {number(half['error'])} of the change and loses up to "
        f"{half['lost']:.1%} of its entries."
    )
    bound = record["capacity"]
    if bound["sharp"] is not None:
        verdict = "vacuous" if bound["vacuous"] else "not vacuous"
        lines.append(f"The norm bound over the chain of matrices is 10^{bound['sharp']:.1f}: {verdict}.")
    if record["text"]:
        lines.append(_text_line(record["text"]))
    return lines


def _known(rank: float | None) -> str:
    return "beyond the sketch" if rank is None else f"{rank:g}"


def _worst_merge(rows: list[Row]) -> list[Row]:
    """For each dtype the largest error and shares over all matrices; error None if one merge overflows."""
    found = []
    for i, first in enumerate(rows[0]["merge"]):
        every = [row["merge"][i] for row in rows]
        errors = [m["error"] for m in every]
        found.append(
            {
                "dtype": first["dtype"],
                "error": None if None in errors else max(errors),
                "lost": max(m["lost"] for m in every),
                "not_restored": max(m["not_restored"] for m in every),
            }
        )
    return found


def _text_line(text: Row) -> str:
    seen = text["forgetting"]
    if text["kind"] == "encoder":
        return (
            f"On your text ({seen['texts']} texts): mean-pooled states keep a cosine of {seen['cosine']:.4f}; token "
            f"states move by {seen['movement']:.2%}."
        )
    return (
        f"On your text ({seen['tokens']} predicted tokens): loss {seen['loss_base']:.3f} -> {seen['loss_tuned']:.3f} "
        f"nats a token, forgetting {seen['forgetting']:+.3f}; first choices agree on {seen['agreement']:.1%}."
    )


def figures(record: Row) -> list[Row]:
    """The figures of the page; their data are the record's."""
    rows = [row for row in record["layers"] if row["norm"] > 0]
    if not rows:
        return []
    found = [_spectra(rows)]
    shared = [
        d["rank"]
        for d in rows[0]["distances"]
        if all(any(e["rank"] == d["rank"] for e in r["distances"]) for r in rows)
    ]
    if shared:
        found.append(_distances(rows, shared))
    found.append(_moved(record["layers"]))
    if record["text"]:
        found.append(_seen(rows, record["text"]))
    return found


def _spectra(rows: list[Row]) -> Row:
    curves = []
    for kind in list(dict.fromkeys(_kind(row["name"]) for row in rows))[:8]:
        values = [row["spectrum"] for row in rows if _kind(row["name"]) == kind]
        length = min(map(len, values))
        curve = [statistics.median(v[i] / v[0] for v in values) for i in range(length)]
        # Below the float64 noise of the decomposition there is nothing to see on a logarithmic axis.
        kept = next((i for i, v in enumerate(curve) if v < 1e-9), length)
        curves.append({"label": kind, "x": list(range(1, kept + 1)), "y": curve[:kept]})
    return {
        "name": "spectra",
        "title": "How fast the singular values of the change fall",
        "kind": "line",
        "x": {"label": "number of the singular value", "scale": "log"},
        "y": {"label": "singular value / largest (median over layers)", "scale": "log"},
        "series": curves,
    }


def _distances(rows: list[Row], ranks: list[int]) -> Row:
    curves = []
    for method, label in METHODS.items():
        y = [median(d[method] for row in rows for d in row["distances"] if d["rank"] == r) for r in ranks]
        curves.append({"label": label, "x": ranks, "y": y})
    return {
        "name": "distances",
        "title": "What each method would leave over, at one number of parameters",
        "kind": "line",
        "x": {"label": "LoRA rank with the same number of parameters", "scale": "log"},
        "y": {"label": "relative distance (median over matrices)", "limits": [-0.02, 1.02]},
        "series": curves,
    }


def _moved(rows: list[Row]) -> Row:
    kinds = list(dict.fromkeys(_kind(row["name"]) for row in rows))[:8]
    curves = []
    for kind in kinds:
        y = [row["moved"] for row in rows if _kind(row["name"]) == kind]
        curves.append({"label": kind, "x": list(range(1, len(y) + 1)), "y": y})
    return {
        "name": "moved",
        "title": "Where the weights moved",
        "kind": "scatter",
        "x": {"label": "block (in order)"},
        "y": {"label": "norm of the change / norm of the weight"},
        "series": curves,
    }


def _seen(rows: list[Row], text: Row) -> Row:
    plain = [row["rank_90"] for row in rows]
    seen = [text["layers"][row["name"]]["rank_90"] for row in rows]
    x = list(range(1, len(rows) + 1))
    return {
        "name": "rank_on_text",
        "title": "Rank that holds 90% of the change: of the weights, and as your text sees it",
        "kind": "scatter",
        "x": {"label": "matrix (in order)"},
        "y": {"label": "rank"},
        "series": [{"label": "weights", "x": x, "y": plain}, {"label": "on your text", "x": x, "y": seen}],
    }


def write(record: Row, out: Path, name: str) -> None:
    """Writes the page and its figures into the folder."""
    from reports import figures as drawing
    from reports.store import write_text

    drawn = figures(record)
    for figure in drawn:
        drawing.draw(figure, out / "figures" / f"{figure['name']}.png")
    write_text(out / name, "\n".join(page(record, drawn)) + "\n")


def table(columns: list[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    """A Markdown table."""
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows]


def page(record: Row, drawn: list[Row]) -> list[str]:
    """The lines of the page."""
    rows = [row for row in record["layers"] if row["norm"] > 0]
    lines = [f"# {record['models']['tuned']} against {record['models']['base']}", ""]
    lines += [f"- {sentence}" for sentence in record["summary"]] + [""]
    for figure in drawn:
        lines += [f"![{figure['title']}](figures/{figure['name']}.png)", ""]
    if rows:
        lines += _sizes(rows) + _reach(rows) + _intruders(rows) + _merge(rows)
        lines += _bound(record)
        if record["text"]:
            lines += _text(rows, record["text"])
    return lines + _notes(record)


def _sizes(rows: list[Row]) -> list[str]:
    cells = (
        [
            f"`{row['name'].removesuffix('.weight')}`",
            " x ".join(map(str, row["shape"])),
            f"{row['moved']:.3%}",
            number(row["norm"]),
            number(row["stable_rank"]),
            number(row["effective_rank"]),
            _rank(row["rank_90"], row),
            _rank(row["rank_99"], row),
        ]
        for row in rows
    )
    head = ["matrix", "shape", "moved", "spectral norm", "stable rank", "effective rank", "90%", "99%"]
    return ["## The change", "", *table(head, cells), ""]


def _rank(rank: int | None, row: Row) -> str:
    if rank is None:
        return f"beyond {len(row['spectrum'])}"
    return str(rank) if row["exact"] else f"<= {rank}"


def _reach(rows: list[Row]) -> list[str]:
    cells = []
    for row in rows:
        need = row["needed"]
        low = [d for d in row["distances"] if d["rank"] == 8] or row["distances"][:1]
        cells.append(
            [
                f"`{row['name'].removesuffix('.weight')}`",
                number(need["lora"], 6),
                f"{need['columns']} / {row['shape'][1]}",
                f"{need['rows']} / {row['shape'][0]}",
                need["cla"],
                f"{need['entries'] / (row['shape'][0] * row['shape'][1]):.1%}",
                *([number(low[0][m], 2) for m in METHODS] if low else ["-"] * len(METHODS)),
            ]
        )
    rank = next((d["rank"] for row in rows for d in row["distances"] if d["rank"] == 8), None)
    rank = rank or next((d["rank"] for row in rows for d in row["distances"]), "-")
    head = ["matrix", "LoRA rank", "columns", "rows", "cLA columns", "entries", *METHODS]
    return [
        "## Which method could have made it",
        "",
        "The smallest size that holds the change (left), and what each method leaves over with the parameters of LoRA "
        f"rank {rank} (right: 0 reaches it, 1 reaches nothing of it).",
        "",
        *table(head, cells),
        "",
    ]


def _intruders(rows: list[Row]) -> list[str]:
    counted = [row for row in rows if row["intruders"]]
    lines = ["## Intruder dimensions", ""]
    if not counted:
        return [*lines, "Not counted: every matrix is larger than what is decomposed without `--exact`.", ""]
    cells = []
    for i, first in enumerate(counted[0]["intruders"]):
        every = [row["intruders"][i] for row in counted]
        cells.append(
            [
                first["eps"],
                *(
                    f"{statistics.mean(e[key] for e in every):.2f}"
                    for key in ("printed", "top", "spaces", "undecided")
                ),
                sum(not e["possible"] for e in every),
            ]
        )
    head = [
        "eps",
        "as printed",
        "among the top 10",
        "by spaces",
        "undecided",
        "matrices where none is possible",
    ]
    return [*lines, f"Mean over {len(counted)} matrices.", "", *table(head, cells), ""]


def _merge(rows: list[Row]) -> list[str]:
    cells = [
        [
            m["dtype"],
            "overflow" if m["error"] is None else number(m["error"]),
            f"{m['lost']:.2%}",
            f"{m['not_restored']:.2%}",
        ]
        for m in _worst_merge(rows)
    ]
    head = ["dtype", "error / change", "entries lost", "entries not restored by unmerging"]
    return ["## Merging", "", "The worst matrix in each column.", "", *table(head, cells), ""]


def _bound(record: Row) -> list[str]:
    bound = record["capacity"]
    return [
        "## The norm bound",
        "",
        f"Over the chain of {bound['layers']} matrices, relative to the largest output that their norms allow, as "
        f"powers of ten: sharp form {number(bound['sharp'])}, printed form {number(bound['printed'])} (the printed one is "
        "false for more than one layer). At 0 or above the bound allows a change as large as the largest output: "
        + ("it is vacuous here." if bound["vacuous"] else "it is not vacuous here."),
        "",
    ]


def _text(rows: list[Row], text: Row) -> list[str]:
    seen = text["forgetting"]
    lines = [
        "## On your text",
        "",
        *table(["measure", "value"], [[k.replace("_", " "), number(v, 5)] for k, v in seen.items()]),
    ]
    cells = []
    for row in rows:
        own = text["layers"][row["name"]]
        ranks = list(own["lora"])
        at = "8" if "8" in own["lora"] else (ranks[0] if ranks else None)
        cells.append(
            [
                f"`{row['name'].removesuffix('.weight')}`",
                number(own["stable_rank"]),
                own["rank_90"] if own["rank_90"] is not None else "-",
                own["rank_99"] if own["rank_99"] is not None else "-",
                number(own["lora"].get(at)),
                number(own["s2ft_rows"].get(at)),
                f"{own['bound_used']:.1%}",
            ]
        )
    head = ["matrix", "stable rank", "90%", "99%", "LoRA leaves", "best rows leave", "norm bound used"]
    return [*lines, "", "Whitened by the second moment of the layer's inputs:", "", *table(head, cells), ""]


def _notes(record: Row) -> list[str]:
    lines = ["## How to read this", ""]
    sketched = [row for row in record["layers"] if not row["exact"]]
    if sketched:
        lines.append(
            f"- {len(sketched)} matrices were sketched: their singular values are lower bounds; ranks for 90% and 99% "
            "and the distance to LoRA are upper bounds; effective rank and intruders were left out. "
            "`--exact` computes them."
        )
    lines += [
        "- Distances are to the nearest element of a method's image, whatever training would find; S2FT on an output "
        "projection selects whole heads, which can only be farther.",
        "- A LoRA rank counts as enough when the rest is no more than one rounding of the tuned weights to their stored "
        "dtype can explain. Columns, rows and entries are counted exactly.",
        "- `s2ft_rows` is the delta of S2FT's Assumption F.4 for the change itself, with identity covariance (weights) or "
        "the covariance of your text (whitened).",
        "- Intruders by spaces do not depend on which decomposition was computed; the count as printed may.",
        "- A transformer is no plain chain of matrices: the norm bound shows what such bounds say about these weights.",
    ]
    alone = record["elsewhere"]["on_one_side"]
    if alone:
        lines.append(f"- On one side only, not compared: {len(alone)} tensors, first `{alone[0]}`.")
    if record["models"]["kind"] == "adapter":
        lines.append("- The change is the adapter's in float32, before any merge.")
    return lines

r"""Draw the figures of a record; the figure's data stand in the record itself, never in a script.

A figure is an object in the list `figures` of a record:

    name      file name without ending, letters, digits, "_" and "-"; unique within the record
    title     one line, says what is seen ("S2FT wins above the crossover"), not what is plotted
    kind      "line", "scatter" or "heatmap"
    caption   optional sentence below the figure
    x, y      axes: {label, scale?, limits?, values?}
                scale    "linear" (default) or "log"
                limits   [low, high], optional
                values   heatmap only: the grid's coordinates, ascending
    series    list of curves (may be empty for a heatmap, over which they are drawn):
                {label, x, y, stderr?, role?}
                x, y     lists of equal length; null in y leaves a gap; keep each below about 400 points
                stderr   list of standard errors of y, drawn as +- 2 standard errors
                role     "simulated" (default): broad line for kind "line", points for "scatter" and "heatmap"
                         "predicted": thin dashed line whatever the kind; a prediction and its simulation that
                         share a label share a colour
                         "bound": dotted line
    z         heatmap only: {label, values, scale?}
                values   rows along y, columns along x; null leaves a hole
                scale    "linear" (default), "log", or "diverging" (white at zero, symmetric limits)
    lines     optional straight marks: [{x: number, label} or {y: number, label}]

Numbers are finite floats or integers. Drawn again from the same data, a figure has the same data hash (kept
in a file beside the picture); the bytes of the picture may differ between matplotlib versions.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from textwrap import fill
from typing import Any

from reports.layout import check_figure
from reports.store import canonical, write_bytes, write_text

Figure = dict[str, Any]

# Raised when the drawing itself changes, so that pictures are drawn again although their data stand.
DRAWING = 2

# The palette of Okabe and Ito, told apart by colour-blind readers too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_STYLE: Any = {
    "figure.figsize": (6.4, 4.0),
    "figure.dpi": 150,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "path.simplify": False,
}


def data_hash(figure: Figure) -> str:
    """Return the sha256 of what a figure plots, to six significant digits: more than an eye can see."""
    seen = canonical({"drawing": DRAWING, "figure": _rounded(figure)})
    return hashlib.sha256(seen.encode("ascii")).hexdigest()


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value


def is_drawn(figure: Figure, path: Path) -> bool:
    """Return whether the picture at `path` shows this figure's data (by the hash kept beside it)."""
    beside = path.with_suffix(".sha256")
    return (
        path.exists() and beside.exists() and beside.read_text(encoding="ascii").strip() == data_hash(figure)
    )


def draw(figure: Figure, path: Path) -> bool:
    """Draw a figure into a PNG file, its data hash beside it; return False when it already stood there."""
    check_figure(figure)
    if is_drawn(figure, path):
        return False
    write_bytes(path, _picture(figure))
    # The hash comes last: a picture whose hash is missing or old is simply drawn again.
    write_text(path.with_suffix(".sha256"), data_hash(figure) + "\n")
    return True


def _picture(figure: Figure) -> bytes:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context({**mpl.rcParamsDefault, **_STYLE, "backend": "agg"}):
        canvas = Canvas(layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot()
        if figure["kind"] == "heatmap":
            _draw_grid(canvas, axes, figure)
        _draw_curves(axes, figure)
        _draw_lines(axes, figure)
        axes.set_title(fill(figure["title"], 70))
        for axis in ("x", "y"):
            getattr(axes, f"set_{axis}label")(figure[axis]["label"])
            getattr(axes, f"set_{axis}scale")(figure[axis].get("scale", "linear"))
            if "limits" in figure[axis]:
                getattr(axes, f"set_{axis}lim")(*figure[axis]["limits"])
        if axes.get_legend_handles_labels()[0]:
            entries = axes.get_legend_handles_labels()[0]
            beside = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}  # many curves: leave them in sight
            axes.legend(**(beside if len(entries) > 6 else {}))
        target = io.BytesIO()
        canvas.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def _draw_grid(canvas: Any, axes: Any, figure: Figure) -> None:
    from matplotlib.colors import LogNorm, Normalize

    z = figure["z"]
    values = [[float("nan") if v is None else float(v) for v in row] for row in z["values"]]
    finite = [v for row in values for v in row if v == v] or [0.0]
    scale = z.get("scale", "linear")
    norm: Normalize
    if scale == "diverging":
        reach = max(abs(v) for v in finite) or 1.0
        norm, colours = Normalize(-reach, reach), "RdBu_r"
    else:
        kind = LogNorm if scale == "log" else Normalize
        norm, colours = kind(min(finite), max(finite)), "viridis"
    axes.grid(False)
    mesh = axes.pcolormesh(figure["x"]["values"], figure["y"]["values"], values, norm=norm, cmap=colours)
    canvas.colorbar(mesh, ax=axes, label=fill(z["label"], 42))


def _draw_curves(axes: Any, figure: Figure) -> None:
    curves = figure.get("series", [])
    labels = [curve["label"] for curve in curves]
    colours = {label: _COLOURS[i % len(_COLOURS)] for i, label in enumerate(dict.fromkeys(labels))}
    for curve in curves:
        role, label = curve.get("role", "simulated"), curve["label"]
        look: dict[str, Any] = {"color": "black" if figure["kind"] == "heatmap" else colours[label]}
        look["label"] = f"{label} ({role})" if role != "simulated" and labels.count(label) > 1 else label
        y = [float("nan") if v is None else float(v) for v in curve["y"]]
        spread = [2 * float(e or 0) for e in curve.get("stderr", [])]
        if role != "simulated":
            # Thin and on top: a prediction that is met stays visible on the broad line below it.
            axes.plot(curve["x"], y, linestyle="--" if role == "predicted" else ":", lw=1.4, zorder=3, **look)
        elif figure["kind"] == "line":
            axes.plot(curve["x"], y, lw=3, alpha=0.45, **look)
        else:
            axes.errorbar(curve["x"], y, yerr=spread or None, fmt="o", ms=4, capsize=2, **look)
        if spread and (role != "simulated" or figure["kind"] == "line"):
            low = [v - e for v, e in zip(y, spread, strict=True)]
            high = [v + e for v, e in zip(y, spread, strict=True)]
            axes.fill_between(curve["x"], low, high, color=look["color"], alpha=0.15, linewidth=0)


def _draw_lines(axes: Any, figure: Figure) -> None:
    for mark in figure.get("lines", []):
        along = axes.axvline if "x" in mark else axes.axhline
        along(mark.get("x", mark.get("y")), color="#444444", lw=1, ls="-.", label=mark.get("label"))

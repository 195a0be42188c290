"""What the web site adds to the pages: formulas, drawings, the table of verdicts, the phase law in JavaScript."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest

from reports import graph
from reports.website import drawing, formulas, phase, table
from theory.kits.floats import Floats
from theory.protocol import Instance
from theory.s2ft import risks


def test_every_formula_of_every_page_becomes_mathml():
    pytest.importorskip("latex2mathml", reason="the extra `site` is not installed")
    from reports.store import reports_root

    for path in sorted(reports_root().rglob("*.md")):
        text = path.read_text("utf-8")
        assert "```math" not in formulas.shown(text), path.name


def test_a_formula_that_cannot_be_shown_is_an_error():
    pytest.importorskip("latex2mathml", reason="the extra `site` is not installed")
    with pytest.raises(formulas.FormulaError, match="nosuchcommand"):
        formulas.mathml(r"a + \nosuchcommand{b}")


# --- graphs --------------------------------------------------------------------------------------


def _claim(status: str, uses: list[str]) -> dict:
    return {"verdicts": [{"reading": "as printed", "status": status}], "uses": uses, "defect": None}


CLAIMS = {
    "p/base": _claim("refuted", []),
    "p/middle": _claim("proved", ["p/base"]),
    "p/top": _claim("proved", ["p/middle", "q/other"]),
    "q/other": _claim("proved", []),
}


def test_a_graph_becomes_a_drawing_with_links():
    text = f"before\n\n```mermaid\n{graph.mermaid(CLAIMS, 'p')}\n```\n\nafter"
    shown = drawing.drawn(text)
    assert "```" not in shown and shown.startswith("before") and shown.endswith("after")
    tree = ElementTree.fromstring(re.search(r"<div.*</div>", shown)[0])
    links = {a.get("href"): "".join(a.itertext()) for a in tree.iter("a")}
    assert links == {"#base": "base", "#middle": "middle", "#top": "top", "q.html#other": "q/other"}
    assert len(list(tree.iter("rect"))) == 4
    assert sum("stroke" in p.attrib for p in tree.iter("path")) == 3  # one for each arrow


def test_arrows_go_to_the_right_and_circles_end():
    read = drawing.read(graph.mermaid(CLAIMS, "p"))
    column = {name: i for i, layer in enumerate(drawing.columns(read)) for name in layer}
    assert all(column[tail] < column[head] for tail, head in read.arrows)
    circle = drawing.Graph({"a": ("a", ""), "b": ("b", "")}, [("a", "b"), ("b", "a")])
    assert sorted(name for layer in drawing.columns(circle) for name in layer) == ["a", "b"]


def test_a_line_that_is_no_graph_is_named():
    with pytest.raises(ValueError, match="a === b"):
        drawing.read("graph LR\n  a === b")


# --- verdicts ------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_reading_with_what_is_filtered():
    claims = {
        "s2ft/one": {
            "verdicts": [
                {"reading": "as <printed>", "status": "refuted"},
                {"reading": "b", "status": "proved"},
            ],
            "defect": "misprint",
            "headline": "a & b",
        }
    }
    page = table.page(claims)
    assert page.count("<tr data-paper=") == 2
    assert 'data-paper="s2ft" data-status="refuted" data-defect="misprint"' in page
    assert "as &lt;printed&gt;" in page and "a &amp; b" in page
    assert 'href="s2ft.html#one"' in page and "2 of 2 readings" in page


# --- the phase law -------------------------------------------------------------------------------

GRID = [
    (t / 4, a / 3, b / 3, s) for t in range(-2, 7) for a in range(4) for b in range(4) for s in (0.0, 1.25)
]


def test_the_page_computes_what_theory_computes():
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here; the journey in a browser compares the same numbers")
    program = (
        f"{phase.functions()} const grid = {json.dumps(GRID)};"
        "console.log(JSON.stringify(grid.map(([t, a, b, s]) => [meanGap(t, a, b), meanRiskOut(t, a, s)])));"
    )
    answer = subprocess.run([node, "-e", program], capture_output=True, text=True, check=True)
    for (t, a, b, s), (gap, risk) in zip(GRID, json.loads(answer.stdout), strict=True):
        assert gap == pytest.approx(risks.mean_gap(t, a, b), abs=1e-14)
        assert risk == pytest.approx(phase.mean_risk_out(t, a, s), abs=1e-14)


def test_the_mean_risk_is_that_of_networks():
    """A population fit of one layer with identity around it; Z and -Z equally likely make the mean exact."""
    rng, k = np.random.default_rng(0), Floats()
    D, Z, W = (rng.standard_normal((1, 4, 5)) for _ in range(3))
    U, s, Vh = np.linalg.svd(D)
    F = (U[..., :2] * s[..., None, :2]) @ Vh[..., :2, :]  # LoRA of rank 2
    before = (D**2).sum()
    gain, shift, t = (F**2).sum() / before, (Z**2).sum() / before, 0.3

    def risk(sign: float) -> float:
        x = Instance(W=k.mat(W), Bo=k.mat(W + t * D + sign * Z), So=k.mat(np.eye(5)[None]))
        return float(np.squeeze(risks.risk_out(k, x, k.mat(F))))

    assert (risk(1) + risk(-1)) / 2 / before == pytest.approx(phase.mean_risk_out(t, gain, shift), rel=1e-12)


def test_only_plain_arithmetic_goes_into_a_page():
    def power(t):
        return t**2

    with pytest.raises(ValueError, match="must be made of numbers"):
        phase.javascript(power, "power")

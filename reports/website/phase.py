"""The phase diagram with sliders: which of two fits is better on a shifted task, by the exact formula.

The formula of the gap is `theory.s2ft.risks.mean_gap`, read from its source and handed to the page word for word, so
the page cannot drift away from what is proved (claim s2ft/phase_law).
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Template

from theory.s2ft import risks

_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div)


def mean_risk_out(t: Any, gain: Any, shift: Any) -> Any:
    """E[E_o(F)] of a population fit, relative to the pretrained risk in distribution.

    Source: ours; the terms of theory.s2ft.risks.crossover_alignment, whose last one has mean zero.

    Args:
        t: alignment of the shift: Bo = W + t D + Z with E Z = 0, So = Si.
        gain: E_i(pre) - E_i(F), in units of E_i(pre).
        shift: E |Z Si|_F^2 in the same units.
    """
    return t * t + shift + (1 - 2 * t) * gain


def javascript(function: Callable[..., Any], name: str) -> str:
    """A function that returns one arithmetic expression of its arguments, as JavaScript.

    Raises:
        ValueError: the body is more than numbers, names, + - * / and a docstring.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]
    if len(body) != 1 or not isinstance(body[0], ast.Return) or body[0].value is None:
        msg = f"{function.__name__} must return one expression to be shown in a page"
        raise ValueError(msg)
    for node in ast.walk(body[0].value):
        allowed = (ast.BinOp, ast.Name, ast.Load, *_OPERATORS)
        number = isinstance(node, ast.Constant) and isinstance(node.value, int | float)
        if not isinstance(node, allowed) and not number:
            msg = f"{function.__name__} must be made of numbers, names and + - * /; got {type(node).__name__}"
            raise ValueError(msg)
    arguments = ", ".join(argument.arg for argument in tree.args.args)
    return f"function {name}({arguments}) {{ return {ast.unparse(body[0].value)}; }}"


def functions() -> str:
    """Both formulas as JavaScript."""
    return javascript(risks.mean_gap, "meanGap") + " " + javascript(mean_risk_out, "meanRiskOut")


# name: title, lowest, highest, start
SLIDERS = {
    "t": ("alignment t of the shift", -0.5, 1.5, 0.25),
    "s2ft": ("gain of S2FT", 0.0, 1.0, 0.5),
    "lora": ("gain of LoRA", 0.0, 1.0, 0.8),
    "shift": ("size of the unrelated shift", 0.0, 2.0, 0.5),
}


def page() -> str:
    """The page, with its sliders, and the formulas in a script of its own."""
    template = Template((Path(__file__).parents[1] / "templates" / "phase.md.j2").read_text(encoding="utf-8"))
    script = f"window.phaseLaw = (function () {{ {functions()} return {{meanGap, meanRiskOut}}; }})();"
    return str(template.render(sliders=SLIDERS, script=script)) + "\n"

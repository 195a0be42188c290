"""Formulas of the pages as MathML, which browsers show without any script."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"^```math\n(.*?)\n```$", re.MULTILINE | re.DOTALL)


class FormulaError(ValueError):
    """A formula that cannot be shown; names it."""


def shown(markdown: str) -> str:
    """Replace each fenced block `math` by its MathML."""
    return _BLOCK.sub(lambda found: f'<div class="formula">{mathml(found[1])}</div>', markdown)


def mathml(latex: str) -> str:
    """One displayed formula.

    Raises:
        FormulaError: a command is not known; half a formula must not be shown.
    """
    from latex2mathml.converter import convert

    try:
        text = convert(latex, display="block")
    except Exception as error:  # the converter has no common class of errors
        msg = f"formula cannot be shown ({error}): {latex[:80]}"
        raise FormulaError(msg) from error
    if "\\" in text:
        msg = f"formula holds a command that has no MathML: {latex[:80]}"
        raise FormulaError(msg)
    return str(text)

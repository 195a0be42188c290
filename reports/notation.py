"""Turn the values of records into Markdown and LaTeX: numbers, matrices, cells, links."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

# A matrix larger than this is named by its shape; the record itself stays one click away.
LARGEST_MATRIX = 144
COLUMNS_TO_A_LINE = 8

_GREEK = {"Sig": r"\Sigma", "Sigma": r"\Sigma", "lam": r"\lambda", "kap": r"\kappa", "eps": r"\varepsilon"}
_GREEK |= {
    name: rf"\{name}" for name in "alpha beta gamma delta eta theta mu rho sigma tau phi omega".split()
}
_GREEK |= {name: rf"\{name}" for name in "Gamma Delta Theta Lambda Phi Omega".split()}


def exact(value: Any) -> Fraction | None:
    """Return the number that an exact text "p/q" (or an integer) stands for, else None."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    try:
        return Fraction(value)
    except (ValueError, ZeroDivisionError):
        return None


def number(value: Any) -> str:
    """Return a number for a table: exact ones with their decimal value, floats with four digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    middle = enclosure(value)
    if middle is not None:
        return f"≈ {float(middle):.9g}"
    fraction = exact(value)
    if fraction is None or fraction.denominator == 1:
        return _shorten(str(value))
    return f"{_shorten(str(fraction))} ≈ {decimal(fraction)}"


def enclosure(value: Any) -> Fraction | None:
    """Return the middle of an enclosure "[low, high]", the text of an irrational number, else None."""
    match = re.fullmatch(r"\[(\S+), (\S+)\]", value) if isinstance(value, str) else None
    low, high = (exact(match[1]), exact(match[2])) if match else (None, None)
    return None if low is None or high is None else (low + high) / 2


def decimal(fraction: Fraction) -> str:
    """Return four significant digits of an exact number, whatever its size."""
    try:
        return f"{float(fraction):.4g}"
    except OverflowError:
        sign, size = ("-" if fraction < 0 else ""), abs(fraction.numerator) // fraction.denominator
        return f"{sign}10^{len(str(size)) - 1}"


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:18]}…{text[-10:]} ({len(text)} characters)"


def ratio(left: Any, right: Any) -> str:
    """Return left / right in decimals, or nothing when one of them is no number."""
    a = exact(left) if enclosure(left) is None else enclosure(left)
    b = exact(right) if enclosure(right) is None else enclosure(right)
    if a is None or b is None or a == b == 0:
        return ""
    return decimal(a / b) if b else "∞"


def words(value: Any) -> str:
    """Return any small value in words: numbers short, lists joined, objects as name: value."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {words(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return ", ".join(words(entry) for entry in value)
    return value if isinstance(value, str) and exact(value) is None else number(value)


def tex_number(value: Any) -> str:
    """Return an exact number as LaTeX."""
    fraction = exact(value)
    if fraction is None:
        return rf"\text{{{plain_tex(str(value))}}}"
    if fraction.denominator == 1:
        return str(fraction)
    sign = "-" if fraction < 0 else ""
    return rf"{sign}\tfrac{{{abs(fraction.numerator)}}}{{{fraction.denominator}}}"


def plain_tex(text: str) -> str:
    r"""Return text that stands safely inside `\text{}`."""
    return re.sub(r"([{}_#$%&])", r"\\\1", text.replace("\\", "").replace("^", ""))


def tex_name(name: str) -> str:
    """Return a variable's name as LaTeX: `Sig_i` becomes a Sigma with index i."""
    head, _, below = name.partition("_")
    match = re.fullmatch(r"([A-Za-z]+)(\d*)", head)
    if not match:
        return rf"\mathrm{{{plain_tex(name)}}}"
    word, digits = match.groups()
    letter = _GREEK.get(word) or (word if len(word) == 1 else rf"\mathrm{{{word}}}")
    index = ",".join(part for part in (digits, *below.split("_")) if part)
    if not index:
        return letter
    upright = plain_tex(index)
    return f"{letter}_{{{upright}}}" if len(index) == 1 else rf"{letter}_{{\mathrm{{{upright}}}}}"


def is_matrix(value: Any) -> bool:
    """Return whether a value of an instance is a matrix: a list of rows of equal length."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, list) and row for row in value)
        and len({len(row) for row in value}) == 1
    )


def tex_value(value: Any) -> str:
    """Return a value of an instance as LaTeX: a matrix, an empty matrix, an index list or a number."""
    if isinstance(value, dict) and set(value) == {"shape"}:
        return rf"(\text{{empty, }} {value['shape'][0]} \times {value['shape'][1]})"
    if is_matrix(value):
        rows, columns = len(value), len(value[0])
        if rows * columns > LARGEST_MATRIX:
            return rf"(\text{{a }} {rows} \times {columns} \text{{ matrix, in the record}})"
        body = r" \\ ".join(" & ".join(tex_number(entry) for entry in row) for row in value)
        return rf"\begin{{bmatrix}} {body} \end{{bmatrix}}"
    if isinstance(value, bool) or value is None:
        return rf"\text{{{str(value).lower()}}}"
    if isinstance(value, list):
        if len(value) > LARGEST_MATRIX:
            return rf"(\text{{a list of }} {len(value)} \text{{ entries, in the record}})"
        return r"(" + ", ".join(tex_value(entry) for entry in value) + ")"
    if isinstance(value, dict):
        return rf"\text{{{plain_tex(', '.join(value))}}}"
    return tex_number(value)


def equations(instance: dict[str, Any]) -> list[str]:
    """Return LaTeX lines that show an instance: its matrices, as many to a line as fit, then the rest together."""
    lines: list[list[str]] = [[]]
    rest, width = [], 0
    for name, value in instance.items():
        equation = f"{tex_name(name)} = {tex_value(value)}"
        if not is_matrix(value):
            rest.append(equation)
            continue
        columns = len(value[0])
        if lines[-1] and width + columns > COLUMNS_TO_A_LINE:
            lines.append([])
            width = 0
        lines[-1].append(equation)
        width += columns
    return [r",\quad ".join(line) for line in [*lines, rest] if line]


def cell(text: Any) -> str:
    """Return text for one cell of a Markdown table."""
    return markdown(str(text)).replace("|", "\\|").replace("\n", " ")


def markdown(text: Any) -> str:
    """Return plain text that Markdown shows as it is; code between backticks stays code."""
    pieces = re.split(r"(`[^`]*`)", str(text))
    return "".join(
        piece
        if piece.startswith("`")
        else re.sub(r"([*\[\]]|<(?=[A-Za-z/!?])|(?<!\w)_|_(?!\w))", _escaped, piece)
        for piece in pieces
    )


def _escaped(match: re.Match[str]) -> str:
    return "&lt;" if match[0] == "<" else "\\" + match[0]


def slug(text: str) -> str:
    """Return text as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-")

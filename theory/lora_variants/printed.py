"""The paper's tables, as far as the converted text can be read: one file a table in `tables/`.

Source: LoRA past, present, future, Tables 2-4 and 12-15. Numbers are kept as they are printed, as text; null marks a
cell that the conversion lost or merged with others, which no sentence is held against.
"""

from __future__ import annotations

import json
from fractions import Fraction
from functools import cache
from pathlib import Path

from theory.claim import Json

FOLDER = Path(__file__).resolve().parent / "tables"


@cache
def table(name: str) -> Json:
    """The table of that file name, with its place."""
    read: Json = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return read


def value(text: str) -> Fraction:
    """A printed number."""
    return Fraction(text)


def half_unit(text: str) -> Fraction:
    """Half a unit of the last printed digit: what rounding may have taken or added."""
    mantissa, _, exponent = text.partition("e")
    digits = len(mantissa.partition(".")[2])
    return Fraction(10) ** (int(exponent or 0) - digits) / 2


def between(text: str) -> tuple[Fraction, Fraction]:
    """The least and the largest number that is printed like this."""
    return value(text) - half_unit(text), value(text) + half_unit(text)

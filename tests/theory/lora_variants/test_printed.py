"""The tables that are kept as data, and the rounding of printed numbers."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from theory.lora_variants.printed import FOLDER, between, table, value


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("1.1e14", "105e12", "115e12"),
        ("4.85e-1", "0.4845", "0.4855"),
        ("7", "6.5", "7.5"),
        ("86.40", "86.395", "86.405"),
    ],
)
def test_rounding_takes_half_a_unit_of_the_last_digit(text: str, low: str, high: str) -> None:
    assert between(text) == (Fraction(low), Fraction(high))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda p: p.stem)
def test_every_table_has_a_place_and_rows_of_one_shape(path: Path) -> None:
    content = table(path.stem)
    assert content["place"] and content["rows"]
    assert len({tuple(row) for row in content["rows"].values()}) == 1


@pytest.mark.parametrize("name", ["table_2", "table_12", "table_15"])
def test_every_readable_cell_is_a_number(name: str) -> None:
    cells = [text for row in table(name)["rows"].values() for text in row.values() if text is not None]
    assert cells and all(value(text) > 0 for text in cells)

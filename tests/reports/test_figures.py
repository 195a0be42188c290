"""Figures: drawn from the record's own data, drawn again only when these change, refused when malformed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from reports import figures
from reports.layout import RecordError, check_figure

Figure = dict[str, Any]

HEATMAP: Figure = {
    "name": "phases",
    "title": "Who wins where",
    "kind": "heatmap",
    "x": {"label": "t", "values": [0, 0.5, 1]},
    "y": {"label": "rank", "values": [1, 2]},
    "z": {"label": "difference", "values": [[1, -2.5, 0], [None, 1, 2]], "scale": "diverging"},
    "series": [{"label": "edge", "role": "predicted", "x": [0, 1], "y": [1, 2]}],
}


@pytest.mark.parametrize("kind", ["line", "scatter", "heatmap"])
def test_a_figure_is_drawn_once(tmp_path: Path, simulation: dict[str, Any], kind: str) -> None:
    figure = HEATMAP if kind == "heatmap" else simulation["figures"][0] | {"kind": kind}
    figure["series"][0]["stderr"] = [0.1] * len(figure["series"][0]["x"])
    path = tmp_path / "figure.png"
    assert figures.draw(figure, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.with_suffix(".sha256").read_text().strip() == figures.data_hash(figure)
    assert not figures.draw(figure, path)


def test_other_data_are_drawn_again(tmp_path: Path, simulation: dict[str, Any]) -> None:
    figure, path = simulation["figures"][0], tmp_path / "figure.png"
    figures.draw(figure, path)
    before = path.read_bytes()
    figure["series"][0]["y"][0] = 0.9
    assert figures.draw(figure, path)
    assert path.read_bytes() != before


def test_the_hash_forgives_the_last_digits(simulation: dict[str, Any]) -> None:
    figure = simulation["figures"][0]
    before = figures.data_hash(figure)
    figure["series"][0]["y"][1] *= 1 + 1e-12
    assert figures.data_hash(figure) == before
    figure["series"][0]["y"][1] *= 1 + 1e-4
    assert figures.data_hash(figure) != before


def test_a_picture_without_its_hash_is_drawn_again(tmp_path: Path, simulation: dict[str, Any]) -> None:
    path = tmp_path / "figure.png"
    figures.draw(simulation["figures"][0], path)
    path.with_suffix(".sha256").unlink()
    assert figures.draw(simulation["figures"][0], path)


MALFORMED: list[tuple[Figure, str]] = [
    ({"name": "a b"}, "name must be"),
    ({"kind": "pie"}, "kind must be one of"),
    ({"title": ""}, "title"),
    ({"x": {"label": "t", "values": [1, 0, 2]}}, "ascending"),
    ({"y": {"label": "rank", "scale": "cubic", "values": [1, 2]}}, "scale must be one of"),
    ({"z": {"label": "d", "values": [[1, 2], [3, 4]]}}, "2 rows"),
    ({"series": [{"label": "e", "x": [0], "y": [1, 2]}]}, "equal length"),
    ({"series": [{"label": "e", "x": [0], "y": [1], "stderr": [1, 2]}]}, "as long as"),
    ({"series": [{"label": "e", "role": "guess", "x": [0], "y": [1]}]}, "role must be one of"),
    ({"kind": "line", "series": []}, "at least one curve"),
    ({"lines": [{"label": "nowhere"}]}, "number x or y"),
]


@pytest.mark.parametrize(("change", "word"), MALFORMED, ids=[w for _, w in MALFORMED])
def test_a_malformed_figure_is_refused(change: Figure, word: str) -> None:
    with pytest.raises(RecordError, match=word):
        check_figure(copy.deepcopy(HEATMAP) | change)

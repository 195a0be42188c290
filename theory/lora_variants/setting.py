"""Where the statements of the paper on LoRA variants stand, and the columns that its methods train."""

from __future__ import annotations

from typing import Any

from theory.claim import Source
from theory.protocol import Kit, Mat

VERSION = "anonymous submission, text as converted by machine"


def source(place: str) -> Source:
    """A place of the paper on LoRA variants."""
    return Source("LoRA: The Past, Present, and Future", place, VERSION)


def selection(k: Kit, width: Any, r: Any, first: Any, name: str) -> Mat:
    """U (width x r): the columns first, ..., first + r - 1 of the identity; A = U' trains those columns.

    Args:
        k: The kit.
        width: Number of columns of the layer.
        r: The rank.
        first: The first column.
        name: What a proof for every size calls the selection, which is then any; other names may be other columns.
    """
    # Only a proof by words speaks of any selection; formulas on pages show numbered columns, at sizes that have them.
    columns: Any = name if k.kind == "words" else range(first, first + r)
    return k.cols(k.eye(width), columns)

"""Where the statements on PEFT against full fine-tuning stand; their texts are known second-hand."""

from __future__ import annotations

from theory.claim import Source

VERSION = "arXiv 2505.22355, second-hand summary"


def source(place: str) -> Source:
    """A place of the paper."""
    return Source(
        "Look Within or Look Beyond? A Theoretical Comparison Between Parameter-Efficient and Full Fine-Tuning",
        place,
        VERSION,
    )

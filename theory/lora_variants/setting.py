"""Where the statements of the paper on LoRA variants stand."""

from __future__ import annotations

from theory.claim import Source

VERSION = "the text as converted by machine, read in November 2026"


def source(place: str) -> Source:
    """A place of the paper on LoRA variants."""
    return Source("LoRA: The Past, Present, and Future", place, VERSION)

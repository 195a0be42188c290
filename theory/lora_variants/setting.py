"""Where the statements of the paper on LoRA variants stand."""

from __future__ import annotations

from theory.claim import Source

VERSION = "anonymous submission, text as converted by machine"


def source(place: str) -> Source:
    """A place of the paper on LoRA variants."""
    return Source("LoRA: The Past, Present, and Future", place, VERSION)

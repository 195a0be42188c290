"""Remember what this checkout has computed, so that an audit goes on where the last one ended."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from reports import sources
from reports.items import Item
from reports.store import (
    SCHEMA,
    Record,
    RecordError,
    canonical,
    pretty,
    read_record,
    records_root,
    run_path,
    write_text,
)

# Seconds assumed for an item that has never run anywhere; only their order matters.
_GUESS = {"claims": 3.0, "sims": 20.0, "llm": 300.0}


class Cache:
    """What this checkout has computed: for each item its key, the digests of its records, its seconds."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.root = root

    def key(self, item: Item) -> str:
        """Return the sha256 of everything in the project on which the item's outcome rests.

        Raises:
            RecordError: a source file is missing or no Python.
        """
        try:
            files = sources.closure(item.files, self.root)
            parts = {"schema": SCHEMA, "command": item.command, "sources": sources.hashes(files, self.root)}
        except (SyntaxError, OSError) as error:
            msg = f"{item.name}: its source cannot be read ({error})"
            raise RecordError(msg) from None
        return hashlib.sha256(canonical(parts).encode("ascii")).hexdigest()

    def entry(self, item: Item) -> Record:
        """Return what is kept about an item, or an empty object; a damaged entry counts as none."""
        try:
            entry = json.loads(self._path(item).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entry if isinstance(entry, dict) and isinstance(entry.get("outputs"), dict) else {}

    def is_done(self, item: Item, key: str) -> bool:
        """Return whether this checkout computed the item with this key and its records still stand."""
        entry = self.entry(item)
        if entry.get("key") != key or not entry["outputs"]:
            return False
        return all(_digest_on_disk(name) == digest for name, digest in entry["outputs"].items())

    def store(self, item: Item, key: str, outputs: dict[str, str], seconds: float) -> None:
        """Keep that an item has been computed."""
        kept = {"name": item.name, "key": key, "outputs": outputs, "seconds": round(seconds, 3)}
        write_text(self._path(item), pretty(kept) + "\n")

    def seconds(self, item: Item) -> float:
        """Return how long the item took last: here, else as its sidecar says, else what it expects, else a guess."""
        entry = self.entry(item)
        if "seconds" in entry:
            return float(entry["seconds"])
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            beside = run_path(records_root() / item.kind / f"{item.name}.json")
            return float(json.loads(beside.read_text(encoding="utf-8"))["seconds"])
        return _GUESS[item.kind] if item.expected is None else item.expected

    def log(self, item: Item) -> Path:
        """Return the file that keeps what the item printed when it failed."""
        return self.folder / "logs" / f"{self._slug(item)}.log"

    def _path(self, item: Item) -> Path:
        return self.folder / "items" / f"{self._slug(item)}.json"

    def _slug(self, item: Item) -> str:
        short = hashlib.sha256(canonical(item.command).encode("ascii")).hexdigest()[:8]
        return re.sub(r"[^A-Za-z0-9_]+", "-", item.name) + "-" + short


def _digest_on_disk(name: str) -> str | None:
    try:
        return str(read_record(records_root() / name)["digest"])
    except RecordError:
        return None


def in_order(items: Sequence[Item], cache: Cache) -> list[Item]:
    """Return the items in the order in which they are started: cheap ones first, kinds evenly mixed.

    Simulators are spread among the claims, so that a short budget shows something of both; experiments with
    language models come last.
    """
    ranked: list[tuple[bool, float, str, Item]] = []
    for kind in _GUESS:
        group = sorted(
            (item for item in items if item.kind == kind), key=lambda i: (cache.seconds(i), i.name)
        )
        for place, item in enumerate(group):
            # Claims at 0, 1/n, ...; the others half a step later, so that the very first result is a claim.
            share = (place + (0.0 if kind == "claims" else 0.5)) / len(group)
            ranked.append((kind == "llm", share, item.name, item))
    return [entry[3] for entry in sorted(ranked, key=lambda entry: entry[:3])]

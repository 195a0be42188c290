"""Checkpoints of a run: written atomically, read back to continue bit for bit.

A checkpoint holds what the next step depends on: tensors that training changed, optimizer and schedule
state, the random number generators, the number of the step (the batches follow from it, see
`data.batch_indices`) and what was measured so far. A process may be killed at any instant; the file on disk
is the old one or the next one, whole.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from llm_experiments.errors import UserError


class CheckpointError(UserError):
    """A checkpoint of another run, or unreadable; one line with the remedy."""


def random_state() -> dict[str, Any]:
    """State of torch's generators, on the CPU and on every CUDA device."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo of `random_state`."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint beside its place and rename it there once it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(partial, path)


def load(path: Path, key: str) -> dict[str, Any] | None:
    """The checkpoint at `path`, or None if there is none.

    Args:
        path: where `save` put it.
        key: of the settings that it must belong to.

    Raises:
        CheckpointError: damaged, or written under other settings.
    """
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each way in which a file can be damaged
        message = (
            f"checkpoint {path.parent.name}/{path.name} is unreadable ({type(error).__name__}); delete it"
        )
        raise CheckpointError(message) from error
    if content.get("key") != key:
        message = (
            f"checkpoint {path.parent.name}/{path.name} is of other settings; delete it or use another folder"
        )
        raise CheckpointError(message)
    return content

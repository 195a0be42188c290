"""A base model and a tuned one, matrix by matrix: two folders, or a folder and a peft adapter.

Only safetensors files are read, only one matrix is in memory at a time, and names and shapes are compared from
the headers before the first number is read.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from llm_experiments.errors import UserError

FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ADAPTER = "adapter_config.json"
# transformers' Conv1D keeps its weight as d_in x d_out.
_TRANSPOSED = frozenset({"gpt2", "openai-gpt"})


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: the file is missing or does not hold an object.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        message = f"{path.parent.name}/{path.name} cannot be read ({error.strerror}); give a complete folder"
        raise UserError(message) from None
    except ValueError:
        message = f"{path.parent.name}/{path.name} must be JSON and is not; save the model again"
        raise UserError(message) from None
    if not isinstance(found, dict):
        message = f"{path.parent.name}/{path.name} must hold an object; got {type(found).__name__}"
        raise UserError(message)
    return found


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its file, its name there, shape and dtype."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self) -> Tensor:
        """The tensor; the file is opened and closed, so that no mapped page stays behind."""
        with safe_open(self.file, framework="pt") as stream:
            return stream.get_tensor(self.key)


def index(files: list[Path]) -> dict[str, Entry]:
    """All tensors of some safetensors files by name, from the headers alone.

    Raises:
        UserError: a file is damaged, a name appears twice, or a tensor does not hold floating-point numbers.
    """
    found: dict[str, Entry] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as stream:
                for key in stream.keys():  # noqa: SIM118  (a safetensors handle, not a dictionary)
                    part = stream.get_slice(key)
                    kind = part.get_dtype()
                    if key in found:
                        message = (
                            f"{key} must be in one file only; {found[key].file.name} and {file.name} have it"
                        )
                        raise UserError(message)
                    if kind in FLOATS:
                        found[key] = Entry(file, key, tuple(part.get_shape()), FLOATS[kind])
                    elif key.endswith(".weight"):
                        message = (
                            f"{key} in {file.name} must be float64, float32, float16 or bfloat16; got {kind}; "
                            "dequantise the model first"
                        )
                        raise UserError(message)
        except (SafetensorError, OSError) as error:
            message = (
                f"{file.parent.name}/{file.name} is no readable safetensors file ({error}); fetch it again"
            )
            raise UserError(message.replace("\n", " ")) from None
    return found


def weights(folder: Path) -> dict[str, Entry]:
    """All tensors of a transformers folder, sharded or not.

    Raises:
        UserError: no configuration, no safetensors, or a shard named by the index is missing.
    """
    if not folder.is_dir():
        message = f"{folder} must be a transformers folder; there is none"
        raise UserError(message)
    read_json(folder / "config.json")
    listing = folder / "model.safetensors.index.json"
    if listing.is_file():
        placed = read_json(listing).get("weight_map")
        if not isinstance(placed, dict):
            message = f"{folder.name}/{listing.name} must have a weight_map; save the model again"
            raise UserError(message)
        files = [folder / name for name in sorted(set(placed.values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            message = f"{folder.name} must hold every shard of its index; {missing[0]} is missing, fetch it"
            raise UserError(message)
        found = index(files)
        lost = sorted(placed.keys() - found.keys())
        if lost:
            message = f"{folder.name}: the index names {lost[0]}, which no shard holds; save the model again"
            raise UserError(message)
        return found
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        message = (
            f"{folder.name} must hold *.safetensors; save the model with save_pretrained (pickled .bin files are "
            "not read)"
        )
        raise UserError(message)
    return index(files)


def is_block_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is the weight of a linear layer inside a numbered block."""
    return len(shape) == 2 and name.endswith(".weight") and any(part.isdigit() for part in name.split("."))


def aligned(names: set[str], other: set[str]) -> str | None:
    """The prefix that `names` carry and `other` do not (`model.`, `bert.`), empty if none; None if disjoint."""
    best, shared = None, 0
    for prefix in ("", *sorted({name.partition(".")[0] + "." for name in names})):
        common = sum(name.removeprefix(prefix) in other for name in names if name.startswith(prefix))
        if common > shared:
            best, shared = prefix, common
    return best


@dataclass
class Matrix:
    """One weight before and after.

    Attributes:
        name: in the base model.
        W0: pretrained weight, d_out x d_in, in its stored dtype.
        delta_W: change, d_out x d_in, float32 (float64 if either side is).
        stored: dtype in which the tuned weight was rounded; None if the change is an adapter's and never was.
    """

    name: str
    W0: Tensor
    delta_W: Tensor
    stored: torch.dtype | None

    @property
    def tuned(self) -> Tensor:
        """`W0 + delta_W`, in the dtype of `delta_W`."""
        return self.W0.to(self.delta_W.dtype) + self.delta_W


class Pair:
    """Two transformers folders with the same names and shapes.

    Attributes:
        names: matrices of the blocks, in order of blocks.
        elsewhere: other tensors that both sides have (embeddings, norms, biases, heads).
        alone: tensors that only one side has (a head of the task, a pooler).
        unread: tensors of an adapter that count as trained whole.
    """

    kind = "folder"

    def __init__(self, base: Path, tuned: Path) -> None:
        self.base, self.tuned_folder = base, tuned
        self.config = read_json(base / "config.json")
        self.transposed = self.config.get("model_type") in _TRANSPOSED
        self.before = weights(base)
        self.after = self._matched(weights(tuned))
        common = self.before.keys() & self.after.keys()
        for name in sorted(common, key=_order):
            if self.before[name].shape != self.after[name].shape:
                message = (
                    f"{name} must have one shape in both models; got {_by(self.before[name].shape)} and "
                    f"{_by(self.after[name].shape)}: {tuned.name} was not tuned from {base.name}"
                )
                raise UserError(message)
        self.names = [n for n in sorted(common, key=_order) if is_block_matrix(n, self.before[n].shape)]
        for side, other in ((self.before, self.after), (self.after, self.before)):
            for name in sorted(side.keys() - other.keys(), key=_order):
                if is_block_matrix(name, side[name].shape):
                    lacks = tuned.name if side is self.before else base.name
                    message = f"{name} must be in both models; {lacks} lacks it"
                    raise UserError(message)
        if not self.names:
            message = f"{base.name} and {tuned.name} must share matrices in numbered blocks; they share none"
            raise UserError(message)
        self.elsewhere = sorted(common - set(self.names), key=_order)
        self.alone = sorted(self.before.keys() ^ self.after.keys(), key=_order)

    def _matched(self, after: dict[str, Entry]) -> dict[str, Entry]:
        """The tuned tensors under the base model's names: a task model puts a prefix before them, or lacks it."""
        added, missing = aligned(set(after), set(self.before)), aligned(set(self.before), set(after))
        if added:
            return {name.removeprefix(added): entry for name, entry in after.items()}
        if missing and added is None:
            return {missing + name if missing + name in self.before else name: e for name, e in after.items()}
        return after

    def shape(self, name: str) -> tuple[int, int]:
        """Shape of a matrix as d_out x d_in."""
        n, m = self.before[name].shape
        return (m, n) if self.transposed else (n, m)

    def matrix(self, name: str) -> Matrix:
        """Reads one matrix of both sides.

        Raises:
            UserError: it holds NaN or infinity.
        """
        old, new = self.before[name].read(), self.after[name].read()
        if self.transposed:
            old, new = old.T.contiguous(), new.T.contiguous()
        wide = torch.promote_types(torch.float32, torch.promote_types(old.dtype, new.dtype))
        return Matrix(name, old, finite(name, new.to(wide) - old.to(wide)), new.dtype)

    def moved(self, name: str) -> float:
        """|W1 - W0| / |W0| of a tensor outside the blocks; |W1| where W0 is zero."""
        old, new = self.before[name].read().float(), self.after[name].read().float()
        size = float(torch.linalg.vector_norm(old, dtype=torch.float64))
        finite(name, new.sub_(old))
        return float(torch.linalg.vector_norm(new, dtype=torch.float64)) / (size or 1.0)

    def about(self) -> dict[str, Any]:
        """What a report says of the two sides; no path."""
        names = {}
        for side, folder in (("base", self.base), ("tuned", self.tuned_folder)):
            path = Path(os.path.abspath(folder))  # a link keeps the name that the user knows
            # The trainer calls every adapter's folder `adapter`; the run's folder above it says more.
            names[side] = f"{path.parent.name}-adapter" if path.name == "adapter" else path.name
        return {**names, "kind": self.kind}


def finite(name: str, tensor: Tensor) -> Tensor:
    """The tensor itself.

    Raises:
        UserError: it holds NaN or infinity.
    """
    if not bool(torch.isfinite(tensor).all()):
        message = f"{name} must be finite in both models; it holds NaN or infinity, the training diverged"
        raise UserError(message)
    return tensor


def _order(name: str) -> list[tuple[int, int, str]]:
    parts = (part for part in re.split(r"(\d+)", name))
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def open_pair(base: str | Path, tuned: str | Path) -> Pair:
    """The pair of a base folder and a tuned folder or adapter folder.

    Raises:
        UserError: either cannot be read, or they do not belong together.
    """
    base, tuned = Path(base).expanduser(), Path(tuned).expanduser()
    for folder in (base, tuned):
        if not folder.is_dir():
            message = f"{folder} must be a local folder; there is none (models are not downloaded)"
            raise UserError(message)
    if (base / ADAPTER).is_file():
        message = f"{base.name} is an adapter; give the base model first, the adapter second"
        raise UserError(message)
    if (tuned / ADAPTER).is_file():
        from llm_experiments.probes.adapter import AdapterPair

        return AdapterPair(base, tuned)
    return Pair(base, tuned)

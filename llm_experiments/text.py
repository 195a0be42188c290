"""Tokenizers behind one narrow interface: text to ids and back, plus the ids for padding and for the end.

Real models use the `tokenizer.json` of their folder, read by the `tokenizers` library without transformers
around it, so that nothing but that file decides what the ids are. The tiny random models read plain bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from llm_experiments.errors import UserError


class Tokenizer(Protocol):
    """What the data pipeline needs of a tokenizer."""

    pad_id: int
    end_id: int | None
    digest: str

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Ids of `text`; `special` adds the tokens that the model expects around one sequence."""
        ...

    def decode(self, ids: list[int]) -> str:
        """The text of `ids`, special tokens left out."""
        ...


class ByteTokenizer:
    """One id for each byte; 256 pads, 257 ends. For the tiny random models (vocabulary 258)."""

    pad_id = 256
    end_id = 257
    size = 258
    digest = "bytes"

    def encode(self, text: str, special: bool = True) -> list[int]:
        """The UTF-8 bytes of `text`; bytes have no special tokens."""
        return list(text.encode("utf-8"))

    def decode(self, ids: list[int]) -> str:
        """The text of `ids`; bytes that are no UTF-8 become replacement characters."""
        return bytes(index for index in ids if index < 256).decode("utf-8", errors="replace")


class FileTokenizer:
    """The tokenizer of a model folder.

    Args:
        folder: holds `tokenizer.json`; `config.json` and `tokenizer_config.json` name padding and end.

    Raises:
        UserError: the folder has no `tokenizer.json`.
    """

    def __init__(self, folder: Path, config: dict, names: dict) -> None:
        from tokenizers import Tokenizer as Fast

        path = folder / "tokenizer.json"
        if not path.is_file():
            message = f"{folder.name} has no tokenizer.json; save the fast tokenizer next to the weights"
            raise UserError(message)
        self._fast = Fast.from_file(str(path))
        # Files of sentence encoders fix a length of their own; ours is a setting of the run.
        self._fast.no_truncation()
        self._fast.no_padding()
        end = names.get("eos_token")
        end = end.get("content") if isinstance(end, dict) else end
        self.end_id = config.get("eos_token_id") if end is None else self._fast.token_to_id(end)
        if isinstance(self.end_id, list):
            self.end_id = self.end_id[0]
        pad = config.get("pad_token_id")
        # Padding is masked everywhere, so any id serves where the model names none.
        self.pad_id = pad if pad is not None else (self.end_id or 0)
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Ids of `text`; `special` adds the tokens of the file's post-processor."""
        return self._fast.encode(text, add_special_tokens=special).ids

    def decode(self, ids: list[int]) -> str:
        """The text of `ids`, special tokens left out."""
        return self._fast.decode(ids, skip_special_tokens=True)

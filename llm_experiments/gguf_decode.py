"""Turn a GGUF file of the Llama family into a plain transformers folder, with numpy alone.

Why not the `gguf` package: the machine with the accelerator has none, and the two block formats that small
models are shipped in (Q4_1, Q8_0) take four lines each. The result is compared with that package bit for
bit where it is installed (`tests/llm_experiments/test_models.py`).

Source: the GGUF specification, version 3 (ggml project): little-endian header, typed key/value pairs, tensor
directory, then aligned tensor data whose first dimension runs fastest.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from llm_experiments.errors import UserError

# Scalar value types of a key/value pair, by their number in the file.
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9


class GGUFError(UserError):
    """A GGUF file that cannot be read; the message is one line that says what to do."""


@dataclass(frozen=True)
class TensorEntry:
    """Where one tensor lies: torch-order shape (slowest dimension first), block format, offset in bytes."""

    shape: tuple[int, ...]
    kind: int
    offset: int


def _f32(raw: np.ndarray) -> np.ndarray:
    return raw.view("<f4")


def _f16(raw: np.ndarray) -> np.ndarray:
    return raw.view("<f2").astype(np.float32)


def _bf16(raw: np.ndarray) -> np.ndarray:
    return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """Blocks of 16 bytes -> blocks of 32 integers 0..15: low halves first, then the high halves."""
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)


def _q4_0(raw: np.ndarray) -> np.ndarray:
    block = raw.reshape(-1, 18)
    scale = block[:, :2].copy().view("<f2").astype(np.float32)
    return scale * (_nibbles(block[:, 2:]) - 8)


def _q4_1(raw: np.ndarray) -> np.ndarray:
    block = raw.reshape(-1, 20)
    scale, minimum = np.hsplit(block[:, :4].copy().view("<f2").astype(np.float32), 2)
    return scale * _nibbles(block[:, 4:]) + minimum


def _q8_0(raw: np.ndarray) -> np.ndarray:
    block = raw.reshape(-1, 34)
    scale = block[:, :2].copy().view("<f2").astype(np.float32)
    return scale * block[:, 2:].view(np.int8).astype(np.float32)


# block format number: (name, values per block, bytes per block, decoder)
FORMATS = {
    0: ("F32", 1, 4, _f32),
    1: ("F16", 1, 2, _f16),
    2: ("Q4_0", 32, 18, _q4_0),
    3: ("Q4_1", 32, 20, _q4_1),
    8: ("Q8_0", 32, 34, _q8_0),
    30: ("BF16", 1, 2, _bf16),
}


class GGUFFile:
    """The metadata of a GGUF file and its tensors, decoded to float32 on request.

    Args:
        path: the `.gguf` file.

    Raises:
        GGUFError: not a GGUF file of version 2 or 3, or cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                message = (
                    f"{path.name} is not a GGUF file (magic bytes differ); give a .gguf file or a folder"
                )
                raise GGUFError(message)
            try:
                version, tensors, pairs = struct.unpack("<IQQ", stream.read(20))
                if version not in (2, 3):
                    message = f"{path.name} has GGUF version {version}; versions 2 and 3 can be read"
                    raise GGUFError(message)
                self.metadata = dict(self._pair(stream) for _ in range(pairs))
                self.tensors = dict(self._entry(stream) for _ in range(tensors))
            except struct.error as error:
                message = f"{path.name} is cut short in its header; fetch it again"
                raise GGUFError(message) from error
            alignment = self.metadata.get("general.alignment", 32)
            self.data_start = -(-stream.tell() // alignment) * alignment
        self._bytes = np.memmap(path, np.uint8, mode="r")

    def _scalar(self, stream: BinaryIO, form: str) -> Any:
        return struct.unpack(form, stream.read(struct.calcsize(form)))[0]

    def _text(self, stream: BinaryIO) -> str:
        return stream.read(self._scalar(stream, "<Q")).decode("utf-8")

    def _value(self, stream: BinaryIO, kind: int) -> Any:
        if kind == _STRING:
            return self._text(stream)
        if kind == _ARRAY:
            inner, count = struct.unpack("<IQ", stream.read(12))
            return [self._value(stream, inner) for _ in range(count)]
        if kind not in _SCALARS:
            message = (
                f"{self.path.name} holds a value of unknown type {kind}; the file is damaged or too recent"
            )
            raise GGUFError(message)
        return self._scalar(stream, _SCALARS[kind])

    def _pair(self, stream: BinaryIO) -> tuple[str, Any]:
        key = self._text(stream)
        return key, self._value(stream, self._scalar(stream, "<I"))

    def _entry(self, stream: BinaryIO) -> tuple[str, TensorEntry]:
        name = self._text(stream)
        rank = self._scalar(stream, "<I")
        shape = struct.unpack(f"<{rank}Q", stream.read(8 * rank))[::-1]
        kind, offset = struct.unpack("<IQ", stream.read(12))
        return name, TensorEntry(shape, kind, offset)

    def formats(self) -> list[str]:
        """Names of the block formats in use, most frequent first."""
        kinds = [entry.kind for entry in self.tensors.values()]
        return [self._format(kind)[0] for kind in sorted(set(kinds), key=lambda kind: -kinds.count(kind))]

    def _format(self, kind: int) -> tuple[str, int, int, Any]:
        if kind not in FORMATS:
            known = ", ".join(name for name, *_ in FORMATS.values())
            message = (
                f"{self.path.name} uses block format number {kind}; known are {known}: convert the file first"
            )
            raise GGUFError(message)
        return FORMATS[kind]

    def tensor(self, name: str) -> np.ndarray:
        """The tensor `name` in float32, torch order (a matrix is d_out x d_in)."""
        entry = self.tensors[name]
        _, values, size, decode = self._format(entry.kind)
        count = int(np.prod(entry.shape, dtype=np.int64))
        start, length = self.data_start + entry.offset, count // values * size
        raw = np.asarray(self._bytes[start : start + length])
        if raw.size != length:
            message = f"{self.path.name} is cut short at tensor {name}; fetch it again"
            raise GGUFError(message)
        return np.ascontiguousarray(decode(raw).reshape(entry.shape), dtype=np.float32)


def _undo_rotary_order(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q and k: from GGUF's interleaved rotary pairs back to transformers' two halves a head."""
    half = weight.shape[0] // heads // 2
    return np.ascontiguousarray(weight.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(weight.shape))


_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def transformers_name(name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    if name in _TOP_NAMES:
        return _TOP_NAMES[name]
    try:
        _, layer, part, leaf = name.split(".")
        return f"model.layers.{layer}.{_LAYER_NAMES[part]}.{leaf}"
    except (ValueError, KeyError) as error:
        message = f"tensor {name} has no place in a Llama model; only plain Llama files can be converted"
        raise GGUFError(message) from error


def llama_config(metadata: dict[str, Any], tied: bool) -> dict[str, Any]:
    """The `config.json` of a Llama model, from GGUF metadata."""
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        message = (
            f"architecture {architecture!r} is not supported; convert only files of architecture 'llama'"
        )
        raise GGUFError(message)
    heads = metadata["llama.attention.head_count"]
    width = metadata["llama.embedding_length"]
    theta = float(metadata.get("llama.rope.freq_base", 10000.0))
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get("llama.attention.head_count_kv", heads),
        "head_dim": metadata.get("llama.attention.key_length", width // heads),
        "max_position_embeddings": metadata["llama.context_length"],
        "rms_norm_eps": metadata["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": tied,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
        "dtype": "float32",
    }


def byte_level_tokenizer(metadata: dict[str, Any]) -> Any:
    """The byte-level BPE tokenizer stored in the file, as a `tokenizers.Tokenizer`.

    Digits are split one by one first (the file's pre-tokenizer `smollm`), then GPT-2's byte-level split.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    family, split = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if (family, split) != ("gpt2", "smollm"):
        message = (
            f"tokenizer {family!r} with pre-tokenizer {split!r} is not supported (only 'gpt2' with 'smollm')"
        )
        message += "; give a transformers folder with a tokenizer.json instead"
        raise GGUFError(message)
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3
    kinds = metadata["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == control
        ]
    )
    return tokenizer


def convert(source: Path, folder: Path) -> list[str]:
    """Write `config.json`, `model.safetensors` (float32) and the tokenizer of `source` into `folder`.

    Args:
        source: a GGUF file of architecture `llama`.
        folder: an existing folder; files in it are overwritten.

    Returns:
        The block formats that were decoded, most frequent first; name them wherever the model is named.

    Raises:
        GGUFError: another architecture, tokenizer or block format, or a damaged file.
    """
    from safetensors.numpy import save_file

    file = GGUFFile(source)
    config = llama_config(file.metadata, tied="output.weight" not in file.tensors)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = {}
    for name in file.tensors:
        value = file.tensor(name)
        part = name.split(".")[-2]
        weights[transformers_name(name)] = _undo_rotary_order(value, heads[part]) if part in heads else value
    byte_level_tokenizer(file.metadata).save(str(folder / "tokenizer.json"))
    tokens = file.metadata["tokenizer.ggml.tokens"]
    names = {
        f"{role}_token": tokens[config[f"{role}_token_id"]]
        for role in ("bos", "eos", "pad")
        if config[f"{role}_token_id"] is not None
    }
    chat = (
        {"chat_template": file.metadata["tokenizer.chat_template"]}
        if "tokenizer.chat_template" in file.metadata
        else {}
    )
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", **names, **chat}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=1))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    return file.formats()

"""The models that can be tuned, by name or by folder.

| name | what | where from |
|---|---|---|
| tiny_llama, tiny_llama_gqa, tiny_bert | random weights, seconds in tests | a config object |
| minilm | all-MiniLM-L6-v2, real weights; default on a CPU | fetched package |
| smollm2 | SmolLM2-135M, dequantised from Q4_1; default on a GPU | fetched package, converted |
| a path | a transformers folder of the Llama or BERT family, or a GGUF file | yours |

Encoders come without pooler and head (`train.py` adds mean pooling and one linear layer); decoders with their
language-model head. Dropout is 0 everywhere, so that two methods with one seed differ in the method alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llm_experiments.errors import UserError
from llm_experiments.text import ByteTokenizer, FileTokenizer, Tokenizer
from sims import assets

# Weights come from folders only; a name must never turn into a download.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ModelError(UserError):
    """A model that is unknown, not prepared or of a family that cannot be tuned; one line with the remedy."""


@dataclass
class Loaded:
    """A model ready to be tuned.

    Attributes:
        model: `BertModel` without pooler (encoder), or a causal language model (decoder).
        tokenizer: see `text.py`.
        kind: `encoder` or `decoder`.
        label: how the model must be named in every report.
        provenance: package name or family, SHA-256 of the weights, dtype; goes into records. No path.
    """

    model: nn.Module
    tokenizer: Tokenizer
    kind: str
    label: str
    provenance: dict[str, Any]


@dataclass(frozen=True)
class ModelSpec:
    """One row of the registry: name, label, asset it needs (None for random models), how to load it."""

    name: str
    label: str
    kind: str
    asset: str | None
    load: Callable[[ModelSpec, int, torch.dtype], Loaded]
    folder: Callable[[], Path] | None = None
    cpu_lower: int = 0  # lower layers that `train` runs once and keeps frozen on a CPU

    def missing(self) -> str | None:
        """The command that makes this model available, or None when it is."""
        if self.folder is None:
            return None
        try:
            ready = (self.folder() / "config.json").is_file()
        except assets.AssetError:
            ready = False
        if ready:
            return None
        return f"python -m llm_experiments prepare --only {self.name}"


def cache_folder(*parts: str) -> Path:
    """A folder inside the ignored cache of the checkout (`PEFTPROOF_CACHE` moves it), not created here."""
    return assets.cache_root().joinpath("llm_experiments", *parts)


# --- random models -------------------------------------------------------------------------------


def tiny_bert_config(**changes: Any) -> Any:
    """Configuration of a two-layer BERT over bytes (width 32, 4 heads, 64 channels)."""
    from transformers import BertConfig

    shape = {
        "vocab_size": ByteTokenizer.size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": ByteTokenizer.pad_id,
    }
    return BertConfig(**{**shape, **changes})


def tiny_llama_config(**changes: Any) -> Any:
    """Configuration of a two-layer Llama over bytes (width 32, 4 heads, 64 channels)."""
    from transformers import LlamaConfig

    shape = {
        "vocab_size": ByteTokenizer.size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
        "pad_token_id": ByteTokenizer.pad_id,
        "eos_token_id": ByteTokenizer.end_id,
        "bos_token_id": None,
    }
    return LlamaConfig(**{**shape, **changes})


def _random(spec: ModelSpec, seed: int, dtype: torch.dtype) -> Loaded:
    from transformers import BertModel, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if spec.kind == "encoder":
            model = BertModel(tiny_bert_config(), add_pooling_layer=False)
        else:
            groups = {"num_key_value_heads": 2} if spec.name.endswith("_gqa") else {}
            model = LlamaForCausalLM(tiny_llama_config(**groups))
    source = {"source": "random weights", "weights_seed": seed, "dtype": _name(dtype)}
    return Loaded(model.to(dtype), ByteTokenizer(), spec.kind, spec.label, source)


# --- models with weights -------------------------------------------------------------------------


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def weights_digest(folder: Path) -> str:
    """SHA-256 over the safetensors files of a folder, in order of their names."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def load_folder(folder: Path, label: str, source: str, dtype: torch.dtype) -> Loaded:
    """Load a transformers folder of the BERT or Llama family.

    Args:
        folder: with `config.json`, safetensors weights and `tokenizer.json`.
        label: how reports name the model.
        source: package name, or "local folder"; never a path.
        dtype: of the weights in memory.

    Raises:
        ModelError: no configuration or weights there, or a family without a place in this trainer.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    config_file = folder / "config.json"
    if not config_file.is_file() or not any(folder.glob("*.safetensors")):
        message = (
            f"model folder {folder.name} must hold config.json and *.safetensors; save_pretrained writes both"
        )
        raise ModelError(message)
    config = AutoConfig.from_pretrained(folder)
    for field in vars(config):
        # Bert calls it hidden_dropout_prob, others attention_dropout, ...: all are switched off.
        if "dropout" in field and isinstance(getattr(config, field), int | float):
            setattr(config, field, 0.0)
    tokenizer = FileTokenizer(folder, _json(config_file), _json(folder / "tokenizer_config.json"))
    architecture = (config.architectures or ["?"])[0]
    if config.model_type in ("bert", "roberta"):
        kind = "encoder"
        model = _weights(AutoModel, folder, config, dtype, add_pooling_layer=False)
    elif architecture.endswith("ForCausalLM"):
        kind = "decoder"
        model = _weights(AutoModelForCausalLM, folder, config, dtype)
    else:
        message = f"{folder.name} is a {architecture} ({config.model_type}); give a BERT or a ...ForCausalLM"
        raise ModelError(message)
    provenance = {"source": source, "weights_sha256": weights_digest(folder), "dtype": _name(dtype)}
    return Loaded(model, tokenizer, kind, label, {**provenance, "tokenizer_sha256": tokenizer.digest})


def _weights(family: Any, folder: Path, config: Any, dtype: torch.dtype, **options: Any) -> nn.Module:
    """Weights of a folder; every tensor of the model must be in it (a pooler may be left over)."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # its table of left-over tensors says less than the check below
    logging.disable_progress_bar()
    try:
        model, info = family.from_pretrained(
            folder, config=config, dtype=dtype, output_loading_info=True, **options
        )
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
    wrong = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    wrong += sorted(key for key in info["unexpected_keys"] if "pooler." not in key)
    if wrong:
        message = (
            f"weights in {folder.name} do not fit its config.json ({len(wrong)} tensors, first {wrong[0]})"
        )
        message += "; save the model again with save_pretrained"
        raise ModelError(message)
    return model


def convert_gguf(source: Path) -> Path:
    """The transformers folder made from a GGUF file, converted on first use into the cache.

    The folder is named after the file's content, appears in one piece (rename), and is reused.
    """
    from llm_experiments import gguf_decode

    with source.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    target = cache_folder("models", f"gguf-{digest[:16]}")
    if (target / "config.json").is_file():
        return target
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    formats = gguf_decode.convert(source, partial)
    (partial / "converted.json").write_text(json.dumps({"formats": formats, "gguf_sha256": digest}))
    try:
        partial.rename(target)
    except OSError:
        # Another process was faster; its folder has the same content.
        if not (target / "config.json").is_file():
            raise
    return target


def smollm2_gguf() -> Path:
    """The fetched GGUF file of SmolLM2."""
    return next(assets.path("smollm2").rglob("*.gguf"))


def smollm2_folder() -> Path:
    """Where `prepare` puts the converted SmolLM2 (perhaps not there yet); named after the package's hash."""
    return cache_folder("models", f"smollm2-{assets.locked()['smollm2'].sha256[:12]}")


def prepare_smollm2() -> None:
    """Convert the fetched GGUF file once; afterwards the folder alone is read."""
    link, target = smollm2_folder(), convert_gguf(smollm2_gguf())
    if not link.exists():
        link.symlink_to(target.name, target_is_directory=True)


def _asset(spec: ModelSpec, seed: int, dtype: torch.dtype) -> Loaded:
    command = spec.missing()
    if command:
        message = f"model {spec.name} is not prepared; run: {command}"
        raise ModelError(message)
    folder = spec.folder()
    return load_folder(folder, spec.label, assets.fingerprint(spec.asset), dtype)


MODELS = {
    spec.name: spec
    for spec in (
        ModelSpec("tiny_llama", "tiny random Llama", "decoder", None, _random),
        ModelSpec("tiny_llama_gqa", "tiny random Llama with grouped queries", "decoder", None, _random),
        ModelSpec("tiny_bert", "tiny random BERT", "encoder", None, _random),
        ModelSpec(
            "minilm",
            "MiniLM (all-MiniLM-L6-v2)",
            "encoder",
            "minilm",
            _asset,
            lambda: assets.path("minilm"),
            3,
        ),
        ModelSpec(
            "smollm2", "SmolLM2-135M, dequantised from Q4_1", "decoder", "smollm2", _asset, smollm2_folder, 20
        ),
    )
}


def load(name: str, *, seed: int = 0, dtype: str = "float32") -> Loaded:
    """Load a model by registry name, or from a transformers folder or GGUF file.

    Args:
        name: a key of `MODELS`, or a path.
        seed: decides the weights of the random models, nothing else.
        dtype: `float32` or `bfloat16`.

    Raises:
        ModelError: unknown name, missing preparation, or a family that cannot be tuned.
    """
    if dtype not in DTYPES:
        message = f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}"
        raise ModelError(message)
    if name in MODELS:
        spec = MODELS[name]
        return spec.load(spec, seed, DTYPES[dtype])
    path = Path(name).expanduser()
    if path.is_file():
        folder = convert_gguf(path)
        formats = _json(folder / "converted.json")["formats"]
        block = next((name for name in formats if name.startswith("Q")), formats[0])
        return load_folder(folder, f"{path.stem}, dequantised from {block}", "local GGUF file", DTYPES[dtype])
    if path.is_dir():
        return load_folder(path, path.resolve().name, "local folder", DTYPES[dtype])
    message = f"model must be one of {', '.join(MODELS)}, a transformers folder or a GGUF file; got {name!r}"
    raise ModelError(message)

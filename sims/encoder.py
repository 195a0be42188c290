"""One feed-forward block of a real pretrained encoder as a deep linear network, with real text through it.

Weights: all-MiniLM-L6-v2 (BERT, 6 layers, width 384, feed-forward width 1536). Text: short snippets of four
sources. The block maps x to W2 gelu(W1 x + b1) + b2. Replacing gelu by its mean slope at each channel gives
the linear network H Wl x with H = W2 diag(slope) (384 x 1536) and Wl = W1 (1536 x 384): S2FT's channels are
the block's own hidden units. For each source the best linear map B from x to the block's output and the
covariance of x are computed, so residuals, covariances and shifts between sources are all real.

Inputs and outputs are centred over the tokens of each source; the "population" of a source is its tokens.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sims import assets

Array = np.ndarray
SOURCES = {
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}
LAYERS = 6
SNIPPETS = 300  # of each source, evenly spaced over its file
LONGEST = 64  # tokens of a snippet
HEADS = 12
EPSILON = 1e-12  # of layer normalisation, as in the model's configuration
_FORMAT = 3  # raised when what is computed below changes


@dataclass(frozen=True)
class Source:
    """Moments of one text source at the block.

    Attributes:
        tokens: how many tokens they are taken over.
        Sxx: covariance of the block's inputs, 384 x 384.
        B: best linear map from inputs to outputs, 384 x 384.
        noise: covariance of what no linear map explains, 384 x 384.
        slope: mean slope of gelu at each hidden unit, 1536.
    """

    tokens: int
    Sxx: Array
    B: Array
    noise: Array
    slope: Array


@dataclass(frozen=True)
class FeedForward:
    """A block's weights and what text makes of it: W1 (1536 x 384), W2 (384 x 1536), sources by name."""

    W1: Array
    W2: Array
    sources: dict[str, Source]

    @property
    def H(self) -> Array:
        """W2 diag(slope), the slope averaged over the sources: the map above the tuned layer."""
        slope = np.mean([s.slope for s in self.sources.values()], axis=0)
        return self.W2 * slope


def load(layer: int) -> FeedForward:
    """The feed-forward block of an encoder layer (0 to 5) with the moments of all sources, from the cache.

    Raises:
        assets.AssetError: weights or texts are not fetched; the message names the command.
    """
    weights, texts = assets.path("minilm"), assets.path("snippets")
    W1, _, W2, _ = _feed_forward(_weights(weights), layer)
    words = (
        assets.fingerprint("minilm"),
        assets.fingerprint("snippets"),
        layer,
        SNIPPETS,
        LONGEST,
        _FORMAT,
    )
    key = hashlib.sha256(repr(words).encode()).hexdigest()[:16]
    cached = assets.cache_root() / "sims" / f"feed_forward-{key}.npz"
    if not cached.exists():
        _compute(weights, texts, layer, cached)
    with np.load(cached) as stored:
        sources = {
            name: Source(
                int(stored[f"{name}.tokens"]),
                *(stored[f"{name}.{f}"] for f in ("Sxx", "B", "noise", "slope")),
            )
            for name in SOURCES
        }
        return FeedForward(W1, W2, sources)


def _weights(folder: Path) -> dict[str, Array]:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def _feed_forward(w: dict[str, Array], layer: int) -> tuple[Array, Array, Array, Array]:
    name = f"encoder.layer.{layer}"
    parts = (
        "intermediate.dense.weight",
        "intermediate.dense.bias",
        "output.dense.weight",
        "output.dense.bias",
    )
    W1, b1, W2, b2 = (w[f"{name}.{part}"].astype(np.float64) for part in parts)
    return W1, b1, W2, b2


def _compute(weights: Path, texts: Path, layer: int, target: Path) -> None:
    # Double precision, or the last digits of the forward pass would differ from machine to machine.
    w = {name: array.astype(np.float64) for name, array in _weights(weights).items()}
    stored: dict[str, Array] = {}
    for name, file in SOURCES.items():
        x = np.concatenate(
            [_inputs(w, ids, layer) for ids in _token_batches(weights, _snippets(texts / file))]
        )
        y, slope = _block(w, layer, x)
        stored |= {f"{name}.{key}": value for key, value in _moments(x, y, slope).items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    half = target.with_name(f"{target.stem}.{os.getpid()}.npz")
    np.savez(half, **stored)
    os.replace(half, target)


def _moments(x: Array, y: Array, slope: Array) -> dict[str, Array]:
    x, y = x - x.mean(0), y - y.mean(0)
    Sxx, Syx = x.T @ x / len(x), y.T @ x / len(x)
    B = Syx @ np.linalg.pinv(Sxx, rcond=1e-10, hermitian=True)
    left = y - x @ B.T
    return {"tokens": np.array(len(x)), "Sxx": Sxx, "B": B, "noise": left.T @ left / len(x), "slope": slope}


def _snippets(file: Path) -> list[str]:
    """Evenly spaced texts of a file of lines `id <tab> score <tab> text`."""
    lines = [
        line.split("\t", 2)[2].strip()
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    picked = np.linspace(0, len(lines) - 1, min(SNIPPETS, len(lines))).astype(int)
    return [lines[i] for i in picked]


def _token_batches(weights: Path, texts: list[str]) -> list[Array]:
    """Token ids in batches of equal length, so that no padding enters: each (texts, length)."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(weights / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    by_length: dict[int, list[list[int]]] = {}
    for encoding in tokenizer.encode_batch(texts):
        by_length.setdefault(len(encoding.ids), []).append(encoding.ids)
    return [np.array(by_length[length]) for length in sorted(by_length)]


def _inputs(w: dict[str, Array], ids: Array, layer: int) -> Array:
    """The inputs of a layer's feed-forward block for each word token: (tokens, 384).

    The tokens that open and close a text take part in attention but are left out here: a few hidden units
    answer to them alone, so strongly that they would be nearly all of the covariance.
    """
    e = "embeddings"
    x = w[f"{e}.word_embeddings.weight"][ids] + w[f"{e}.position_embeddings.weight"][: ids.shape[1]]
    x = _normalise(w, f"{e}.LayerNorm", x + w[f"{e}.token_type_embeddings.weight"][0])
    for i in range(layer + 1):
        name = f"encoder.layer.{i}"
        x = _normalise(w, f"{name}.attention.output.LayerNorm", x + _attention(w, name, x))
        if i < layer:
            hidden = _gelu(_dense(w, f"{name}.intermediate.dense", x))
            x = _normalise(w, f"{name}.output.LayerNorm", x + _dense(w, f"{name}.output.dense", hidden))
    return x[:, 1:-1].reshape(-1, x.shape[-1])


def _dense(w: dict[str, Array], name: str, x: Array) -> Array:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _normalise(w: dict[str, Array], name: str, x: Array) -> Array:
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def _attention(w: dict[str, Array], name: str, x: Array) -> Array:
    texts, length, width = x.shape

    def heads(part: str) -> Array:
        return _dense(w, f"{name}.attention.self.{part}", x).reshape(texts, length, HEADS, -1).swapaxes(1, 2)

    q, k, v = heads("query"), heads("key"), heads("value")
    scores = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1])
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (scores / scores.sum(-1, keepdims=True)) @ v
    return _dense(w, f"{name}.attention.output.dense", mixed.swapaxes(1, 2).reshape(texts, length, width))


def _gelu(z: Array) -> Array:
    from scipy.special import ndtr

    return z * ndtr(z)


def _block(w: dict[str, Array], layer: int, x: Array) -> tuple[Array, Array]:
    """The block's outputs (tokens x 384) and gelu's mean slope at each hidden unit (1536)."""
    from scipy.special import ndtr

    W1, b1, W2, b2 = _feed_forward(w, layer)
    y, slope = np.empty((len(x), W2.shape[0])), np.zeros(len(b1))
    for first in range(0, len(x), 2048):
        z = x[first : first + 2048] @ W1.T + b1
        y[first : first + 2048] = (z * ndtr(z)) @ W2.T + b2
        slope += (ndtr(z) + z * np.exp(-z * z / 2) / np.sqrt(2 * np.pi)).sum(0)
    return y, slope / len(x)

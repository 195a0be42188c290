"""The change as the user's own text sees it: whitened spectra layer by layer, and what was forgotten.

With `X` (tokens x d_in) the inputs of a layer in the base model and `Sigma = X' X / tokens`, the singular values of
`delta_W Sigma^(1/2)` are those of `delta_W X' / sqrt(tokens)`: the whitened spectrum needs no root and no d_in x d_in
matrix. `X` is never kept either: the product is formed while the layer runs.

Models are loaded whole, one after the other, in the dtype of their files; that needs the memory of one model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llm_experiments.errors import UserError
from llm_experiments.models import Loaded, load_folder
from llm_experiments.probes.distance import outside
from llm_experiments.probes.pair import Pair
from llm_experiments.probes.spectra import Spectrum, norm, spectral_norm, spectrum

Row = dict[str, Any]


def read_texts(path: Path) -> list[str]:
    """The texts of a file: one a line, or JSON objects with a field `text` (`.jsonl`).

    Raises:
        UserError: the file cannot be read or holds no text.
    """
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except OSError as error:
        message = f"--data {path} cannot be read ({error.strerror})"
        raise UserError(message) from None
    except UnicodeDecodeError:
        message = f"--data {path.name} must be UTF-8 text, one text a line; it is not"
        raise UserError(message) from None
    if path.suffix == ".jsonl":
        lines = [_field(path, number, line) for number, line in enumerate(lines, 1)]
    if not lines:
        message = f"--data {path.name} must hold at least one text; it is empty"
        raise UserError(message)
    return lines


def _field(path: Path, number: int, line: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str) or not text:
        message = f"--data {path.name}: line {number} must be an object with a field text that is not empty"
        raise UserError(message)
    return text


def sequences(loaded: Loaded, texts: list[str], longest: int, tokens: int) -> list[list[int]]:
    """Token ids of the texts, each cut at `longest`, until `tokens` are reached.

    Raises:
        UserError: no text has two tokens.
    """
    found: list[list[int]] = []
    used = 0
    for text in texts:
        ids = loaded.tokenizer.encode(text)[: min(longest, tokens - used)]
        if len(ids) > 1:
            found.append(ids)
            used += len(ids)
        if tokens - used < 2:
            break
    if not found:
        message = "--data must hold a text of at least two tokens; none has"
        raise UserError(message)
    return found


def run(loaded: Loaded, ids: list[list[int]]) -> list[Tensor]:
    """Next-token logits of a decoder, or last states of an encoder, sequence by sequence (length x width)."""
    loaded.model.eval()
    with torch.no_grad():
        outputs = [loaded.model(input_ids=torch.tensor([sequence])) for sequence in ids]
    if loaded.kind == "encoder":
        return [output.last_hidden_state[0].float() for output in outputs]
    return [output.logits[0].float() for output in outputs]


@contextmanager
def watched(model: nn.Module, names: list[str], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """While open, `see(name, X)` gets the inputs (tokens x d_in, float32) of every linear layer that runs.

    Names are those of the weights in the base folder; a model without its task's prefix has shorter ones.

    Raises:
        UserError: a layer is not in the loaded model.
    """
    modules = dict(model.named_modules())
    handles = []
    for name in names:
        layer = name.removesuffix(".weight")
        module = modules.get(layer, modules.get(layer.partition(".")[2]))
        if not isinstance(module, nn.Linear):
            message = f"{layer} must be a linear layer of the loaded model to be watched; it is not"
            raise UserError(message)

        def hook(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
            see(name, args[0].detach().flatten(0, -2).float())

        handles.append(module.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def whitened(pair: Pair, loaded: Loaded, ids: list[list[int]], ranks: list[int]) -> dict[str, Row]:
    """For every matrix its `whitened_row`; the base model runs once for each group of layers that fits."""
    found: dict[str, Row] = {}
    for names in groups(pair, sum(map(len, ids))):
        inputs = gathered(loaded, ids, names)
        for name in names:
            found[name] = whitened_row(pair.matrix(name).delta_W, inputs.pop(name), ranks)
    return found


def groups(pair: Pair, tokens: int) -> Iterator[list[str]]:
    """The matrices in groups whose float32 inputs take at most `HELD` bytes together."""
    group: list[str] = []
    held = 0
    for name in pair.names:
        needed = 4 * tokens * pair.shape(name)[1]
        if group and held + needed > HELD:
            yield group
            group, held = [], 0
        group.append(name)
        held += needed
    yield group


def gathered(loaded: Loaded, ids: list[list[int]], names: list[str]) -> dict[str, Tensor]:
    """The inputs of some layers (tokens x d_in, float32) over all texts."""
    inputs: dict[str, list[Tensor]] = {name: [] for name in names}
    with watched(loaded.model, names, lambda name, X: inputs[name].append(X)):
        run(loaded, ids)
    return {name: torch.cat(parts) for name, parts in inputs.items()}


HELD = 2**30


def whitened_row(delta_W: Tensor, X: Tensor, ranks: list[int]) -> Row:
    """Whitened spectrum of a change (n x m) on inputs `X` (tokens x m).

    Returns:
        rank_90, rank_99, stable_rank, effective_rank of `delta_W Sigma^(1/2)`; `lora`: what rank r leaves over;
        `s2ft_rows`: delta of Assumption F.4, what the best rows of the same number of parameters leave over;
        `bound_used`: |delta_W x| / (|delta_W| |x|), the mean over the tokens, |delta_W| the spectral norm.
    """
    n, m = delta_W.shape
    moved = X.to(delta_W.dtype) @ delta_W.T
    seen = Spectrum(torch.zeros(1), 0.0, 0.0, True)
    if norm(moved):
        seen = spectrum(moved / math.sqrt(len(X)), exact_side=max(1024, len(X)))
    by_row = torch.linalg.vector_norm(moved, dim=0, dtype=torch.float64).square().sort(descending=True).values
    largest = spectral_norm(delta_W)
    ratio = 0.0
    if largest:
        sizes = X.norm(dim=1).double().clamp(min=1e-30)
        ratio = float((moved.norm(dim=1).double() / sizes).mean()) / largest
    ranks = [r for r in ranks if r <= min(n, m)]
    return {
        "tokens": len(X),
        "stable_rank": seen.stable_rank,
        "effective_rank": seen.effective_rank,
        "rank_90": seen.rank_for(0.9),
        "rank_99": seen.rank_for(0.99),
        "lora": {str(r): seen.relative_tail(r) for r in ranks},
        "s2ft_rows": {str(r): outside(by_row, min(r * (n + m) // m, n)) for r in ranks},
        "bound_used": ratio,
    }


def forgetting(before: list[Tensor], after: list[Tensor], ids: list[list[int]], kind: str) -> Row:
    """What the tuned model does differently on the texts.

    Args:
        before: outputs of the base model, see `run`.
        after: outputs of the tuned model.
        ids: the texts' tokens.
        kind: decoder or encoder.

    Returns:
        For a decoder, in nats a predicted token: loss before and after, `forgetting` their difference, KL
        divergence of the tuned from the base prediction; `agreement`: share of equal first choices.
        For an encoder: mean cosine of the mean-pooled states, mean relative movement of the token states.
    """
    if kind == "encoder":
        pooled = [
            F.cosine_similarity(a.mean(0), b.mean(0), dim=0) for a, b in zip(before, after, strict=True)
        ]
        moved = [(b - a).norm(dim=1) / a.norm(dim=1) for a, b in zip(before, after, strict=True)]
        return {
            "texts": len(ids),
            "tokens": sum(map(len, ids)),
            "cosine": float(torch.stack(pooled).mean()),
            "movement": float(torch.cat(moved).mean()),
        }
    totals = torch.zeros(4, dtype=torch.float64)
    count = 0
    for a, b, sequence in zip(before, after, ids, strict=True):
        old, new = a[:-1].double().log_softmax(1), b[:-1].double().log_softmax(1)
        target = torch.tensor(sequence[1:])[:, None]
        totals += torch.stack(
            [
                -old.gather(1, target).sum(),
                -new.gather(1, target).sum(),
                (old.exp() * (old - new)).sum(),
                (old.argmax(1) == new.argmax(1)).sum().double(),
            ]
        )
        count += len(target)
    loss, tuned_loss, divergence, agreed = (totals / count).tolist()
    return {
        "texts": len(ids),
        "tokens": count,
        "loss_base": loss,
        "loss_tuned": tuned_loss,
        "forgetting": tuned_loss - loss,
        "divergence": divergence,
        "agreement": agreed,
    }


def load_base(pair: Pair) -> Loaded:
    """The base model, in the dtype of its files (float16 becomes float32: few processors multiply it)."""
    return _load(pair.base, pair.before[pair.names[0]].dtype)


def load_tuned(pair: Pair, base: Loaded | None) -> Loaded:
    """The tuned model: of its folder, or the base model under its adapter.

    Raises:
        UserError: the folder holds weights that do not fit its configuration, or the adapter does not load.
    """
    if pair.kind == "folder":
        return _load(pair.tuned_folder, pair.after[pair.names[0]].dtype)
    base = base or load_base(pair)
    with torch.no_grad():
        for name, parameter in ((n, _parameter(base.model, n)) for n in pair.names):
            parameter.add_(pair.matrix(name).delta_W.to(parameter.dtype))
        for name in pair.elsewhere:
            _parameter(base.model, name).copy_(pair.after[name].read())
    return base


def _parameter(model: nn.Module, name: str) -> Tensor:
    for option in (name, name.partition(".")[2]):
        try:
            return model.get_parameter(option)
        except AttributeError:
            continue
    message = f"{name} must be a parameter of the loaded model; it is not"
    raise UserError(message)


def _load(folder: Path, dtype: torch.dtype) -> Loaded:
    dtype = torch.float32 if dtype == torch.float16 else dtype
    return load_folder(folder, folder.resolve().name, "local folder", dtype)

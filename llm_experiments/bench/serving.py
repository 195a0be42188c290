"""One layer that answers every example of a batch with an adapter of its own: S2FT's slices against LoRA's factors.

Both add to one shared product with W0; both adapters have equally many numbers and multiply-adds. LoRA runs two batched
products, the second of which adds in place; S2FT a gather and one such product. The tuner's own serving code, which
takes adapters of different sizes and examples without one, is timed beside them.

Source: S2FT (arXiv:2412.06289), Section 6.2 and Figure 6c.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from llm_experiments.bench.switching import CHANNELS, RANK
from llm_experiments.tuners.s2ft.layer import S2FTLayer
from llm_experiments.tuners.serving import serving
from llm_experiments.tuners.slices import COLUMNS, Slice


@dataclass
class Served:
    """What one batch size gave.

    Attributes:
        adapters: examples in the batch, each with an adapter of its own.
        lora, s2ft, tuner: seconds of one pass in every round, paired; `tuner` is the tuner's serving code.
        error: largest difference of both S2FT forms from the fused weights' answers, over the largest answer.
    """

    adapters: int
    lora: list[float] = field(default_factory=list)
    s2ft: list[float] = field(default_factory=list)
    tuner: list[float] = field(default_factory=list)
    error: float = 0.0


def many_adapters(d: int, count: int, device: str, seed: int = 0) -> S2FTLayer:
    """A d x d layer with `count` adapters, each with its own columns and its own change."""
    generator = torch.Generator().manual_seed(seed)
    base = nn.Linear(d, d, bias=False).requires_grad_(False)
    with torch.no_grad():
        base.weight.copy_(torch.randn(d, d, generator=generator) / d**0.5)
    layer = S2FTLayer(base.to(device), "layer")
    for number in range(count):
        columns = torch.randperm(d, generator=generator)[: min(CHANNELS, d)].sort().values.tolist()
        layer.add_slice(str(number), Slice(COLUMNS, tuple(columns)))
        with torch.no_grad():
            values = layer.values[str(number)]
            values += (0.01 * torch.randn(values.shape, generator=generator)).to(device)
    return layer


def measure_serving(
    counts: Sequence[int], *, d: int, rounds: int, device: str, seed: int = 0
) -> list[Served]:
    """Times both forms over batch sizes, one token an example, in random order within each round.

    Args:
        counts: adapters in a batch.
        d: width of the layer.
        rounds: passes that are timed, after two that are not.
        device: `cpu`, `cuda` or `cuda:N`.
        seed: of all numbers and of the order.
    """
    layer = many_adapters(d, max(counts), device, seed)
    model = nn.Sequential(layer)
    generator = torch.Generator().manual_seed(seed + 1)
    shuffle = random.Random(seed)
    rank, W0 = min(RANK, d), layer.base_layer.weight
    found = []
    for count in counts:
        x = torch.randn(count, 1, d, generator=generator).to(device)
        A = (torch.randn(count, d, rank, generator=generator) / d**0.5).to(device)
        B = torch.randn(count, rank, d, generator=generator).to(device)
        names = [str(number) for number in range(count)]
        changes = torch.stack([layer.change(name).detach().T for name in names]).contiguous()  # count x s x d
        columns = torch.stack([layer.positions[name] for name in names]).unsqueeze(1)

        def lora(x: Tensor = x, A: Tensor = A, B: Tensor = B) -> Tensor:
            return (x @ W0.T).baddbmm_(x @ A, B)

        def s2ft(x: Tensor = x, columns: Tensor = columns, changes: Tensor = changes) -> Tensor:
            return (x @ W0.T).baddbmm_(x.gather(-1, columns), changes)

        with serving(model, names):
            ways: dict[str, Callable[[], Tensor]] = {
                "lora": lora,
                "s2ft": s2ft,
                "tuner": lambda x=x: model(x),
            }
            result = Served(count, error=_error(layer, names, x, [ways["s2ft"](), ways["tuner"]()]))
            order = list(ways)
            for number in range(rounds + 2):
                shuffle.shuffle(order)
                for way in order:
                    seconds = _timed(ways[way], device, repeats=max(1, 20 // count))
                    if number >= 2:
                        getattr(result, way).append(seconds)
        found.append(result)
    return found


def _error(layer: S2FTLayer, names: Sequence[str], x: Tensor, served: Sequence[Tensor]) -> float:
    """Largest difference of answers from those of the weights with each change added."""
    W0 = layer.base_layer.weight
    alone = torch.stack(
        [one @ (W0 + layer.get_delta_weight(name)).T for name, one in zip(names, x, strict=True)]
    )
    return max(float((answers - alone).abs().max() / alone.abs().max()) for answers in served)


def _timed(call: Callable[[], Tensor], device: str, repeats: int) -> float:
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    wait()
    return (time.perf_counter() - begin) / repeats

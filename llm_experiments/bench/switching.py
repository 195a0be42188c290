"""What fusing an adapter into one weight costs: LoRA's product against S2FT's slice.

Source: S2FT (arXiv:2412.06289), Figure 6a, 6b, whose baseline is a product followed by an addition. One call
that multiplies and adds in place does the same work, so it stands here as LoRA's better form.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from llm_experiments.bench.statistics import paired_ratio, quartiles

RANK, CHANNELS = 16, 32  # equal bytes: r (d + d) = s d
FORMS = ("lora_matmul_add", "lora_addmm", "s2ft_index_add", "s2ft_slice_add")


def fuses(d: int, device: str, dtype: torch.dtype, seed: int = 0) -> dict[str, Callable[[], Tensor]]:
    """The four ways to fuse an adapter into a d x d weight, each on a weight of its own, all in place.

    `A` is r x d, `B` is d x r; S2FT's `V'` is s x d and goes to s rows, at random places or side by side.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device, dtype)

    W, A, B, V = draw(d, d), draw(RANK, d), draw(d, RANK), draw(CHANNELS, d)
    rows = torch.randperm(d, generator=generator)[:CHANNELS].sort().values.to(device)
    start = int(rows[0]) % (d - CHANNELS + 1)
    return {
        "lora_matmul_add": lambda: W.add_(B @ A),
        "lora_addmm": lambda: W.addmm_(B, A),
        "s2ft_index_add": lambda: W.index_add_(0, rows, V),
        "s2ft_slice_add": lambda: W.narrow(0, start, CHANNELS).add_(V),
    }


def measure_switching(
    sizes: Sequence[int], *, rounds: int, device: str, dtype: torch.dtype = torch.float32, seed: int = 0
) -> list[dict[str, float | int]]:
    """Median microseconds of one fuse at every size, and how many times faster S2FT is, paired by round.

    Returns:
        One row a size: `d`, the median of every form, `gain_as_published` (index_add against matmul and add)
        and `gain_best` (faster S2FT form against faster LoRA form).
    """
    table = []
    shuffle = random.Random(seed)
    for d in sizes:
        ways = fuses(d, device, dtype, seed)
        times: dict[str, list[float]] = {form: [] for form in FORMS}
        order = list(FORMS)
        for number in range(rounds + 2):
            shuffle.shuffle(order)
            for form in order:
                repeats = max(1, 4096 // d)  # short calls are timed several at a time
                _wait(device)
                begin = time.perf_counter()
                for _ in range(repeats):
                    ways[form]()
                _wait(device)
                if number >= 2:
                    times[form].append(1e6 * (time.perf_counter() - begin) / repeats)
        middle = {form: quartiles(times[form])[1] for form in FORMS}
        lora = min(FORMS[:2], key=middle.__getitem__)
        s2ft = min(FORMS[2:], key=middle.__getitem__)
        table.append(
            {
                "d": d,
                **{form: round(middle[form], 1) for form in FORMS},
                "gain_as_published": round(
                    paired_ratio(times["lora_matmul_add"], times["s2ft_index_add"])[1], 1
                ),
                "gain_best": round(paired_ratio(times[lora], times[s2ft])[1], 1),
            }
        )
    return table


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)

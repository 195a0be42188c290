"""S2FT with s = floor(r (m + k) / k) channels has at most the parameters of rank-r LoRA, rarely as many.

Source: S2FT, sections 4.1 and F.2. A layer of m outputs and k inputs: LoRA trains r (m + k) numbers, S2FT s k of
them, with the printed s = floor(r (m + k) / k).

The counts agree exactly if and only if k divides r m; otherwise S2FT has fewer, by less than k (true by the
definition of the floor, for every size). The printed s may also exceed m, the number of channels that there are:
for r = m = k = 1 it asks for two channels of one. It fits if and only if r (m + k) < (m + 1) k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theory.claim import Claim, Control, Json, Reading, Repair, Setting
from theory.evidence import Counterexample, WordProof
from theory.protocol import Instance, Kit
from theory.s2ft import setting


def floor(k: Kit, x: Instance) -> tuple[Any, Any]:
    """(parameters of S2FT, parameters of LoRA), with s the printed floor; sizes are at least one."""
    lora, sparse = x.r * (x.m + x.k), x.s * x.k
    for size in ("m", "k", "r"):
        k.given(f"{size} >= 1", k.le(k.num(1), x[size]))
    k.given("r <= min(m, k)", k.all_(k.le(x.r, x.m), k.le(x.r, x.k)))
    k.given("s <= r (m + k) / k", k.le(sparse, lora))
    k.given("r (m + k) / k < s + 1", k.lt(lora, sparse + x.k))
    return sparse, lora


def equal(k: Kit, x: Instance) -> None:
    """The same number of parameters."""
    sparse, lora = floor(k, x)
    k.claim("equal counts", k.eq(sparse, lora))


def nearly(k: Kit, x: Instance) -> None:
    """At most as many, and less than one channel fewer."""
    sparse, lora = floor(k, x)
    k.claim("not more", k.le(sparse, lora))
    k.claim("less than a channel fewer", k.le(lora, sparse + x.k))


def nearly_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """The definition of the floor."""
    return {
        "not more": [k.hypothesis("s <= r (m + k) / k")],
        "less than a channel fewer": [k.hypothesis("r (m + k) / k < s + 1")],
    }


def fits(k: Kit, x: Instance) -> None:
    """There are s channels to select."""
    floor(k, x)
    k.claim("s <= m", k.le(x.s, x.m))


def fits_given(k: Kit, x: Instance) -> None:
    """The same when LoRA has fewer parameters than the layer and one channel more: s k <= m k."""
    sparse, _ = floor(k, x)
    k.given("r (m + k) <= m k", k.le(x.r * (x.m + x.k), x.m * x.k))
    k.claim("s k <= m k", k.le(sparse, x.m * x.k))


def fits_proof(k: Any, x: Instance) -> Mapping[str, Sequence[Any]]:
    """S k <= r (m + k) <= m k."""
    return {"s k <= m k": [k.hypothesis("s <= r (m + k) / k"), k.hypothesis("r (m + k) <= m k")]}


SIZES: list[dict[str, Any]] = [
    {"m": m, "k": n, "r": r} for m in (1, 2, 3) for n in (1, 2, 3) for r in (1, 2, 3) if r <= min(m, n)
]


def layer(m: int, k: int, r: int) -> Json:
    """Sizes as numbers, with the printed s."""
    return {"m": str(m), "k": str(k), "r": str(r), "s": str(r * (m + k) // k)}


def free(d: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Nothing is free but the sizes."""
    return {"none": (1, 1)}


def build(k: Kit, t: Instance, d: dict[str, Any]) -> Instance:
    """The sizes as numbers, with the printed s."""
    return Instance({n: k.num(v) for n, v in layer(d["m"], d["k"], d["r"]).items()})


def letters(k: Any) -> Instance:
    """Any sizes."""
    return Instance({n: k.number(n) for n in ("m", "k", "r", "s")})


SETTING = Setting(
    dims=SIZES,
    free=free,
    build=build,
    letters=letters,
    boundary=[layer(1, 1, 1), layer(1, 2, 1), layer(4096, 11008, 16), layer(11008, 4096, 16)],
)

CLAIM = Claim(
    id="s2ft/parameter_parity",
    source=setting.source("4.1 and F.2, the sparsity level s"),
    sentence="With s = floor(r (d_l + d_{l-1}) / d_{l-1}) tuned channels S2FT has the parameter count of rank-r LoRA.",
    headline=(
        "True up to less than one channel; exact only if d_{l-1} divides r d_l, and for large r the layer"
        " has fewer than s channels."
    ),
    defect="missing hypothesis",
    setting=SETTING,
    readings=(
        Reading(
            name="exactly",
            statement=equal,
            evidence=Counterexample(layer(1, 2, 1)),
            scope="one output, two inputs, r = 1: two parameters against three",
            repair=Repair(
                sentence="S2FT has at most as many parameters as LoRA, and less than d_{l-1} fewer",
                statement=nearly,
                evidence=WordProof(nearly_proof),
                sharp=layer(2, 2, 1),
            ),
            controls=(
                Control(
                    "the repair's right sides smaller by 1/50",
                    statement=nearly,
                    tighten="1/50",
                    instance=layer(2, 2, 1),
                ),
                Control("the repair", kind="true", statement=nearly),
            ),
        ),
        Reading(
            name="up to one channel",
            sentence="S2FT has at most as many parameters as LoRA, and less than d_{l-1} fewer.",
            statement=nearly,
            evidence=WordProof(nearly_proof),
            scope="every size and rank",
            sharp=layer(2, 2, 1),
            unused=("m >= 1", "k >= 1", "r >= 1", "r <= min(m, k)"),
            controls=(
                Control(
                    "right sides smaller by 1/50", tighten="1/50", instance=layer(2, 2, 1), only="not more"
                ),
                Control("s k <= m k where LoRA is smaller than the layer", kind="true", statement=fits_given),
            ),
        ),
        Reading(
            name="the channels exist",
            sentence="For every 1 <= r <= min(d_l, d_{l-1}) the layer has s channels to tune.",
            statement=fits,
            evidence=Counterexample(layer(1, 1, 1)),
            scope="one by one, r = 1",
            repair=Repair(
                sentence="it has if r (d_l + d_{l-1}) <= d_l d_{l-1}, that is if LoRA is no larger than the layer",
                statement=fits_given,
                evidence=WordProof(fits_proof),
                necessary={"r (m + k) <= m k": layer(1, 1, 1)},
                sharp=layer(2, 2, 1),
            ),
            controls=(
                Control(
                    "the repair without its hypothesis",
                    statement=fits_given,
                    drop=("r (m + k) <= m k",),
                    instance=layer(1, 1, 1),
                ),
                Control("the repair", kind="true", statement=fits_given),
            ),
        ),
    ),
)

"""What is run, in which order: parts of a few minutes, each a list of units with a record of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llm_experiments.experiments import NAMES

MINUTES = 8.0  # a part stops here and is continued by the next call
MODEL = "MODEL"  # stands for the decoder given by --model
MAIN = ("lora", "s2ft", "floor", "full")
REST = ("dora", "lora16", "cla", "lora_f32")
TRAINED = ("full", "lora", "s2ft_r", "cla")


@dataclass(frozen=True)
class Unit:
    """The smallest thing that is done or not done.

    Attributes:
        name: of the record, below `bench/gpu/`; `{model}` stands for the decoder's short name.
        what: in words.
        kind: `steps`, `switching`, `training`, `simulator` or `experiment`.
        settings: arguments of that kind; part of the unit's key.
    """

    name: str
    what: str
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Units that belong together and fit into `MINUTES`."""

    title: str
    units: tuple[Unit, ...]


def _steps(
    model: str, batch: int, length: int, arms: tuple[str, ...], bases: tuple[str, ...], rounds: int = 15
) -> Unit:
    short = "{model}" if model == MODEL else model
    code = "compiled" if "compiled" in bases else "eager"
    suffix = "" if arms[: len(MAIN)] == MAIN else "-others"
    return Unit(
        name=f"{short}-batch{batch}-seq{length}-{code}{suffix}",
        what=f"training steps in bfloat16, batch {batch} x {length} tokens, {' and '.join(bases)}: {', '.join(arms)}",
        kind="steps",
        settings={
            "model": model,
            "batch": batch,
            "length": length,
            "arms": list(arms),
            "bases": list(bases),
            "rounds": rounds,
            "dtype": "bfloat16",
        },
    )


_EAGER, _COMPILED = ("plain", "lean"), ("plain", "compiled")
_TRAINING = {
    "task": "chain_sum",
    "steps": 200,
    "batch": 16,
    "precision": "bf16-mixed",
    "budget": "1.4%",
    "seeds": 3,
}
_TRAINING |= {"eval_every": 100, "train_size": 0, "final_items": 300}

PARTS = (
    Part(
        "the decoder, transformers' code and the lean one",
        (
            _steps(MODEL, 4, 512, MAIN + REST, _EAGER),
            Unit(
                "switching",
                "fusing an adapter into a weight, bfloat16",
                "switching",
                {"sizes": [1024, 2048, 4096, 8192], "rounds": 31, "dtype": "bfloat16"},
            ),
        ),
    ),
    Part("the decoder under torch.compile", (_steps(MODEL, 4, 512, MAIN, _COMPILED),)),
    Part("a shape of a billion parameters", (_steps("1b", 2, 512, MAIN + REST, _EAGER),)),
    Part("a shape of a billion parameters under torch.compile", (_steps("1b", 2, 512, MAIN, _COMPILED),)),
    Part(
        "training: four methods, three seeds",
        (Unit("training", "chain_sum by full, lora, s2ft_r, cla", "training", _TRAINING),),
    ),
    Part(
        "lengths and batch sizes",
        (
            _steps(MODEL, 1, 1024, MAIN, ("plain",)),
            _steps(MODEL, 16, 512, MAIN, ("plain",)),
            _steps(MODEL, 4, 2048, MAIN, ("plain",)),
            _steps("1b", 1, 1024, MAIN, ("plain",)),
            _steps("1b", 8, 512, MAIN, ("plain",)),
        ),
    ),
    Part(
        "simulators",
        (Unit("ood_risk", "sims/ood_risk.py --quick on the GPU", "simulator", {"options": ["--quick"]}),),
    ),
    Part("the decoder under torch.compile, other methods", (_steps(MODEL, 4, 512, REST[:3], _COMPILED),)),
    Part(
        "a billion parameters under torch.compile, other methods",
        (_steps("1b", 2, 512, REST[:3], _COMPILED),),
    ),
)

# Experiments, the most telling first; a row longer than a part goes on in the next call.
_TELLING = (
    "ood_forgetting",
    "variants_quality",
    "generalization_gap",
    "intruders",
    "robustness",
    "rank_saturation",
)


def _experiment(row: str, tier: str = "gpu") -> Unit:
    return Unit(f"experiment-{row}", f"experiment {row}", "experiment", {"row": row, "tier": tier})


PARTS += tuple(
    Part(f"experiment {row}", (_experiment(row),))
    for row in (*_TELLING, *(name for name in NAMES if name not in _TELLING))
)

# The same road at sizes that a processor walks in seconds.
REHEARSAL = (
    Part(
        "tiny shapes",
        (
            Unit(
                "tiny-steps",
                "training steps of tiny shapes",
                "steps",
                {
                    "model": "tiny",
                    "batch": 2,
                    "length": 8,
                    "arms": list(MAIN),
                    "bases": ["plain", "lean"],
                    "rounds": 3,
                    "dtype": "bfloat16",
                },
            ),
            Unit(
                "switching",
                "fusing an adapter",
                "switching",
                {"sizes": [64], "rounds": 2, "dtype": "bfloat16"},
            ),
        ),
    ),
    Part(
        "tiny training",
        (
            Unit(
                "training",
                "two steps by each method",
                "training",
                {
                    **_TRAINING,
                    "steps": 2,
                    "batch": 2,
                    "budget": "20%",
                    "seeds": 1,
                    "eval_every": 0,
                    "train_size": 8,
                }
                | {"final_items": 2, "precision": "fp32", "model": "tiny_llama"},
            ),
        ),
    ),
    Part("a tiny experiment", (_experiment("ood_forgetting", "smoke"),)),
    Part(
        "a tiny simulation",
        (
            Unit(
                "ood_risk",
                "sims/ood_risk.py with four networks",
                "simulator",
                {"options": ["--quick", "--seeds", "4", "--steps", "20", "--jobs", "1"]},
            ),
        ),
    ),
)

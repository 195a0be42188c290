"""Which fine-tuning forgets less? Out-of-distribution risk of full tuning, LoRA and S2FT, theory beside simulation.

One layer of a deep linear network is tuned on a regression task and judged on a shifted one,
Bo = W + t D + Z: t = 0 asks for the pretrained map back, t = 1 for the task that was trained, Z is new.
Every quantity is computed twice on the same networks: from the closed forms of the theory and by running
gradient descent. "z" is the mean difference of the two in standard errors over the seeds.

    python sims/ood_risk.py --quick             seconds: all parts, few seeds
    python sims/ood_risk.py                     under three minutes: all parts, variants of network and task
    python sims/ood_risk.py --weights minilm    one feed-forward block of a real encoder, real text through it
    python sims/ood_risk.py --widths 32,64,32 --tuned 1 --rank 4 --alignment 0.8     a network of your own
    python sims/ood_risk.py --bench             gradient steps a second, beside a plain loop

Risks are relative to the pretrained risk in distribution, which is 1. The claims behind it: s2ft/phase_law,
s2ft/ood_crossover, s2ft/gain_equals_movement, s2ft/lemma_f9, s2ft/lemma_f12, and each bound by its id.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from dataclasses import fields

from sims import assets, descent, networks, ood_bench, ood_encoder, ood_report
from sims.networks import BadSetting, Task
from sims.ood_sections import Run
from sims.present import BadInput, Parser, guarded, save

AUDIT = [["--quick"], ["--weights", "minilm"], []]

QUICK_SEEDS, SEEDS, SHIFTS = 128, 512, 256
HELP = {
    "widths": "d_0,...,d_L: inputs, hidden widths, outputs (default: %(default)s)",
    "tuned": "which layer is tuned, 1 to L (default: %(default)s)",
    "rank": "LoRA's rank (default: 4; 8 with --weights minilm)",
    "channels": "channels that S2FT tunes (default 0: LoRA's parameter count)",
    "selection": "how S2FT chooses its channels (default: %(default)s)",
    "residual_rank": "rank of what the layer can still learn (default: %(default)s)",
    "decay": "its j-th singular value is j^-decay (default: %(default)s)",
    "on_selected": "share of the residual on the selected channels (default: as drawn)",
    "unreachable": "share of the risk that the layer cannot remove (default: %(default)s)",
    "condition": "condition number of each layer (default: %(default)s)",
    "input_decay": "the j-th input variance falls as j^-input_decay (default: %(default)s)",
    "covariate_shift": "share of another input covariance in the shifted one (default: %(default)s)",
    "alignment": "t of the shift (default: %(default)s)",
    "shift_size": "size of Z relative to D (default: %(default)s)",
    "shift_law": "law of Z (default: %(default)s)",
    "noise": "noise variance relative to the pretrained risk (default: %(default)s)",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    p = Parser(
        prog="python sims/ood_risk.py",
        description=f"{summary}\n{rest}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--quick", action="store_true", help="few seeds, no variants")
    p.add_argument(
        "--weights", choices=("random", "minilm"), default="random", help="where the maps come from"
    )
    p.add_argument(
        "--encoder-layer", type=int, default=3, metavar="I", help="block of the encoder, 0 to 5 (default: 3)"
    )
    p.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help=f"networks in each part (default {SEEDS}, quick {QUICK_SEEDS}); random shifts with minilm ({SHIFTS})",
    )
    p.add_argument("--seed", type=int, default=0, metavar="N", help="first number of all random streams")
    p.add_argument(
        "--steps", type=int, metavar="N", help="gradient steps (default: 3000; 30000 with --weights minilm)"
    )
    p.add_argument(
        "--start", choices=descent.STARTS, default="usual", help="LoRA's start (default: %(default)s)"
    )
    p.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all cores)"
    )
    p.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the gradient steps run")
    p.add_argument(
        "--bench", action="store_true", help="measure gradient steps a second instead; writes no record"
    )
    task = p.add_argument_group("network and task")
    for field in fields(Task):
        option = f"--{field.name.replace('_', '-')}"
        if field.name == "widths":
            task.add_argument(
                option, type=_widths, default=Task.widths, metavar="D,D,...", help=HELP["widths"]
            )
        elif field.name in ("selection", "shift_law"):
            known = networks.SELECTIONS if field.name == "selection" else networks.LAWS
            task.add_argument(option, choices=known, default=field.default, help=HELP[field.name])
        else:
            kind = type(field.default)
            default = None if field.name == "rank" else field.default
            task.add_argument(option, type=kind, default=default, metavar="X", help=HELP[field.name])
    return p


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        msg = f"must be sizes with commas between, as in 16,32,16; got {text!r}"
        raise argparse.ArgumentTypeError(msg) from None


def task_of(options: argparse.Namespace) -> Task:
    """The task that the options describe."""
    given = {f.name: getattr(options, f.name) for f in fields(Task) if getattr(options, f.name) is not None}
    return Task(**given)


def run_of(options: argparse.Namespace) -> Run:
    """How to compute it."""
    if options.steps is None:
        options.steps = 30000 if options.weights == "minilm" and not options.quick else 3000
    for name, least in (("jobs", 1), ("steps", 1), ("seed", 0)):
        if getattr(options, name) < least:
            msg = f"{name} must be at least {least}; got {getattr(options, name)}"
            raise BadInput(msg)
    usual = SHIFTS if options.weights == "minilm" else QUICK_SEEDS if options.quick else SEEDS
    seeds = usual if options.seeds is None else options.seeds
    if seeds < 2:
        msg = f"seeds must be at least 2, for a standard error; got {seeds}"
        raise BadInput(msg)
    if options.device == "cuda":
        try:
            import torch
        except ImportError:
            msg = "device cuda needs torch; install the extra 'sim'"
            raise BadInput(msg) from None
        if not torch.cuda.is_available():
            msg = "device cuda must be available; torch sees none, use --device cpu"
            raise BadInput(msg)
    marks = [n for n in (10, 30, 100, 300, 1000, 3000, 10000, 30000) if n < options.steps]
    return Run(options.seed, seeds, (*marks, options.steps), options.start, options.device, options.jobs)


def refuse_unused(options: argparse.Namespace) -> None:
    """Refuse options that the chosen weights leave without effect, instead of ignoring them."""
    plain = parser().parse_args([])
    if options.weights == "minilm":
        unused = [f.name for f in fields(Task) if f.name != "rank"]
    else:
        unused = ["encoder_layer"]
    for name in unused:
        if getattr(options, name) != getattr(plain, name):
            msg = f"{name.replace('_', '-')} has no effect with --weights {options.weights}; leave it out"
            raise BadInput(msg)


def record_name(options: argparse.Namespace) -> str:
    """`ood_risk`, `-quick`, `-minilm`; any other settings get a name made from them."""
    kind = {"random": "", "minilm": "-minilm"}[options.weights] + ("-quick" if options.quick else "")
    free = {"quick", "weights", "jobs", "device", "bench"}  # jobs and device do not change what is asked
    plain = vars(parser().parse_args([]))
    other = {n: v for n, v in sorted(vars(options).items()) if n not in free and v != plain[n]}
    return f"ood_risk{kind}" + (f"-{hashlib.sha256(repr(other).encode()).hexdigest()[:8]}" if other else "")


def main(arguments: list[str] | None = None) -> None:
    """Run the simulator."""
    from threadpoolctl import threadpool_limits

    options = parser().parse_args(arguments)
    started = time.monotonic()
    refuse_unused(options)
    name = record_name(options)
    run = run_of(options)
    if options.bench:
        ood_bench.bench(task_of(options), run)
        return
    if options.weights == "minilm":
        rank = 8 if options.rank is None else options.rank
        with threadpool_limits(1):  # the same sums in the same order on every number of cores
            record = ood_encoder.record(name, run, options.encoder_layer, rank, quick=options.quick)
    else:
        task = task_of(options)
        record = ood_report.record(
            name, run, task, quick=options.quick, variants=task == Task() and not options.quick
        )
    save(record, time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(guarded(main, refused=(BadSetting, assets.AssetError)))

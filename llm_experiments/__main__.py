"""Command line: `python -m llm_experiments COMMAND`.

One line of `COMMANDS` a subcommand. Its module is imported only when it is called, so `--help` of the
others stays quick, and holds a function `command` whose signature and docstring are the options and the help.
Bad input is one line on stderr and exit status 2, an interruption 3; anything else that fails shows its
traceback.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import typer

# name: (module, one line for the overview)
COMMANDS = {
    "prepare": ("llm_experiments.prepare", "Fetch models and data, verify them, convert them; resumes."),
    "list": ("llm_experiments.catalogue", "Show methods, tasks and models, and what is prepared."),
    "train": ("llm_experiments.train_command", "Tune a model by one method on one task, over seeds."),
    "measure": ("llm_experiments.measure", "What tuning did to a checkpoint: spectra, distances, bounds."),
    "advise": ("llm_experiments.advise.command", "Which method for your model, task and memory, and why."),
    "bench": ("llm_experiments.bench.command", "Time and memory of a training step, method beside method."),
    "gpu": ("llm_experiments.gpu.command", "Everything that wants a GPU, in parts of minutes; resumes."),
    "run": (
        "llm_experiments.experiments.command",
        "An experiment of the papers: predictions scored on real models.",
    ),
    "new-method": (
        "llm_experiments.new_method",
        "Write a method of your own to start from; the trainer knows it.",
    ),
    "doctor": ("llm_experiments.doctor", "Check the environment and say what would fix it."),
}

# Both typer's own copy of click and a separate click keep this class one step above BadParameter.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def overview() -> str:
    """The text of `--help` without a command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m llm_experiments COMMAND [OPTIONS]",
            "",
            "Fine-tuning methods on real language models, on a laptop's CPU or on a GPU.",
            "",
            *lines,
            "",
            "First result within a minute:",
            "  python -m llm_experiments prepare --only minilm --only sentiment",
            "  python -m llm_experiments train s2ft_r",
            "",
            "`python -m llm_experiments COMMAND --help` explains a command.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("--help", "-h", "help"):
        print(overview())
        return 0 if given else 2
    name, *rest = given
    if name not in COMMANDS:
        print(f"error: command must be one of {', '.join(COMMANDS)}; got {name!r}", file=sys.stderr)
        return 2
    # Light modules, needed to tell a user's mistake from ours.
    from llm_experiments.errors import UserError
    from reports.store import RecordError
    from sims.assets import AssetError

    app = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    app.command(name)(importlib.import_module(COMMANDS[name][0]).command)
    try:
        status = app(rest, prog_name=f"python -m llm_experiments {name}", standalone_mode=False)
    except UsageError as error:
        print(f"error: {error.format_message()}; see --help", file=sys.stderr)
        return 2
    except (UserError, AssetError, RecordError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    if status == 130:
        print("error: interrupted; finished parts are kept, run the same command again", file=sys.stderr)
        return 3
    return status or 0


if __name__ == "__main__":
    sys.exit(main())

"""`new-method`: a recipe file to start from, in the registry at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from llm_experiments import recipes
from llm_experiments.errors import UserError

TEMPLATE = '''"""{name}: <what the method does, in a sentence>.

Ask first what it changes. Where trainable numbers live: a tuner (llm_experiments/tuners/, in peft's shape) that this
recipe puts on the model. How they move: an optimizer (`Tuned.optimizer`). When they are merged and start again: a
schedule (llm_experiments/schedules.py). This example trains parameters that are there already, the norms.
"""

from __future__ import annotations

from torch import nn

from llm_experiments.recipes.base import Method, Request, Tuned
from llm_experiments.tuners.architectures import blocks


def {name}(model: nn.Module, request: Request) -> Tuned:
    """The weights (and biases) of the norms in the blocks train.

    Args:
        model: pretrained; changed in place.
        request: budget (a count), seed, calibration batches and options; see `Request`.

    Raises:
        ValueError: an option is unknown, or the model has no norms; one line, which the user sees.
    """
    if request.options:
        msg = f"there are no options; got {{sorted(request.options)}}"
        raise ValueError(msg)
    model.requires_grad_(False)
    norms = [
        p
        for block in blocks(model).values()
        for name, module in block.named_modules()
        if "norm" in type(module).__name__.lower()
        for p in module.parameters(recurse=False)
    ]
    if not norms:
        msg = "norms train, and this model has none in its blocks"
        raise ValueError(msg)
    for parameter in norms:
        parameter.requires_grad_(True)
    # The formula's count; the trainer compares it with what it finds on the model.
    return Tuned(model, sum(p.numel() for p in norms), {{}})


METHODS = (
    Method(
        name="{name}",
        recipe={name},
        trains="the norms of the blocks",
        source="<paper, place>",
        claims=(),  # ids of claims that speak about it
        mergeable=True,  # or the reason why the result is no plain model
        uses_budget=False,  # its size is fixed; True if it spends request.budget
    ),
)
'''


def command(
    name: Annotated[str, typer.Argument(help="Name of the method: lower-case letters, digits, underscores.")],
) -> None:
    """Write llm_experiments/recipes/NAME.py, a method that works, and add it to the registry.

    From then on it is a method like the others: `list` shows it, `train NAME` trains it, `advise` and `bench` compare it,
    and the tests of all methods run on it.

        python -m llm_experiments new-method my_method
        python -m llm_experiments train my_method --model tiny_llama --task chain_sum --steps 20
    """
    from llm_experiments import methods

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        message = f"name must be lower-case letters, digits and underscores, as in my_method; got {name!r}"
        raise UserError(message)
    folder = Path(recipes.__file__).parent
    file = folder / f"{name}.py"
    if name in methods.names() or file.exists():
        message = f"there is a method or a file {name} already; give another name"
        raise UserError(message)
    try:
        file.write_text(TEMPLATE.format(name=name), encoding="utf-8")
        add_row(folder / "__init__.py", name)
    except OSError as error:
        message = f"{error.filename} cannot be written ({error.strerror}); run this in a checkout that you may write to"
        raise UserError(message) from None
    print(f"wrote {file.name} in llm_experiments/recipes and added it to ROWS; now:")
    print(f"  python -m llm_experiments train {name} --model tiny_llama --task chain_sum --steps 20")
    print(f"  python -m pytest tests/llm_experiments -k {name}")


def add_row(registry: Path, name: str) -> None:
    """Add a file's name at the end of `ROWS`.

    Raises:
        UserError: the registry has another shape than expected.
    """
    text = registry.read_text(encoding="utf-8")
    changed, count = re.subn(r"(\nROWS = \((?:[^()]*))\n\)", rf'\1\n    "{name}",\n)', text, count=1)
    if not count:
        message = f"ROWS was not found in {registry.name}; add {name!r} to it by hand"
        raise UserError(message)
    registry.write_text(changed, encoding="utf-8")

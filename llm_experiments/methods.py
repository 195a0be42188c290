"""The registry of fine-tuning methods: by name, from budget to tuned model.

```
tuned = methods.get("s2ft_r").apply(model, Budget.ratio(0.01), seed=0)
optimizer = tuned.optimizer(lr=1e-3)
...
tuned.schedule.on_step_end(step, optimizer)
tuned.save("adapter"), tuned.merge()
```
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module

from llm_experiments.recipes import ROWS
from llm_experiments.recipes.base import Budget, Method, MethodError, PeftTuned, Tuned

__all__ = ["Budget", "Method", "MethodError", "PeftTuned", "Tuned", "get", "names"]


@cache
def _registry() -> dict[str, Method]:
    found: dict[str, Method] = {}
    for row in ROWS:
        for method in import_module(f"llm_experiments.recipes.{row}").METHODS:
            if method.name in found:
                msg = f"method names must be distinct; {method.name!r} appears again in recipes/{row}.py"
                raise ValueError(msg)
            found[method.name] = method
    return found


def names() -> list[str]:
    """All methods, in the order of the registry."""
    return list(_registry())


def get(name: str) -> Method:
    """The method of that name.

    Raises:
        MethodError: there is none; the message offers the nearest names.
    """
    if name in _registry():
        return _registry()[name]
    near = difflib.get_close_matches(name, names(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names())}"
    msg = f"there is no method {name!r}; {hint}"
    raise MethodError(msg)

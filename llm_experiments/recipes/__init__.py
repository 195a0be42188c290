"""The methods, a file for each family; `ROWS` lists the files in the order of the registry.

A method is added by a file with a tuple `METHODS` and its name in `ROWS`: tests, budgets and benchmarks find it.
"""

ROWS = (
    "full",
    "lora",
    "baselines",
    "chains",
    "s2ft",
    "cla",
    "spft",
    "galore",
    "lisa",
    "bottlenecks",
    "peso",
    "hybrid",
)

"""Configuration of bottleneck adapters."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from llm_experiments.registration import PeftType, add_member

FORMS = ("series", "parallel")


@dataclass
class BottleneckConfig(PeftConfig):
    """A small network `h -> U relu(D h + d) + u` after or beside a sublayer, before the residual is added.

    Source: Houlsby et al. (arXiv:1902.00751) for `series`; He et al. (arXiv:2110.04366) for `parallel`.

    Args:
        form: `series` takes the output of the targeted layer (of both sublayers by default); `parallel` takes
            the input of the feed-forward sublayer that the targeted layer ends.
        width: size of the bottleneck.
        target_modules: linear layers that end a sublayer; by default the output and down projections
            (`series`) or the down projections (`parallel`) of a model in the table of architectures.
        exclude_modules, modules_to_save: as in peft's other tuners.
    """

    form: str = field(default="series", metadata={"help": f"One of {', '.join(FORMS)}."})
    width: int = field(default=16, metadata={"help": "Size of the bottleneck."})
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Linear layers that end a sublayer."}
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Layers to leave out of target_modules."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Further modules that train and are saved, such as a classifier."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = add_member(PeftType, "BOTTLENECK")
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if self.form not in FORMS:
            msg = f"form must be one of {', '.join(FORMS)}; got {self.form!r}"
            raise ValueError(msg)
        if self.width < 1:
            msg = f"width must be at least 1; got {self.width}"
            raise ValueError(msg)

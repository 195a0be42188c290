"""Configuration of S2FT."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from llm_experiments.registration import PeftType, add_member

SELECTIONS = ("random", "weight", "activation", "product", "gradient")
DIRECTIONS = ("largest", "smallest")
LAYOUTS = ("permute", "gather")


@dataclass
class S2FTConfig(PeftConfig):
    """Which attention heads and feed-forward channels train, and how they are chosen.

    Source: S2FT (arXiv:2412.06289), Sections 3.2 and 3.3 and Appendix D.

    Args:
        target_modules: names (suffixes) of the linear layers that train. Output and down projections are
            sliced by input channel, all others of a block by output channel. Default: output projections if
            `heads` > 0, down projections if `channels` > 0.
        heads: attention heads that train in every block whose attention is targeted.
        channels: feed-forward channels that train in every block whose feed-forward part is targeted.
        inputs: input channels that train in every targeted linear layer outside the table of architectures.
        selection: `random`, or the norm of `weight`, `activation`, their `product`, or the `gradient`; the
            last three need `calibrate(model, config, batches)` beforehand.
        direction: keep the `largest` or the `smallest` scores; random selection has none.
        layout: `permute` renumbers coupled channels once, so that each slice is a range and trains in place
            (undone when merging and unloading); `gather` leaves the order alone, picks the activations by
            index and adds a skinny product.
        seed: seed of the random selection.
        selected: the choice itself, structure name -> head or channel numbers in the original order.
            Filled at injection and saved, so that an adapter loads without data or random numbers.
        perturb: start from noisy slices instead of the pretrained ones; for tests.
        exclude_modules, modules_to_save, layers_to_transform, layers_pattern: as in peft's other tuners.
    """

    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Linear layers that train; default: output and down projections."}
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Layers to leave out of target_modules."}
    )
    heads: int = field(default=0, metadata={"help": "Attention heads that train in every block."})
    channels: int = field(default=0, metadata={"help": "Feed-forward channels that train in every block."})
    inputs: int = field(default=0, metadata={"help": "Input channels that train in a free-standing linear."})
    selection: str = field(default="random", metadata={"help": f"One of {', '.join(SELECTIONS)}."})
    direction: str | None = field(default=None, metadata={"help": "largest or smallest; none for random."})
    layout: str = field(default="permute", metadata={"help": f"One of {', '.join(LAYOUTS)}."})
    seed: int = field(default=0, metadata={"help": "Seed of the random selection."})
    selected: dict[str, list[int]] | None = field(
        default=None, metadata={"help": "Heads and channels by structure, in the original order."}
    )
    perturb: bool = field(default=False, metadata={"help": "Start from noisy slices; for tests."})
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Further modules that train and are saved, such as a classifier."}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata={"help": "Numbers of the blocks to adapt; all by default."}
    )
    layers_pattern: list[str] | str | None = field(
        default=None, metadata={"help": "Name of the list of blocks, if it is not a usual one."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = add_member(PeftType, "S2FT")
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        if self.selection not in SELECTIONS:
            msg = f"selection must be one of {', '.join(SELECTIONS)}; got {self.selection!r}"
            raise ValueError(msg)
        if self.layout not in LAYOUTS:
            msg = f"layout must be one of {', '.join(LAYOUTS)}; got {self.layout!r}"
            raise ValueError(msg)
        if self.selection == "random":
            if self.direction is not None:
                msg = f"direction has no meaning for a random selection; got {self.direction!r}, leave it out"
                raise ValueError(msg)
        elif self.direction not in DIRECTIONS:
            msg = f"direction must be largest or smallest for {self.selection!r}; got {self.direction!r}"
            raise ValueError(msg)
        for name in ("heads", "channels", "inputs"):
            if getattr(self, name) < 0:
                msg = f"{name} must be at least 0; got {getattr(self, name)}"
                raise ValueError(msg)
        if self.selected is None and not (self.heads or self.channels or self.inputs):
            msg = "one of heads, channels, inputs must be at least 1; all are 0, so nothing would train"
            raise ValueError(msg)

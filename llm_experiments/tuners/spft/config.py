"""Configuration of SpFT."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from llm_experiments.registration import PeftType, add_member


@dataclass
class SpftConfig(PeftConfig):
    """A fixed random set of single entries of every targeted weight trains.

    Source: S2FT (arXiv:2412.06289), Section 2 (SpFT, as the baseline there: masks drawn at random).

    Args:
        ratio: share of the entries of every targeted weight that trains.
        seed: seed of the masks; a layer's mask depends on the seed, its name and its shape alone, so that it
            need not be saved.
        target_modules: linear layers that train; by default all of every block of a model in the table.
        exclude_modules, modules_to_save, layers_to_transform, layers_pattern: as in peft's other tuners.
    """

    ratio: float = field(default=0.01, metadata={"help": "Share of the entries that trains."})
    seed: int = field(default=0, metadata={"help": "Seed of the masks."})
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Linear layers that train; default: all of every block."}
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Layers to leave out of target_modules."}
    )
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
        self.peft_type = add_member(PeftType, "SPFT")
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        if not 0 < self.ratio <= 1:
            msg = f"ratio must satisfy 0 < ratio <= 1; got {self.ratio}"
            raise ValueError(msg)

"""Configuration of LoReFT."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from llm_experiments.registration import PeftType, add_member


@dataclass
class LoreftConfig(PeftConfig):
    """The output `h` of a block becomes `h + R' (W h + b - R h)` with `R` (r x d) of orthonormal rows.

    Source: Wu et al., LoReFT (arXiv:2404.03592), eq. 2. Choices made here: every position is edited (which
    positions is a hyper-parameter there), and `W = R`, `b = 0` at the start, so that training starts from the
    pretrained model.

    Args:
        r: dimension of the edited subspace.
        target_modules: the blocks; by default all of a model in the table of architectures.
        exclude_modules, modules_to_save: as in peft's other tuners.
    """

    r: int = field(default=4, metadata={"help": "Dimension of the edited subspace."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Blocks to edit; all."})
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Blocks to leave out of target_modules."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Further modules that train and are saved, such as a classifier."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = add_member(PeftType, "LOREFT")
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if self.r < 1:
            msg = f"r must be at least 1; got {self.r}"
            raise ValueError(msg)

"""Configuration of cLA."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft import PeftConfig

from llm_experiments.registration import PeftType, add_member

FORMS = ("in_place", "factor")


@dataclass
class ClaConfig(PeftConfig):
    """The weight change `(alpha / r) B A` with `A = [0, I_r, 0]` (r x d_in) fixed and `B` (d_out x r) trained.

    Source: LoRA past, present and future, eq. 5 and Algorithms 1-4. As printed, the random offset of
    Algorithm 2 reaches only the first columns; here every column is reached with probability `r / d_in`: the
    offset is uniform over the multiples of `r` if `r` divides `d_in`, else uniform over all columns with
    wrap-around. The shift of Algorithm 3 wraps around as well.

    Args:
        r: columns that train in every targeted layer.
        alpha: the scale of the update is `alpha / r`; by default `alpha = r`.
        form: `factor` trains `B`, as the paper writes it; `in_place` trains the columns of `W` themselves,
            `W[:, a:b] = W0[:, a:b] + (alpha / r) B`. The two take the same steps if the learning rate of the
            second is scaled: by `alpha / r` under Adam (with its epsilon and weight decay divided by it), by
            its square under SGD.
        offset: first column that trains (cLA: 0), or `random` (random-cLA: drawn once per layer).
        seed: seed of the random offsets.
        target_modules: linear layers that train; by default all of every block of a model in the table.
        offsets: the first column by layer. Filled at injection, moved by `ClaModel.shift_`, and saved.
        visited: columns committed by earlier links of a chain, by layer. Filled by `ClaModel.shift_`.
        perturb: start from noise instead of no change; for tests.
        exclude_modules, modules_to_save, layers_to_transform, layers_pattern: as in peft's other tuners.
    """

    r: int = field(default=8, metadata={"help": "Columns that train in every targeted layer."})
    alpha: float | None = field(default=None, metadata={"help": "Scale of the update times r; r by default."})
    form: str = field(default="in_place", metadata={"help": f"One of {', '.join(FORMS)}."})
    offset: int | str = field(default=0, metadata={"help": "First column that trains, or 'random'."})
    seed: int = field(default=0, metadata={"help": "Seed of the random offsets."})
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Linear layers that train; default: all of every block."}
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Layers to leave out of target_modules."}
    )
    offsets: dict[str, int] | None = field(default=None, metadata={"help": "First column by layer."})
    visited: dict[str, list[int]] = field(
        default_factory=dict, metadata={"help": "Columns committed by earlier links of a chain, by layer."}
    )
    perturb: bool = field(default=False, metadata={"help": "Start from noise; for tests."})
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
        self.peft_type = add_member(PeftType, "CLA")
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        if self.r < 1:
            msg = f"r must be at least 1; got {self.r}"
            raise ValueError(msg)
        if self.form not in FORMS:
            msg = f"form must be one of {', '.join(FORMS)}; got {self.form!r}"
            raise ValueError(msg)
        if self.offset != "random" and not (isinstance(self.offset, int) and self.offset >= 0):
            msg = f"offset must be 'random' or a column number from 0 on; got {self.offset!r}"
            raise ValueError(msg)
        if self.alpha is None:
            self.alpha = float(self.r)
        if self.alpha <= 0:
            msg = f"alpha must be positive; got {self.alpha}"
            raise ValueError(msg)

    @property
    def scaling(self) -> float:
        """The factor `alpha / r` of the update."""
        return self.alpha / self.r

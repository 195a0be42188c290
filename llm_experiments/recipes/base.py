"""What a fine-tuning method is to the trainer: budget in, tuned model out.

A `Method` is a row of the registry. `Method.apply` turns a pretrained model and a budget into a `Tuned`: the
model to train, its optimizer, its schedule, and how to count, save, load and merge what it learned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.other import AuxiliaryTrainingWrapper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llm_experiments.optimizers import make_optimizer
from llm_experiments.schedules import Schedule
from llm_experiments.tuners.architectures import blocks

Batch = Mapping[str, Tensor]
Loss = Callable[[nn.Module, Batch], Tensor]

WEIGHTS = "trained.safetensors"


class MethodError(ValueError):
    """A method that is unknown, or that a model or a budget cannot take; one line with the remedy."""


@dataclass(frozen=True)
class Budget:
    """How many numbers may train: a count, or a share of the parameters in the model's blocks.

    Embeddings, pooler and heads are outside the blocks, so that a share means the same for every vocabulary.
    """

    kind: str
    value: float

    @classmethod
    def count(cls, n: int) -> Budget:
        """A budget of `n` trainable parameters."""
        if n < 1:
            msg = f"a budget must allow at least 1 parameter; got {n}"
            raise ValueError(msg)
        return cls("count", int(n))

    @classmethod
    def ratio(cls, p: float) -> Budget:
        """A budget of the share `0 < p <= 1` of the blocks' parameters."""
        if not 0 < p <= 1:
            msg = f"a budget's share must satisfy 0 < share <= 1; got {p}"
            raise ValueError(msg)
        return cls("ratio", float(p))

    def parameters(self, model: nn.Module) -> int:
        """The budget as a number of parameters of this model."""
        return int(self.value) if self.kind == "count" else int(self.value * block_parameters(model))


def block_parameters(model: nn.Module) -> int:
    """Parameters in the transformer blocks; of the whole model where the table has no entry for it."""
    parts = blocks(model).values() or [model]
    return sum(p.numel() for part in parts for p in part.parameters())


@dataclass
class Request:
    """What a recipe is asked for: see `Method.apply`."""

    budget: int
    seed: int
    calibration: Iterable[Batch] | None = None
    loss: Loss | None = None
    steps: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def take(self, **defaults: Any) -> dict[str, Any]:
        """The settings of a configuration: the options where given, else the defaults."""
        return {**defaults, **self.options}


class Tuned:
    """A model under a method: what the trainer trains, saves and merges.

    Attributes:
        model: the network to call and train.
        method: the row of the registry.
        formula: trainable numbers that the method's formula predicts; checked against the model.
        schedule: what happens between steps; see `Schedule`.
        settings: the method's configuration, for the record.
        note: what a reader of the counts should know, such as a budget that was not spent; empty if nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        formula: int,
        settings: Mapping[str, Any],
        schedule: Schedule | None = None,
    ) -> None:
        self.model, self.formula, self.settings = model, formula, dict(settings)
        self.schedule = schedule or Schedule()
        self.note = ""
        self.method: Method
        self.budget: int | None = None

    # -- counts ---------------------------------------------------------------------------------------

    def counted(self) -> int:
        """Trainable parameters of the method itself, without extra modules that train along (heads)."""
        extra = {
            id(p)
            for m in self.model.modules()
            if isinstance(m, AuxiliaryTrainingWrapper)
            for p in m.parameters()
        }
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad and id(p) not in extra)

    def parameters_report(self) -> dict[str, Any]:
        """Counts for the record: asked for, by formula, found on the model, and out of how many."""
        return {
            "budget": self.budget,
            "formula": self.formula,
            "trainable": self.counted(),
            "trainable_with_extra_modules": sum(
                p.numel() for p in self.model.parameters() if p.requires_grad
            ),
            "blocks": self.blocks_total,
            "share_of_blocks": self.counted() / self.blocks_total,
            "settings": self.settings,
            **({"note": self.note} if self.note else {}),
        }

    # -- training -------------------------------------------------------------------------------------

    def optimizer(self, lr: float, weight_decay: float = 0.0, **settings: Any) -> torch.optim.Optimizer:
        """The method's optimizer; see `make_optimizer`."""
        return make_optimizer(self.model, lr, weight_decay, **settings)

    def penalty(self) -> Tensor | None:
        """What the method adds to the mean loss of every step, with its graph; None for most methods."""
        return None

    # -- numbers --------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Everything that training changed, for a checkpoint."""
        return {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave; parameters stay the objects that an optimizer holds.

        Raises:
            MethodError: the tensors belong to another method, model or size.
        """
        expected = self.state()
        self._check(expected, tensors)
        with torch.no_grad():
            for name, tensor in expected.items():
                tensor.copy_(tensors[name])

    def _check(self, expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        odd = expected.keys() ^ tensors.keys()
        odd |= {n for n in expected.keys() & tensors.keys() if expected[n].shape != tensors[n].shape}
        if odd:
            first = ", ".join(sorted(odd)[:3])
            msg = f"saved tensors must be those of {self.method.name} on this model at this size; see {first}"
            raise MethodError(msg)

    def save(self, path: str | Path) -> None:
        """Writes what was learned into the folder `path`."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({n: t.clone().contiguous() for n, t in self.state().items()}, folder / WEIGHTS)

    def load(self, path: str | Path) -> None:
        """Reads what `save` wrote into this model."""
        self.load_state(load_file(Path(path) / WEIGHTS))

    @property
    def mergeable(self) -> bool | str:
        """True, or the reason why the result is no plain model."""
        return self.method.mergeable

    def merge(self) -> nn.Module:
        """The plain model with the change in its weights.

        Raises:
            MethodError: the method cannot be merged; says why.
        """
        if self.mergeable is not True:
            msg = f"{self.method.name} cannot be merged: {self.mergeable}"
            raise MethodError(msg)
        return self._merge()

    def _merge(self) -> nn.Module:
        return self.model


class PeftTuned(Tuned):
    """A `Tuned` whose model is a `peft.PeftModel` with one adapter named `default`."""

    model: PeftModel

    def adapter_state(self) -> dict[str, Tensor]:
        """The adapter's tensors under peft's checkpoint names."""
        return dict(get_peft_model_state_dict(self.model, save_embedding_layers=False))

    def load_adapter_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `adapter_state` gave."""
        self._check(self.adapter_state(), tensors)
        set_peft_model_state_dict(self.model, dict(tensors))

    def state(self) -> dict[str, Tensor]:
        """The adapter's tensors; a method that changes more adds it."""
        return self.adapter_state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave; see `Tuned.load_state`."""
        self.load_adapter_state(tensors)

    def save(self, path: str | Path) -> None:
        """Writes peft's own folder: `PeftModel.from_pretrained(base, path)` loads it."""
        self.model.save_pretrained(str(path), save_embedding_layers=False)

    def load(self, path: str | Path) -> None:
        """Reads a saved adapter of the same configuration into this model."""
        self.load_state(load_file(Path(path) / "adapter_model.safetensors"))

    def _merge(self) -> nn.Module:
        return self.model.merge_and_unload()


def with_peft(
    model: nn.Module,
    config: PeftConfig,
    formula: int,
    seed: int,
    settings: Mapping[str, Any],
    schedule: Schedule | None = None,
    tuned: type[PeftTuned] = PeftTuned,
    **arguments: Any,
) -> PeftTuned:
    """Wraps the model by peft with random numbers of its own seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = get_peft_model(model, config, autocast_adapter_dtype=True)
    return tuned(wrapped, formula, settings, schedule, **arguments)


@dataclass(frozen=True)
class Method:
    """A row of the registry.

    Attributes:
        name: as on the command line and in records.
        recipe: builds the tuned model.
        trains: what trains, in words.
        source: paper and place.
        claims: ids of the claims that the method is tied to.
        mergeable: True, or why the result is no plain model.
        optimizer: how the numbers move, in words.
        schedule: what happens between steps, in words.
        uses_budget: False if the size is fixed by definition.
        calibrated: whether `calibration` batches are needed.
    """

    name: str
    recipe: Callable[[nn.Module, Request], Tuned]
    trains: str
    source: str
    claims: tuple[str, ...] = ()
    mergeable: bool | str = True
    optimizer: str = "AdamW"
    schedule: str = "-"
    uses_budget: bool = True
    calibrated: bool = False

    def apply(
        self,
        model: nn.Module,
        budget: Budget,
        seed: int,
        calibration: Iterable[Batch] | None = None,
        loss: Loss | None = None,
        steps: int | None = None,
        **options: Any,
    ) -> Tuned:
        """Puts the model under this method. The model is changed in place.

        Args:
            model: pretrained model of an architecture in the table.
            budget: how many numbers may train; methods of a fixed size ignore it.
            seed: of everything random in the method (initial factors, selections, offsets).
            calibration: batches (keyword arguments of the model) for methods that look at data first.
            loss: `loss(model, batch)` of a calibration batch; by default the loss that the model returns.
            steps: how many steps will be trained, for methods whose schedule depends on it.
            options: settings of the method's configuration that override what the budget gives.

        Raises:
            MethodError: the model or the budget cannot take the method, or an option is unknown.
        """
        total, numbers = block_parameters(model), budget.parameters(model)
        try:
            tuned = self.recipe(model, Request(numbers, seed, calibration, loss, steps, options))
        except (ValueError, TypeError) as error:
            msg = f"{self.name}: {error}"
            raise MethodError(msg) from error
        tuned.method, tuned.blocks_total = self, total
        tuned.budget = numbers if self.uses_budget else None
        found = tuned.counted()
        if found != tuned.formula:
            msg = f"{self.name}: {found} parameters train, but the method's formula gives {tuned.formula}"
            raise RuntimeError(msg)
        return tuned

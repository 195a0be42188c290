"""One training loop for every method, task and model.

A run is decided by its `Settings`. Two runs that differ in the method alone see the same examples in the
same order, start from the same head and are evaluated on the same items, so their difference is paired by
seed and by item. A run that was killed continues from its last checkpoint and ends in the same record, bit
for bit, on the same processor.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llm_experiments import checkpoint, data, methods, models, records
from llm_experiments.data import Batch, Encoding, Example, Item, Split, Task
from llm_experiments.learner import Learner, Predictions, probe_head, random_head
from llm_experiments.lower import LowerHalf, States, layers_of
from llm_experiments.settings import SettingError, Settings
from llm_experiments.tasks import TASKS

Say = Callable[[str], None]


def parse_budget(text: str) -> methods.Budget:
    """`"1.4%"` is a share of the tuned layers' parameters, `"147000"` a count.

    Raises:
        SettingError: neither.
    """
    try:
        number = float(text[:-1]) / 100 if text.endswith("%") else int(text)
    except ValueError as error:
        message = f"budget must be a share such as 1.4% or a count such as 147000; got {text!r}"
        raise SettingError(message) from error
    try:
        return methods.Budget.ratio(number) if text.endswith("%") else methods.Budget.count(int(number))
    except ValueError as error:
        raise SettingError(str(error)) from error


def rate_factor(settings: Settings, step: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then the schedule."""
    warm = round(settings.warmup * settings.steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    passed = (step - warm) / max(settings.steps - warm, 1)
    if settings.schedule == "linear":
        return 1 - passed
    if settings.schedule == "cosine":
        return float(0.5 * (1 + np.cos(np.pi * passed)))
    return 1.0


@dataclass
class Evaluation:
    """Predictions on every split after `step` steps."""

    step: int
    splits: dict[str, Predictions]

    def row(self) -> dict[str, Any]:
        """The measures alone, for the record."""
        measures = {
            name: {"n": len(next(iter(found.each.values()))), **found.measures}
            for name, found in self.splits.items()
        }
        return {"step": self.step, "splits": measures}


class CalibrationBatch(dict[str, Tensor]):
    """Keyword arguments of the model, with the batch that they come from (targets included)."""

    def __init__(self, source: Batch) -> None:
        super().__init__(source.inputs)
        self.source = source


class Run:
    """One run, from settings to record.

    Constructing it loads model and data and settles the run's name; `prepare` puts the method on the model;
    `train` does both the preparation and the training.

    Args:
        settings: see `settings.py`.
        folder: below it the run has a folder for checkpoint and adapter; None keeps neither.
        checkpoint_every: steps between checkpoints.
        say: receives one line of text at each stage.

    Raises:
        UserError, sims.assets.AssetError: one line that says what to change.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        folder: Path | None = None,
        checkpoint_every: int = 20,
        say: Say = lambda line: None,
    ) -> None:
        self.settings, self.say = settings, say
        self.checkpoint_every = checkpoint_every
        torch.set_num_threads(settings.threads)
        if settings.task not in TASKS:
            message = f"task must be one of {', '.join(TASKS)}; got {settings.task!r}"
            raise SettingError(message)
        if settings.device.startswith("cuda") and not torch.cuda.is_available():
            message = f"device {settings.device} is not there; use --device cpu or a machine with a CUDA GPU"
            raise SettingError(message)
        self.device = torch.device(settings.device)
        self.task = TASKS[settings.task]
        self.method = methods.get(settings.method)
        if self.task.evaluation_only and (settings.steps or self.method.calibrated):
            message = (
                f"task {self.task.name} is for evaluation only, nothing may be tuned on it; set steps to 0 and take a "
                f"method that looks at no examples; got {settings.method} with {settings.steps} steps"
            )
            raise SettingError(message)
        self.budget = parse_budget(settings.budget)

        say(f"loading {settings.model} and {settings.task}")
        dtype = "bfloat16" if settings.precision == "bf16" else "float32"
        self.loaded = models.load(settings.model, seed=settings.seed, dtype=dtype)
        self.examples = self.task.splits(settings.seed, settings.train_size or None)
        length = settings.max_length or self.task.max_length
        self.encoding = Encoding(self.task, self.loaded.tokenizer, self.loaded.kind, length)
        provenance = self.loaded.provenance
        self.weights = str(provenance.get("weights_sha256", provenance["source"]))
        self.data_digest = data.digest(self.examples)
        self.key = settings.key(f"{self.loaded.label} {self.weights}", self.data_digest)
        self.folder = folder / self.name if folder else None
        self.layers = len(layers_of(self.loaded.model))
        self.tuned: methods.Tuned | None = None
        self._lower: LowerHalf | None = None

    # --- preparation -------------------------------------------------------------------------

    def prepare(self) -> Run:
        """Encode the data, run the frozen layers, fit the head, put the method on the model; once."""
        if self.tuned is not None:
            return self
        settings = self.settings
        network = self.loaded.model.to(self.device).eval()
        self.splits = self._encode(network)
        autocast = settings.precision == "bf16-mixed"
        self.learner = Learner(network, self.encoding, None, self.device, autocast)
        self.learner.head = self._head()
        torch.manual_seed(settings.seed)
        with warnings.catch_warnings():
            # peft reads a property that transformers has renamed; there is nothing that a user could do.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
            self.tuned = self.method.apply(
                network,
                self.budget,
                settings.seed,
                calibration=self.calibration() if self.method.calibrated else None,
                loss=self.calibration_loss,
                steps=settings.steps,
                **settings.options,
            )
        if settings.cached_lower:
            _name_targets(self.tuned.model)
        self.learner.network = self.tuned.model
        self.optimizer = self.tuned.optimizer(lr=settings.lr, weight_decay=settings.weight_decay)
        self.optimizers = [self.optimizer]
        if self.learner.head is not None:
            head = torch.optim.AdamW(self.learner.head.parameters(), lr=settings.head_lr, weight_decay=0.0)
            self.optimizers.append(head)
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        return self

    @property
    def name(self) -> str:
        """Name of the run's folder and record: readable parts, then the hash of the settings."""
        model = self.settings.model if self.settings.model in models.MODELS else "local"
        method = self.settings.method.replace(":", "_")
        return f"{self.settings.task}-{model}-{method}-seed{self.settings.seed}-{self.key}"

    def _encode(self, network: nn.Module) -> dict[str, Split]:
        """Ids of all examples that will be looked at, with cached states where asked for."""
        most = self.settings.final_items and max(self.settings.final_items, self.settings.eval_items)
        wanted = self._wanted()
        if self.settings.cached_lower:
            name = f"{self.weights} {self.loaded.provenance['dtype']}"
            try:
                self._lower = LowerHalf(network, self.settings.cached_lower, name)
            except ValueError as error:
                raise SettingError(str(error)) from error
            self.say(f"running the {self.settings.cached_lower} frozen lower layers once")
        splits = {}
        for name, examples in self.examples.items():
            if name in wanted:
                splits[name] = self.split(examples if name == "train" or not most else examples[:most])
        return splits

    def split(
        self, examples: Sequence[Example], max_length: int = 0, encoding: Encoding | None = None
    ) -> Split:
        """Examples as the prepared run reads them: ids, and the states of the frozen layers where they are cached.

        Args:
            examples: of the run's task, or of the task of `encoding`.
            max_length: longest sequence in tokens; 0: as in training.
            encoding: of another task.
        """
        encoding = encoding or self.encoding
        encoding = replace(encoding, max_length=max_length) if max_length else encoding
        split = Split([encoding.item(example) for example in examples])
        if encoding.task.decoding == "best_option":
            choices = [item for example in examples for item in encoding.option_items(example)]
            split.options = Split(choices, self._states(choices, encoding.task))
        split.states = self._states(split.items, encoding.task)
        return split

    def _states(self, items: Sequence[Item], task: Task) -> States | None:
        """What the frozen layers make of these items; None where nothing is cached."""
        if self._lower is None:
            return None
        cache = models.cache_folder("states")
        if task.canary is not None:
            cache /= task.name
            cache.mkdir(parents=True, exist_ok=True)
            (cache / "canary.txt").write_text(task.canary() + "\n", encoding="utf-8")
        return self._lower.states([list(item.ids) for item in items], self.loaded.tokenizer.pad_id, cache)

    def transfer(self, name: str, limit: int | None = None) -> Evaluation:
        """Predictions of the tuned decoder on the test sets of another task, read and judged as that task says.

        Args:
            name: of the other task.
            limit: examples of each test set; None: all.

        Raises:
            UserError: the model is an encoder, whose head knows the run's own classes alone.
        """
        if self.loaded.kind == "encoder":
            message = (
                f"transfer needs a decoder such as smollm2; the head of {self.settings.model} knows one task"
            )
            raise SettingError(message)
        task = TASKS[name]
        encoding = Encoding(task, self.loaded.tokenizer, self.loaded.kind, task.max_length)
        autocast = self.settings.precision == "bf16-mixed"
        learner = Learner(self.learner.network, encoding, None, self.device, autocast)
        tests = {n: e for n, e in task.splits(self.settings.seed).items() if n not in ("train", "validation")}
        found = {n: learner.predict(self.split(e[:limit], encoding=encoding)) for n, e in tests.items()}
        return Evaluation(self.settings.steps, found)

    def _wanted(self) -> set[str]:
        """The splits that are encoded: those asked for, and always the training split."""
        asked = {name.strip() for name in self.settings.splits.split(",")} - {""} or set(self.examples)
        unknown = sorted(asked - set(self.examples))
        if unknown:
            message = f"splits must be among {', '.join(self.examples)}; got {unknown[0]!r}"
            raise SettingError(message)
        return asked if self.task.evaluation_only else asked | {"train"}

    def _head(self) -> nn.Linear | None:
        if self.loaded.kind == "decoder":
            return None
        classes = len(self.task.labels)
        if self.settings.head == "probe":
            return self._probe(classes)
        return random_head(self.loaded.model.config.hidden_size, classes, self.settings.seed, self.device)

    def _probe(self, classes: int) -> nn.Linear:
        """The head fitted to untuned features; all methods share it, so it is kept on disk."""
        cached = None
        if self.folder is not None:
            ids = [[item.ids, item.label] for item in self.splits["train"].items]
            settings = [self.settings.cached_lower, self.settings.precision, self.settings.threads]
            parts = [self.weights, settings, self.device.type, torch.__version__, ids]
            key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
            cached = models.cache_folder("heads") / f"{key}.safetensors"
            if cached.is_file():
                stored = load_file(cached)
                head = nn.Linear(stored["weight"].shape[1], classes)
                head.load_state_dict(stored)
                return head.to(self.device)
        self.say("fitting the head on untuned features")
        head = probe_head(self.learner, self.splits["train"], classes)
        if cached is not None:
            cached.parent.mkdir(parents=True, exist_ok=True)
            partial = cached.with_suffix(f".{os.getpid()}")
            save_file({name: tensor.contiguous() for name, tensor in head.state_dict().items()}, partial)
            os.replace(partial, cached)
        return head

    def calibration(self) -> list[CalibrationBatch]:
        """Batches over 1% of the training examples (one batch at least), the first of the run's order."""
        count = min(max(self.train_count // 100, self.settings.batch), self.train_count)
        indices = list(data.permutation(self.settings.seed, 0, self.train_count)[:count])
        size = self.settings.micro_batch or self.settings.batch
        parts = [indices[begin : begin + size] for begin in range(0, count, size)]
        return [CalibrationBatch(self.learner.batch(self.splits["train"], part)) for part in parts]

    def calibration_loss(self, network: nn.Module, batch: CalibrationBatch) -> Tensor:
        """Mean loss of a calibration batch, in nats, for methods that look at gradients before they start."""
        summed, count = self.learner.loss(batch.source)
        return summed / count

    @property
    def train_count(self) -> int:
        """How many training examples there are."""
        return len(self.splits["train"].items)

    # --- training ----------------------------------------------------------------------------

    def trainable(self) -> dict[str, Tensor]:
        """The parameters that have gradients, by name: the method's and the head's."""
        found = {name: p for name, p in self.learner.network.named_parameters() if p.requires_grad}
        if self.learner.head is not None:
            found |= {f"head.{name}": p for name, p in self.learner.head.named_parameters()}
        return found

    def step(self, number: int) -> dict[str, float]:
        """One optimizer step; returns loss (nats a label or token) and gradient norm before it.

        What the method itself adds to the loss is reported apart, as `penalty`.
        """
        settings = self.settings
        indices = data.batch_indices(settings.seed, number, self.train_count, settings.batch)
        size = settings.micro_batch or settings.batch
        parts = [indices[begin : begin + size] for begin in range(0, len(indices), size)]
        batches = [self.learner.batch(self.splits["train"], part) for part in parts]
        # One denominator for all parts: accumulated gradients equal those of the undivided batch.
        total = sum(_counted(batch) for batch in batches)
        factor = rate_factor(settings, number)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * factor
            optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for batch in batches:
            summed, _ = self.learner.loss(batch)
            part = summed / total
            part.backward()
            loss += float(part.detach())
        extra = self.tuned.penalty()
        if extra is not None:
            extra.backward()
        # Asked for at every step, since a schedule may have changed which parameters train.
        parameters = list(self.trainable().values())
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip or float("inf"))
        if not np.isfinite(loss) or not torch.isfinite(norm):
            message = (
                f"loss or gradient is not finite at step {number} (loss {loss}); lower lr (now {settings.lr})"
            )
            raise SettingError(message)
        for optimizer in self.optimizers:
            optimizer.step()
        self.tuned.schedule.on_step_end(number, self.optimizer)
        row = {"step": number, "loss": loss, "grad_norm": float(norm), "lr_factor": factor}
        return row if extra is None else {**row, "penalty": float(extra.detach())}

    def evaluate(self, step: int, limit: int | None) -> Evaluation:
        """Predictions on every split, the first `limit` examples of each."""
        return Evaluation(
            step, {name: self.learner.predict(split, limit) for name, split in self.splits.items()}
        )

    def train(
        self,
        on_step: Callable[[dict[str, float]], None] = lambda row: None,
        on_evaluation: Callable[[Run, Evaluation], None] = lambda run, evaluation: None,
    ) -> records.Record:
        """Train to the end, from the last checkpoint where there is one; the record is not yet written."""
        settings, started = self.settings, time.monotonic()
        self.prepare()
        self.learner.network.train()
        torch.manual_seed(settings.seed)
        begin, curve, evaluations, spent = self._resume()
        for number in range(begin, settings.steps + 1):
            due = settings.eval_every and number % settings.eval_every == 0
            if (number == 0 or due) and number < settings.steps:
                evaluation = self.evaluate(number, settings.eval_items)
                evaluations.append(evaluation.row())
                on_evaluation(self, evaluation)
            if number == settings.steps:
                break
            row = self.step(number)
            curve.append(row)
            on_step(row)
            done = number + 1
            if done % self.checkpoint_every == 0 and done < settings.steps:
                self._save(done, curve, evaluations, spent + time.monotonic() - started)
        final = self.evaluate(settings.steps, settings.final_items or None)
        on_evaluation(self, final)
        self.seconds = spent + time.monotonic() - started
        self.final = final
        return records.record(self, curve, evaluations, final)

    def _save(self, step: int, curve: list, evaluations: list, spent: float) -> None:
        if self.folder is None:
            return
        content = {
            "key": self.key,
            "step": step,
            "tensors": {name: tensor.detach().cpu() for name, tensor in self.tuned.state().items()},
            "head": self.learner.head.state_dict() if self.learner.head is not None else {},
            "schedule": self.tuned.schedule.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": checkpoint.random_state(),
            "curve": curve,
            "evaluations": evaluations,
            "seconds": spent,
        }
        checkpoint.save(self.folder / "checkpoint.pt", content)

    def _resume(self) -> tuple[int, list, list, float]:
        found = checkpoint.load(self.folder / "checkpoint.pt", self.key) if self.folder else None
        if found is None:
            return 0, [], [], 0.0
        self.say(f"continuing from step {found['step']} of {self.settings.steps}")
        self.tuned.load_state(found["tensors"])
        self.tuned.schedule.load_state_dict(found["schedule"])
        if self.learner.head is not None:
            self.learner.head.load_state_dict(found["head"])
        for optimizer, state in zip(self.optimizers, found["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        checkpoint.restore_random_state(found["random"])
        return found["step"], found["curve"], found["evaluations"], found["seconds"]

    # --- results -----------------------------------------------------------------------------

    def save(self) -> None:
        """Adapter, head and per-item predictions of the finished run, in its folder."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tuned.save(self.folder / "adapter")
        if self.learner.head is not None:
            head = {name: tensor.contiguous() for name, tensor in self.learner.head.state_dict().items()}
            save_file(head, self.folder / "head.safetensors")
        for name, found in self.final.splits.items():
            np.savez(self.folder / f"predictions-{name}.npz", **found.each)


def _name_targets(network: nn.Module) -> None:
    """Put the full names of the adapted layers into peft's configuration.

    By short names ("query") a saved adapter would ask for parts in the lower layers too when it is loaded on
    the complete model.
    """
    for config in getattr(network, "peft_config", {}).values():
        if getattr(network.base_model, "targeted_module_names", None):
            config.target_modules = set(network.base_model.targeted_module_names)


def _counted(batch: Batch) -> int:
    """Labels or answer tokens of a batch that count in the loss."""
    return int((batch.targets != data.IGNORED).sum())

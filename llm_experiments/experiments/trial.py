"""One training of the pool: its settings, what is measured on it, and its result on disk.

A trial is named by a hash of its settings, its probes, the weights and the data; whatever row asks for it gets the
same result, computed once. Results lie in the ignored cache; what a row finds in them goes into the row's record.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from llm_experiments.settings import SettingError, Settings

Record = dict[str, Any]
VERSION = 1  # of what a result holds; raised when results of before cannot be used any more


@dataclass(frozen=True)
class Trial:
    """A training and what is measured on it.

    Attributes:
        settings: of the training.
        probes: names in `probing.PROBES`, measured at the marks.
        marks: steps after which the probes are taken; the last step always is one.
        keep: `state`: what training changed is kept, so that further probes can be taken later; `path`: the plain
            weights at every mark as well.
        far_items: texts of the far probe.
    """

    settings: Settings
    probes: tuple[str, ...] = ()
    marks: tuple[int, ...] = ()
    keep: str = ""
    far_items: int = 250

    @cached_property
    def key(self) -> str:
        """Hash of everything that was asked for; weights and data follow from the lock file."""
        from sims import assets

        packages = [assets.fingerprint(name) for name in self._assets()]
        asked = {**asdict(self), "version": VERSION, "assets": packages}
        return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def _assets(self) -> list[str]:
        from llm_experiments.models import MODELS
        from llm_experiments.tasks import TASKS

        names = list(TASKS[self.settings.task].assets)
        spec = MODELS.get(self.settings.model)
        if spec is not None and spec.asset:
            names.append(spec.asset)
        if "far" in self.probes:
            names.append("bbc")
        return sorted(set(names))

    @property
    def folder(self) -> Path:
        """Where the result lies."""
        from llm_experiments.models import cache_folder

        return cache_folder("trials", self.key)


class Result:
    """The result of a finished trial.

    Attributes:
        trial: what was asked for.
        body: measures at every mark, counts, protocol.
        failure: why there is no result (the model cannot take the method, or training diverged); else None.
    """

    def __init__(self, trial: Trial, body: Record) -> None:
        self.trial, self.body = trial, body
        self.failure: str | None = body.get("failure")

    def at(self, mark: int = -1) -> Record:
        """Measures at a mark: `{step, splits, probes}`."""
        return self.body["marks"][mark]

    def measure(self, split: str, name: str, mark: int = -1) -> float:
        """A measure of a split."""
        return float(self.at(mark)["splits"][split][name])

    def probe(self, name: str, mark: int = -1) -> Any:
        """What a probe found."""
        return self.at(mark)["probes"][name]

    def marked(self) -> list[int]:
        """Indices of the marks at which the probes were taken."""
        return [i for i, mark in enumerate(self.body["marks"]) if "probes" in mark]

    def each(self, name: str) -> dict[str, np.ndarray]:
        """Per-item arrays at the end: `split/<name>` or the name of a probe."""
        with np.load(self.trial.folder / f"{name.replace('/', '-')}.npz") as stored:
            return dict(stored)

    def weights(self, mark: int = -1) -> dict[str, Any]:
        """The plain matrices kept at a mark."""
        from safetensors.torch import load_file

        step = self.body["marks"][self.marked()[mark]]["step"]
        return load_file(self.trial.folder / f"weights-{step}.safetensors")


def finished(trial: Trial) -> Result | None:
    """The result on disk, if there is one."""
    path = trial.folder / "result.json"
    if not path.is_file():
        return None
    return Result(trial, json.loads(path.read_text("utf-8")))


def restore(trial: Trial) -> Any:
    """The run of a finished trial with what it had learned, ready to be probed.

    Raises:
        UserError: the trial kept no state.
    """
    from safetensors.torch import load_file

    from llm_experiments.errors import UserError
    from llm_experiments.models import cache_folder
    from llm_experiments.train import Run

    path = trial.folder / "state.safetensors"
    if not path.is_file():
        message = f"the training {trial.key} kept no state; run its row with --again"
        raise UserError(message)
    run = Run(trial.settings, folder=cache_folder("runs"), checkpoint_every=10**9).prepare()
    state = load_file(path)
    head = {name.removeprefix("head."): t for name, t in state.items() if name.startswith("head.")}
    run.tuned.load_state({name: t for name, t in state.items() if not name.startswith("head.")})
    if run.learner.head is not None:
        run.learner.head.load_state_dict(head)
    run.learner.network.eval()
    return run


def probed(trial: Trial, name: str) -> Any:
    """What a probe finds on a finished trial, from the disk where it was taken before."""
    from llm_experiments.experiments.probing import PROBES

    path = trial.folder / f"probe-{name}.json"
    if not path.is_file():
        probe = PROBES[name](restore(trial), trial)
        found = probe.measure()
        if hasattr(probe, "each"):
            np.savez(trial.folder / f"{name}.npz", **probe.each())
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(found), encoding="utf-8")
        os.replace(partial, path)
    return json.loads(path.read_text("utf-8"))


def _truth(items: list[Any], each: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Labels and human scores of the items that were predicted, where there are any."""
    count = len(next(iter(each.values())))
    found = {}
    for name in ("label", "score"):
        values = [getattr(item, name) for item in items[:count]]
        if values and values[0] is not None:
            found[name] = np.array(values)
    return found


def perform(trial: Trial) -> float:
    """Runs a trial and leaves its result on disk; returns the processor seconds it took."""
    from llm_experiments.methods import MethodError

    started = time.process_time()
    trial.folder.mkdir(parents=True, exist_ok=True)
    try:
        body = _trained(trial)
    except (MethodError, SettingError) as error:
        body = {"failure": str(error)}
    body["cpu_seconds"] = time.process_time() - started
    partial = trial.folder / f"result.{os.getpid()}.partial"
    partial.write_text(json.dumps(body), encoding="utf-8")
    os.replace(partial, trial.folder / "result.json")
    return float(body["cpu_seconds"])


def _trained(trial: Trial) -> Record:
    from safetensors.torch import save_file

    from llm_experiments.experiments.probing import PROBES
    from llm_experiments.models import cache_folder
    from llm_experiments.probes.effective import effective_weights
    from llm_experiments.train import Evaluation, Run

    settings = trial.settings
    run = Run(settings, folder=cache_folder("runs"), checkpoint_every=10**9)
    run.prepare()
    probes = {name: PROBES[name](run, trial) for name in trial.probes}
    marks: list[Record] = []

    def on_evaluation(_: Run, found: Evaluation) -> None:
        mark: Record = found.row()
        if found.step == settings.steps or found.step in trial.marks:
            mark["probes"] = {name: probe.measure() for name, probe in probes.items()}
            if trial.keep == "path":
                save_file(effective_weights(run), trial.folder / f"weights-{found.step}.safetensors")
        marks.append(mark)

    record = run.train(on_evaluation=on_evaluation)
    for name, found in run.final.splits.items():
        np.savez(
            trial.folder / f"split-{name}.npz", **found.each, **_truth(run.splits[name].items, found.each)
        )
    for name, probe in probes.items():
        if hasattr(probe, "each"):
            np.savez(trial.folder / f"{name}.npz", **probe.each())
    if trial.keep:
        state = {name: tensor.clone().contiguous() for name, tensor in run.tuned.state().items()}
        if run.learner.head is not None:
            state |= {
                f"head.{name}": tensor.clone() for name, tensor in run.learner.head.state_dict().items()
            }
        save_file(state, trial.folder / "state.safetensors")
    kept: Mapping[str, Any] = {
        name: record[name] for name in ("method", "model", "data", "protocol", "environment")
    }
    return {
        **kept,
        "marks": marks,
        "losses": [row["loss"] for row in record["curve"]],
        "gradient_norms": [row["grad_norm"] for row in record["curve"]],
    }

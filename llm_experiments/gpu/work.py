"""How a unit is run, and how one knows that it was."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llm_experiments.bench import command as bench
from llm_experiments.bench.rounds import TIME_IS_UP
from llm_experiments.errors import UserError
from llm_experiments.experiments.lab import TimeIsUp
from llm_experiments.gpu.units import MODEL, TRAINED, Part, Unit
from reports import store
from sims.assets import AssetError

Row = dict[str, Any]
ROW = "gpu_training"  # the row of the training records


@dataclass(frozen=True)
class Place:
    """Where units run.

    Attributes:
        device: `cuda`, `cuda:N` or `cpu`.
        model: the decoder: registry name, folder or GGUF file.
        hardware: model of the GPU or processor; part of the key, so that another GPU runs everything afresh.
    """

    device: str
    model: str
    hardware: str

    @property
    def short(self) -> str:
        """The decoder's name in record names; never a path."""
        return Path(self.model).stem or "model"

    def record(self, unit: Unit) -> str:
        """Name of the unit's record."""
        return f"gpu/{unit.name.format(model=self.short)}"

    def key(self, unit: Unit) -> str:
        """Twelve hexadecimal digits of what the unit's outcome depends on."""
        text = json.dumps([unit.kind, unit.settings, self.short, self.hardware], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def finished(unit: Unit, place: Place) -> Row | None:
    """The unit's record, if it was made on this hardware with these settings and is complete."""
    path = store.record_path("bench", place.record(unit))
    if not path.is_file():
        return None
    found = store.read_record(path)
    return found if found.get("key") == place.key(unit) and found.get("complete") else None


def run(part: Part, place: Place, until: float, again: bool = False) -> bool:
    """Runs what is not finished of a part; returns whether the part is finished now.

    Args:
        part: what to run.
        place: where.
        until: value of `time.monotonic()` at which to stop.
        again: whether to run what is finished, too.
    """
    for unit in part.units:
        if not again and finished(unit, place):
            bench.say(f"{place.record(unit)}: finished earlier")
            continue
        if time.monotonic() >= until:
            return False
        begun = time.monotonic()
        bench.say(f"{place.record(unit)}: {unit.what}")
        try:
            body = KINDS[unit.kind](unit, place, until)
        except TimeIsUp:
            bench.say("time is up; the same command goes on from here")
            return False
        except torch.OutOfMemoryError:
            bench.say(f"{place.record(unit)}: out of memory on {place.hardware}; recorded as failed")
            body = _failed(unit, place, "out of memory")
        except AssetError as error:
            bench.say(f"{place.record(unit)}: {error}")
            body = _failed(unit, place, str(error))
        body |= {"id": place.record(unit), "key": place.key(unit), "tier": "gpu"}
        body.setdefault("complete", True)
        bench.show(body)
        path = store.record_path("bench", place.record(unit))
        store.write_record(path, body)
        store.write_run(path, seconds=time.monotonic() - begun)
    return all(finished(unit, place) for unit in part.units)


def _failed(unit: Unit, place: Place, why: str) -> Row:
    """The record of a unit that could not be finished on this hardware; the next call tries it again."""
    if place.device.startswith("cuda"):
        torch.cuda.empty_cache()
    return {
        "headline": f"Failed on {place.hardware}: {why}.",
        "question": unit.what,
        "settings": unit.settings,
        "machine": store.machine(),
        "tables": {"": [{"unit": unit.name, "failed": why}]},
        "figures": [],
        "notes": [],
        "claims": [],
        "complete": False,
        "failed": why,
    }


def _steps(unit: Unit, place: Place, until: float) -> Row:
    given = dict(unit.settings)
    model = given.pop("model")
    body = bench.training_steps(
        place.model if model == MODEL else model,
        given.pop("arms"),
        given.pop("bases"),
        **given,
        device=place.device,
        until=until,
    )
    made = {len(times["wall_ms"]) for times in body["rounds"].values()}
    late = any(row["step ms"] == TIME_IS_UP for row in body["tables"]["Arms"])
    return body | {"complete": made == {given["rounds"]} and not late}


def _switching(unit: Unit, place: Place, until: float) -> Row:
    given = dict(unit.settings)
    return bench.adapter_switching(tuple(given.pop("sizes")), **given, device=place.device)


def _training(unit: Unit, place: Place, until: float) -> Row:
    """Every method and seed through the trainer; a run that is cut off goes on from its checkpoint."""
    from llm_experiments import records
    from llm_experiments.models import cache_folder
    from llm_experiments.settings import LEARNING_RATE, LEARNING_RATES, Settings
    from llm_experiments.train import Run

    given = dict(unit.settings)
    seeds, model = given.pop("seeds"), given.pop("model", place.model)

    def on_step(row: Row) -> None:
        if time.monotonic() >= until:
            raise TimeIsUp

    table, label, environment = [], "", {}
    for method in TRAINED:
        of_method = []
        for seed in range(seeds):
            rate = LEARNING_RATES.get(method, LEARNING_RATE)
            settings = Settings(method, model=model, seed=seed, lr=rate, device=place.device, **given)
            trained = Run(settings, folder=cache_folder("runs"), say=bench.say)
            path = records.path(trained, ROW)
            if not path.is_file():
                if time.monotonic() >= until:
                    raise TimeIsUp
                body = trained.train(on_step=on_step)
                trained.save()
                records.write(trained, body | {"tier": "gpu"}, ROW)
            found = store.read_record(path)
            of_method.append(found)
            label, environment = found["model"]["label"], found["environment"]
        for entry in records.summary(of_method):
            row = {"method": method, "trains": of_method[0]["method"]["parameters"]["trainable"]}
            table.append({**row, **{name: _interval(value) for name, value in entry.items()}})
    return {
        "headline": f"{', '.join(TRAINED)} on {given['task']} ({label}), {seeds} seeds, {place.hardware}.",
        "question": "Do the methods train on a GPU, and what do they reach at the same budget?",
        "settings": unit.settings,
        "machine": environment,
        "tables": {"Test measures: mean and half-width of the 95% interval over seeds": table},
        "figures": [],
        "notes": ["Same data order for every method of a seed; losses in nats."],
        "claims": [],
    }


def _experiment(unit: Unit, place: Place, until: float) -> Row:
    """A row of the experiments; its own record is `llm/<row>/<tier>`, this one says that it was made."""
    from llm_experiments import experiments
    from llm_experiments.experiments.command import run as run_row
    from llm_experiments.experiments.lab import Lab

    row, tier = experiments.get(unit.settings["row"]), unit.settings["tier"]
    changes = {"device": place.device, "model": place.model} if tier == "gpu" else {}
    found = run_row(row, Lab(tier, jobs=1, say=bench.say, until=until, **changes))
    return {
        "headline": f"{found['headline']} ({place.hardware})",
        "question": row.question,
        "settings": unit.settings,
        "machine": store.machine(),
        "tables": {"Predictions": found["tables"]["Predictions"]},
        "figures": [],
        "notes": [f"Details: experiment {row.name}, tier {tier}."],
        "claims": row.claims,
    }


def _interval(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    mean, half = value
    return f"{mean:.3f}" if half is None else f"{mean:.3f} ± {half:.3f}"


def _simulator(unit: Unit, place: Place, until: float) -> Row:
    """The simulator in a process of its own, its record beside the one that a processor made."""
    root = Path(__file__).resolve().parents[2]
    options = [*unit.settings["options"], "--device", place.device.partition(":")[0]]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, store.REPORTS_VARIABLE: folder, "PYTHONPATH": str(root)}
        command = [sys.executable, "-m", f"sims.{unit.name}", *options]
        try:
            done = subprocess.run(
                command, cwd=root, env=environment, capture_output=True, text=True, check=False,
                timeout=max(1.0, until - begun),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise TimeIsUp from None
        made = sorted(Path(folder).glob("records/sims/*.json"))
        made = [path for path in made if not path.name.endswith(".run.json")]
        if done.returncode or len(made) != 1:
            last = (done.stderr.strip().splitlines() or ["it made no record"])[-1]
            msg = f"sims/{unit.name}.py {' '.join(options)} failed: {last}"
            raise UserError(msg)
        found = store.read_record(made[0])
    seconds = time.monotonic() - begun
    kept = store.record_path("sims", found["id"])
    earlier = store.read_record(kept) if kept.is_file() else None
    scores = [abs(row["z"]) for row in found["table"] if isinstance(row["z"], int | float)]
    row = {
        "simulator": f"{unit.name} {' '.join(options)}",
        "seconds": round(seconds, 1),
        "comparisons": len(found["table"]),
        "largest |z|": round(max(scores), 2) if scores else "-",
        "largest difference from the processor's record": _difference(found, earlier),
    }
    return {
        "headline": f"{row['simulator']}: {row['comparisons']} comparisons in {row['seconds']} s on {place.hardware}.",
        "question": "Does the simulator find on a GPU what it finds on a processor?",
        "settings": unit.settings,
        "machine": store.machine(),
        "tables": {"": [row]},
        "figures": [],
        "notes": ["The difference is relative to the larger of 1 and the processor's value."],
        "claims": [],
    }


def _difference(found: Row, earlier: Row | None) -> float | str:
    """The largest relative difference of the simulated values from those of another run."""
    if earlier is None:
        return "not compared: no record of the same settings from a processor"
    before = {(r["quantity"], str(r["setting"])): r["simulated"] for r in earlier["table"]}
    gaps = []
    for row in found["table"]:
        other = before.get((row["quantity"], str(row["setting"])))
        if isinstance(other, int | float) and isinstance(row["simulated"], int | float):
            gaps.append(abs(row["simulated"] - other) / max(1.0, abs(other)))
    return float(f"{max(gaps):.3g}") if gaps else "not compared: no common rows"


KINDS = {
    "steps": _steps,
    "switching": _switching,
    "training": _training,
    "simulator": _simulator,
    "experiment": _experiment,
}


def overview(parts: tuple[Part, ...], place: Place) -> Row:
    """The record that says what was run and what was not; needs no GPU."""
    table = []
    for number, part in enumerate(parts, 1):
        for unit in part.units:
            path = store.record_path("bench", place.record(unit))
            state = "not run"
            if path.is_file():
                found = store.read_record(path)
                machine = found.get("machine", {})
                where = machine.get("gpu") or machine.get("processor") or "unknown hardware"
                state = f"{'run' if found.get('complete') else 'run in part'} on {where}"
                if found.get("failed"):
                    state = f"failed on {where}: {found['failed']}"
            table.append({"part": number, "what": f"{place.record(unit)}: {unit.what}", "state": state})
    done = sum(row["state"].startswith("run on") for row in table)
    return {
        "id": "gpu/overview",
        "headline": f"{done} of {len(table)} units run on a GPU" + ("." if done else ": not run."),
        "question": "What of the GPU programme has been run, and on which hardware?",
        "settings": {"command": "python -m llm_experiments gpu"},
        "tier": "gpu",
        "tables": {"Units": table},
        "figures": [],
        "notes": ["Nothing here stands for a measurement that was not made."],
        "claims": [],
    }

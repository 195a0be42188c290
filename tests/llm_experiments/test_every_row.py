"""Every method from the command line: trains, saves, loads again, merges or says why not.

On MiniLM with real weights and real texts, and on a tiny Llama; a pair that cannot be is refused with the reason.
"""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn

from llm_experiments import methods
from llm_experiments.__main__ import main
from llm_experiments.data import Split
from llm_experiments.learner import Learner
from llm_experiments.methods import PeftTuned
from llm_experiments.train import Run
from llm_experiments.train_command import execute
from reports import store
from sims import assets

PLACES = {
    "minilm": ["--task", "sentiment", "--budget", "5%", "--max-length", "16", "--head", "random"],
    "tiny_llama": ["--task", "chain_sum", "--budget", "15%"],
}
SHORT = ["--steps", "3", "--batch", "4", "--train-size", "16", "--eval-every", "0"]
SHORT += ["--eval-items", "4", "--final-items", "4"]
REFUSED = {("prefix", "minilm"): "use a decoder", ("bitfit", "tiny_llama"): "take a model with biases"}
OFTEN = {"cola", "rac_lora", "c3la", "random_c3la", "lisa", "peso_lora_r", "peso_lora_t"}
# Predictions before and after, log-probabilities or nats an answer: sums in another order.
ROUNDING = 2e-4


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache of its own with the fetched packages of the checkout; frozen layers are run once for all methods."""
    folder = tmp_path_factory.mktemp("every_row")
    (folder / "cache").mkdir()
    (folder / "cache" / "assets").symlink_to(assets.cache_root() / "assets")
    return folder


@pytest.fixture
def places(cache, monkeypatch):
    monkeypatch.setenv("PEFTPROOF_CACHE", str(cache / "cache"))
    monkeypatch.setenv("PEFTPROOF_REPORTS", str(cache / "reports"))
    return cache / "cache" / "llm_experiments" / "runs"


def predictions(network: nn.Module, run: Run, complete: bool) -> dict[str, np.ndarray]:
    """What a network says of the examples on which the finished run was tested.

    A `complete` network reads token ids; that of a prepared run may begin above the frozen layers.
    """
    head = None
    if (run.folder / "head.safetensors").is_file():
        tensors = load_file(run.folder / "head.safetensors")
        head = nn.Linear(*reversed(tensors["weight"].shape))
        head.load_state_dict(tensors)
    learner = Learner(network.eval(), run.encoding, head, torch.device("cpu"))
    items = [run.encoding.item(example) for example in run.examples["test"][:4]]
    return learner.predict(Split(items) if complete else run.splits["test"], limit=4).each


@pytest.mark.parametrize("model", [pytest.param("minilm", marks=pytest.mark.slow), "tiny_llama"])
@pytest.mark.parametrize("name", methods.names())
def test_row(name, model, places, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "llm_experiments.train_command.execute",
        lambda runs, *rest: seen.extend(runs) or execute(runs, *rest),
    )
    often = ["--set", "every=2"] if name in OFTEN else []
    status = main(["train", name, "--model", model, *PLACES[model], *SHORT, *often])
    shown = capsys.readouterr()
    if (name, model) in REFUSED:
        assert status == 2 and shown.err.strip().splitlines()[-1].startswith(f"error: {name}: ")
        assert REFUSED[name, model] in shown.err
        return
    assert status == 0 and f"{name} on " in shown.out

    run = Run(seen[0], folder=places)
    record = store.read_record(run.folder / "record.json")
    counts = record["method"]["parameters"]
    assert counts["trainable"] == counts["formula"] > 0
    said = np.load(run.folder / "predictions-test.npz")

    def agrees(network: nn.Module, complete: bool) -> None:
        found = predictions(network, run, complete)
        assert found.keys() == set(said.keys())
        for key, values in found.items():
            np.testing.assert_allclose(values, said[key], rtol=1e-4, atol=ROUNDING, err_msg=key)

    pretrained = copy.deepcopy(run.loaded.model)
    run.prepare()
    tuned = run.tuned
    adapter = isinstance(tuned, PeftTuned)
    if adapter:
        with warnings.catch_warnings():
            # peft counts the ranks of AdaLoRA among patterns of names, which they are not
            warnings.filterwarnings("ignore", "The following rank_pattern keys", RuntimeWarning)
            loaded = PeftModel.from_pretrained(pretrained, run.folder / "adapter")
        agrees(loaded, complete=True)
    if not adapter or name == "hybrid":  # a whole block of the hybrid is merged by our code alone
        tuned.load(run.folder / "adapter")
        agrees(tuned.model, complete=False)
    if tuned.mergeable is not True:
        with pytest.raises(methods.MethodError, match=f"{name} cannot be merged: "):
            tuned.merge()
    elif adapter and name != "hybrid":
        merged = loaded.merge_and_unload()
        assert type(merged) is type(pretrained)
        agrees(merged, complete=True)
    else:
        agrees(tuned.merge(), complete=False)


def test_a_training_that_runs_out_of_memory_is_told_in_one_line(places, capsys, monkeypatch):
    def exhausted(run, **heard):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(Run, "train", exhausted)
    assert main(["train", "lora", "--model", "tiny_llama", *PLACES["tiny_llama"], *SHORT, "--seed", "9"]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: lora at batch 4 ran out of memory on cpu; take a smaller --micro-batch")

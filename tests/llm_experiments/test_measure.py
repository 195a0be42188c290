"""`measure` end to end: folders, shards, adapters of many kinds, bad input, memory."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from llm_experiments.__main__ import main
from llm_experiments.probes import on_text
from llm_experiments.probes.pair import open_pair
from llm_experiments.tuners.cla import ClaConfig
from llm_experiments.tuners.s2ft import S2FTConfig
from llm_experiments.tuners.spft import SpftConfig
from reports import store

DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(autouse=True)
def no_bars():
    """Saving a model draws a progress bar, which would stand between us and the error line."""
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture
def folders(tmp_path, build):
    """`folders(change, name="llama")`: a base folder and one whose weights `change(model)` has changed."""

    def make(change, name: str = "llama", dtype: torch.dtype = torch.float32, **options):
        model = build(name).to(dtype)
        model.save_pretrained(tmp_path / "base")
        with torch.no_grad():
            change(model)
        model.save_pretrained(tmp_path / "tuned", **options)
        return tmp_path / "base", tmp_path / "tuned"

    return make


def bump(model, row: int = 3) -> None:
    """One row of one down projection moves."""
    model.get_parameter(DOWN)[row] += 0.5


def run(base, tuned, out, *more: str):
    status = main(["measure", str(base), str(tuned), "--out", str(out), *more])
    return status, (store.read_record(out / "measure.json") if status == 0 else None)


def tokenizer_into(*targets) -> None:
    """A word tokenizer of 64 words, as the tiny models' vocabulary has."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    for folder in targets:
        made.save(str(folder / "tokenizer.json"))


# --- what is found -------------------------------------------------------------------------------


def test_one_moved_row_is_found_and_everything_else_is_left_alone(folders, tmp_path, capsys):
    status, record = run(*folders(bump), tmp_path / "out")
    assert status == 0
    shown = capsys.readouterr().out
    assert "1 of 14 matrices in blocks changed" in shown and "from rank 1 on" in shown
    (row,) = [row for row in record["layers"] if row["norm"] > 0]
    assert row["name"] == DOWN and row["shape"] == [32, 48]
    assert row["needed"] == {"lora": 1, "columns": 48, "rows": 1, "entries": 48, "cla": 48}
    assert row["norm"] == pytest.approx(0.5 * 48**0.5, rel=1e-5)
    first = row["distances"][0]
    assert first["lora"] < 1e-6 and first["s2ft_rows"] == 0 and first["s2ft_columns"] > 0.9
    assert record["text"] is None
    page = (tmp_path / "out" / "measure.md").read_text()
    assert all(
        (tmp_path / "out" / "figures" / f"{name}.png").is_file() for name in ("spectra", "distances", "moved")
    )
    assert "figures/spectra.png" in page and "model.layers.1.mlp.down_proj" in page
    assert not (tmp_path / "out" / "measure.partial.jsonl").exists()
    assert str(tmp_path) not in page + json.dumps(record)


def test_two_equal_folders_have_nothing_to_measure(folders, tmp_path):
    status, record = run(*folders(lambda model: None), tmp_path / "out")
    assert status == 0 and "hold the same matrices" in record["summary"][-1]
    assert (tmp_path / "out" / "measure.md").is_file()


def test_shards_in_16_bits_give_what_one_file_gives(folders, tmp_path):
    base, tuned = folders(bump, dtype=torch.bfloat16, max_shard_size="20KB")
    assert len(list(tuned.glob("*.safetensors"))) > 2
    _, record = run(base, tuned, tmp_path / "out")
    (row,) = [row for row in record["layers"] if row["norm"] > 0]
    before, after = (open_pair(base, tuned).matrix(DOWN) for _ in range(2))
    assert before.stored == torch.bfloat16 and torch.equal(before.delta_W, after.delta_W)
    assert row["needed"]["lora"] == 1 and row["rounding"] > 0
    assert [m["error"] for m in row["merge"]][:2] == [0, 0]  # both sides are bfloat16 already


def test_moved_norms_and_embeddings_are_named(folders, tmp_path):
    def change(model):
        bump(model)
        model.model.norm.weight += 1

    _, record = run(*folders(change), tmp_path / "out")
    assert record["elsewhere"]["changed"] == [{"name": "model.norm.weight", "moved": pytest.approx(1.0)}]


def test_a_task_model_is_matched_to_the_bare_model(tmp_path, build):
    model = build("bert")
    model.bert.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[:, 5] += 1
    model.save_pretrained(tmp_path / "tuned")
    _, record = run(tmp_path / "base", tmp_path / "tuned", tmp_path / "out")
    (row,) = [row for row in record["layers"] if row["norm"] > 0]
    assert row["name"] == "encoder.layer.0.output.dense.weight" and row["needed"]["columns"] == 1
    assert "classifier.weight" in record["elsewhere"]["on_one_side"]


def test_the_choice_of_matrices_ranks_and_thresholds(folders, tmp_path):
    more = ("--layers", "down_proj", "--rank", "3", "--eps", "0.5", "--json")
    _, record = run(*folders(bump), tmp_path / "out", *more)
    assert len(record["layers"]) == 2
    assert [d["rank"] for d in record["layers"][1]["distances"]] == [3]
    assert [i["eps"] for i in record["layers"][1]["intruders"]] == [0.5]


# --- adapters ------------------------------------------------------------------------------------

ADAPTERS = {
    "lora": lambda: LoraConfig(
        r=2,
        lora_alpha=6,
        target_modules=["q_proj", "down_proj"],
        rank_pattern={"down_proj": 3},
        init_lora_weights=False,
    ),
    "rslora": lambda: LoraConfig(r=4, use_rslora=True, target_modules=["v_proj"], init_lora_weights=False),
    "cla": lambda: ClaConfig(r=4, offset="random", perturb=True),
    "cla_factor": lambda: ClaConfig(r=5, alpha=10, form="factor", offset=30, perturb=True),
    "dora": lambda: LoraConfig(r=2, use_dora=True, target_modules=["q_proj", "down_proj"]),
    "pissa": lambda: LoraConfig(r=3, lora_alpha=6, init_lora_weights="pissa", target_modules=["v_proj"]),
    "c3la": lambda: ClaConfig(r=4, offset=26, perturb=True),
    "c3la_factor": lambda: ClaConfig(r=5, form="factor", offset=2, perturb=True),
    "spft": lambda: SpftConfig(ratio=0.1, seed=3),
    "s2ft": lambda: S2FTConfig(heads=1, channels=5, perturb=True),
    "s2ft_rows": lambda: S2FTConfig(heads=2, channels=5, seed=4, target_modules="ENTERING"),
}
ENTERING = {
    "llama": ["q_proj", "k_proj", "v_proj", "up_proj", "gate_proj"],
    "bert": ["query", "key", "value", "intermediate.dense"],
}
ENTERING["llama_gqa"] = ENTERING["llama"]


@pytest.mark.parametrize(
    ("name", "model_name"),
    [*((name, model) for name in ADAPTERS for model in ("llama", "bert")), ("s2ft_rows", "llama_gqa")],
)
def test_an_adapter_changes_what_merging_it_changes(name, model_name, tmp_path, build):
    names = {"q_proj": "query", "v_proj": "value", "down_proj": "intermediate.dense"}
    config = ADAPTERS[name]()
    if model_name == "bert" and isinstance(config, LoraConfig):
        config.target_modules = {names[t] for t in config.target_modules}
        config.rank_pattern = {names[t]: r for t, r in config.rank_pattern.items()}
    if name == "s2ft_rows":
        config.target_modules = ENTERING[model_name]
    base = build(model_name)
    base.save_pretrained(tmp_path / "base")
    tuned = get_peft_model(base, config)
    torch.manual_seed(7)
    for link in range(3 if name.startswith("c3la") else 1):
        if link:
            tuned.base_model.shift_()
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.05 * torch.randn_like(parameter))
    tuned.save_pretrained(str(tmp_path / "adapter"))
    fresh = build(model_name)
    merged = PeftModel.from_pretrained(fresh, tmp_path / "adapter").merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    one, two = (
        open_pair(tmp_path / "base", tmp_path / "adapter"),
        open_pair(tmp_path / "base", tmp_path / "merged"),
    )
    assert one.names
    for key in two.names:
        expected = two.matrix(key).delta_W
        if key in one.names:
            assert float(expected.abs().max()) > 0
            assert torch.allclose(one.matrix(key).delta_W, expected, atol=2e-6), key
        else:
            assert not expected.any(), key


def test_an_adapter_reports_its_own_rank(tmp_path, build):
    model = build("llama")
    model.save_pretrained(tmp_path / "base")
    get_peft_model(model, ADAPTERS["lora"]()).save_pretrained(str(tmp_path / "adapter"))
    _, record = run(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
    assert {r["name"].split(".")[-2]: r["needed"]["lora"] for r in record["layers"]} == {
        "q_proj": 2,
        "down_proj": 3,
    }
    assert record["models"]["kind"] == "adapter"


# --- on text -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "adapter"])
def test_forgetting_is_the_rise_of_the_loss_on_the_users_text(kind, tmp_path, build):
    model = build("llama", initializer_range=0.3)
    model.save_pretrained(tmp_path / "base")
    wrapped = get_peft_model(model, ADAPTERS["lora"]())
    wrapped.save_pretrained(str(tmp_path / "adapter"))
    merged = wrapped.merge_and_unload().eval()
    merged.save_pretrained(tmp_path / "folder")
    tokenizer_into(tmp_path / "base", tmp_path / "folder")
    (tmp_path / "mine.txt").write_text("w3 w4 w5 w6\n\nw9 w1 w2\n")
    _, record = run(
        tmp_path / "base", tmp_path / kind, tmp_path / "out", "--data", str(tmp_path / "mine.txt")
    )
    seen = record["text"]["forgetting"]
    losses = []
    for one in (build("llama", initializer_range=0.3), merged):
        with torch.no_grad():
            nats = [
                one(torch.tensor([t]), labels=torch.tensor([t])).loss * (len(t) - 1)
                for t in ([3, 4, 5, 6], [9, 1, 2])
            ]
        losses.append(float(sum(nats)) / 5)
    assert (seen["texts"], seen["tokens"]) == (2, 5)
    assert [seen["loss_base"], seen["loss_tuned"]] == pytest.approx(losses, rel=1e-4)
    assert seen["forgetting"] == pytest.approx(losses[1] - losses[0], abs=1e-4) and seen["divergence"] > 0
    rows = record["text"]["layers"]
    assert set(rows) == {row["name"] for row in record["layers"]}
    assert all(0 <= row["bound_used"] <= 1 + 1e-6 for row in rows.values())
    assert "On your text" in (tmp_path / "out" / "measure.md").read_text()


def test_an_encoder_shows_how_far_its_states_moved(tmp_path, build):
    model = build("bert")
    model.bert.save_pretrained(tmp_path / "base")
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[:, 5] += torch.linspace(
            0, 1, 32
        )  # a constant would vanish in the norm
    model.bert.save_pretrained(tmp_path / "tuned")
    tokenizer_into(tmp_path / "base", tmp_path / "tuned")
    (tmp_path / "mine.jsonl").write_text('{"text": "w3 w4 w5"}\n')
    _, record = run(
        tmp_path / "base", tmp_path / "tuned", tmp_path / "out", "--data", str(tmp_path / "mine.jsonl")
    )
    seen = record["text"]["forgetting"]
    assert -1 <= seen["cosine"] < 1 and seen["movement"] > 0


def test_inputs_are_gathered_in_groups_that_fit_and_no_layer_is_left_out(folders, monkeypatch):
    pair = open_pair(*folders(bump))
    assert list(on_text.groups(pair, tokens=10)) == [pair.names]
    # 10 tokens of 32 or 48 numbers of 4 bytes: at most two layers of 32.
    monkeypatch.setattr(on_text, "HELD", 2 * 10 * 32 * 4)
    found = list(on_text.groups(pair, tokens=10))
    assert [name for group in found for name in group] == pair.names
    assert max(map(len, found)) == 2 and all(len(g) == 1 for g in found if any("down" in name for name in g))


# --- interruption and bad input ------------------------------------------------------------------


def test_an_interrupted_run_goes_on_and_gives_the_same_record(folders, tmp_path, monkeypatch, capsys):
    from llm_experiments import measure

    pair, whole = folders(bump), measure.row_of
    _, expected = run(*pair, tmp_path / "whole")
    seen: list[str] = []

    def interrupted(matrix, settings):
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(matrix.name)
        return whole(matrix, settings)

    monkeypatch.setattr(measure, "row_of", interrupted)
    assert run(*pair, tmp_path / "out")[0] == 3
    with (tmp_path / "out" / "measure.partial.jsonl").open("a") as stream:
        stream.write('{"name": "half')  # a line that was cut off
    monkeypatch.setattr(measure, "row_of", lambda m, s: seen.append(m.name) or whole(m, s))
    _, record = run(*pair, tmp_path / "out")
    assert record == expected and len(seen) == 14


def damaged(base, tuned, how: str):
    """Breaks one of the two folders; returns (base, tuned) to measure and what the message must say."""
    weights = tuned / "model.safetensors"
    tensors = load_file(weights)
    if how == "no folder":
        return base, tuned.parent / "nowhere", "must be a local folder"
    if how == "no safetensors":
        weights.rename(tuned / "pytorch_model.bin")
        return base, tuned, "pickled .bin files are not read"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
        return base, tuned, "no readable safetensors file"
    if how == "no config":
        (tuned / "config.json").unlink()
        return base, tuned, "tuned/config.json cannot be read"
    if how == "shape":
        tensors[DOWN] = tensors[DOWN][:, :40].contiguous()
    if how == "missing":
        del tensors[DOWN]
    if how == "nan":
        tensors[DOWN][0, 0] = float("nan")
    if how == "integers":
        tensors[DOWN] = tensors[DOWN].to(torch.int8)
    save_file(tensors, weights)
    words = {"shape": "32 x 48 and 32 x 40", "missing": "lacks it", "nan": "finite", "integers": "dequantise"}
    return base, tuned, words[how]


BAD = ["no folder", "no safetensors", "truncated", "no config", "shape", "missing", "nan", "integers"]


@pytest.mark.parametrize("how", BAD)
def test_a_bad_checkpoint_is_one_line_and_exit_2(how, folders, tmp_path, capsys):
    base, tuned, words = damaged(*folders(bump), how)
    assert run(base, tuned, tmp_path / "out")[0] == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and shown.count("\n") == 1 and words in shown


def test_a_foreign_record_and_a_missing_tokenizer_are_refused_before_anything_is_measured(
    folders, tmp_path, monkeypatch, capsys
):
    from llm_experiments import measure

    pair = folders(bump)
    monkeypatch.setattr(measure, "row_of", None)  # measuring anything would fail
    (tmp_path / "mine.txt").write_text("w1 w2")
    assert run(*pair, tmp_path / "out", "--data", str(tmp_path / "mine.txt"))[0] == 2
    assert "tokenizer.json" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "measure.json").write_text("my own notes")
    assert run(*pair, tmp_path / "out")[0] == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "out" / "measure.json").read_text() == "my own notes"


def test_a_missing_shard_is_named(folders, tmp_path, capsys):
    base, tuned = folders(bump, max_shard_size="20KB")
    next(iter(sorted(tuned.glob("*.safetensors")))).unlink()
    assert run(base, tuned, tmp_path / "out")[0] == 2
    assert "model-00001-of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--rank", "0"], "--rank must be at least 1"),
        (["--eps", "1.5"], "0 < eps <= 1; got 1.5"),
        (["--layers", "("], "regular expression"),
        (["--layers", "nothing_like_it"], "matches none"),
        (["--max-tokens", "1"], "at least 2"),
        (["--threads", "-1"], "not be negative"),
        (["--data", "nowhere.txt"], "cannot be read"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_2(more, words, folders, tmp_path, capsys):
    assert run(*folders(bump), tmp_path / "out", *more)[0] == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and words in shown


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lora_bias": True}, "LoRA with lora_bias is more than B A"),
        ({"use_dora": True}, "must hold lora_magnitude_vector of"),
        ({"init_lora_weights": "pissa_niter_4"}, "also rewrites the base"),
        ({"peft_type": "VERA"}, "type VERA have no formula here"),
        ({"r": 7, "rank_pattern": {}}, "must be the r of adapter_config.json"),
    ],
)
def test_an_adapter_that_is_more_than_a_product_is_refused(changes, words, tmp_path, build, capsys):
    model = build("llama")
    model.save_pretrained(tmp_path / "base")
    get_peft_model(model, ADAPTERS["lora"]()).save_pretrained(str(tmp_path / "adapter"))
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    assert run(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")[0] == 2
    assert words in capsys.readouterr().err


def test_an_adapter_of_another_model_and_swapped_arguments_are_refused(tmp_path, build, capsys):
    build("bert").save_pretrained(tmp_path / "base")
    get_peft_model(build("llama"), ADAPTERS["lora"]()).save_pretrained(str(tmp_path / "adapter"))
    assert run(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")[0] == 2
    assert "belongs to another model" in capsys.readouterr().err
    assert run(tmp_path / "adapter", tmp_path / "base", tmp_path / "out")[0] == 2
    assert "give the base model first" in capsys.readouterr().err


# --- memory --------------------------------------------------------------------------------------

# The true shapes; a layer adds nothing to the peak, since one matrix is in memory at a time.
SEVEN_B = {"q": (4096, 4096), "up": (11008, 4096), "down": (4096, 11008), "embed": (32000, 4096)}


@pytest.mark.slow
def test_a_7b_shaped_checkpoint_in_16_bits_stays_under_8_gib(tmp_path):
    for side in ("base", "tuned"):
        folder = tmp_path / side
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "llama"}')
        placed = {}
        for number, (name, shape) in enumerate(SEVEN_B.items(), 1):
            # The embedding stands outside the blocks, as in a real folder.
            key = "model.embed_tokens.weight" if name == "embed" else f"model.layers.0.{name}_proj.weight"
            weight = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(number))
            if side == "tuned" and name in ("down", "embed"):
                weight[:, :5] += 0.02
            file = f"model-{number:05}.safetensors"
            save_file({key: weight.bfloat16()}, folder / file)
            placed[key] = file
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    command = ["measure", str(tmp_path / "base"), str(tmp_path / "tuned"), "--out", str(tmp_path / "out")]
    subprocess.run([sys.executable, "-m", "llm_experiments", *command], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"peak {peak / 2**30:.2f} GiB")
    assert peak < 8 * 2**30
    record = store.read_record(tmp_path / "out" / "measure.json")
    (down,) = [row for row in record["layers"] if row["norm"] > 0]
    assert down["name"].endswith("down_proj.weight") and down["needed"]["columns"] == 5
    assert down["intruders"] is None and down["needed"]["lora"] <= 5
    assert record["elsewhere"]["changed"][0]["name"] == "model.embed_tokens.weight"
    shutil.rmtree(tmp_path)

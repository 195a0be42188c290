"""Multiple choice, WordNet, and BIG-bench: what is read, what is refused, how options are scored."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from llm_experiments import data
from llm_experiments.catalogue import catalogue
from llm_experiments.data import DataError, Example
from llm_experiments.errors import UserError
from llm_experiments.prepare import command as prepare
from llm_experiments.settings import SettingError, Settings
from llm_experiments.tasks import TASKS, bigbench, wordnet
from llm_experiments.train import Run
from sims import assets

CANARY = "made-up canary of these tests"
TASK_FILE = {
    "canary": CANARY,
    "examples": [
        {"input": f"{n} and {n} make", "target_scores": {f"{2 * n}": 1, f"{n + 20}": 0, "none": 0}}
        for n in range(9)
    ]
    + [
        {"input": "two right ones", "target_scores": {"a": 1, "b": 1}},
        {"input": "one option", "target_scores": {"a": 1}},
    ],
}


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A folder of task files in place of the fetched package; returns the function that writes one."""

    def write(folder: str, content: dict) -> None:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "task.json").write_text(json.dumps(content))

    monkeypatch.setattr(assets, "path", lambda name: tmp_path)
    monkeypatch.setenv("PEFTPROOF_CACHE", str(tmp_path / "cache"))
    for folder in bigbench.FILES["mathqa"].folders.values():
        write(folder, TASK_FILE)
    return write


def settings(**changes) -> Settings:
    chosen = {"method": "lora", "task": "mathqa", "model": "tiny_llama", "steps": 0, "budget": "10%"}
    return Settings(**{**chosen, **changes})


# --- BIG-bench -----------------------------------------------------------------------------------


def test_questions_keep_their_options_and_need_one_best_answer(stored):
    splits = TASKS["mathqa"].splits()
    assert list(splits) == ["test", "with_program"]
    assert len(splits["test"]) == 9
    for example in splits["test"]:
        n = int(example.text.split()[0])
        assert example.options[example.label] == example.answer == f" {2 * n}"
        assert len(example.options) == 3


def test_texts_to_be_produced_are_read_too(stored):
    content = {"canary": CANARY, "examples": [{"input": "What is 1 plus 1?", "target": ["2", "two"]}]}
    for folder in bigbench.FILES["bigbench_arithmetic"].folders.values():
        stored(folder, content)
    for examples in TASKS["bigbench_arithmetic"].splits().values():
        assert examples == [Example("What is 1 plus 1?", answer=" 2")]


@pytest.mark.parametrize(
    "content", [{"examples": []}, {"examples": [], "canary": ""}, {"examples": [], "canary": 3}]
)
def test_a_file_without_canary_is_not_read(stored, content):
    stored("winowhy", content)
    with pytest.raises(DataError, match="must carry its canary"):
        TASKS["bigbench_winowhy"].splits()


def test_options_are_part_of_the_digest_and_no_options_change_nothing():
    plain, choice = Example("x", answer=" 1"), Example("x", answer=" 1", options=(" 1", " 2"))
    assert data.digest({"test": [plain]}) != data.digest({"test": [choice]})
    # written down once: records of tasks without options must keep their digest
    assert data.digest({"test": [plain]}).startswith("4d4eb52d93c372f7")


def test_nothing_is_ever_trained_on_them(stored):
    with pytest.raises(
        SettingError, match="mathqa is for evaluation only.*set steps to 0.*lora with 1 steps"
    ):
        Run(settings(steps=1))
    with pytest.raises(SettingError, match="a method that looks at no examples"):
        Run(settings(method="s2ft_g:largest"))
    with pytest.raises(DataError, match="no training examples; got train_size 5"):
        Run(settings(train_size=5))
    with pytest.raises(DataError, match="needs a decoder"):
        Run(settings(model="tiny_bert"))
    for name in bigbench.FILES:
        assert TASKS[name].evaluation_only and TASKS[name].optional


@pytest.mark.parametrize("cached", [0, 1])
def test_evaluation_scores_every_option_by_its_mean_log_probability(stored, cached, tmp_path):
    run = Run(settings(cached_lower=cached, method="full"), folder=tmp_path)
    network = run.loaded.model.eval()
    wanted = {}
    with torch.no_grad():
        for example in run.examples["test"]:
            prompt = run.encoding.item(replace(example, answer="", options=())).ids[:-1]
            means = []
            for option in example.options:
                answer = [*run.loaded.tokenizer.encode(option, special=False), run.loaded.tokenizer.end_id]
                logits = network(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
                means.append(float(logits.log_softmax(1)[range(len(answer)), answer].mean()))
            wanted[example.uid] = means.index(max(means)) == example.label, -means[example.label]
    record = run.train()
    found = run.final.splits["test"].each
    for place, example in enumerate(run.examples["test"]):
        right, mean = wanted[example.uid]
        assert found["exact"][place] == right
        assert found["answer_nats"][place] / found["answer_tokens"][place] == pytest.approx(mean, rel=1e-4)
    measures = record["evaluations"][-1]["splits"]["test"]
    assert measures["accuracy"] == pytest.approx(sum(right for right, _ in wanted.values()) / len(wanted))
    assert record["data"]["canary"] == CANARY and record["data"]["examples"] == {"test": 9, "with_program": 9}
    kept = list((tmp_path / "cache").rglob("canary.txt"))
    assert [path.read_text() for path in kept] == ([f"{CANARY}\n"] if cached else [])
    assert [
        path for path in (tmp_path / "cache").rglob("*.npy") if path.parent not in [k.parent for k in kept]
    ] == []


def test_a_tuned_decoder_is_evaluated_on_another_task(stored, run_of):
    run = run_of("lora", steps=3)
    found = run.transfer("mathqa", limit=4)
    assert {name: len(split.each["exact"]) for name, split in found.splits.items()} == {
        "test": 4,
        "with_program": 4,
    }
    assert found.step == run.settings.steps
    untuned = run_of("lora").transfer("mathqa", limit=4)
    assert found.splits["test"].measures["answer_loss"] != untuned.splits["test"].measures["answer_loss"]
    with pytest.raises(SettingError, match="transfer needs a decoder"):
        run_of("bitfit").transfer("mathqa")


# --- WordNet -------------------------------------------------------------------------------------


SPECIES = {
    "cat_like": ("lynx", "puma"),
    "fowl": ("emu", "game_fowl"),
    "newt": ("eft", "axolotl"),
    "bat": ("serotine",),
}


def noun_file(domain: int) -> list[str]:
    """A hierarchy of one lexicographer file, with what must not be asked for."""
    lines, places = ["  1 a licence stands here"], {}

    def add(word: str, *above: tuple[str, str], more: str = "") -> None:
        places.setdefault(word, f"{domain:04d}{len(places):04d}")
        pointers = " ".join(f"{kind} {places[name]} n 0000" for kind, name in above)
        words = f"02 {word} 0 {more} 1" if more else f"01 {word} 0"
        lines.append(f"{places[word]} {domain:02d} n {words} {len(above):03d} {pointers} | a gloss; @ 1 n")

    add("animal")
    for kind, species in SPECIES.items():
        add(kind, ("@", "animal"))
        for name in species:
            add(name, ("@", kind), more="LYNX_lynx" if name == "lynx" else "")
    add("both", ("@", "newt"), ("@", "bat"))  # two kinds are right, two are left to choose from
    add("eft_2", ("@", "newt"))
    add("Rex", ("@i", "cat_like"))
    places.pop("puma")
    add("puma", ("@", "bat"))  # a second sense of the word
    return lines


def test_a_word_is_asked_for_with_three_siblings_of_what_is_above_it():
    found = list(wordnet.questions(wordnet.parse(noun_file(5)), 5))
    asked = {example.text: example for example in found}
    # not: a word with two senses, one that holds its answer, one with a digit, an instance, too few siblings
    assert list(asked) == ["A lynx", "An emu", "An eft", "An axolotl", "A serotine"]
    emu = asked["An emu"]
    assert emu.answer == emu.options[emu.label] == " fowl"
    assert sorted(emu.options) == [" bat", " cat like", " fowl", " newt"]
    assert found == list(wordnet.questions(wordnet.parse(noun_file(5)), 5))
    assert not list(wordnet.questions(wordnet.parse(noun_file(5)), 6))


def test_each_domain_is_a_split_of_its_own(tmp_path, monkeypatch):
    letters = dict(zip(wordnet.DOMAINS.values(), ("", "x", "y"), strict=True))
    lines = []
    for domain, letter in letters.items():
        for line in noun_file(domain):
            for name in ("lynx", "emu", "eft", "axolotl", "serotine"):
                line = line.replace(f" {name} ", f" {letter}{name} ")
            lines.append(line)
    (tmp_path / wordnet.FILE).write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    assert wordnet.TASK.missing() is None
    splits = wordnet.TASK.splits(train_size=1)
    assert {e.text for e in splits["near_plants"]} == {
        "A xlynx",
        "A xemu",
        "A xeft",
        "A xaxolotl",
        "A xserotine",
    }
    assert {e.text for e in splits["far_artefacts"]} == {
        "A ylynx",
        "A yemu",
        "A yeft",
        "A yaxolotl",
        "A yserotine",
    }
    assert splits["train"]
    with pytest.raises(DataError, match="train_size must be at most"):
        wordnet.TASK.splits(train_size=6)
    run = Run(settings(task="wordnet", steps=2, train_size=1, batch=1, eval_every=0, splits="near_plants"))
    record = run.train()
    assert len(record["curve"]) == 2 and record["data"]["sources"] == ["WordNet 3.0, data.noun"]
    assert "canary" not in record["data"]


def test_without_wordnet_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
    line = "needs WordNet 3.0: install the Debian or Ubuntu package wordnet-base"
    with pytest.raises(DataError, match=line):
        Run(settings(task="wordnet", train_size=5))
    with pytest.raises(UserError, match=line):
        prepare(only=["wordnet"], verify=False)


@pytest.mark.skipif(wordnet.missing() is not None, reason="optional data: WordNet 3.0 is not installed")
def test_wordnet_itself_has_the_counted_questions():
    splits = TASKS["wordnet"].splits()
    counts = {name: len(examples) for name, examples in splits.items()}
    wanted = {"train": 320, "validation": 153, "test": 416, "near_plants": 1795, "far_artefacts": 3906}
    assert counts == wanted


# --- what is prepared without being asked for ----------------------------------------------------


def test_optional_tasks_are_listed_and_fetched_by_name_alone(monkeypatch):
    rows = {row["name"]: row for row in catalogue()["tasks"]}
    assert rows["mathqa"]["use"] == "evaluation only" and rows["wordnet"]["use"] == "training"
    assert {name for name, row in rows.items() if row["optional"]} == {"wordnet", *bigbench.FILES}
    fetched = []
    monkeypatch.setattr(assets, "fetch", lambda names, say: fetched.extend(names))
    monkeypatch.setattr("llm_experiments.models.prepare_smollm2", lambda: None)
    prepare(only=None, verify=False)
    assert "bigbench" not in fetched and "snippets" in fetched
    prepare(only=["mathqa"], verify=False)
    assert fetched[-1] == "bigbench"

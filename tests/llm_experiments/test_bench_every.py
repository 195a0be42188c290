"""The bench over all methods: what it counts, and what it sets beside what. No test here looks at a clock."""

from __future__ import annotations

import pytest
import torch

from llm_experiments import methods
from llm_experiments.__main__ import main
from llm_experiments.bench import every
from llm_experiments.bench.command import every_method
from reports import store

TINY = every.SIZES["tiny"]
NAMES = ["full", "bitfit", "lora", "dora", "adalora", "prefix", "c3la", "s2ft_r"]


@pytest.fixture(scope="module")
def found():
    return every.measure(NAMES, TINY, rounds=every.EVENT)


def test_every_method_stands_beside_lora_and_full_on_its_model(found):
    table = {row["method"]: row for row in every.rows(found)}
    assert list(table) == NAMES
    assert {name: row["on"] for name, row in table.items() if row["on"] != "decoder"} == {"bitfit": "encoder"}
    for m in found:
        assert {arm: len(wall) for arm, wall in m.wall.items()} == dict.fromkeys(("", "lora", "full"), 4)
        assert m.memory.keys() == {"", "lora", "full"}
        assert table[m.name]["trains"] == m.trainable > 0
    assert table["lora"]["memory / lora"] == table["full"]["memory / full"] == 1.0
    assert table["dora"]["memory / lora"] > 2 > 1 > table["s2ft_r"]["memory / lora"]
    assert table["lora"]["memory / full"] < 1 < table["full"]["memory / lora"]
    products = {m.name: m.products for m in found}
    assert products["s2ft_r"] < products["lora"] < products["full"]


def test_what_happens_between_steps_is_timed_where_something_happens(found):
    events = {m.name: len(m.between) for m in found}
    assert events.pop("c3la") == 1  # one link in four steps
    assert events.pop("adalora") == every.EVENT  # importances are followed at every step
    assert set(events.values()) == {0}


def test_a_method_that_no_model_takes_is_listed_with_the_reason():
    (m,) = every.measure(["loreft"], {**TINY, "budget": 1e-6}, rounds=1)
    (row,) = every.rows([m])
    assert row == {"method": "loreft", "note": m.refused} and "budget must be at least" in m.refused


def test_the_loss_is_the_models_own_with_the_penalty():
    ids = torch.randint(96, (2, 8), generator=torch.Generator().manual_seed(0))
    plain = every.Training("lora", every.decoder(TINY), ids, 0.2)
    assert torch.allclose(plain.forward(), every.decoder(TINY)(input_ids=ids, labels=ids).loss, atol=1e-6)
    ada = every.Training("adalora", every.decoder(TINY), ids, 0.2)
    assert torch.allclose(ada.forward() - ada.tuned.penalty(), plain.forward(), atol=1e-5)


def test_the_record_and_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PEFTPROOF_REPORTS", str(tmp_path))
    monkeypatch.setattr(methods, "names", lambda: ["lora", "cla"])
    threads = torch.get_num_threads()
    assert main(["bench", "--every", "--quick", "--threads", "1"]) == 0
    assert "A training step of 2 methods" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.json"))
    body = every_method("tiny", 1)
    path = store.record_path("bench", body["id"])
    store.write_record(path, body)
    assert store.read_record(path)["id"] == "every_method/tiny-float32-cpu"
    assert main(["bench", "--quick"]) == 2
    assert "--quick is for --every" in capsys.readouterr().err
    torch.set_num_threads(threads)

"""Seeds over several processes, and the launcher's configurations, dry-run."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_experiments import ranks
from llm_experiments.__main__ import main
from llm_experiments.errors import UserError

CONFIGS = sorted((Path(ranks.__file__).parent / "configs").glob("*.yaml"))


def launched(rank: int, world: int, local: int = 0) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(local)}


def test_every_seed_is_trained_by_exactly_one_process():
    for world in (1, 2, 3, 8):
        shares = [ranks.rank(launched(number, world)).share(range(7)) for number in range(world)]
        assert sorted(seed for share in shares for seed in share) == list(range(7))


def test_without_a_launcher_one_process_takes_all():
    assert ranks.rank({}) == ranks.Rank(0, 1, 0)


@pytest.mark.parametrize("given", [launched(2, 2), launched(-1, 2), {"RANK": "x", "WORLD_SIZE": "2"}])
def test_variables_that_do_not_fit_are_refused(given):
    with pytest.raises(UserError, match="must satisfy 0 <= rank < world"):
        ranks.rank(given)


def test_train_under_a_launcher_takes_its_seeds_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PEFTPROOF_CACHE", str(tmp_path))
    given = [
        "train",
        "lora",
        "--task",
        "chain_sum",
        "--model",
        "tiny_llama",
        "--budget",
        "10%",
        "--steps",
        "1",
    ]
    given += ["--batch", "2", "--eval-items", "2", "--final-items", "2", "--train-size", "8", "--seeds", "3"]
    for number, seeds in ((0, {0, 2}), (1, {1})):
        for name, value in launched(number, 2).items():
            monkeypatch.setenv(name, value)
        assert main(given) == 0
        shown = capsys.readouterr().err
        assert {seed for seed in range(3) if f"seed {seed}: " in shown} == seeds
    for name in launched(0, 2):
        monkeypatch.delenv(name)
    assert main([*given, "--jobs", "1"]) == 0
    shown = capsys.readouterr()
    assert shown.err.count("finished earlier") == 3 and "3 seeds" in shown.out


def test_there_are_configurations_for_gpus_and_nodes():
    assert [path.stem for path in CONFIGS] == ["several_gpus", "several_nodes"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_would_launch_what_the_configuration_says(path, monkeypatch):
    """The launcher's own parser and checks, up to the environment of the processes; nothing is started."""
    from accelerate.commands import launch
    from accelerate.utils import launch as prepare

    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr(prepare, "is_port_in_use", lambda port: False)
    given = ["--config_file", str(path), "-m", "llm_experiments", "train", "s2ft_r", "--device", "cuda"]
    arguments, defaults, _ = launch._validate_launch_command(launch.launch_command_parser().parse_args(given))
    assert arguments.multi_gpu and not arguments.cpu
    assert arguments.training_script == "llm_experiments" and arguments.module
    assert arguments.training_script_args == ["train", "s2ft_r", "--device", "cuda"]
    assert (arguments.num_machines, arguments.num_processes) == (
        defaults.num_machines,
        defaults.num_processes,
    )
    environment = prepare.prepare_multi_gpu_env(arguments)
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"
    if arguments.num_machines > 1:
        assert (arguments.nnodes, arguments.nproc_per_node) == ("2", "4")
        assert arguments.rdzv_endpoint == "127.0.0.1:29500" and arguments.node_rank == 0

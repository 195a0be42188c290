"""Your method, your paper: a toy of each, added to a copy of the sources as the printed instructions say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the checkout's sources, without records and caches."""
    folder = tmp_path_factory.mktemp("tree")
    unwanted = shutil.ignore_patterns("__pycache__", "records", "figures", "*.md", "*.npz")
    for package in ("theory", "sims", "llm_experiments", "reports"):
        shutil.copytree(ROOT / package, folder / package, ignore=unwanted)
    for name in ("tests", "reports/objections"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture(scope="module")
def say(tree, tmp_path_factory):
    """`say("theory", "list")`: runs a module in the copy; returns status, output and errors."""
    cache = tmp_path_factory.mktemp("cache")

    def run(*arguments: str) -> tuple[int, str, str]:
        environment = {**os.environ, "COLUMNS": "160", "PEFTPROOF_CACHE": str(cache)}
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=tree, env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_a_toy_paper_gets_claim_verdict_checks_and_page(tree, say):
    status, printed, _ = say("theory", "new", "--paper", "toy")
    assert status == 0 and "python -m theory check toy/merging --write" in printed
    status, printed, errors = say("theory", "check", "toy/merging", "--write", "--budget", "300")
    assert status == 0 and "as printed: refuted (repair proved)" in printed, errors
    status, printed, _ = say("pytest", "-q", "theory/toy")
    assert status == 0 and "passed" in printed, printed[-2000:]
    status, _, errors = say("reports")
    assert status == 0, errors
    page = (tree / "reports" / "toy.md").read_text("utf-8")
    assert "### merging" in page and "**The counterexample.**" in page and "**The repair** (✔ proved" in page
    assert "[toy](toy.md)" in (tree / "reports" / "index.md").read_text("utf-8")
    recheck = [sys.executable, "-I", "-S", "theory/recheck.py", "reports/records/claims/toy/merging.json"]
    assert subprocess.run(recheck, cwd=tree, capture_output=True).returncode == 0


def test_a_toy_method_is_trained_and_tested_like_the_others(tree, say):
    status, printed, errors = say("llm_experiments", "new-method", "toy_norms")
    assert status == 0 and "python -m llm_experiments train toy_norms" in printed, errors
    train = [
        "train",
        "toy_norms",
        "--model",
        "tiny_llama",
        "--task",
        "chain_sum",
        "--steps",
        "2",
        "--batch",
        "2",
    ]
    train += ["--train-size", "8", "--eval-items", "2", "--final-items", "2"]
    status, printed, errors = say("llm_experiments", *train)
    assert status == 0 and "toy_norms on tiny random Llama" in printed, errors[-2000:]
    assert "128 parameters" in printed  # two norms of width 32 in each of two blocks
    shared = "tests/llm_experiments/test_tuners_methods.py"
    status, printed, _ = say("pytest", "-q", shared, "-k", "toy_norms and llama and not gqa")
    assert status == 0 and " passed" in printed, printed[-2000:]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["theory", "new", "--paper", "s2ft"], "theory/s2ft exists already; give another name"),
        (["theory", "new", "--paper", "My Paper"], "--paper must be lower-case letters"),
        (["theory", "new"], "give either a FILE or --paper NAME"),
    ],
)
def test_a_bad_name_of_a_paper_is_one_line(say, command, said):
    status, _, errors = say(*command)
    assert status == 2 and said in errors and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [("lora", "there is a method or a file lora already"), ("a-b", "name must be lower-case letters")],
)
def test_a_bad_name_of_a_method_is_one_line(capsys, name, said):
    from llm_experiments.__main__ import main

    assert main(["new-method", name]) == 2
    errors = capsys.readouterr().err
    assert said in errors and errors.count("\n") == 1

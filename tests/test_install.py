"""What is installed, how the environment is made, and which package may import which."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("theory", "sims", "llm_experiments", "reports")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCKED_EXTRAS = ("sim", "llm", "proofs", "cluster", "site", "dev")
# Builds of torch ask for these by platform, so that the lock file leaves them to pip.
ACCELERATORS = re.compile(r"(nvidia|cuda|triton|intel|pytorch-triton)")


def pins() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def requirements(*extras: str) -> list[Requirement]:
    texts = PROJECT["project"]["dependencies"] + [text for extra in extras for text in EXTRAS[extra]]
    return [Requirement(text) for text in texts]


# --- the distribution -------------------------------------------------------------------------------------


def test_only_the_four_packages_are_installed():
    names = metadata.distribution("peftproof").read_text("top_level.txt").split()
    assert sorted(names) == sorted(PACKAGES)


def test_the_packages_are_found_from_any_folder(tmp_path):
    code = f"import {', '.join(PACKAGES)}; print(theory.__file__)"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(answer.stdout.strip()) == ROOT / "theory" / "__init__.py"


def test_every_folder_with_code_is_a_package_that_gets_installed():
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            assert (file.parent / "__init__.py").is_file(), f"{file.parent} has code but no __init__.py"


@pytest.mark.parametrize(
    "peer", ["torch==2.11.0", "transformers==5.17.0", "peft==0.21.0", "accelerate==1.15.0"]
)
def test_the_ranges_admit_the_versions_of_a_present_gpu_environment(peer):
    name, version = peer.split("==")
    ranges = [requirement for requirement in requirements("llm") if requirement.name == name]
    assert ranges and all(version in requirement.specifier for requirement in ranges)


def test_python_3_12_is_admitted():
    assert "3.12" in Requirement(f"python{PROJECT['project']['requires-python']}").specifier


# --- the lock file ----------------------------------------------------------------------------------------


def test_every_requirement_is_locked_within_its_range():
    for requirement in requirements(*LOCKED_EXTRAS):
        version = pins().get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in requirements.lock"
        assert version in requirement.specifier, f"{requirement.name}=={version} is outside {requirement}"


def test_the_lock_is_closed_under_what_its_packages_require():
    for name, version in pins().items():
        if metadata.version(name).split("+")[0] != version:
            pytest.skip(f"{name} is not the locked version here: not an environment that `make` has made")
        for text in metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            needed = canonicalize_name(requirement.name)
            assert needed in pins() or ACCELERATORS.match(needed), f"{name} needs {needed}: not locked"


def test_packages_that_carry_models_or_data_are_no_dependencies():
    entries = tomllib.loads((ROOT / "sims" / "assets.lock").read_text(encoding="utf-8"))
    carriers = {canonicalize_name(entry["package"]) for entry in entries.values()}
    every_extra = {canonicalize_name(requirement.name) for requirement in requirements(*EXTRAS)}
    assert not carriers & (every_extra | pins().keys())


# --- the Makefile and the environment ---------------------------------------------------------------------


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [shutil.which("make") or "make", "-C", str(ROOT), "--no-print-directory", *arguments]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(command, capture_output=True, text=True, env=kept | environment)


def test_make_alone_lists_every_target_and_changes_nothing():
    answer = make()
    assert answer.returncode == 0
    for target in ("audit", "audit-full", "test", "lint", "bench", "gpu", "site", "clean", "help"):
        assert re.search(rf"^  {target} +\S", answer.stdout, re.MULTILINE), target


@pytest.mark.parametrize("target", ["audit", "test"])
def test_audit_and_test_make_the_environment_and_fetch_first(target):
    steps = make("--dry-run", target, VENV="elsewhere").stdout
    work = "reports audit --budget 15m" if target == "audit" else "-m pytest"
    order = [steps.index(text) for text in (".ci/environment.py", "sims/assets.py fetch", work)]
    assert order == sorted(order)


def test_a_machine_without_a_recent_python_gets_one_clear_line(tmp_path):
    shell = tmp_path / "python3"
    shell.write_text("#!/bin/sh\nexit 1\n")  # what `sys.exit(version < (3, 11))` makes of an old one
    shell.chmod(0o755)
    answer = make("environment", PATH=str(tmp_path), SHELL="/bin/sh")
    assert answer.returncode == 2
    assert answer.stderr.startswith("error: no Python 3.11 or later found")
    assert "make PYTHON=" in answer.stderr


def environment_module():
    file = ROOT / ".ci" / "environment.py"
    specification = importlib.util.spec_from_file_location("environment", file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """`.ci/environment.py` over a root of its own with an empty lock file; its commands are recorded."""
    module = environment_module()
    (tmp_path / "requirements.lock").write_text("")
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "LOCK", tmp_path / "requirements.lock")
    monkeypatch.setattr(sys, "argv", ["environment.py", "venv"])
    module.commands = []
    run = subprocess.run

    def without_pip(command, **options):
        module.commands.append([str(part) for part in command])
        if "install" in command:
            command = [sys.executable, "-c", ""]
        elif "venv" in command:
            command = [*command[:-1], "--without-pip", command[-1]]
        return run(command, **options)

    monkeypatch.setattr(module.subprocess, "run", without_pip)
    return module


def installs(environment) -> int:
    return sum("install" in command for command in environment.commands)


def test_the_environment_is_made_once(environment, capsys):
    assert environment.main() == 0
    assert installs(environment) == 2  # the locked versions, then this checkout
    assert environment.main() == 0
    assert installs(environment) == 2
    assert "ready after" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["requirements.lock", "pyproject.toml"])
def test_it_is_made_again_when_the_lock_or_the_project_changed(environment, file):
    environment.main()
    (environment.ROOT / file).write_text("# changed\n")
    environment.main()
    assert installs(environment) == 4


def test_an_interrupted_installation_is_started_afresh(environment):
    environment.main()
    venv = environment.ROOT / "venv"
    (venv / "complete").unlink()
    (venv / "unfinished").touch()
    (venv / "half-written").touch()
    environment.main()
    assert not (venv / "half-written").exists()
    assert not (venv / "unfinished").exists()
    assert (venv / "complete").is_file()


def test_a_failed_step_leaves_no_finished_environment(environment, capsys, monkeypatch):
    def fail(command, **options):
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(environment.subprocess, "run", fail)
    assert environment.main() == 2
    assert not (environment.ROOT / "venv" / "complete").exists()
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("what, status", [(KeyboardInterrupt(), 3), (PermissionError(13, "denied", "x"), 2)])
def test_an_interruption_or_an_unwritable_folder_is_one_line(environment, capsys, monkeypatch, what, status):
    def fail(venv, python, quietly):
        raise what

    monkeypatch.setattr(environment, "build", fail)
    assert environment.main() == status
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_folder_that_is_no_environment_is_never_deleted(environment):
    precious = environment.ROOT / "venv" / "thesis.tex"
    precious.parent.mkdir()
    precious.touch()
    with pytest.raises(SystemExit, match="is no Python environment"):
        environment.main()
    assert precious.exists()


def test_ci_runs_what_a_developer_runs():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("exec make test")


# --- imports go one way -----------------------------------------------------------------------------------

FORBIDDEN = {
    "theory": {"sims", "llm_experiments", "torch", "transformers", "peft", "hypothesis"},
    "sims": {"llm_experiments", "hypothesis"},
    "llm_experiments": {"hypothesis"},
    "reports": {"hypothesis"},
}
SOLVERS = {"z3", "PEPit", "cvxpy"}


@cache
def imported(file: Path) -> frozenset[str]:
    """What a file imports, inside functions too: dotted names, with the name that `from` takes out of them."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package):
    for file in (ROOT / package).rglob("*.py"):
        wrong = {name for name in imported(file) if name.split(".")[0] in FORBIDDEN[package]}
        assert not wrong, f"{file.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def module_file(name: str) -> Path | None:
    """The file of one of our modules, also when `name` goes on to something defined in it."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        for file in (
            ROOT.joinpath(*parts[:end]).with_suffix(".py"),
            ROOT.joinpath(*parts[:end], "__init__.py"),
        ):
            if file.is_file():
                return file
    return None


def reached(name: str, seen: dict[str, Path | None]) -> dict[str, Path | None]:
    """Every module that `name` leads to, through our own files."""
    if name not in seen:
        seen[name] = module_file(name) if name.split(".")[0] in PACKAGES else None
        for further in imported(seen[name]) if seen[name] else ():
            reached(further, seen)
    return seen


@pytest.mark.parametrize("package", ["theory", "sims", "llm_experiments"])
def test_what_the_others_use_of_reports_leads_nowhere_else(package):
    for file in (ROOT / package).rglob("*.py"):
        for name in imported(file):
            if name.split(".")[0] == "reports":
                leads_to = {module.split(".")[0] for module in reached(name, {})}
                drawing = (
                    {"matplotlib"} if name.startswith("reports.figures") else set()
                )  # figures are drawn once
                outside = leads_to - sys.stdlib_module_names - {"reports"} - drawing
                assert not outside, f"{file.relative_to(ROOT)} imports {name}, which leads to {outside}"


def test_solvers_are_named_in_the_search_alone():
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            named = {name for name in imported(file) if name.split(".")[0] in SOLVERS}
            place = file.relative_to(ROOT)
            assert not named or place.is_relative_to("theory/search"), f"{place} imports {named}"


def run_isolated(code: str, *options: str) -> list[str]:
    """The words that a fresh interpreter prints, whose path begins with the checkout."""
    command = [sys.executable, *options, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()


def theory_modules(*, of_papers: bool) -> list[str]:
    """Dotted names of the modules of theory/ outside its search: those of the papers, or the others."""
    names = []
    for file in sorted((ROOT / "theory").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        in_paper = len(parts) > 2 and parts[1] != "kits"
        if (
            parts[1] != "search"
            and parts[-1] not in {"__main__", "__init__", "conftest"}
            and in_paper == of_papers
        ):
            names.append(".".join(parts))
    return names


def test_checks_load_no_solver_and_no_torch():
    modules = theory_modules(of_papers=False) + theory_modules(of_papers=True)
    loaded = run_isolated(f"import {', '.join(modules)}; print(*sys.modules)")
    assert not SOLVERS.union({"torch", "transformers"}) & {name.split(".")[0] for name in loaded}


def test_claims_need_the_standard_library_alone():
    modules = theory_modules(of_papers=True)
    assert modules
    run_isolated(f"import {', '.join(modules)}", "-I", "-S")


def test_theory_itself_needs_the_standard_library_alone():
    assert run_isolated("import theory; print(theory.__name__)", "-I", "-S") == ["theory"]

"""The README promises nothing that is not there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODULE_COMMANDS = sorted(
    set(re.findall(r"python -m (theory|reports|llm_experiments) ([a-z]+(?:-[a-z]+)*)", README))
)
SCRIPTS = sorted(set(re.findall(r"python (?:-I -S )?((?:theory|sims)/\w+\.py)", README)))


def test_every_link_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert "://" in link or (ROOT / link).exists(), link


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`?make ([a-z]+(?:-[a-z]+)?)\b", README))
    assert {"audit", "test", "audit-full", "bench", "gpu"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("package, command", MODULE_COMMANDS)
def test_every_command_has_help(package, command):
    line = [sys.executable, "-m", package, command, "--help"]
    answer = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, f"{shlex.join(line[1:])}: {answer.stderr[-300:]}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_there(script):
    assert (ROOT / script).is_file()


def test_the_verdicts_have_their_place():
    begin, end = README.find("<!-- verdicts:begin -->"), README.find("<!-- verdicts:end -->")
    assert 0 < begin < end


def test_claims_that_are_named_exist():
    for claim in set(re.findall(r"\b(\w+/\w+)(?:\.json|`|;)", README)):
        paper, name = claim.split("/")
        if (ROOT / "theory" / paper).is_dir():
            assert (ROOT / "theory" / paper / f"{name}.py").is_file(), claim

"""Your lemma: the tutorial does what it says, and an interrupted search keeps what it found."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from reports import tutorial

ROOT = Path(__file__).resolve().parents[2]
THEORY = [sys.executable, "-m", "theory"]


def test_the_tutorial_is_what_its_commands_print_today():
    fresh = tutorial.page()
    assert fresh == (ROOT / "reports" / tutorial.PLACE).read_text("utf-8"), "run `python -m reports tutorial`"
    refuted, second, repaired = re.findall(r"^\$ python -m theory falsify .*\n(.*)", fresh, re.MULTILINE)
    assert refuted.startswith("statement: refuted")
    assert second == repaired == "statement: no counterexample in the evaluations allowed"
    assert "sides of energies: 4 and 2" in fresh


def test_every_instance_of_the_second_try_meets_its_hypothesis(tmp_path):
    """The tutorial says that `build` meets the hypothesis whatever the free numbers are."""
    import numpy as np

    from theory import instances
    from theory.kits.exact import Exact
    from theory.search.loader import load

    page = (ROOT / "reports" / tutorial.PLACE).read_text("utf-8")
    (text,) = re.findall(r"```python\n(\"\"\"The same, .*?)```", page, re.DOTALL)
    file = tmp_path / "second_try.py"
    file.write_text(text)
    (target,) = load(file)
    rng = np.random.default_rng(0)
    for d in target.setting.dims:
        shapes = target.setting.free(d)
        for _ in range(20):
            kit = Exact()
            values = [int(v) for v in rng.integers(-3, 4, instances.count(shapes))]
            x = target.setting.build(kit, instances.parameters(kit, shapes, values), d)
            assert not kit.run(target.statement, x).broken_hypotheses


def test_from_the_written_template_to_an_interrupted_search(tmp_path):
    assert subprocess.run([*THEORY, "new", "my_lemma.py"], cwd=tmp_path, capture_output=True).returncode == 0
    command = [*THEORY, "falsify", "my_lemma.py", "--jobs", "1", "--budget", "100000000", "--json"]
    search = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # tests that run in the background have Ctrl-C ignored, and a process inherits that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    time.sleep(12)  # the search has begun, on a busy machine too
    search.send_signal(signal.SIGINT)
    try:
        printed, errors = search.communicate(timeout=60)
    finally:
        search.kill()  # a search that would not stop must not go on after the test
    assert search.returncode == 3, errors
    report = json.loads(printed)
    assert report["interrupted"] and not report["found"] and report["evaluations"] > 0


def test_a_fault_points_to_the_users_own_line(tmp_path):
    subprocess.run([*THEORY, "new", "my_lemma.py"], cwd=tmp_path, capture_output=True, check=True)
    file = tmp_path / "my_lemma.py"
    text = file.read_text("utf-8").replace("k.tr(x.A @ x.B)", "k.trace(x.A @ x.B)")
    file.write_text(text, encoding="utf-8")
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "k.trace(" in row)
    done = subprocess.run([*THEORY, "falsify", "my_lemma.py"], cwd=tmp_path, capture_output=True, text=True)
    assert (
        done.returncode == 2 and f"my_lemma.py, line {line}" in done.stderr and done.stderr.count("\n") == 1
    )

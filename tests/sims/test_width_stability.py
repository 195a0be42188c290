"""Exponents of feature updates, and what the counting of powers rests on."""

from __future__ import annotations

import numpy as np
import pytest

from reports import store
from sims import parallel, present, width_stability
from sims.width_stability import CASES, Case, Optimizer, updates


def test_quick_run_writes_exponents_as_predicted(tmp_path, monkeypatch):
    """Finite widths move exponents a little; 0.15 is far below the half power between two cases."""
    monkeypatch.setenv(store.REPORTS_VARIABLE, str(tmp_path))
    width_stability.main(["--quick", "--jobs", "1"])
    record = store.read_record(store.record_path("sims", "width_stability-quick"))
    rows = [row for row in record["table"] if row["stderr"] is not None]
    assert len(rows) == sum(len(case.predicted()) for case in CASES)
    assert max(abs(row["simulated"] - row["predicted"]) for row in rows) < 0.15
    assert max(abs(row["z"]) for row in rows) < present.UNLIKELY_Z
    printed, simplified = record["table"][-2:]
    assert printed["simulated"] == 0
    assert simplified["simulated"] == pytest.approx(simplified["predicted"]) and simplified["simulated"] > 0.9


def test_one_and_two_processes_write_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv(store.REPORTS_VARIABLE, str(tmp_path))
    path = store.record_path("sims", "width_stability-custom")
    texts = []
    for jobs in ("1", "2"):
        width_stability.main(["--widths", "32,64,128", "--seeds", "9", "--jobs", jobs])
        texts.append(path.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]


def test_adam_is_the_one_of_torch():
    torch = pytest.importorskip("torch", reason="torch comes with the extra 'sim'")
    gradients = np.random.default_rng(0).standard_normal((5, 3, 4))
    ours, parameter = Optimizer("Adam", 0.1), torch.zeros(3, 4, dtype=torch.float64)
    theirs = torch.optim.Adam([parameter], lr=0.1, eps=1e-30)
    value = np.zeros((3, 4))
    for g in gradients:
        value = value + ours.step(g)
        parameter.grad = torch.as_tensor(g)
        theirs.step()
    np.testing.assert_allclose(value, parameter.numpy(), rtol=1e-10)


def test_s2ft_step_is_the_formula():
    case = Case("S2FT", "SGD", "sum", -1.0, -1.0)
    n = 300
    rng = parallel.stream(1)
    x, z0, target = (rng.standard_normal(n) for _ in range(3))
    s = width_stability.CHANNELS
    expected = width_stability.SIZE / n * (x @ x) * np.sqrt(np.mean((z0 - target)[:s] ** 2))
    assert updates(case, n, parallel.stream(1))["V moves"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--widths", "256,512"],
        ["--widths", "512,256,1024"],
        ["--widths", "a,b,c"],
        ["--seeds", "1"],
        ["--jobs", "0"],
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv(store.REPORTS_VARIABLE, str(tmp_path / "reports"))
    assert present.guarded(lambda: width_stability.main(arguments)) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "reports").exists()

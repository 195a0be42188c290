"""Mean projectors: closed forms against the claims' own texts and enumeration, draws against closed forms."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from reports import store
from sims import parallel, present, projection_spectrum
from theory.kits.exact import Exact
from theory.lora_variants import laws, projectors
from theory.protocol import Instance


@pytest.mark.parametrize(("r", "k"), [(1, 2), (2, 2), (2, 3), (3, 2)])
def test_block_laws_are_those_of_the_claim(r, k):
    kit = Exact()
    x = Instance(c=kit.num(2), r=r, k=k)
    offsets = {
        laws.EACH: [j * r for j in range(k)],
        laws.PRINTED: [j * r for j in range(1, k)],
        laws.OFFSET: list(range(k)),
        laws.NEXT: [0],
    }
    for law, places in offsets.items():
        E = projectors.mean_over(kit, x, places)
        for i, j in product(range(r * k), repeat=2):
            expected = laws.mean_projector(law, r, r * k)[i] if i == j else 0
            assert Fraction(str(kit.e(E, i, j))) == expected, (law, i, j)


def test_no_law_sees_more_than_r_over_m_and_each_spends_its_rank():
    for r, m in ((1, 1), (1, 5), (2, 7), (3, 7), (4, 4), (3, 6)):
        for law in projection_spectrum.laws_at(r):
            diagonal = laws.mean_projector(law, r, m)
            assert sum(diagonal) == laws.mean_rank(law, r, m)
            assert min(diagonal) <= Fraction(r, m)


def test_mean_of_two_rows_of_signs_by_enumeration():
    m = 3
    A = np.array(list(product((-1.0, 1.0), repeat=2 * m))).reshape(-1, 2, m)
    H = projection_spectrum.projectors(A)
    np.testing.assert_allclose(
        H.mean(axis=0), np.diag([float(v) for v in laws.mean_projector(laws.SIGNS, 2, m)]), atol=1e-12
    )
    gram = A.swapaxes(1, 2) @ A
    first, second = laws.gram_moments(laws.SIGNS, 2, m, Fraction(1))
    np.testing.assert_allclose(gram.mean(axis=0), float(first) * np.eye(m), atol=1e-12)
    np.testing.assert_allclose((gram @ gram).mean(axis=0), float(second) * np.eye(m), atol=1e-12)


def test_gaussian_moments_are_those_of_the_claim():
    from theory.lora_variants.steps import fourth_moment

    for r, m in product(range(1, 4), repeat=2):
        assert laws.gram_moments(laws.GAUSSIAN, r, m, Fraction(1))[1] == fourth_moment(r, m, 0, 0)


def test_draws_are_projectors_of_their_law():
    rng = parallel.stream(3)
    for law in (*laws.ENTRIES, *laws.BLOCKS):
        H = projection_spectrum.projectors(projection_spectrum.draw(law, 20, 2, 5, rng))
        np.testing.assert_allclose(H @ H, H, atol=1e-10)
        np.testing.assert_allclose(H, H.swapaxes(1, 2), atol=1e-10)


def test_a_wrong_law_is_noticed():
    """Algorithm 2's offset set beside the law of uniform blocks: far beyond chance."""
    block = projection_spectrum.Block(laws.OFFSET, 2, 6, 0, 0, 0, 250)
    seen = projection_spectrum.measure(block)["mean"][0]
    assert abs(seen[1, 1] - 1 / 3) > 0.2


def test_quick_run_agrees_with_theory_and_with_itself_on_two_processes(tmp_path, monkeypatch):
    """About 150 tested rows: |z| > 4.5 would have probability 0.001."""
    monkeypatch.setenv(store.REPORTS_VARIABLE, str(tmp_path))
    texts = []
    for jobs in ("1", "2"):
        projection_spectrum.main(["--quick", "--jobs", jobs])
        path = store.record_path("sims", "projection_spectrum-quick")
        texts.append(path.read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    record = store.read_record(path)
    assert present.worst_z(record["table"]) < present.UNLIKELY_Z
    assert sum(row["z"] is not None for row in record["table"]) > 40
    assert len(record["figures"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--size", "3"],
        ["--size", "2,3,4"],
        ["--size", "a,b,c"],
        ["--seeds", "10"],
        ["--jobs", "0"],
        ["--seed", "-1"],
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv(store.REPORTS_VARIABLE, str(tmp_path / "reports"))
    assert present.guarded(lambda: projection_spectrum.main(arguments)) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "reports").exists()

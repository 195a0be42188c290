"""Benchmarks of the theory, as ratios measured in one run: what batching, flint and the stages are worth."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from fractions import Fraction
from statistics import median
from typing import Any

import numpy as np
from flint import fmpq, fmpq_mat
from threadpoolctl import threadpool_limits

from theory.claim import Setting
from theory.instances import gram
from theory.kits.exact import Exact
from theory.kits.flint import Flint
from theory.protocol import Instance, Kit, Mat
from theory.search.engine import falsify

Json = dict[str, Any]
ROUNDS = 7
BLOCK_BYTES = 1 << 17


def _seconds(work: Callable[..., Any], repeat: int) -> float:
    """Processor seconds of one call, over `repeat` calls: a busy machine does not count."""
    start = time.process_time()
    for _ in range(repeat):
        work()
    return (time.process_time() - start) / repeat


def _paired(works: Mapping[str, tuple[Callable[..., Any], int]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each work; the works take turns, so that a busy machine slows all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    order = random.Random(0)
    for _ in range(rounds):
        for name in order.sample(list(works), len(works)):
            times[name].append(_seconds(*works[name]))
    return {name: median(values) for name, values in times.items()}


def _spectral_tail(A: np.ndarray) -> Any:
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    rest = A - (U[..., :, :4] * s[..., None, :4]) @ Vt[..., :4, :]
    return np.abs((rest**2).sum((-1, -2)) - (s[..., 4:] ** 2).sum(-1))


def _projector(A: np.ndarray) -> Any:
    T = A[..., : A.shape[-1] // 2]
    P = T @ np.linalg.solve(np.swapaxes(T, -1, -2) @ T, np.swapaxes(T, -1, -2))
    return np.abs(P @ T - T).max((-1, -2))


def _gram_spectrum(A: np.ndarray) -> Any:
    G = np.swapaxes(A, -1, -2) @ A
    return np.abs(np.linalg.eigvalsh(G).sum(-1) - np.trace(G, axis1=-2, axis2=-1))


def _identity(A: np.ndarray) -> Any:
    B, C = A[..., :4], A[..., :4, :]
    return np.abs((B @ C) @ A - B @ (C @ A)).max((-1, -2))


CHECKS = {
    "SVD tail": _spectral_tail,
    "projector": _projector,
    "Gram spectrum": _gram_spectrum,
    "product identity": _identity,
}


def batches() -> list[Json]:
    """Checks in cache-sized batches against a Python loop over instances."""
    rng, rows = np.random.default_rng(0), []
    for d in (8, 16, 32):
        A = rng.standard_normal((2048, d, d))
        block = max(1, BLOCK_BYTES // (8 * d * d))
        for name, check in CHECKS.items():

            def blocked(check: Any = check, A: Any = A, block: int = block) -> None:
                for i in range(0, len(A), block):
                    check(A[i : i + block])

            def loop(check: Any = check, A: Any = A) -> None:
                for a in A[:256]:
                    check(a)

            t = _paired({"batched": (blocked, 1), "loop": (loop, 1)})
            gain = (t["loop"] / 256) / (t["batched"] / len(A))
            rows.append({"check": name, "d": d, "batched_over_loop": round(gain, 2)})
    return rows


def exact_arithmetic() -> list[Json]:
    """Rank, inverse and projector: the flint kit against bare flint, sympy and Fraction."""
    from sympy import Matrix, Rational
    from sympy.polys.domains import QQ
    from sympy.polys.matrices import DomainMatrix

    rows = []
    for n in (6, 10):
        rng = random.Random(n)
        entries = [[Fraction(rng.randint(-9, 9), rng.randint(1, 4)) for _ in range(n)] for _ in range(n)]
        half = [r[: n // 2] for r in entries]
        bare = fmpq_mat(n, n // 2, [fmpq(v.numerator, v.denominator) for r in half for v in r])
        square = fmpq_mat(n, n, [fmpq(v.numerator, v.denominator) for r in entries for v in r])
        kits: dict[str, Kit] = {"kit": Flint(), "fractions": Exact()}
        halves = {name: kit.mat(half) for name, kit in kits.items()}
        squares = {name: kit.mat(entries) for name, kit in kits.items()}
        domain = DomainMatrix([[QQ(v.numerator, v.denominator) for v in r] for r in entries], (n, n), QQ)
        domain_half = DomainMatrix(
            [[QQ(v.numerator, v.denominator) for v in r] for r in half], (n, n // 2), QQ
        )
        symbolic = Matrix([[Rational(v.numerator, v.denominator) for v in r] for r in entries])
        symbolic_half = symbolic[:, : n // 2]

        def project(T: Any, t: Any) -> Any:
            return T * (t * T).inv() * t

        works = {
            "projector": {
                "bare flint": (lambda T=bare: project(T, T.transpose()), 300),
                "kit": (lambda T=halves["kit"]: _projector_of(T), 300),
                "fractions": (lambda T=halves["fractions"]: _projector_of(T), 2),
                "DomainMatrix": (lambda T=domain_half: project(T, T.transpose()), 20),
                "sympy Matrix": (lambda T=symbolic_half: project(T, T.T), 1),
            },
            "rank": {
                "bare flint": (lambda A=square: A.rank(), 300),
                "kit": (lambda A=squares["kit"]: A.kit.rank(A), 300),
                "fractions": (lambda A=squares["fractions"]: A.kit.rank(A), 2),
                "DomainMatrix": (lambda A=domain: A.rank(), 5),
                "sympy Matrix": (lambda A=symbolic: A.rank(), 1),
            },
            "inverse": {
                "bare flint": (lambda A=square: A.inv(), 300),
                "kit": (lambda A=squares["kit"]: A.kit.inv(A), 300),
                "fractions": (lambda A=squares["fractions"]: A.kit.inv(A), 2),
                "DomainMatrix": (lambda A=domain: A.inv(), 20),
                "sympy Matrix": (lambda A=symbolic: A.inv(), 1),
            },
        }
        for task, ways in works.items():
            t = _paired(ways)
            for other in ways:
                if other != "kit":
                    rows.append(
                        {
                            "task": task,
                            "n": n,
                            "against": other,
                            "kit_over_other": round(t[other] / t["kit"], 3),
                        }
                    )
    return rows


def _projector_of(T: Mat) -> Mat:
    return T @ T.kit.inv(T.T @ T) @ T.T


def _statement(k: Kit, x: Instance) -> None:
    k.given("A psd", k.psd(x.A))
    k.given("B psd", k.psd(x.B))
    k.claim("tr(AB) <= tr A tr B", k.le(k.tr(x.A @ x.B), k.tr(x.A) * k.tr(x.B)))


def stages(budget: int = 40_000) -> list[Json]:
    """Evaluations a second of each stage of the falsifier, on a true lemma about psd matrices of size 2 and 3."""
    setting = Setting(
        [{"n": 2}, {"n": 3}],
        lambda d: {"C": (d["n"], d["n"]), "E": (d["n"], d["n"])},
        lambda k, t, d: Instance(A=gram(t.C), B=gram(t.E)),
    )
    spent: dict[str, list[float]] = {}
    last = [time.process_time()]

    def progress(part: Any) -> None:
        now = time.process_time()
        row = spent.setdefault(part.stage, [0.0, 0.0, 0.0])
        row[0] += now - last[0]
        row[1] += part.tried
        row[2] += part.exact
        last[0] = now

    falsify(_statement, setting, budget=budget, progress=progress)
    return [
        {
            "stage": name,
            "evaluations_per_second": round((tried + exact) / seconds),
            "exact_decisions": int(exact),
        }
        for name, (seconds, tried, exact) in spent.items()
        if tried + exact > 100  # the solver works in a process of its own
    ]


def run() -> Json:
    """All benchmarks of the theory, one BLAS thread."""
    with threadpool_limits(1):
        return {"batches": batches(), "exact": exact_arithmetic(), "stages": stages()}


def store(record: Json) -> None:
    """Write the record bench/theory."""
    from reports.store import machine, record_path, write_record

    outcome = {
        "id": "bench/theory",
        "headline": headline(record),
        "settings": {"rounds": ROUNDS, "threads": 1, "block_bytes": BLOCK_BYTES},
        "machine": machine(),
        **record,
    }
    write_record(record_path("bench", "theory"), outcome)


def headline(record: Json) -> str:
    """One sentence with the ratios that matter."""
    top = max(record["batches"], key=lambda r: r["batched_over_loop"])
    bare = next(
        r for r in record["exact"] if (r["task"], r["n"], r["against"]) == ("projector", 10, "bare flint")
    )
    slow = next(r for r in record["exact"] if (r["task"], r["n"], r["against"]) == ("rank", 10, "fractions"))
    return (
        f"Batches are up to {top['batched_over_loop']} times faster than a loop ({top['check']}, d = {top['d']}); "
        f"the exact projector 10 x 10 takes {1 / bare['kit_over_other']:.2f} times bare flint's time; exact rank "
        f"10 x 10 is {slow['kit_over_other']:.0f} times faster than Fraction."
    )


def text(record: Json) -> str:
    """The benchmarks as lines."""
    lines = [headline(record), "", "batched checks over a Python loop (times faster)"]
    lines += [f"  {r['check']:18} d = {r['d']:2}  {r['batched_over_loop']:8.2f}" for r in record["batches"]]
    lines += ["the flint kit over other exact arithmetic (times faster)"]
    lines += [
        f"  {r['task']:10} n = {r['n']:2}  {r['against']:14} {r['kit_over_other']:10.2f}"
        for r in record["exact"]
    ]
    lines += ["evaluations a second by stage"]
    lines += [f"  {r['stage']:16} {r['evaluations_per_second']:9d}" for r in record["stages"]]
    return "\n".join(lines)

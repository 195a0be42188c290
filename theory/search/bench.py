"""Benchmarks of the theory, as ratios measured in one run: what batching, flint and the stages are worth."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from flint import fmpq, fmpq_mat
from threadpoolctl import threadpool_limits

from theory.claim import Setting
from theory.instances import gram
from theory.kits.exact import Exact
from theory.kits.flint import Flint
from theory.kits.floats import Floats
from theory.protocol import Instance, Kit, Mat, Statement
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


TOLERANCE = 1e-9  # of a check, relative


def _square(M: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("bij,bij->b", M, M))


def _tail_batched(A: np.ndarray) -> np.ndarray:
    U, s, Vt = np.linalg.svd(A, full_matrices=False)
    rest = A - (U[..., :, :4] * s[..., None, :4]) @ Vt[..., :4, :]
    holds: np.ndarray = np.abs(_square(rest) - (s[..., 4:] ** 2).sum(-1)) <= TOLERANCE * _square(A)
    return holds


def _tail_plain(a: np.ndarray) -> bool:
    U, s, Vt = np.linalg.svd(a, full_matrices=False)
    rest = a - U[:, :4] @ np.diag(s[:4]) @ Vt[:4]
    return bool(np.isclose(np.linalg.norm(rest) ** 2, np.sum(s[4:] ** 2), rtol=TOLERANCE))


def _tail_lean(a: np.ndarray) -> bool:
    U, s, Vt = np.linalg.svd(a, full_matrices=False)
    rest = a - (U[:, :4] * s[:4]) @ Vt[:4]
    return bool(abs(np.vdot(rest, rest) - (s[4:] ** 2).sum()) <= TOLERANCE * np.vdot(a, a))


def _tail(k: Kit, x: Instance) -> None:
    k.claim("tail", k.eq(k.fro2(x.A - k.svd_r(x.A, 4, "A_4")), k.tail2(x.A, 4)))


def _projector_batched(A: np.ndarray) -> np.ndarray:
    T = A[..., : A.shape[-1] // 2]
    Tt = np.swapaxes(T, -1, -2)
    P = T @ np.linalg.solve(Tt @ T, Tt)
    return _square(P @ T - T) <= TOLERANCE**2 * _square(T)


def _projector_plain(a: np.ndarray) -> bool:
    T = a[:, : a.shape[1] // 2]
    P = T @ np.linalg.solve(T.T @ T, T.T)
    return bool(np.allclose(P @ T, T, rtol=TOLERANCE, atol=TOLERANCE))


def _projector_lean(a: np.ndarray) -> bool:
    T = a[:, : a.shape[1] // 2]
    gap = T @ np.linalg.solve(T.T @ T, T.T) @ T - T
    return bool(np.vdot(gap, gap) <= TOLERANCE**2 * np.vdot(T, T))


def _projector_text(k: Kit, x: Instance) -> None:
    T = k.cols(x.A, range(x.A.shape[1] // 2))
    k.claim("P T = T", k.eq(T @ k.inv(T.T @ T) @ T.T @ T, T))


def _gram_batched(A: np.ndarray) -> np.ndarray:
    G = np.swapaxes(A, -1, -2) @ A
    values = np.linalg.eigvalsh(G)
    trace = np.einsum("bii->b", G)
    holds: np.ndarray = (np.abs(values.sum(-1) - trace) <= TOLERANCE * trace) & (
        values[:, 0] >= -TOLERANCE * trace
    )
    return holds


def _gram_plain(a: np.ndarray) -> bool:
    G = a.T @ a
    values = np.linalg.eigvalsh(G)
    return bool(
        np.isclose(values.sum(), np.trace(G), rtol=TOLERANCE) and values.min() >= -TOLERANCE * values.max()
    )


def _gram_lean(a: np.ndarray) -> bool:
    G = a.T @ a
    values = np.linalg.eigvalsh(G)
    trace = np.vdot(a, a)
    return bool(abs(values.sum() - trace) <= TOLERANCE * trace and values[0] >= -TOLERANCE * trace)


def _gram(k: Kit, x: Instance) -> None:
    k.claim("psd", k.psd(x.A.T @ x.A))


def _identity_batched(A: np.ndarray) -> np.ndarray:
    B, C = A[..., :4], A[..., :4, :]
    left = (B @ C) @ A
    return _square(left - B @ (C @ A)) <= TOLERANCE**2 * _square(left)


def _identity_plain(a: np.ndarray) -> bool:
    B, C = a[:, :4], a[:4]
    return bool(np.allclose((B @ C) @ a, B @ (C @ a), rtol=TOLERANCE, atol=TOLERANCE))


def _identity_lean(a: np.ndarray) -> bool:
    B, C = a[:, :4], a[:4]
    left = (B @ C) @ a
    gap = left - B @ (C @ a)
    return bool(np.vdot(gap, gap) <= TOLERANCE**2 * np.vdot(left, left))


def _identity(k: Kit, x: Instance) -> None:
    B, C = k.cols(x.A, range(4)), k.rows(x.A, range(4))
    k.claim("associative", k.eq((B @ C) @ x.A, B @ (C @ x.A)))


CHECKS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any], Statement]] = {
    "SVD tail": (_tail_batched, _tail_plain, _tail_lean, _tail),
    "projector": (_projector_batched, _projector_plain, _projector_lean, _projector_text),
    "Gram spectrum": (_gram_batched, _gram_plain, _gram_lean, _gram),
    "product identity": (_identity_batched, _identity_plain, _identity_lean, _identity),
}


def _by_kit(statement: Statement, A: np.ndarray) -> np.ndarray:
    """Whether a text holds, by the kit of floats."""
    kit = Floats()
    return np.asarray(kit.run(statement, Instance(A=kit.wrap(A)))[1] >= -TOLERANCE)


def batches(sizes: Sequence[int] = (8, 16, 32), count: int = 2048) -> list[Json]:
    """Checks, each with a verdict, in cache-sized batches against loops over instances.

    Against three loops: plain numpy with its own comparisons (`isclose`, `allclose`), as one writes it; lean
    numpy, written for speed; and the same text in our kit one instance at a time, against the kit in batches.
    """
    rng, rows = np.random.default_rng(0), []
    for d in sizes:
        A = rng.standard_normal((count, d, d))
        block, few = max(1, BLOCK_BYTES // (8 * d * d)), A[: count // 8]
        for name, (batched, plain, lean, text) in CHECKS.items():
            assert (
                batched(A).all() and all(map(plain, few)) and all(map(lean, few)) and _by_kit(text, A).all()
            )

            def blocked(check: Any, A: np.ndarray = A, block: int = block) -> None:
                for i in range(0, len(A), block):
                    check(A[i : i + block])

            def loop(check: Any, few: np.ndarray = few) -> None:
                for a in few:
                    check(a)

            t = _paired(
                {
                    "batched": (partial(blocked, batched), 1),
                    "plain": (partial(loop, plain), 1),
                    "lean": (partial(loop, lean), 1),
                    "kit batched": (partial(blocked, partial(_by_kit, text)), 1),
                    "kit loop": (partial(loop, lambda a, text=text: _by_kit(text, a[None])), 1),
                }
            )
            share = len(A) / len(few)
            rows.append(
                {
                    "check": name,
                    "d": d,
                    "batched_over_loop": round(t["plain"] * share / t["batched"], 2),
                    "batched_over_lean_loop": round(t["lean"] * share / t["batched"], 2),
                    "kit_batched_over_kit_loop": round(t["kit loop"] * share / t["kit batched"], 2),
                    "kit_batched_over_loop": round(t["plain"] * share / t["kit batched"], 2),
                    "batched_per_second": round(len(A) / t["batched"]),
                }
            )
    return rows


# -- fractions as one writes them, to compare with ---------------------------------------------------------------
Rows = list[list[Fraction]]


def _plain_product(A: Rows, B: Rows) -> Rows:
    return [
        [sum((a * b for a, b in zip(r, c, strict=True)), Fraction(0)) for c in zip(*B, strict=True)]
        for r in A
    ]


def _plain_echelon(A: Rows) -> tuple[Rows, int]:
    """Reduced row echelon form, by Gauss and Jordan, and the rank."""
    A, rank = [list(r) for r in A], 0
    for j in range(len(A[0])):
        pivot = next((i for i in range(rank, len(A)) if A[i][j]), None)
        if pivot is None:
            continue
        A[rank], A[pivot] = A[pivot], A[rank]
        top = A[rank][j]
        A[rank] = [v / top for v in A[rank]]
        for i in range(len(A)):
            if i != rank and A[i][j]:
                factor = A[i][j]
                A[i] = [v - factor * w for v, w in zip(A[i], A[rank], strict=True)]
        rank += 1
        if rank == len(A):
            break
    return A, rank


def _plain_inverse(A: Rows) -> Rows:
    n = len(A)
    both = [[*row, *(Fraction(i == j) for j in range(n))] for i, row in enumerate(A)]
    return [row[n:] for row in _plain_echelon(both)[0]]


def _plain_projector(T: Rows) -> Rows:
    turned = [list(c) for c in zip(*T, strict=True)]
    return _plain_product(_plain_product(T, _plain_inverse(_plain_product(turned, T))), turned)


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
                "our kit of Fraction": (lambda T=halves["fractions"]: _projector_of(T), 2),
                "fractions": (lambda T=half: _plain_projector(T), 2),
                "DomainMatrix": (lambda T=domain_half: project(T, T.transpose()), 20),
                "sympy Matrix": (lambda T=symbolic_half: project(T, T.T), 1),
            },
            "rank": {
                "bare flint": (lambda A=square: A.rank(), 300),
                "kit": (lambda A=squares["kit"]: A.kit.rank(A), 300),
                "our kit of Fraction": (lambda A=squares["fractions"]: A.kit.rank(A), 2),
                "fractions": (lambda A=entries: _plain_echelon(A)[1], 2),
                "DomainMatrix": (lambda A=domain: A.rank(), 5),
                "sympy Matrix": (lambda A=symbolic: A.rank(), 1),
            },
            "inverse": {
                "bare flint": (lambda A=square: A.inv(), 300),
                "kit": (lambda A=squares["kit"]: A.kit.inv(A), 300),
                "our kit of Fraction": (lambda A=squares["fractions"]: A.kit.inv(A), 2),
                "fractions": (lambda A=entries: _plain_inverse(A), 2),
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
    lines += [
        f"  {r['check']:18} d = {r['d']:2}  {r['batched_over_loop']:8.2f}   over a lean loop "
        f"{r['batched_over_lean_loop']:7.2f}   kit over kit {r['kit_batched_over_kit_loop']:8.2f}   "
        f"{r['batched_per_second']:9d} a second"
        for r in record["batches"]
    ]
    lines += ["the flint kit over other exact arithmetic (times faster)"]
    lines += [
        f"  {r['task']:10} n = {r['n']:2}  {r['against']:20} {r['kit_over_other']:10.2f}"
        for r in record["exact"]
    ]
    lines += ["evaluations a second by stage"]
    lines += [f"  {r['stage']:16} {r['evaluations_per_second']:9d}" for r in record["stages"]]
    return "\n".join(lines)

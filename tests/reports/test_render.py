"""Pages: made from records alone, the same every time, and current in this repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports import graph, notation, render
from reports.__main__ import main
from reports.store import record_path, write_record

Record = dict[str, Any]
README = f"# A project\n\n{render.README_BEGIN}\n{render.README_END}\n\nThe end.\n"


@pytest.fixture
def pages(out: Path, claim: Record, fallen: Record, simulation: Record) -> Path:
    for record in (claim, fallen):
        write_record(record_path("claims", record["id"]), record)
    write_record(record_path("sims", "coin"), simulation)
    (out.parent / "README.md").write_text(README)
    assert main([]) == 0
    return out


def _contents(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.suffix in (".md", ".sha256")
    }


def test_pages_and_data_hashes_are_the_same_when_made_again(pages: Path) -> None:
    before = _contents(pages.parent)
    assert main([]) == 0 and _contents(pages.parent) == before
    for path in pages.rglob("*.md"):
        path.unlink()
    for path in (pages / "figures").rglob("*.*"):
        path.unlink()
    assert main([]) == 0 and _contents(pages.parent) == before


def test_the_committed_pages_and_readme_are_current(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PEFTPROOF_REPORTS", raising=False)
    status = render.check()
    assert status == 0, capsys.readouterr().err


def test_a_stale_page_is_named(pages: Path, claim: Record, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0
    write_record(record_path("claims", claim["id"]), claim | {"headline": "Another sentence."})
    assert main(["--check"]) == 1
    error = capsys.readouterr().err
    assert "out/index.md: stale" in error and "out/toy.md: stale" in error and "coin" not in error


def test_a_stale_figure_and_a_stale_readme_are_named(pages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pages / "figures" / "sims" / "coin-mean.sha256").write_text("0\n")
    (pages.parent / "README.md").write_text(README)
    assert main(["--check"]) == 1
    error = capsys.readouterr().err
    assert "README.md: stale" in error and "coin-mean.png: stale" in error


def test_pages_whose_records_are_gone_are_removed_and_others_kept(pages: Path) -> None:
    (pages / "notes.md").write_text("# By hand\n")
    record_path("sims", "coin").unlink()
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert not (pages / "sims" / "coin.md").exists() and not list((pages / "figures").rglob("*.png"))
    assert (pages / "notes.md").exists()


def test_readme_keeps_its_words_around_the_block(pages: Path) -> None:
    text = (pages.parent / "README.md").read_text()
    assert text.startswith("# A project\n") and text.endswith("\nThe end.\n")
    assert "| [toy](out" not in text and "| 2 | 1 | 0 | 1 | 0 | 0 |" in text


def test_a_readme_without_a_place_for_the_block_is_named(
    pages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pages.parent / "README.md").write_text("# A project\n")
    assert main([]) == 2
    assert "verdicts:begin" in capsys.readouterr().err


def test_a_record_that_cannot_be_believed_stops_the_pages(
    pages: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record_path("claims", "toy/square_is_convex")
    path.write_text(path.read_text().replace('"proved"', '"refuted"'))
    before = _contents(pages.parent)
    assert main([]) == 2
    assert "edited by hand" in capsys.readouterr().err and _contents(pages.parent) == before


def test_the_page_of_a_refuted_claim_says_what_a_referee_asks(pages: Path) -> None:
    page = (pages / "toy.md").read_text()
    _, _, section = page.partition("### product_is_small")
    section = section.partition("### square_is_convex")[0]
    for part in (
        r"\left\|C\right\|_F^2 \le \left\|A\right\|_F^2",  # the statement
        r"B = \begin{bmatrix} 2 & 0 \\ 0 & \tfrac{1}{3} \end{bmatrix}",  # the counterexample
        "| the product is small | 37/9 ≈ 4.111 | 2 | 2.056 |",  # both sides
        "**The repair** (✔ proved).",
        "Tightness:",
        "missing hypothesis",
        "python -I -S theory/recheck.py reports/records/claims/toy/product_is_small.json",
        "python -m theory show toy/product_is_small --script",
        "objections/toy/product_is_small.md",
    ):
        assert part in section


def test_an_objection_stands_below_its_claim(pages: Path) -> None:
    path = pages / "objections" / "toy" / "product_is_small.md"
    path.parent.mkdir(parents=True)
    path.write_text("# Objection\n\nB was meant orthogonal.\n")
    assert main([]) == 0
    section = (pages / "toy.md").read_text().partition("#### Objection and answer")[2]
    assert "##### Objection\n\nB was meant orthogonal." in section.partition("### square_is_convex")[0]


def test_what_is_not_settled_stands_at_the_top_with_its_reason(pages: Path, claim: Record) -> None:
    verdict = claim["verdicts"][0]
    verdict |= {"status": "supported", "certificate": None}
    verdict["evidence"]["reason"] = "statistical: 4000 seeds, z = 0.3"
    write_record(record_path("claims", "toy/law"), claim | {"id": "toy/law"})
    assert main([]) == 0
    index = (pages / "index.md").read_text()
    line = "| [toy/law](toy.md#law) | as printed | supported | statistical: 4000 seeds, z = 0.3 |"
    assert line in index and index.index(line) < index.index("## [toy]")
    assert "| toy | 3 | 1 | 0 | 1 | 1 | 0 |" in index


def test_a_page_says_how_hard_it_was_looked(pages: Path, claim: Record) -> None:
    part = {"stage": "small integers", "sizes": {"m": 2}, "tried": 100, "exact": 3}
    search = {
        "budget": 500,
        "seed": 0,
        "evaluations": 206,
        "found": None,
        "best": {"ratio": "9/10", "conclusion": "bound", "parameters": ["1"], **part},
        "stages": [part, {**part, "sizes": {"m": 3}, "answer": "unsat"}],
        "classes": {"hit": ["rank 1"], "never_hit": ["singular H"]},
        "trend": [],
    }
    claim["verdicts"][0]["evidence"]["search"] = search
    write_record(record_path("claims", claim["id"]), claim)
    assert main([]) == 0
    page = (pages / "toy.md").read_text()
    for line in (
        "| instances looked at | 206 (budget 500, seed 0) |",
        "| largest left / right, exactly | 9/10 ≈ 0.9 (bound; small integers, m: 2) |",
        "| classes never hit | singular H |",
        "| small integers | 2 | 200 | 6 | unsat: 1 |",
    ):
        assert line in page


def test_neither_time_nor_machine_is_on_a_page(pages: Path) -> None:
    from reports.store import write_run

    write_run(record_path("claims", "toy/square_is_convex"), 12345.678)
    before = _contents(pages.parent)
    assert main([]) == 0 and _contents(pages.parent) == before


def test_the_page_of_a_simulator_shows_theory_beside_simulation(pages: Path) -> None:
    page = (pages / "sims" / "coin.md").read_text()
    assert "| mean | p = 1/2 | 0.5 | 0.502 | 0.005 | 0.40 |" in page
    assert "![Mean of the tosses](../figures/sims/coin-mean.png)" in page
    assert (pages / "sims" / "../figures/sims/coin-mean.png").exists()


def test_experiments_and_benchmarks_have_pages_and_what_was_not_run_says_so(pages: Path) -> None:
    result = {
        "id": "few_shot/summary",
        "tier": "cpu",
        "headline": "The crossing lies at 20 samples per class.",
        "table": [{"k": 5, "LoRA": 0.71234, "full": 0.69}],
        "tables": {"paired": [{"k": 5, "difference": 0.02}]},
        "claims": ["toy/square_is_convex"],
        "settings": {"model": "minilm"},
        "processor": "some processor",
    }
    write_record(record_path("llm", "few_shot/summary"), result)
    write_record(
        record_path("llm", "few_shot/lora-0"), {"id": "few_shot/lora-0", "metrics": {"accuracy": 0.8125}}
    )
    write_record(
        record_path("bench", "step"),
        {"id": "step", "headline": "S2FT is faster.", "table": [{"method": "S2FT", "ratio": 0.78}]},
    )
    assert main([]) == 0
    page = (pages / "llm" / "few_shot.md").read_text()
    for part in (
        "| k | LoRA | full |",
        "| 5 | 0.7123 | 0.69 |",
        "**paired**",
        "accuracy: 0.8125",
        "processor",
    ):
        assert part in page
    assert "| S2FT | 0.78 |" in (pages / "bench" / "step.md").read_text()
    index = (pages / "index.md").read_text()
    assert "| [few_shot](llm/few_shot.md) | cpu | The crossing lies at 20 samples per class. |" in index
    assert "| [few_shot](llm/few_shot.md) | gpu | not run |" in index
    assert "| [step](bench/step.md) | S2FT is faster. |" in index


def test_every_relative_link_of_every_page_leads_somewhere(pages: Path) -> None:
    import re

    for page in pages.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if not target.startswith("objections/"):  # written by hand, beside the package
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_graph_marks_what_falls_and_what_rests_on_it(claim: Record, fallen: Record) -> None:
    claims = {
        "toy/a": fallen | {"uses": []},
        "toy/b": claim | {"uses": ["toy/a"]},
        "toy/c": claim | {"uses": ["toy/b", "other/missing"]},
        "toy/alone": claim,
    }
    assert graph.shaken(claims) == {"toy/b": ["toy/a"], "toy/c": ["toy/a"]}
    drawing = graph.mermaid(claims, "toy")
    for line in ('toy_a["a"]:::fallen', 'toy_c["c"]:::shaken', "toy_a --> toy_b", ":::missing"):
        assert line in drawing
    assert "alone" not in drawing
    assert graph.mermaid({"toy/alone": claim}, "toy") == ""


def test_a_misprint_or_one_reading_of_several_takes_nothing_with_it(claim: Record, fallen: Record) -> None:
    above = claim | {"uses": ["toy/a"]}
    misprint = fallen | {"uses": [], "defect": "misprint"}
    one = fallen["verdicts"][0] | {"reading": "with the spectral norm"}
    split = fallen | {"uses": [], "verdicts": [claim["verdicts"][0], one]}
    for below, takes in ((misprint, False), (split, False), (fallen | {"uses": []}, True)):
        claims = {"toy/a": below, "toy/b": above}
        assert bool(graph.shaken(claims)) == takes
        assert ('toy_b["b"]:::shaken' in graph.mermaid(claims, "toy")) == takes
        assert ('toy_a["a"]:::partly' in graph.mermaid(claims, "toy")) != takes


def test_claims_that_use_each_other_do_not_loop_for_ever(claim: Record, fallen: Record) -> None:
    claims = {"toy/a": fallen | {"uses": ["toy/b"]}, "toy/b": claim | {"uses": ["toy/a"]}}
    assert graph.shaken(claims) == {"toy/b": ["toy/a"]}


def test_numbers_are_readable() -> None:
    assert notation.number("37/9") == "37/9 ≈ 4.111"
    assert notation.number("2") == "2"
    assert notation.number(0.1234567) == "0.1235"
    assert notation.number("[7/5, 3/2]") == "≈ 1.45"
    assert notation.number("unbounded") == "unbounded"
    assert notation.number(f"{10**400}/3").endswith("≈ 10^399")
    assert (
        notation.ratio("37/9", "2") == "2.056"
        and notation.ratio("1", "0") == "∞"
        and notation.ratio("0", "0") == ""
    )


def test_values_are_latex() -> None:
    assert notation.tex_value([["1", "-1/2"]]) == r"\begin{bmatrix} 1 & -\tfrac{1}{2} \end{bmatrix}"
    assert notation.tex_value({"shape": [0, 3]}) == r"(\text{empty, } 0 \times 3)"
    assert "40 \\times 40" in notation.tex_value([["0"] * 40] * 40)
    assert notation.tex_value([0, 2]) == "(0, 2)"
    assert [notation.tex_name(n) for n in ("A", "W0", "Sig_i", "lam", "delta_W")] == [
        "A",
        "W_{0}",
        r"\Sigma_{i}",
        r"\lambda",
        r"\delta_{W}",
    ]


def test_an_instance_is_shown_in_lines_that_fit() -> None:
    square = [["1"] * 5] * 5
    lines = notation.equations({"A": square, "r": 1, "B": square, "C": square, "S": [0, 1]})
    assert [line.count("bmatrix") for line in lines] == [2, 2, 2, 0]
    assert lines[-1] == r"r = 1,\quad S = (0, 1)"


def test_text_from_records_cannot_break_a_page() -> None:
    assert notation.cell("|A| <= 1\nand <b>") == r"\|A\| <= 1 and &lt;b>"
    assert notation.markdown("a_b * c `x*y`") == r"a_b \* c `x*y`"


@pytest.mark.parametrize("words", [["--frobnicate"], ["audit", "--jobs", "many"], ["destroy"]])
def test_the_command_line_refuses_what_it_does_not_know(
    capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and words[-1] in error and error.count("\n") == 1


def test_an_unwritable_place_is_named(pages: Path, claim: Record, capsys: pytest.CaptureFixture[str]) -> None:
    record_path("sims", "coin").unlink()
    (pages / "sims" / "coin.md").unlink()
    (pages / "sims").rmdir()
    (pages / "sims").write_text("a file where a folder belongs\n")
    write_record(record_path("sims", "coin"), _simulation_again(claim))
    assert main([]) == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error and error.count("\n") == 1


def _simulation_again(claim: Record) -> Record:
    return {
        "id": "coin",
        "headline": "Again.",
        "question": "Again?",
        "settings": {},
        "table": [],
        "figures": [],
        "notes": [],
        "claims": [claim["id"]],
    }

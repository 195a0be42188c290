"""The web site from the file system in a real browser: search, a filter, a slider; nothing is fetched from elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reports.website import phase
from theory.s2ft import risks

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("material", reason="the extra `site` is not installed: make site")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as `make site` builds it, in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--strict",
        "--config-file",
        ".ci/mkdocs.yml",
    ]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "--site-dir", str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A page in headless Chromium."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("journeys_chromium", Path(__file__).with_name("chromium.py"))
    chromium = module_from_spec(spec)
    spec.loader.exec_module(chromium)
    if chromium.executable() is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium")
    with chromium.Browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


def test_pages_hold_no_address_of_a_script_or_style_elsewhere(site):
    for path in site.rglob("*.html"):
        text = path.read_text("utf-8")
        for mark in ('src="http', 'src="//', '<link rel="stylesheet" href="http', "```math", "```mermaid"):
            assert mark not in text, f"{path.name}: {mark}"


def test_a_filter_keeps_the_rows_that_it_names(site, browser):
    browser.open((site / "verdicts.html").as_uri())
    visible = "Array.from(document.querySelectorAll('#verdicts tbody tr')).filter((row) => !row.hidden)"
    everything = browser.value(f"{visible}.length")
    browser.click("select[name=status]")
    browser.key("Escape", 27)
    browser.type("✘")  # as a person jumps in a list: by its first letter
    browser.until("document.querySelector('select[name=status]').value === 'refuted'")
    browser.until(f"{visible}.length < {everything}")
    shown = browser.value(f"{visible}.map((row) => row.dataset.status)")
    assert shown and set(shown) == {"refuted"}
    browser.click("input[name=word]")
    browser.type("rank")
    words = browser.value(f"{visible}.map((row) => row.textContent.toLowerCase())")
    assert 0 < len(words) < len(shown) and all("rank" in text for text in words)
    assert (
        browser.value("document.getElementById('verdict-count').value")
        == f"{len(words)} of {everything} readings"
    )
    link = browser.value(f"{visible}[0].querySelector('a').href")
    browser.open(link)
    assert browser.value("document.getElementById(location.hash.slice(1)) !== null"), link


def test_a_slider_moves_the_phase_diagram_by_the_exact_formula(site, browser):
    browser.open((site / "phase.html").as_uri())
    browser.until("document.getElementById('phase-verdict').textContent !== ''")
    picture = "document.getElementById('phase-map').toDataURL()"
    before = browser.value(picture)
    browser.click("#phase-t", 0.9)
    browser.click("#phase-lora", 0.2)
    browser.key("ArrowRight", 39)
    t, s2ft, lora, shift = (
        browser.value(f"Number(document.getElementById('phase-{name}').value)") for name in phase.SLIDERS
    )
    assert t > 1 and 0.1 < lora < 0.3
    gap = browser.value("Number(document.getElementById('phase-verdict').dataset.gap)")
    assert gap == pytest.approx(risks.mean_gap(t, s2ft, lora), abs=1e-12)
    assert gap < 0 and browser.value("document.getElementById('phase-verdict').textContent").startswith(
        "S2FT is better"
    )
    cells = browser.value(
        "Array.from(document.querySelectorAll('#phase-risks tbody tr')).map((row) => row.cells[2].textContent)"
    )
    expected = [phase.mean_risk_out(t, gain, shift) for gain in (0, s2ft, lora, 1)]
    assert [float(cell) for cell in cells] == pytest.approx(expected, abs=6e-5)
    assert browser.value(picture) != before


def test_search_finds_a_claim_without_a_server(site, browser):
    browser.open((site / "index.html").as_uri())
    browser.click(".md-search__input")
    browser.type("phase_law")
    browser.until("document.querySelectorAll('.md-search-result__item').length > 0")
    assert "phase_law" in browser.value("document.querySelector('.md-search-result__list').textContent")


def test_nothing_was_asked_from_elsewhere_and_no_script_failed(site, browser):
    for name in ("index.html", "s2ft.html", "sims/ood_risk.html"):
        browser.open((site / name).as_uri())
    assert (
        browser.value("document.querySelectorAll('math').length + document.querySelectorAll('svg').length")
        > 0
    )
    assert browser.asked_elsewhere() == []
    assert browser.complaints() == []

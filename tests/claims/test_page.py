"""The page of claims: what it holds, and how it looks and behaves in a real browser, without a network."""

from __future__ import annotations

import base64
import csv
import io
import re

import pytest
from axe_selenium_python import Axe

from memspace.auditing.results import check_consistent
from memspace.claims.page import claims_page, page_of
from memspace.claims.run import judge_claims
from tests.browser import CHROMIUM, DRIVER, open_page, started
from tests.claims.examples import PAIRS, RANK, locked, stored
from tests.claims.synthetic import zoo

HOSTILE = "<script>window.hacked = 1</script>"
AGAINST = (
    RANK.replace("01-rank", "03-against")
    .replace('measures = ["measure"]', 'measures = ["gap"]')
    .replace('gap = "gap"', 'gap = "reversed"')
    .replace('["gap"]\nwithin = ["family"', '["reversed"]\nwithin = ["family"')
    .replace('title = "Lower', f'title = "{HOSTILE} Lower')
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One claim supported, one undecided, one contradicted."""
    folder = tmp_path_factory.mktemp("claims")
    short = [text.replace("repeats = 20", "repeats = 3") for text in (RANK, PAIRS, AGAINST)]
    table = zoo(3, effect=0.8).with_columns(reversed=-zoo(3, effect=0.8)["gap"])
    few = (
        short[1]
        .replace('["mlp", "recurrent"]', '["mlp"]')
        .replace("apart", "apart")
        .replace("within = 0.01", "within = 1e-9")
    )
    registered = locked(folder / "registered", short[0], few, short[2])
    return judge_claims(store=stored(folder / "store", table), registered=registered, command="memspace claims run")


def test_a_chapter_a_claim_with_its_verdict_numbers_hashes_and_tables(results) -> None:
    page = page_of(results)
    check_consistent(page.chapters)
    assert [c.id for c in page.chapters] == ["01-rank", "02-pairs", "03-against"]
    assert [f.level for c in page.chapters for f in c.findings] == ["good", "note", "bad"]
    rank = page.chapters[0]
    assert rank.answer.startswith("Supported. Effect over all families: measure: 0.")
    assert {m.name for m in rank.measurements} >= {"effect of measure, mlp", "effect of measure, overall"}
    assert any(results.claims[0].record.sha256 in note for note in rank.notes)
    assert [f.id for f in rank.figures] == ["effects", "scatter-0"]
    bounds = [s for s in rank.figures[0].series if s.mode == "line"]
    assert [(s.name, s.y[0]) for s in bounds] == [("threshold", 0.1), ("contradicted beyond", 0.0)]
    assert set(page.tables) == {"verdicts", "01-rank-networks", "02-pairs-pairs", "03-against-networks"}


def test_what_was_not_measured_is_said(results) -> None:
    (claim,) = (c for c in results.claims if c.record.id == "02-pairs")
    assert claim.record.word == "undecided"
    (chapter,) = (c for c in page_of(results).chapters if c.id == "02-pairs")
    assert "no two networks are alike but for the measure" in chapter.unmeasured[0].reason
    assert "not measured, since no two networks are alike" in chapter.answer


def test_tables_are_inside_the_page(results) -> None:
    html = claims_page(results)
    offered = dict(re.findall(r'href="data:text/csv;base64,([^"]+)" download="([^"]+)"', html))
    files = {name: base64.b64decode(data).decode() for data, name in offered.items()}
    assert set(files) == {f"{name}.csv" for name in page_of(results).tables}
    rows = list(csv.DictReader(io.StringIO(files["verdicts.csv"])))
    assert {r["verdict"] for r in rows} == {"supported", "undecided", "contradicted"}
    assert len(list(csv.DictReader(io.StringIO(files["01-rank-networks.csv"])))) == 216
    assert HOSTILE not in html


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    with started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_works_offline(browser, results, tmp_path, width: int) -> None:
    path = tmp_path / "claims.html"
    path.write_text(claims_page(results), encoding="utf-8")
    open_page(browser, path.as_uri(), width)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.querySelectorAll('.plot .main-svg').length") >= 5
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return window.hacked === undefined")
    asked = "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"
    assert browser.execute_script(asked) == []
    lead = browser.execute_script("return document.querySelector('.lead').textContent")
    assert lead == "Of 3 claims 1 supported, 1 contradicted, 1 undecided."
    words = "return [...document.querySelectorAll('.card .level')].map(p => p.textContent)"
    assert sorted(browser.execute_script(words)) == ["Contradicted", "Supported", "Undecided"]
    broken = (
        "return [...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href'))"
        ".filter(h => !h.startsWith('data:text/csv') && (!h.startsWith('#') || !document.getElementById(h.slice(1))))"
    )
    assert browser.execute_script(broken) == []
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    axe = Axe(browser)
    axe.inject()
    assert [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in axe.run()["violations"]] == []

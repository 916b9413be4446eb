"""The report in a real browser: Debian's chromium, headless."""

import pytest
from axe_selenium_python import Axe
from selenium.webdriver.support.ui import WebDriverWait

from memspace.report.html import render
from tests.browser import needs_browser, open_page, started, theme
from tests.report.sample import sample

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(sample()), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_console_errors_every_figure_drawn_and_no_overflow(browser, address, width):
    open_page(browser, address, width)
    assert browser.get_log("browser") == []
    figures = browser.execute_script("return document.querySelectorAll('.plot .main-svg').length")
    assert figures >= 3
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return window.hacked === undefined")


def test_the_page_asks_for_nothing_and_offers_to_send_nothing(browser, address):
    open_page(browser, address)
    asked = "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"
    assert browser.execute_script(asked) == []
    titles = "return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title || b.title)"
    assert not [t for t in browser.execute_script(titles) if "hare" in t or "loud" in t]
    fetched = browser.execute_async_script(
        "const done = arguments[0]; fetch('https://example.invalid/').then(() => done('sent'), () => done('refused'))"
    )
    assert fetched == "refused"
    refusals = [entry["message"] for entry in browser.get_log("browser")]
    assert any("Content Security Policy" in message for message in refusals)


def test_every_link_leads_somewhere(browser, address):
    open_page(browser, address)
    broken = browser.execute_script(
        "return [...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href'))"
        ".filter(h => !h.startsWith('#') || !document.getElementById(h.slice(1)))"
    )
    assert broken == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_accessible(browser, address, scheme, width):
    open_page(browser, address, width, scheme)
    browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    axe = Axe(browser)
    axe.inject()
    found = axe.run()["violations"]
    assert [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in found] == []


def test_plots_follow_a_change_of_theme(browser, address):
    open_page(browser, address, scheme="light")
    ink = "return document.querySelector('.plot').layout.font.color"
    before = browser.execute_script(ink)
    hue = "return document.querySelector('.plot').data.at(-1).line.color"
    light = browser.execute_script(hue)
    theme(browser, "dark")
    WebDriverWait(browser, 10).until(lambda b: b.execute_script(ink) != before)
    assert browser.execute_script(hue) != light


def test_the_table_sorts_and_filters(browser, address):
    open_page(browser, address)
    names = "return [...document.querySelectorAll('#every tbody tr:not([hidden]) code')].map(c => c.textContent)"
    browser.execute_script("document.querySelector('button[data-sort=\"1\"]').click()")
    assert browser.execute_script(names) == ["a.b", "a.doubt", "a.nan"]
    browser.execute_script("document.querySelector('button[data-sort=\"1\"]').click()")
    assert browser.execute_script(names) == ["a.nan", "a.doubt", "a.b"]
    browser.execute_script(
        "const f = document.getElementById('filter'); f.value = 'doubt'; f.dispatchEvent(new Event('input'))"
    )
    assert browser.execute_script(names) == ["a.doubt"]
    assert browser.execute_script("return document.getElementById('count').textContent") == "1 of 3 shown"


def test_what_failed_sorts_last_both_ways(browser, address):
    open_page(browser, address)
    last = "return [...document.querySelectorAll('#every tbody code')].at(-1).textContent"
    for _ in range(2):
        browser.execute_script("document.querySelector('button[data-sort=\"2\"]').click()")
        assert browser.execute_script(last) == "a.nan"


def test_print_is_light_and_unfolded_and_leaves_no_trace(browser, address):
    open_page(browser, address, scheme="dark")
    state = (
        "return [document.querySelectorAll('details[open]').length, document.querySelector('.plot').layout.font.color]"
    )
    before = browser.execute_script(state)
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    unfolded, ink = browser.execute_script(state)
    assert unfolded > before[0]
    assert ink == "#1d1f23" != before[1]
    browser.execute_script("window.dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(state) == before

"""Pages on one network in a real browser: drawn, readable, offline, accessible, on a phone too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from axe_selenium_python import Axe
from torch import nn

import memspace
from memspace import Task
from tests.browser import needs_browser, open_page, started

pytestmark = needs_browser


def pictures() -> Task:
    """Three classes of pictures of 6 × 6 pixels."""
    torch.manual_seed(0)
    y = torch.arange(90) % 3
    x = torch.rand(90, 1, 6, 6) + torch.eye(3)[y].repeat_interleave(12, 1).reshape(90, 1, 6, 6)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3))
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[:60]), y[:60]).backward()
        optimiser.step()
    return Task(model, (x[:60], y[:60]), test=(x[60:], y[60:]), class_names=("low", "middle", "high"), layer="2")


PAGES: dict[str, Callable[[Task, Path], Any]] = {
    "modes": lambda task, page: memspace.modes(task, count=3, page=page),
    "invariants": lambda task, page: memspace.invariants(task, page=page),
    "dissect": lambda task, page: memspace.dissect(task, page=page),
    "explain": lambda task, page: memspace.explain(task, 0, page=page),
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_drawn_and_accessible_on_a_phone_and_in_the_dark(browser: Any, tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.html"
    PAGES[name](pictures(), path)
    for width, scheme in ((360, "dark"), (1280, "light")):
        open_page(browser, path.as_uri(), width, scheme)
        assert browser.get_log("browser") == []
        assert browser.execute_script("return document.querySelectorAll('.plot .main-svg').length") >= 1
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        browser.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
        axe = Axe(browser)
        axe.inject()
        violations = axe.run()["violations"]
        assert [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in violations] == []

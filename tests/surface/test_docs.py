"""The documentation uses public names, and those it uses exist."""

import ast
import re
from pathlib import Path

import pytest

import memspace

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What is documented to be imported from below the top.
DEEP = ("memspace.integrations", "memspace.testing", "memspace.task.worlds")
EXTENDING = "extending.md"  # extensions import from the modules they extend; its examples are run


def blocks(page: Path) -> list[str]:
    """The page's Python examples."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_examples_import_public_names(page: Path) -> None:
    for block in blocks(page):
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "memspace":
                if page.name == EXTENDING or (node.module or "").startswith(DEEP):
                    continue
                assert node.module == "memspace", block
                assert {alias.name for alias in node.names} <= set(memspace.__all__), block


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_names_below_the_package_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    called = set(re.findall(r"\bmemspace\.([A-Za-z_]\w*)\(", text))
    assert called <= set(memspace.__all__), called - set(memspace.__all__)

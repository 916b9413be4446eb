"""Settings of Sphinx for the API reference that ``build.py`` writes."""

import re
from typing import Any

project = "memspace"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "alabaster"
html_theme_options = {"description": "What a trained network stores, and how", "page_width": "1100px"}
html_show_sourcelink = False
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True

# Every role of a docstring must lead somewhere. Types of other packages have no pages here, type variables and private
# types none anywhere.
nitpicky = True
nitpick_ignore_regex = [(r"py:class", r"(?!memspace\.).*"), (r"py:.*", r"memspace\..*\.(_\w+|[A-Z]|Probe)")]
suppress_warnings = ["ref.python"]  # a shape such as (n,) that is also some attribute's name

# What stays as it is: literals, emphasis, bullets. What is left of bars and stars belongs to formulas.
_MARKS = re.compile(r"(``.+?``|\*\*?\w[^*]*[\w.?!]\*\*?(?!\w)|^\s*\* )|[|*]")


def _formulas(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Have bars and stars of formulas mean themselves; docstrings hold no substitutions."""
    lines[:] = [_MARKS.sub(lambda m: m[0] if m[1] else f"\\{m[0]}", line) for line in lines]


def setup(app: Any) -> None:
    """Have docstrings read by the rules above.

    Args:
        app: Sphinx.
    """
    app.connect("autodoc-process-docstring", _formulas)

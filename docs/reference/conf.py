"""Settings of Sphinx for the API reference that ``build.py`` writes."""

import re
import sys
from typing import Any

project = "memspace"
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "alabaster"
html_theme_options = {"description": "What a trained network stores, and how", "page_width": "1100px"}
html_show_sourcelink = False
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True

# Every role of a docstring must lead somewhere; types of other packages have no pages here.
nitpicky = True
nitpick_ignore_regex = [(r"py:(class|obj|data)", r"(?!memspace\.).*")]
suppress_warnings = ["ref.python"]  # a shape such as (n,) that is also some attribute's name

# What stays as it is: literals, emphasis, bullets. What is left of bars and stars belongs to formulas.
_MARKS = re.compile(r"(``.+?``|\*\*?\w[^*]*[\w.?!]\*\*?(?!\w)|^\s*\* )|[|*]")


_ROLE = re.compile(r":(func|class|data|exc):`([A-Za-z_]\w*(?:\.\w+)*)`")


def _formulas(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Have bars and stars of formulas mean themselves, and short names the module's own."""
    module = sys.modules.get(getattr(obj, "__module__", None) or "")
    for k, line in enumerate(lines):
        line = _MARKS.sub(lambda m: m[0] if m[1] else f"\\{m[0]}", line)
        lines[k] = _ROLE.sub(lambda m: _placed(m, module), line)


def _placed(role: re.Match[str], module: Any) -> str:
    """A name of the module that defines the object, whichever module the object is shown under."""
    kind, name = role.groups()
    known = module is not None and name.split(".")[0] in vars(module)
    return f":{kind}:`~{module.__name__}.{name}`" if known else role[0]


def _imported(app: Any, env: Any, node: Any, text: Any) -> Any:
    """A name that a module imports leads to where it is described; what is not public is plain text."""
    value = sys.modules.get(node.get("py:module") or "")
    target = node["reftarget"]
    if target.startswith("memspace."):  # a type in a signature
        parts = target.split(".")
        depth = max(k for k in range(1, len(parts)) if ".".join(parts[:k]) in sys.modules)
        value, target = sys.modules[".".join(parts[:depth])], ".".join(parts[depth:])
    for part in target.split("."):
        value = getattr(value, part, None)
    if value is None:
        return None
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "_")
    public = getattr(sys.modules.get(module), "__all__", ())
    if not module.startswith("memspace") or name.partition(".")[0] not in public:
        return text
    place = f"{module}.{name}"
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, node["reftype"], place, node, text)


def setup(app: Any) -> None:
    """Have docstrings read by the rules above.

    Args:
        app: Sphinx.
    """
    app.connect("autodoc-process-docstring", _formulas)
    app.connect("missing-reference", _imported)

"""Write the API reference from docstrings: ``python docs/reference/build.py``, into ``build/reference/html``.

Public names come first, on one page a question as ``memspace/__init__`` groups them; every other module follows, one
page a package. A docstring that cannot be read, or a reference that leads nowhere, ends the build.
"""

from __future__ import annotations

import inspect
import pkgutil
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path

from sphinx.cmd.build import main as sphinx

import memspace

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "build" / "reference"
SHOWN = ["", "testing"]  # modules whose public names are shown by question, where they exist
OPTIONAL = ("memspace.integrations.",)  # they need other packages to be imported
TABLES = ("memspace.extend",)  # of names that are described where they are
GROUP = re.compile(r"^    # (?P<question>[A-Z].*)$|^    \"[\w.]+\": \"(?P<names>[\w ]+)\",", re.MULTILINE)


def groups(module: object) -> dict[str, list[str]]:
    """Read the public names of a module by question: comments of its table, else its docstring's first line.

    Args:
        module: one with ``__all__``; names that it imports when they are first used are fine.

    Returns:
        Questions with their names; a public name that the table lacks is under "Further names".
    """
    grouped: dict[str, list[str]] = {}
    question = ""
    for match in GROUP.finditer(inspect.getsource(module)):  # type: ignore[arg-type]
        if match["question"]:
            question = match["question"]
        elif question:
            grouped.setdefault(question, []).extend(match["names"].split())
    public = [n for n in module.__all__ if not n.startswith("__")]  # type: ignore[attr-defined]
    listed = {name for names in grouped.values() for name in names}
    if further := [n for n in public if n not in listed]:
        grouped["Further names" if grouped else (module.__doc__ or "").splitlines()[0]] = further
    return {q: [n for n in names if n in public] for q, names in grouped.items()}


def write_sources(folder: Path) -> None:
    """Write one page a question, one page a package, and an index.

    Args:
        folder: where pages go; what is there is replaced.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(HERE / "conf.py", folder)
    questions = _write_questions(folder)
    values = (_public(name) for names in questions.values() for name in names)
    packages = _write_packages(folder, {id(value) for value in values if inspect.isclass(value)})
    parts = [("Public names", list(questions)), ("Modules", packages)]
    trees = "".join(f".. toctree::\n   :caption: {c}\n\n" + "".join(f"   {p}\n" for p in ps) + "\n" for c, ps in parts)
    (folder / "index.rst").write_text(_title("memspace, reference") + trees)


def _write_questions(folder: Path) -> dict[str, list[str]]:
    pages: dict[str, list[str]] = {}
    for part in SHOWN:
        module = ".".join(filter(None, ("memspace", part)))
        if part and part not in {m.name for m in pkgutil.iter_modules(memspace.__path__)}:
            continue
        for question, names in groups(import_module(module)).items():
            page = f"public-{len(pages) + 1:02}"
            pages[page] = [f"{module}.{n}" for n in names]
            entries = [f".. auto{_kind(_public(n))}:: {n}\n" + _members(_public(n)) for n in pages[page]]
            (folder / f"{page}.rst").write_text(_title(question) + "\n".join(entries))
    return pages


def _write_packages(folder: Path, shown: set[int]) -> list[str]:
    pages: dict[str, list[str]] = {}
    for module in pkgutil.walk_packages(memspace.__path__, "memspace."):
        left_out = module.name in TABLES or module.name.endswith("__main__")
        if not module.name.startswith(OPTIONAL) and not left_out:
            pages.setdefault(module.name.split(".")[1], []).append(module.name)
    for package, modules in pages.items():
        (folder / f"{package}.rst").write_text(
            _title(f"memspace.{package}") + "\n".join(_module(import_module(m), shown) for m in modules)
        )
    return list(pages)


def _module(module: object, shown: set[int]) -> str:
    name = module.__name__  # type: ignore[attr-defined]
    elsewhere = [n for n, value in vars(module).items() if id(value) in shown]
    left_out = f"   :exclude-members: {', '.join(elsewhere)}\n" if elsewhere else ""
    members = "" if name.removeprefix("memspace.") in SHOWN else f"   :members:\n{left_out}"
    return f"{name}\n{'-' * len(name)}\n\n.. automodule:: {name}\n{members}"


def _public(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def _kind(value: object) -> str:
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if callable(value) else "data"


def _members(value: object) -> str:
    return "   :members:\n   :inherited-members: Module, Optimizer, object\n" if inspect.isclass(value) else ""


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"


if __name__ == "__main__":
    write_sources(OUT / "source")
    quiet = ["-q", "-E", "-W", "--keep-going", "-d", str(OUT / "doctrees")]
    sys.exit(sphinx([*quiet, "-b", "html", str(OUT / "source"), str(OUT / "html")]))

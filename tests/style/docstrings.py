"""Public functions and classes of the package with their docstrings, read from source."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "memspace"
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Examples?|Note):\s*$", re.MULTILINE)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Documented:
    """A public function, method, property or class.

    Args:
        name: file and qualified name.
        node: its definition.
        owner: the class it is a method of, or None.
    """

    name: str
    node: Function | ast.ClassDef
    owner: ast.ClassDef | None

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def sections(self) -> dict[str, str]:
        """Name of each section to its text."""
        parts = SECTION.split(self.doc)[1:]
        return dict(zip(parts[::2], parts[1::2], strict=True))

    @property
    def entries(self) -> list[str]:
        """Names described under ``Args``, in order."""
        return re.findall(r"^    \*{0,2}(\w+)(?: \([^)]*\))?:", self.sections.get("Args", ""), re.MULTILINE)

    @property
    def decorators(self) -> set[str]:
        return {ast.unparse(d).split("(")[0].split(".")[-1] for d in self.node.decorator_list}

    @property
    def is_property(self) -> bool:
        return bool(self.decorators & {"property", "cached_property", "setter"})

    @property
    def declared(self) -> bool:
        """Whether a declaration describes its parameters and what it returns.

        Those of a measure, a provider, a table or a part of a chapter are values of an audit, described by their
        classes. Those of a command are options, described by their help, and so are the fields of its options.
        """
        if self.name.startswith("auditing/chapters/") and self.node.name in _parts_of_chapters():
            return True
        if self.name.startswith("commands/") and isinstance(self.node, ast.ClassDef):
            return self.node.name.endswith("Options")
        return bool(self.decorators & {"measure", "provides", "table", "command"})

    @property
    def is_measure(self) -> bool:
        """Whether the first line of its docstring is the meaning that ``memspace measures`` shows: a noun phrase."""
        return "measure" in self.decorators

    @property
    def parameters(self) -> list[str]:
        """What callers pass: parameters of a function, of ``__init__``, or fields of a dataclass."""
        if isinstance(self.node, ast.ClassDef):
            fields = "dataclass" in self.decorators or {"NamedTuple", "TypedDict"} & set(
                map(ast.unparse, self.node.bases)
            )
            return _fields(self.node) if fields else _init(self.node)
        return _parameters(self.node, method=self.owner is not None and "staticmethod" not in self.decorators)

    @property
    def returns(self) -> bool:
        """Whether it gives anything back."""
        returned = getattr(self.node, "returns", None)
        return returned is not None and ast.unparse(returned) not in ("None", "NoReturn", "Never")

    @property
    def raised(self) -> set[str]:
        """Exceptions that the body itself raises, by class name; what a helper makes is not seen."""
        bodies = [n for n in ast.walk(self.node) if isinstance(n, ast.Raise) and n.exc is not None]
        names = {ast.unparse(n.exc.func if isinstance(n.exc, ast.Call) else n.exc) for n in bodies if n.exc}
        return {n for n in names if n[0].isupper()}


def held() -> list[Path]:
    """Files whose docstrings are held to their sections: all but those that pyproject.toml exempts."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["per-file-ignores"]
    exempt = [pattern for pattern, codes in rules.items() if "DOC" in codes]
    files = {p: p.relative_to(ROOT).as_posix() for p in sorted(PACKAGE.rglob("*.py"))}
    return [p for p, name in files.items() if not any(fnmatch(name, pattern) for pattern in exempt)]


@cache
def public(path: Path) -> tuple[Documented, ...]:
    """The public definitions of a file, methods of public classes among them."""
    found = []
    for node in ast.parse(path.read_text()).body:
        for owner, child in _of(node):
            if not child.name.startswith("_"):
                name = f"{path.relative_to(PACKAGE)}:{owner.name + '.' if owner else ''}{child.name}"
                found.append(Documented(name, child, owner))
    return tuple(found)


def _of(node: ast.stmt) -> Iterator[tuple[ast.ClassDef | None, Function | ast.ClassDef]]:
    if isinstance(node, Function | ast.ClassDef):
        yield None, node
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
        yield from ((node, child) for child in node.body if isinstance(child, Function))


@cache
def _classes() -> dict[str, ast.ClassDef]:
    trees = (ast.parse(p.read_text()) for p in PACKAGE.rglob("*.py"))
    return {n.name: n for tree in trees for n in tree.body if isinstance(n, ast.ClassDef)}


@cache
def _parts_of_chapters() -> frozenset[str]:
    """Functions that some chapter lists: its answer, findings, figures, galleries and notes."""
    trees = (ast.parse(p.read_text()) for p in (PACKAGE / "auditing" / "chapters").glob("*.py"))
    calls = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Call)]
    listed = [c for c in calls if ast.unparse(c.func) == "ChapterDeclaration"]
    return frozenset(n.id for c in listed for n in ast.walk(c) if isinstance(n, ast.Name))


def overrides(item: Documented) -> bool:
    """Whether a base class in the package describes the same method already."""
    waiting = list(item.owner.bases) if item.owner else []
    while waiting:
        base = _classes().get(ast.unparse(waiting.pop()).split("[")[0].split(".")[-1])
        if base is not None:
            if any(isinstance(n, Function) and n.name == item.node.name for n in base.body):
                return True
            waiting += base.bases
    return False


def _parameters(node: Function, method: bool) -> list[str]:
    a = node.args
    names = [x.arg for x in (*a.posonlyargs, *a.args)][1 if method else 0 :]
    return names + [x.arg for x in (a.vararg, *a.kwonlyargs, a.kwarg) if x is not None]


def _init(node: ast.ClassDef) -> list[str]:
    for child in node.body:
        if isinstance(child, Function) and child.name == "__init__":
            return _parameters(child, method=True)
    return []


def _fields(node: ast.ClassDef) -> list[str]:
    """Fields that the constructor takes: annotated, public, no class variables, not ``field(init=False)``."""
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    fields = [n for n in fields if "ClassVar" not in ast.unparse(n.annotation) and "init=False" not in ast.unparse(n)]
    return [n.target.id for n in fields if isinstance(n.target, ast.Name) and not n.target.id.startswith("_")]

"""The public names: all there, none of them hiding a module, and none of them paid for before it is used."""

import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import memspace

SOURCE = Path(memspace.__file__)


@pytest.mark.parametrize("name", memspace.__all__)
def test_every_name_resolves(name):
    found = getattr(memspace, name)
    assert name in dir(memspace)
    assert getattr(memspace, name) is found


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'audits'"):
        _ = memspace.audits


def test_no_name_is_that_of_a_module():
    modules = {found.name for found in pkgutil.iter_modules(memspace.__path__)}
    assert "metric" in modules
    assert not modules & set(memspace.__all__)


def test_no_name_comes_twice():
    assert len(set(memspace.__all__)) == len(memspace.__all__)


def test_type_checkers_see_the_same_names_in_the_same_modules():
    block = next(node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: (node.module, alias.name) for node in imports for alias in node.names}
    assert seen.keys() == set(memspace.__all__) - {"__version__"}
    for name, (module, own) in seen.items():
        public = getattr(memspace, name)  # imports its module
        assert getattr(sys.modules[module], own) is public


def test_importing_the_package_does_not_import_torch():
    code = "import sys, memspace; assert 'torch' not in sys.modules, 'torch'; assert memspace.__version__"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_star_import_gives_every_name():
    names = {}
    exec("from memspace import *", names)
    assert set(memspace.__all__) <= set(names)


def test_no_two_classes_have_one_name():
    places: dict[str, list[str]] = {}
    for path in SOURCE.parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(SOURCE.parent)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_what_extensions_are_written_with_is_there_and_listed_for_type_checkers() -> None:
    from memspace import extend

    source = Path(extend.__file__ or "").read_text(encoding="utf-8")
    checked = source.split("if TYPE_CHECKING:")[1].split("_HOMES")[0]
    assert set(re.findall(r"(\w+) as \1\b", checked)) == set(extend.__all__)
    for name in extend.__all__:
        value = getattr(extend, name)
        assert getattr(value, "__name__", name) == name
    with pytest.raises(AttributeError, match=r"'memspace\.extend' has no attribute 'nothing'"):
        extend.nothing  # noqa: B018

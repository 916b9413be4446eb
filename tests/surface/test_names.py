"""The public names: all there, none of them hiding a module, and none of them paid for before it is used."""

import ast
import pkgutil
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
        assert getattr(sys.modules[module], own) is getattr(memspace, name)


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

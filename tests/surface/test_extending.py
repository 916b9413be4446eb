"""The page on extensions: each of its files, installed as an extension, does in its example what the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = {
    title: re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
# What the page's examples take for granted: torch, memspace, a small task, and the names of the section's own file.
SCRIPT = """
import importlib, json, sys, traceback, warnings
import torch, memspace
from memspace.extensions import load_extensions

warnings.simplefilter("ignore", RuntimeWarning)
with warnings.catch_warnings():
    warnings.simplefilter("error")
    load_extensions()
torch.manual_seed(0)
x = torch.randn(40, 3)
y = (x[:, 0] > 0).long()
task = memspace.Task(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)), (x, y))
found = {}
for module, example in json.load(open(sys.argv[1])).items():
    names = {"torch": torch, "memspace": memspace, "x": x, "y": y, "task": task}
    try:
        exec(compile(example, module, "exec"), names | vars(importlib.import_module(module)))
        found[module] = ""
    except BaseException:
        found[module] = traceback.format_exc()
print(json.dumps(found))
"""


def module_of(title: str) -> str:
    return "outside_" + re.sub(r"\W+", "_", title.lower())


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What came of every section's example, all in one process of its own: nothing, or a traceback."""
    folder = tmp_path_factory.mktemp("outside")
    info = folder / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n", encoding="utf-8")
    points = "".join(f"{module_of(title)} = {module_of(title)}\n" for title in SECTIONS)
    (info / "entry_points.txt").write_text(f"[memspace.extensions]\n{points}", encoding="utf-8")
    for title, (extension, _) in SECTIONS.items():
        (folder / f"{module_of(title)}.py").write_text(extension, encoding="utf-8")
    examples = folder / "examples.json"
    examples.write_text(json.dumps({module_of(t): example for t, (_, example) in SECTIONS.items()}), encoding="utf-8")
    paths = os.pathsep.join([str(folder), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(examples)],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_section_is_a_file_and_its_use() -> None:
    assert len(SECTIONS) == 7
    assert all(len(blocks) == 2 for blocks in SECTIONS.values())


@pytest.mark.parametrize("title", SECTIONS)
def test_what_a_section_adds_is_used_as_it_says(title: str, outcomes: dict[str, str]) -> None:
    assert outcomes[module_of(title)] == ""

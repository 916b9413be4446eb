"""An installed package with one extension module, without an installation: a folder that Python finds on its path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import warm


def run_outside(
    folder: Path, extension: str, script: str, *words: str, cold: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run ``script`` in a process of its own, in which the one file ``extension`` is an installed extension.

    Args:
        folder: an empty folder.
        extension: source of the module ``outside``.
        script: source that is run; ``-m memspace`` runs the command line with ``words``.
        cold: whether by a fresh interpreter, which has not imported torch.
    """
    (folder / "outside.py").write_text(extension, encoding="utf-8")
    info = folder / "outside-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[memspace.extensions]\noutside = outside\n", encoding="utf-8")
    if cold:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
        line = [sys.executable, "-c", script, *words]
        return subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if script == "-m memspace":
        return warm.memspace(folder, *words, path=sys.path)
    return warm.python(folder, script, *words, path=sys.path)

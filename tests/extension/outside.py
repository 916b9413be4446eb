"""An installed package with one extension module, without an installation: a folder that Python finds on its path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_outside(folder: Path, extension: str, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``script`` in a process of its own, in which the one file ``extension`` is an installed extension.

    Args:
        folder: an empty folder.
        extension: source of the module ``outside``.
        script: source that is run; ``-m memspace`` runs the command line with ``words``.
    """
    (folder / "outside.py").write_text(extension, encoding="utf-8")
    info = folder / "outside-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[memspace.extensions]\noutside = outside\n", encoding="utf-8")
    command = ["-m", "memspace", *words] if script == "-m memspace" else ["-c", script, *words]
    paths = os.pathsep.join([str(folder), *sys.path])
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": paths},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )

"""Scores of codes and geometry of factors, ``python -m benchmarks.disentanglement [--check] [--only NAME] [--small]``.

Each part is a module ``benchmarks/disentanglement_NAME.py`` with ``rows(arguments) -> list[Row]``.
"""

from __future__ import annotations

import sys

from benchmarks.parts import run

ORDER = ("geometry", "rivals", "scores", "models")

FLAGS = {"--slow": "coverage of DCI and neuron knockout too, which takes an hour"}

if __name__ == "__main__":
    sys.exit(run("disentanglement", ORDER, __doc__, FLAGS))

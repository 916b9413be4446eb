"""Tensor networks, circuits and compression, ``python -m benchmarks.tensor [--check] [--only NAME] [--small]``.

Each part is a module ``benchmarks/tensor_NAME.py`` with ``rows(arguments) -> list[Row]``.
"""

from __future__ import annotations

import sys

from benchmarks.parts import run

ORDER = ("states", "spectra", "growth", "circuits", "networks", "capacity", "compression")

if __name__ == "__main__":
    sys.exit(run("tensor", ORDER, __doc__))

"""The memory against retrained networks and its rivals: ``python -m benchmarks.memory [--check] [--only NAME]``.

Each part is a module ``benchmarks/memory_NAME.py`` with ``rows(arguments) -> list[Row]``; every figure is
measured anew.
"""

from __future__ import annotations

import sys

from benchmarks.parts import run

ORDER = ("throughput", "lds", "unrolled", "labels", "loo", "forget", "prune", "degrade", "inputs", "capacity")

if __name__ == "__main__":
    sys.exit(run("memory", ORDER, __doc__))

"""Distances, geodesics and action against their closed forms and goals: ``python -m benchmarks.action [--check]``.

Each part is a module ``benchmarks/action_NAME.py`` with ``rows(arguments) -> list[Row]``; every figure is measured
anew.
"""

from __future__ import annotations

import sys

from benchmarks.parts import run

ORDER = ("manifolds", "geodesics", "watch", "excess", "optimisers", "depth", "study")

if __name__ == "__main__":
    sys.exit(run("action", ORDER, __doc__))

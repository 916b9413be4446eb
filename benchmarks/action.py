"""Distances, geodesics and action against their closed forms and goals: ``python -m benchmarks.action [--check]``.

Each part is a module ``benchmarks/action_NAME.py`` with ``rows(arguments) -> list[Row]``; every figure is measured
anew.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from benchmarks.table import Row, show, write

HERE = Path(__file__).resolve().parent
FIRST = ("manifolds", "geodesics")


def parts() -> list[str]:
    """Names of the parts, in the order they run; a module of that name is a part."""
    found = sorted(p.stem.removeprefix("action_") for p in HERE.glob("action_*.py"))
    return [n for n in FIRST if n in found] + [n for n in found if n not in FIRST]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal is missed")
    parser.add_argument("--only", choices=parts(), help="one part")
    parser.add_argument("--workload", choices=("digits", "fashion-mnist"), help="one of the two")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of split, initialisation and wrong labels")
    parser.add_argument("--small", action="store_true", help="tiny data, to see that all runs; figures mean nothing")
    parser.add_argument("--data-root", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--json", type=Path, default=HERE / "out" / "action.json")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in [arguments.only] if arguments.only else parts():
        start = time.perf_counter()
        rows += importlib.import_module(f"benchmarks.action_{name}").rows(arguments)
        write(rows, arguments.json)  # a run that is stopped keeps what it measured
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    show(rows)
    missed = [r for r in rows if r.met is False]
    print(f"{len(missed)} goals missed" if missed else "every goal met")
    return int(arguments.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())

"""A benchmark made of parts: modules ``benchmarks/NAME_PART.py`` with ``rows(arguments) -> list[Row]``."""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.table import Row, show, write

__all__ = ["run"]

HERE = Path(__file__).resolve().parent


def _seeds(text: str) -> range:
    first, dash, last = text.partition("-")
    found = range(int(first), int(last) + 1) if dash else range(int(first))
    if not found:
        raise argparse.ArgumentTypeError(f"no seeds in {text!r}")
    return found


def run(name: str, order: Sequence[str], about: str | None, flags: Mapping[str, str] | None = None) -> int:
    """Parse the command line, run the parts in order (then what others there are), print and write the table.

    ``flags`` are further options that are there or not, with their help.
    """
    found = sorted(p.stem.removeprefix(f"{name}_") for p in HERE.glob(f"{name}_*.py"))
    found = [n for n in found if n != "workloads"]
    parts = [n for n in order if n in found] + [n for n in found if n not in order]
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal is missed")
    parser.add_argument("--only", choices=parts, help="one part")
    parser.add_argument("--workload", choices=("digits", "fashion-mnist"), help="one of the two")
    parser.add_argument(
        "--seeds",
        type=_seeds,
        default=range(3),
        help="of split, start and wrong labels: a count, or FIRST-LAST",
    )
    parser.add_argument("--small", action="store_true", help="tiny data, to see that all runs; figures mean nothing")
    parser.add_argument("--data-root", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--json", type=Path, default=HERE / "out" / f"{name}.json")
    for flag, text in (flags or {}).items():
        parser.add_argument(flag, action="store_true", help=text)
    arguments = parser.parse_args()
    rows: list[Row] = []
    for part in [arguments.only] if arguments.only else parts:
        start = time.perf_counter()
        rows += importlib.import_module(f"benchmarks.{name}_{part}").rows(arguments)
        write(rows, arguments.json)  # a run that is stopped keeps what it measured
        print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)
    show(rows)
    missed = [r for r in rows if r.met is False]
    print(f"{len(missed)} goals missed" if missed else "every goal met")
    return int(arguments.check and bool(missed))

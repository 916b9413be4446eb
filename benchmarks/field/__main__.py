"""The field trial: ``python -m benchmarks.field [--check] [--small] [--only TEXT] [--jobs N]``.

Trains and audits networks on data that no constant of memspace was chosen on, and holds every interval, ranking and
finding against what is true. Outcomes are kept file by file under ``--out``: a run that is stopped goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a goal is missed")
    parser.add_argument("--small", action="store_true", help="a part of the tasks, in under ten minutes")
    parser.add_argument("--only", default="", help="tasks whose name contains this text")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--minutes", type=float, help="stop starting tasks after so many; the next run goes on")
    parser.add_argument("--table", action="store_true", help="only print the table of what is kept, of any version")
    parser.add_argument("--data-root", type=Path, default=HERE.parent.parent.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE.parent / "out" / "field")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    from benchmarks.field.rows import rows
    from benchmarks.field.store import Outcomes
    from benchmarks.field.tasks import jobs
    from benchmarks.field.trial import work
    from benchmarks.table import show, write

    chosen = [j for j in jobs(arguments.small) if arguments.only in j.name]
    kept = Outcomes(arguments.out, any_code=arguments.table)
    outcomes = {j.key: kept.get(j) for j in chosen}
    todo = [] if arguments.table else [j for j in chosen if outcomes[j.key] is None]
    print(f"{len(chosen)} tasks, {len(chosen) - len(todo)} kept from before", flush=True)
    start = time.monotonic()
    todo.sort(key=lambda j: j.key)  # a draw, so that a run that is stopped early shows all kinds of tasks
    with ProcessPoolExecutor(arguments.jobs, max_tasks_per_child=20) as pool:
        waiting = {}
        while todo or waiting:
            late = arguments.minutes is not None and time.monotonic() - start > 60 * arguments.minutes
            while todo and len(waiting) < arguments.jobs and not late:
                job = todo.pop(0)
                waiting[pool.submit(work, job, arguments.data_root)] = job
            if not waiting:
                break
            done = next(as_completed(waiting))
            job = waiting.pop(done)
            outcome = done.result()
            kept.put(job, outcome)
            outcomes[job.key] = outcome
            said = outcome.get("failure") or outcome.get("absent") or ""
            print(f"{time.monotonic() - start:6.0f} s  {job.name}: {outcome['seconds']:.0f} s {said[:120]}", flush=True)
    found = [o for o in outcomes.values() if o is not None]
    table = rows(found)
    write(table, arguments.out.with_suffix(".json"))
    show(table)
    missed = [r for r in table if r.met is False]
    print(f"{len(found)} of {len(chosen)} tasks; " + (f"{len(missed)} goals missed" if missed else "every goal met"))
    return int(arguments.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())

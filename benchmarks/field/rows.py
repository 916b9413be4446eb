"""The field trial's table: every line of its goals with figure, interval, met or not."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from benchmarks.table import Row, mean_interval

__all__ = ["rows"]

Outcome = dict[str, Any]
COVERED, FEW = 0.9, 30  # goal of coverage, in every condition with so many tasks
BINS = 15
ORACLES = ("cleanlab", "training loss", "held-out loss")


def rows(outcomes: Sequence[Outcome]) -> list[Row]:
    """All rows, in the order of the goals."""
    done = [o for o in outcomes if "absent" not in o and "failure" not in o]
    return [
        *_runs(outcomes),
        *_coverage(done),
        *_ranking(done),
        *_verdicts(done),
        *_estimates(done),
        *_convex(done),
        *_outliers(done),
        *_rates(done),
    ]


def _share(
    part: str,
    quantity: str,
    hits: Iterable[bool],
    goal: tuple[str, float] | None,
    detail: str = "",
    judged: bool = True,
) -> Row:
    """A share with its Clopper–Pearson interval; ``goal``: (≥ or ≤, value)."""
    found = list(hits)
    if not found:
        return Row(part, quantity, "", float("nan"), None, None, None, "nothing to measure")
    share = sum(found) / len(found)
    interval = binomtest(sum(found), len(found)).proportion_ci()
    met = None if goal is None or not judged else share >= goal[1] if goal[0] == "≥" else share <= goal[1]
    stated = "" if goal is None else f"{goal[0]} {goal[1]:g}"
    said = f"{sum(found)} of {len(found)}" + (f"; {detail}" if detail else "")
    return Row(part, quantity, stated, share, interval.low, interval.high, met, said)


def _runs(outcomes: Sequence[Outcome]) -> list[Row]:
    tried = [o for o in outcomes if "absent" not in o]
    failed = [o for o in tried if "failure" in o]
    named = "; ".join(f"{o['name']}: {o['failure'][:60]}" for o in failed[:4])
    absent = sorted({o["absent"] for o in outcomes if "absent" in o})
    return [
        _share("runs", "audits that ended in an error", ("failure" in o for o in tried), ("≤", 0.0), named),
        Row(
            "runs",
            "tasks measured",
            "≥ 80",
            len(tried) - len(failed),
            None,
            None,
            len(tried) - len(failed) >= 80,
            "left out: " + ", ".join(absent) if absent else "",
        ),
    ]


def _covers(record: Outcome) -> bool:
    """Whether an interval holds the truth, within what is known of it.

    A truth that was measured has an error too, and next to an estimate from as many training examples not a small one:
    both distances are joined in the root of the sum of squares, so that two good 95% intervals agree nineteen times in
    twenty.
    """
    value, truth = record["value"], record["truth"]
    slack = 1e-9 * max(1.0, abs(truth))
    low, high = value - record["low"], record["high"] - value
    if record["known"] is not None:
        low, high = math.hypot(low, record["known"][1] - truth), math.hypot(high, truth - record["known"][0])
    return bool(value - low - slack <= truth <= value + high + slack)


def _coverage(done: Sequence[Outcome]) -> list[Row]:
    """Per measurement, over all tasks and per condition: those marked reliable are judged, all are shown."""
    found: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for o in done:
        for record in o.get("coverage", ()):
            name = record["measure"]
            found[name, ""].append(record)
            found[name, o["condition"]].append(record)
            found[name, f"refits: {o['job']['refits']}"].append(record)
            found[name, f"law: {o['law']}"].append(record)
    made = []
    for (name, condition), records in sorted(found.items()):
        trusted = [r for r in records if r["reliable"]]
        if condition and len(records) < FEW:
            continue
        every = f"{np.mean([_covers(r) for r in records]):.0%} of all {len(records)}"
        enough = len(trusted) >= FEW or not condition
        part = f"coverage: {name}"
        made.append(
            _share(part, condition or "all tasks", map(_covers, trusted), ("≥", COVERED), every, enough)
            if trusted
            else Row(part, condition or "all tasks", "", float("nan"), None, None, None, f"never reliable; {every}")
        )
    whole = [r for (_, condition), records in found.items() if not condition for r in records if r["reliable"]]
    return [_share("coverage", "every interval marked reliable", map(_covers, whole), ("≥", COVERED)), *made]


def _ranking(done: Sequence[Outcome]) -> list[Row]:
    made = []
    for refits in ("all", "one", "none"):
        scored = [
            o["labels"]["precision"]
            for o in done
            if o["job"]["refits"] == refits and "precision" in o.get("labels", {})
        ]
        names = [n for n in ("memspace", *ORACLES) if scored and all(n in s for s in scored)]
        part = f"wrong labels, refits: {refits}"
        for name in names:
            value, low, high = mean_interval([s[name] for s in scored])
            made.append(Row(part, f"average precision: {name}", "", value, low, high, None, f"{len(scored)} tasks"))
        if len(names) < 2:
            continue
        best = max(names[1:], key=lambda n: float(np.mean([s[n] for s in scored])))
        lead = [s["memspace"] - s[best] for s in scored]
        value, low, high = mean_interval(lead)
        goal = 0.02 if refits == "all" else 0.0
        made.append(Row(part, "lead over the best rival", f"≥ {goal:g}", value, low, high, value >= goal, best))
        behind = [max(s[n] for n in names[1:]) - s["memspace"] > 0.05 for s in scored]
        made.append(_share(part, "more than 0.05 below the best of all", behind, ("≤", 0.05)))
    judged = [o["labels"] for o in done if "probability" in o.get("labels", {})]
    made += _probabilities("calibration error, pooled", judged)
    made += _probabilities(
        "calibration error, where the share is marked reliable", [v for v in judged if v["reliable"]]
    )
    return made


def _probabilities(quantity: str, judged: Sequence[Outcome]) -> list[Row]:
    """How far the probabilities of being wrong lie from the share that is, over bins of equal width."""
    pairs = [pair for labels in judged for pair in labels["probability"]]
    if not pairs:
        return []
    p, wrong = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    where = np.minimum((p * BINS).astype(int), BINS - 1)
    error = sum(abs(p[where == k].mean() - wrong[where == k].mean()) * (where == k).mean() for k in set(where))
    detail = f"{len(p)} examples of {len(judged)} tasks"
    return [Row("wrong labels", quantity, "≤ 0.05", float(error), None, None, bool(error <= 0.05), detail)]


def _verdicts(done: Sequence[Outcome]) -> list[Row]:
    judged = [o for o in done if "labels" in o]
    clean = [o["labels"]["finding"] == "alarm" for o in judged if o["labels"]["planted"] == 0]
    noisy = [o["labels"]["finding"] == "none" for o in judged if o["labels"]["planted"] >= 0.045]
    found = [o["labels"]["finding"] == "alarm" for o in judged if o["labels"]["planted"] >= 0.045]
    return [
        _share("wrong labels", "false alarm on clean data", clean, ("≤", 0.05)),
        _share("wrong labels", "“no label looks wrong” with at least 5% wrong", noisy, ("≤", 0.02)),
        _share("wrong labels", "alarm with at least 5% wrong", found, None),
    ]


def _estimates(done: Sequence[Outcome]) -> list[Row]:
    """Root mean squared error in log loss, ours and the refits' plain mean, where both and a truth are there."""
    made = []
    for group, keep in (("all tasks", None), ("clean", True), ("wrong labels", False)):
        found = [
            o["estimate"]
            for o in done
            if all(o.get("estimate", {}).get(k) for k in ("ours", "plain", "truth"))
            and o["job"]["refits"] != "none"
            and o["law"] != "gaussian"
            and (keep is None or (o["job"]["noise"] == 0) is keep)
        ]
        if not found:
            continue
        ours, plain = (np.array([np.log(max(e[k], 1e-6) / e["truth"]) for e in found]) for k in ("ours", "plain"))
        ratio = float(np.sqrt((ours**2).mean() / (plain**2).mean()))
        draws = np.random.default_rng(0).integers(0, len(found), (2000, len(found)))
        ratios = np.sqrt((ours[draws] ** 2).mean(1) / (plain[draws] ** 2).mean(1))
        low, high = np.quantile(ratios, (0.025, 0.975))
        detail = (
            f"{len(found)} tasks; log error {np.sqrt((ours**2).mean()):.3f} against {np.sqrt((plain**2).mean()):.3f}"
        )
        made.append(
            Row("test loss", f"error over the refits' mean, {group}", "≤ 0.9", ratio, low, high, ratio <= 0.9, detail)
        )
    return made


def _convex(done: Sequence[Outcome]) -> list[Row]:
    off = [abs(o["convex"]["ours"] / o["convex"]["exact"] - 1) for o in done if o.get("convex", {}).get("ours")]
    if not off:
        return []
    return [
        _share(
            "test loss",
            "convex models within 2% of exact leave-one-out",
            (e <= 0.02 for e in off),
            ("≥", 1.0),
            f"largest {max(off):.1%}, median {np.median(off):.1%}",
        )
    ]


def _outliers(done: Sequence[Outcome]) -> list[Row]:
    scored = [o["outliers"]["precision"] for o in done if "outliers" in o]
    lead = [s["memspace"] - s["residual"] for s in scored if "memspace" in s]
    if not lead:
        return [
            Row(
                "regression",
                "outliers ranked",
                "≥ 0",
                float("nan"),
                None,
                None,
                False if scored else None,
                "no probability in the table",
            )
        ]
    value, low, high = mean_interval(lead)
    return [
        Row(
            "regression",
            "average precision less |residual|'s",
            "≥ 0",
            value,
            low,
            high,
            value >= 0,
            f"{len(lead)} tasks",
        )
    ]


def _rates(done: Sequence[Outcome]) -> list[Row]:
    found: dict[str, list[bool]] = defaultdict(list)
    refused: dict[str, int] = defaultdict(int)
    for o in done:
        for record in o.get("rates", ()):
            (a, low, high, trusted), (b, low2, high2, trusted2) = record["seldom"], record["often"]
            if not (trusted and trusted2):
                refused[record["measure"]] += 1
                continue
            found[record["measure"]].append(low <= b <= high or low2 <= a <= high2)
    made = []
    for name in sorted(found.keys() | refused.keys()):
        detail, part = f"{refused[name]} marked not reliable", "action at three times the rate"
        if found[name]:
            made.append(_share(part, name, found[name], ("≥", COVERED), detail))
        else:
            made.append(Row(part, name, "", float("nan"), None, None, None, detail))
    return made

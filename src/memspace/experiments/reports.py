"""What each part of a retraining study found, as measured quantities and tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from memspace.experiments.lds import lds_ceiling
from memspace.experiments.left_out import effects
from memspace.experiments.memorisation import influences, mean_error, memorisation
from memspace.experiments.truth import Truth
from memspace.measurement import Measurement, Unmeasured, from_error, from_samples, from_share

__all__ = ["REPORTS", "Tables"]

TOP = 20  # examples kept per query in the table of influences
Tables = dict[str, dict[str, Any]]


def _subsets(truth: Truth) -> tuple[list[Measurement | Unmeasured], Tables]:
    """Outcomes by subset, seed and query; how much of them is not the seeds' noise."""
    name = truth.design.name
    k, s = truth.design.seeds.shape
    quantities: list[Measurement | Unmeasured] = []
    for outcome in truth.outcomes:
        if outcome == "correct":
            continue
        if s < 2 or k < 3:
            quantities.append(Unmeasured(f"{name}.{outcome}.ceiling", f"{k} subsets × {s} seeds", "use at least 3 × 2"))
        else:
            m = lds_ceiling(truth, outcome=outcome)
            quantities.append(Measurement(**{**m.__dict__, "name": f"{name}.{outcome}.ceiling"}))
    subsets = {"subset": list(range(k)), "kept": [row.nonzero().flatten().tolist() for row in truth.design.kept]}
    return quantities, {name: _long(truth), f"{name}-subsets": subsets}


def _long(truth: Truth) -> dict[str, Any]:
    """One row per subset, seed and query."""
    k, s, q = truth.outcomes["loss"].shape
    at = torch.cartesian_prod(torch.arange(k), torch.arange(s), torch.arange(q))
    columns = {
        "subset": at[:, 0].numpy(),
        "seed": truth.design.seeds[at[:, 0], at[:, 1]].numpy(),
        "query": truth.queries.index[at[:, 2]].numpy(),
        "split": [truth.queries.split[i] for i in at[:, 2].tolist()],
    }
    return columns | {name: t.flatten().numpy() for name, t in truth.outcomes.items()}


def _left_out(truth: Truth) -> tuple[list[Measurement | Unmeasured], Tables]:
    """Effects on the left-out examples' own loss, on every query, and on the mean of the test queries."""
    e = effects(truth)
    queries, (g, q) = truth.queries, e.mean.shape
    groups = [(~row).nonzero().flatten() for row in truth.design.kept[1:]]
    at = torch.cartesian_prod(torch.arange(g), torch.arange(q))
    table = {
        "group": at[:, 0].numpy(),
        "query": queries.index[at[:, 1]].numpy(),
        "split": [queries.split[i] for i in at[:, 1].tolist()],
        "effect": e.mean.flatten().numpy(),
        "error": e.error.flatten().numpy(),
        "p": e.p.flatten().numpy(),
        "exceeds": e.exceeds.flatten().numpy(),
    }
    members = {"group": list(range(g)), "examples": [m.tolist() for m in groups]}
    itself = torch.tensor(
        [[queries.split[i] == "train" and int(queries.index[i]) in set(m.tolist()) for i in range(q)] for m in groups]
    )
    estimator = f"paired retrainings, {e.seeds} seeds, Benjamini–Hochberg at 5%"
    quantities: list[Measurement | Unmeasured] = [
        Measurement("left-out.exceeding noise", float(e.exceeds.double().mean()), "1", estimator, g * q),
        Measurement(
            "left-out.own exceeding noise", float(e.exceeds[itself].double().mean()), "1", estimator, int(itself.sum())
        ),
        from_samples("left-out.own effect", e.mean[itself].tolist(), "nats", f"mean over examples, {e.seeds} seeds"),
    ]
    return quantities, {"left-out": table, "left-out-groups": members}


def _memorisation(truth: Truth) -> tuple[list[Measurement | Unmeasured], Tables]:
    """Scores per training example, and the strongest influences on every query."""
    outcome = "correct" if "correct" in truth.outcomes else "loss"
    mem = memorisation(truth, outcome=outcome)
    n = len(mem.value)
    known = torch.isfinite(mem.value)
    unit = "1" if outcome == "correct" else "nats"
    error = "binomial" if outcome == "correct" else "sample variance"
    source = "feldman2020 [eq. 1]"
    networks = truth.design.seeds.numel()
    quantities: list[Measurement | Unmeasured] = [
        from_error(
            "memorisation.mean",
            float(mem.value[known].mean()),
            mean_error(truth, outcome, known),
            unit,
            f"{networks} networks on 70% each; interval: other subsets",
            n,
            df=len(truth.design.kept) - 1,
            source=source,
        ),
        Measurement(
            "memorisation.standard error", float(mem.error[known].mean()), unit, f"{error}, mean over examples", n
        ),
    ]
    if outcome == "correct":
        high = (mem.value[known] >= 0.3).double().tolist()
        how = f"{networks} networks on 70% each"
        note = "scores above 0.3 by chance are counted too: see the standard error"
        quantities.append(from_share("memorisation.share of 0.3 and more", high, how, source=source, note=note))
    table = {
        "example": list(range(n)),
        "memorisation": mem.value.numpy(),
        "error": mem.error.numpy(),
        "inside": mem.inside.numpy(),
        "outside": mem.outside.numpy(),
    }
    infl = influences(truth, outcome=outcome)
    queries = torch.arange(n, len(truth.queries))
    k = min(TOP, n)
    top = torch.nan_to_num(infl.value[:, queries], nan=-torch.inf).topk(k, 0).indices  # (k, Q)
    rows = top.T.reshape(-1)
    of = queries.repeat_interleave(k)
    influence = {
        "query": truth.queries.index[of].numpy(),
        "example": rows.numpy(),
        "influence": infl.value[rows, of].numpy(),
        "error": infl.error[rows, of].numpy(),
    }
    return quantities, {"memorisation": table} | ({"influence": influence} if len(queries) else {})


REPORTS: dict[str, Callable[[Truth], tuple[list[Measurement | Unmeasured], Tables]]] = {
    "half": _subsets,
    "same-order": _subsets,
    "left-out": _left_out,
    "memorisation": _memorisation,
}

"""The input side: the metric's readings of each input against a real attack and corruptions, on both workloads."""

from __future__ import annotations

import argparse
import math

import torch

from benchmarks.memory_workloads import WORKLOADS
from benchmarks.table import Row, at_least, at_most, mean_interval
from memspace.measures.attack import AttackSearch
from memspace.measures.input_measures import study_inputs
from memspace.measures.input_study import AttackSettings, InputStudy
from memspace.task.checks import untouched
from memspace.value import Absent

__all__ = ["rows"]

NAMES = {
    "distance_l2.rank_linear": "ρ, Euclidean attack: linearised distance",
    "distance_l2.rank_fisher": "ρ, Euclidean attack: d_FR/√λ_max(G)",
    "distance_l2.rank_flatness": "ρ, Euclidean attack: −λ_max(G)",
    "distance_l2.rank_boundary": "ρ, Euclidean attack: d_FR",
    "distance_l2.rank_margin": "ρ, Euclidean attack: gap of the outputs",
    "distance_max.rank_linear": "ρ, largest-entry attack: linearised distance",
    "distance_max.rank_fisher": "ρ, largest-entry attack: d_FR/√λ_max(G)",
    "distance_l2": "median distance found",
    "distance_l2.over_linear": "median of found over linearised distance",
    "certified": "median certified radius",
    "kl_ratio": "measured over predicted KL at 0.1 nats, weakest direction",
}
CORRUPTIONS = ("noise", "blur", "brightness", "contrast", "rotation", "shift")


def rows(arguments: argparse.Namespace) -> list[Row]:
    out: list[Row] = []
    for name, make in WORKLOADS.items():
        if arguments.workload not in (None, name):
            continue
        studies = []
        for seed in arguments.seeds:
            task = make(arguments.data_root, seed, arguments.small)
            attack = (
                AttackSearch(steps=4, restarts=1, bisections=3)
                if arguments.small
                else AttackSearch(steps=12, restarts=1, bisections=6)
            )
            settings = AttackSettings(30 if arguments.small else 200, attack, seed=seed)
            with untouched(task.model):
                studies.append(study_inputs(task, settings))
        out += _rows(f"inputs {name}", studies)
    return out


def _rows(part: str, studies: list[InputStudy]) -> list[Row]:
    values = [{m.name.removeprefix("input."): m.value for m in s.measurements} for s in studies]
    detail = f"{len(studies)} seeds, {len(studies[0].index)} inputs each"
    out = []
    for key, title in NAMES.items():
        mean, low, high = mean_interval([v[key] for v in values])
        out.append(Row(part, title, "", mean, low, high, None, detail))
    for c in CORRUPTIONS:
        for reading in ("linear", "attack"):
            title = "linearised distance" if reading == "linear" else "attack's distance"
            mean, low, high = mean_interval([v[f"{c}.rank_{reading}"] for v in values])
            out.append(Row(part, f"ρ, {c}: {title}", "", mean, low, high, None, detail))
    gain = [v["distance_l2.rank_linear"] - v["distance_l2.rank_margin"] for v in values]
    out.append(at_least(part, "ρ of the linearised distance less that of the gap", gain, 0.0, detail))
    broken = [_broken(s) for s in studies]
    out.append(at_most(part, "certified radii that an attack broke", broken, 0, detail))
    missed = [float(s.found.distance.isinf().sum()) for s in studies if s.found is not None]
    out.append(at_most(part, "inputs for which the attack found nothing", missed, 0, detail))
    passes = [s.passes / len(s.index) for s in studies]
    mean, low, high = mean_interval(passes)
    out.append(Row(part, "passes an input, all of it", "", mean, low, high, None, "forward and backward; both norms"))
    return out


def _broken(s: InputStudy) -> float:
    if isinstance(s.certified, Absent) or s.found is None:
        return math.nan
    return float(torch.stack([radius > s.found.distance for radius in s.certified]).sum())

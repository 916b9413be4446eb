"""Capacity: Cover's linear unit, random labels stored by width and depth, and what overwriting leaves."""

from __future__ import annotations

import argparse
import math

import numpy as np

from benchmarks.table import Row, at_least, at_most, mean_interval
from memspace.experiments.capacity import CapacitySettings, mlp
from memspace.experiments.capacity_study import Architecture, CapacityStudy, study_capacity
from memspace.experiments.perceptron import linear_unit_bits, realisable, separable

__all__ = ["rows"]

INPUTS, CLASSES = 16, 2
NETWORKS = ((8, 1), (16, 1), (32, 1), (16, 2))  # width, hidden layers


def rows(arguments: argparse.Namespace) -> list[Row]:
    small = arguments.small
    out = _linear_unit(small)
    for width, depth in NETWORKS[:1] if small else NETWORKS:
        steps = 60 if small else 1000
        load = (1.0, 3.0) if small else (1.0, 2.0, 2.5, 3.0, 4.0)
        settings = CapacitySettings(load, max(2, len(arguments.seeds)), steps, 0 if small else 3)
        name = f"{INPUTS}{f'-{width}' * depth}-{CLASSES}"
        made = Architecture(name, mlp(INPUTS, width, depth, CLASSES), (INPUTS,), CLASSES)
        out += _of(study_capacity(made, settings, forgetting=depth == 1))
    return out


def _of(study: CapacityStudy) -> list[Row]:
    part = f"capacity {study.architecture.name}"
    c = study.capacity
    out = []
    for m in study.measurements:
        low, high = m.interval or (None, None)
        detail = f"P = {c.parameters}; {m.estimator}" + (f"; {m.note}" if m.note else "")
        out.append(Row(part, m.name, "", m.value, low, high, None, detail))
    for o in (*c.curve, *c.longer):
        for reading in ("coded", "clipped"):
            mean, interval = o.mean(reading)
            low, high = (None, None) if interval is None else interval
            text = f"{o.examples} labels offered, {o.steps} steps"
            out.append(Row(part, f"stored, {reading}, at {o.examples / c.parameters:.2f} bits offered a parameter", "",
                           mean, low, high, None, text))  # fmt: skip
    out.append(Row(part, "change on the last doubling of the training", "", c.drift, None, None, None, "relative"))
    if study.forgetting is not None:
        new, old = study.forgetting.curve()
        for k in range(new.shape[1]):
            mean, low, high = mean_interval(old[:, k].tolist())
            offered = 0 if k == 0 else study.forgetting.second[k - 1]
            text = f"{offered} labels offered anew, {study.forgetting.first} learnt before"
            out.append(Row(part, f"bits left at {new[:, k].mean():.0f} new ones", "", mean, low, high, None, text))
    return out


def _linear_unit(small: bool) -> list[Row]:
    """Labellings realised at the half point, and the most a unit stores, by weights."""
    out = []
    rng = np.random.default_rng(0)
    for d in (10,) if small else (10, 40, 120):
        draws = 20 if small else 200 if d < 100 else 60
        real = [separable(rng.standard_normal((2 * d, d)), rng.integers(0, 2, 2 * d)) for _ in range(draws)]
        error = math.sqrt(0.25 / draws)
        off = abs(float(np.mean(real)) - 0.5) / error
        text = f"{np.mean(real):.3f} of {draws} labellings of {2 * d} points realised; Cover: 0.5"
        out.append(at_most("capacity linear unit", f"{d} weights: from Cover at 2d, binomial errors", [off], 3, text))
        best, at, spread = 0.0, 0.0, 0.0
        for load in (1.25, 1.5, 1.75, 2.0, 2.25):
            p = round(load * d)
            bits = [
                linear_unit_bits(rng.standard_normal((p, d)), rng.integers(0, 2, p)) / d
                for _ in range(5 if small else 20)
            ]
            if np.mean(bits) > best:
                best, at, spread = float(np.mean(bits)), load, float(np.std(bits, ddof=1)) / math.sqrt(len(bits))
        floor = max(k / 20 * realisable(round(k * d / 20), d) for k in range(20, 46))
        text = f"at {at} points a weight, s.e. {spread:.3f}; Cover's separable share gives {floor:.3f}, in the limit 2"
        row = at_least("capacity linear unit", f"{d} weights: most bits stored a weight", [best], 0.95 * floor, text)
        out.append(row)
    return out

"""The judging on 910 networks that were trained by others, through the code that judges the zoo."""

from __future__ import annotations

import argparse

import polars as pl

from benchmarks.table import Row
from memspace.judging.granulated import granulated
from memspace.judging.kendall import kendall
from memspace.judging.prediction import predict_out_of_sample
from memspace.judging.published import DESIGN, FITTED, read_networks
from memspace.value import Absent

__all__ = ["rows"]

# Answers that come with the table: fitted networks, gap in loss.
TAU = {"trace": 0.634, "top_eig": 0.625, "cka": -0.847, "dist": -0.238}
GRANULATED = {"trace": (0.338, 0.616), "cka": (-0.705, -0.772)}
PREDICTED = {"": (0.0418, 0.845), "trace": (0.0348, 0.860), "cka": (0.0381, 0.864)}


def rows(arguments: argparse.Namespace) -> list[Row]:
    table = read_networks(arguments.data_root / "loss-landscape-910")
    fitted = table.filter(pl.col("train_accuracy") >= FITTED)
    out = []
    for name, answer in TAU.items():
        out.append(_equal(f"τ of {name}", kendall(fitted, name, DESIGN, draws=20), answer, 3))
    for name, answers in GRANULATED.items():
        judged = granulated(fitted, name, DESIGN)
        for knob, answer in zip(("batch", "width"), answers, strict=True):
            value = judged if isinstance(judged, Absent) else judged.knobs[knob]
            out.append(_equal(f"granulated τ of {name}, varying {knob}", value, answer, 3))
    for name, (rmse, tau) in PREDICTED.items():
        predicted = predict_out_of_sample(fitted, [name] if name else [], DESIGN, draws=20)
        said = name or "nothing"
        out.append(_equal(f"RMSE, a width left out, knobs and {said}", _of(predicted, "rmse"), rmse, 4))
        out.append(_equal(f"τ, a width left out, knobs and {said}", _of(predicted, "tau"), tau, 3))
    return out


def _of(predicted: object, name: str) -> object:
    return predicted if isinstance(predicted, Absent) else getattr(predicted, name)


def _equal(quantity: str, judged: object, answer: float, digits: int) -> Row:
    value = getattr(judged, "value", judged)
    number = float(getattr(value, "value", value))  # type: ignore[arg-type]
    met = round(number, digits) == round(answer, digits)
    return Row("published", quantity, f"= {answer:g}", number, None, None, met)

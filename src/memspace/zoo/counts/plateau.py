"""Capacity of architectures from networks of several loads: the most bits of permuted labels that any of them holds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from memspace.frames import polars
from memspace.intervals import around

if TYPE_CHECKING:
    import polars as pl

__all__ = ["ARCHITECTURE", "GEOMETRIC", "plateaus"]

ARCHITECTURE = ("family", "data", "width", "depth")
GEOMETRIC = (
    "information_bits", "volume_bits", "coefficient_bits", "information_bits_at_evidence", "volume_bits_at_evidence"
)  # fmt: skip
RISING = 1.05  # a greatest load that stores more than this times the one before may not be the plateau yet


def plateaus(counted: pl.DataFrame) -> pl.DataFrame:
    """Find each architecture's plateau.

    Gradient training stores what it finds room for, so a plateau is a lower bound of what the architecture can hold.
    Loads are compared by the mean over seeds. The interval is Student's with the relative spread between seeds pooled
    over all loads and architectures of the family; the choice of the greatest mean is not in it, and reads high by
    less than that spread.

    Args:
        counted: a row a network: ``ARCHITECTURE``, ``parameters``, ``size``, ``permuted``, and the columns of counts.

    Returns:
        A row an architecture: ``plateau_bits`` with ``plateau_low`` and ``plateau_high``; ``plateau_size``, the
        examples of that load; ``passed``: more was offered than that, or the last rise was under a twentieth;
        ``settled``: relative change of the bits in the second half of the training there; ``bits_per_parameter``; and
        every geometric count of the networks of the greatest load, a rule that does not look at what they store.
    """
    rows = counted.filter(polars().col("permuted")).to_dicts()
    out = []
    for of in _grouped(rows, ("family",)).values():
        loads = list(_grouped(of, (*ARCHITECTURE, "size")).values())
        spread, df = _relative_spread([[r["stored_bits"] for r in load] for load in loads])
        for place, networks in _grouped(of, ARCHITECTURE).items():
            made = _plateau([g for _, g in sorted(_grouped(networks, ("size",)).items())], spread, df)
            out.append({**dict(zip(ARCHITECTURE, place, strict=True)), "zoo": networks[0].get("zoo"), **made})
    frame: pl.DataFrame = polars().DataFrame(out, infer_schema_length=None)
    return frame


def _plateau(loads: Sequence[Sequence[Mapping[str, Any]]], spread: float, df: int) -> dict[str, Any]:
    """The plateau of one architecture; its loads ascending."""
    means = [_mean(load, "stored_bits") for load in loads]
    best = int(np.argmax(means))
    chosen, fullest = loads[best], loads[-1]
    bits, parameters = means[best], chosen[0]["parameters"]
    low, high = around(bits, abs(bits) * spread / math.sqrt(len(chosen)), df, lower=0.0)
    earlier = _mean(chosen, "earlier_bits")
    rising = len(means) > 1 and means[-1] > RISING * means[-2]
    return {
        "parameters": parameters,
        "plateau_bits": bits,
        "plateau_low": low,
        "plateau_high": high,
        "plateau_size": chosen[0]["size"],
        "passed": len(means) > 1 and (best < len(means) - 1 or not rising),
        "settled": (bits - earlier) / bits if bits > 0 else None,
        "bits_per_parameter": bits / parameters,
        "networks": sum(map(len, loads)),
        **{name: _mean_of_known(fullest, name) for name in GEOMETRIC},
    }


def _relative_spread(loads: Iterable[Sequence[float]]) -> tuple[float, int]:
    """Pooled standard deviation of (value − mean)/mean within loads, and its degrees of freedom."""
    squares, df = 0.0, 0
    for values in loads:
        x = np.asarray(values, dtype=np.float64)
        if len(x) > 1 and x.mean() > 0:
            squares += float(((x / x.mean() - 1) ** 2).sum())
            df += len(x) - 1
    return (math.sqrt(squares / df) if df else math.inf), df


def _grouped(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[n] for n in names), []).append(row)
    return groups


def _mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.mean([r[name] for r in rows]))


def _mean_of_known(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """The mean where a column has numbers, None where it has none."""
    known = [float(r[name]) for r in rows if r.get(name) is not None]
    return float(np.mean(known)) if known else None

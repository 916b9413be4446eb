"""Print the tables of docs/encoders.md from the open table, in Markdown.

python -m benchmarks.encoders_summary [STORE]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import polars as pl

import memspace

SHOWN = ("active", "mig", "dci", "aligned_dci", "sap", "factor_vae", "beta_vae", "modularity", "snc", "nk")
GEOMETRY = ("encoder.orthogonality", "encoder.told_apart", "holonomy", "representation_holonomy", "cut", "told")
ORDER = ("vae", "beta_vae", "factor_vae", "beta_tcvae", "dip_vae", "supervised", "classifier")


def main(store: str = "shipped") -> None:
    """Print medians by world and method, how often scores beat their null, and what explains them."""
    table = memspace.encoder_table(store)
    for names in (SHOWN, GEOMETRY):
        print(_head(("world", "method", "encoders", *names)))
        for (world,), rows in sorted(table.group_by("family")):
            for method in ORDER:
                of = rows.filter(pl.col("method") == method)
                if of.height:
                    cells = [_number(of[n].median() if n in of.columns else None) for n in names]
                    print(f"| {world} | `{method}` | {of.height} | {' | '.join(cells)} |")
        print()
    blind = table.filter(~pl.col("supervised"))
    scores = [c.removesuffix(".chance") for c in table.columns if c.endswith(".chance")]
    print(_head(("score", "beyond all 19 rotations", "share explained by method and strength, world by world")))
    for name in scores:
        beyond = (blind[f"{name}.chance"] <= 0.05).mean()
        parts = [_explained(of, name) for _, of in sorted(blind.group_by("family"))]
        print(f"| {name} | {_number(beyond)} | {', '.join(map(_number, parts))} |")
    print()
    names = ("mig", "dci", "sap", "factor_vae", "beta_vae", "modularity")
    for world in (None, *sorted(table["family"].unique())):
        result = memspace.score_agreement(store, names, world=world)
        pairs = [result.between(a, b)[0] for i, a in enumerate(names) for b in names[:i]]
        mean = sum(pairs) / len(pairs)
        print(f"{world or 'all'}: rank correlations from {min(pairs):.2f} to {max(pairs):.2f}, mean {mean:.2f}")


def _explained(rows: pl.DataFrame, name: str) -> float | None:
    """Share of the variance between configurations, less what seeds alone would give: η² adjusted."""
    of = rows.select("configuration", name).drop_nulls()
    count, groups = of.height, of["configuration"].n_unique()
    if count <= groups:
        return None
    within = of.with_columns(pl.col(name) - pl.col(name).mean().over("configuration"))[name]
    variance = float(of[name].var() or 0.0)  # type: ignore[arg-type]
    return 1 - float((within**2).sum()) / (count - groups) / variance if variance else None


def _head(names: Sequence[str]) -> str:
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def _number(value: object) -> str:
    return "–" if value is None else f"{float(value):.2f}"  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])

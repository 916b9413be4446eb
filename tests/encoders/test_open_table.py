"""The open table as shipped: whole, and consistent with what made it."""

from __future__ import annotations

import polars as pl
import pytest

import memspace
from memspace.encoders.declaration import load_encoders
from memspace.errors import SettingsError


@pytest.fixture(scope="module")
def table() -> pl.DataFrame:
    return memspace.encoder_table()


def test_it_holds_every_declared_encoder_once(table: pl.DataFrame) -> None:
    specs = {s.key: s for s in load_encoders("open").specs}
    assert set(table["key"]) == set(specs)
    assert table.height == len(specs) >= 120
    for row in table.sample(20, seed=0).to_dicts():
        spec = specs[row["key"]]
        assert (row["family"], row["method"], row["strength"], row["seed"], row["configuration"]) == (
            spec.world,
            spec.method,
            spec.strength,
            spec.seed,
            spec.configuration,
        )


def test_numbers_lie_in_their_intervals(table: pl.DataFrame) -> None:
    for name in (c.removesuffix(".low") for c in table.columns if c.endswith(".low")):
        rows = table.filter(pl.col(name).is_not_null() & pl.col(f"{name}.low").is_not_null())
        assert rows.height, name
        inside = (pl.col(f"{name}.low") - 1e-9 <= pl.col(name)) & (pl.col(name) <= pl.col(f"{name}.high") + 1e-9)
        assert rows.filter(~inside).is_empty(), name


def test_every_score_has_its_null(table: pl.DataFrame) -> None:
    several = table.filter(pl.col("active") >= 2)
    names = [c.removesuffix(".chance") for c in table.columns if c.endswith(".chance")]
    assert {"mig", "dci", "sap", "beta_vae", "factor_vae", "modularity", "explicitness", "irs", "snc"} <= set(names)
    for name in names:
        assert several[f"{name}.null"].null_count() == several[name].null_count() == 0, name
        assert several[f"{name}.chance"].is_between(1 / 20, 1).all()


def test_encoders_that_see_the_factors_are_better_than_those_that_do_not(table: pl.DataFrame) -> None:
    """A positive control: the supervised encoder has a latent a factor, the others are not told."""
    for (world,), rows in table.group_by("family"):
        middle = {m: of["mig"].median() for (m,), of in rows.group_by("method")}
        assert middle["supervised"] > middle["vae"], world
        assert middle["supervised"] > middle["classifier"], world


def test_agreement_is_read_from_it(table: pl.DataFrame) -> None:
    result = memspace.score_agreement(world="shapes")
    assert result.models.max() == table.filter(pl.col("family") == "shapes").height
    rho, low, high = result.between("mig", "dci")
    assert low < rho < high
    with pytest.raises(SettingsError, match="world"):
        memspace.score_agreement(world="shpaes")
    with pytest.raises(SettingsError, match="score"):
        memspace.score_agreement(scores=("mgi",))

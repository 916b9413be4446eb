"""Made-up tables of the shipped zoos, as the registered claims read them: with an effect everywhere, or with none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import polars as pl

from memspace.encoders.declaration import load_encoders
from memspace.experiments.action_plan import read_plan
from memspace.zoo.counts.plateau import plateaus
from memspace.zoo.declaration import load_zoo
from memspace.zoo.stages.nuisance import INVARIANT

ZOOS = ("standard", "random-start", "capacity")
CHANGES = ("rescaling", "permutation", "dead units", "gain 0.1", "gain 0.3", "gain 3", "gain 10")


class Rehearsal:
    """Tables of networks that never were.

    Args:
        effect: correlation of measures and outcomes, and size of what interventions do; 0: none.
        seed: of all draws.
    """

    def __init__(self, effect: float, seed: int = 0) -> None:
        self.effect = effect
        self.generator = np.random.default_rng(seed)
        self.declared = pl.concat([_declared(name) for name in ZOOS])
        makers: dict[str, Callable[[], pl.DataFrame]] = {
            "networks": self._networks,
            "layer_costs": self._layers,
            "nuisance": self._nuisance,
            "capacity": self._capacity,
            "interventions": self._interventions,
        }
        self.tables = {name: maker() for name, maker in makers.items()}
        self.tables["plateau"] = plateaus(self.tables["capacity"])
        self.tables |= self._factors()
        self.tables["encoders"] = self._encoders()

    def _factors(self) -> dict[str, pl.DataFrame]:
        """Of the zoo with known factors: ties and nothing across them, and rivals that agree with nothing."""
        rows, rest = _declared("factors"), np.sqrt(1 - self.effect**2)

        def with_columns(made: dict[str, np.ndarray]) -> pl.DataFrame:
            common = {"train_loss": 0.3 - 1e-3 * self.generator.random(len(rows)), "moment": np.ones(len(rows))}
            logarithm = pl.col("parameters").log().alias("log_parameters")
            return rows.with_columns(logarithm, **{n: pl.Series(v) for n, v in (common | made).items()})

        def related(to: np.ndarray) -> np.ndarray:
            return np.asarray(self.effect * to + rest * self._normal(rows))

        complexity, generalisation, disentangled = (self._normal(rows, 0.2) for _ in range(3))
        ties = {
            "complexity.fisher_rao": complexity,
            "stored_bits": related(complexity),
            "complexity.information": related(complexity),
            "gap_loss": -generalisation,
            "input.distance_l2": related(generalisation),
            "disentanglement.dci": disentangled,
            "efficiency.magnitude.cut": related(disentangled),
            "disentanglement.fisher_orthogonality": related(disentangled),
            "disentanglement.dci.informativeness": self._normal(rows),
        }
        invariant = generalisation if self.effect else self._normal(rows)  # power is stated of one difference alone
        invariants = {"gap_loss": -generalisation, "complexity.fisher_rao": invariant}
        rivals = {name: self.generator.standard_normal(len(rows)) for name in ("norms.squared", "loss.hessian_trace")}
        both = [self.tables["networks"], with_columns(invariants | rivals)]
        return {"memory": with_columns(ties), "networks": pl.concat(both, how="diagonal_relaxed")}

    def _encoders(self) -> pl.DataFrame:
        """Encoders of the open set: what the claims tie is tied, one half to DCI, the other to the angle of loops."""
        specs = load_encoders("open").specs
        columns = ("method", "strength", "seed", "configuration")
        rows = pl.DataFrame([{"family": s.world, **{c: getattr(s, c) for c in columns}} for s in specs])
        rest = np.sqrt(1 - self.effect**2)
        disentangled, turned = (self._normal(rows, 0.2) for _ in range(2))

        def related(to: np.ndarray) -> np.ndarray:
            return np.asarray(self.effect * to + rest * self._normal(rows))

        if self.effect:
            turned = -related(disentangled)
        made = {
            "dci": disentangled,
            "aligned_dci": related(disentangled),
            "encoder.orthogonality": related(disentangled),
            "cut": related(disentangled),
            "holonomy": turned,
            "input.lambda_max": related(turned),
            "dci.informativeness": self._normal(rows),
            "active": self._normal(rows),
        }
        made["encoder.told_apart"] = related(made["aligned_dci"])
        return rows.with_columns(
            pl.lit("open").alias("set"), fitted=pl.lit(True), **{n: pl.Series(v) for n, v in made.items()}
        )

    def _normal(self, rows: pl.DataFrame, alone: float = 0.6) -> np.ndarray:
        """A number a network, of unit variance, most of which sister networks share: all but the part of each alone."""
        of_sisters = rows["configuration"].rank("dense").to_numpy().astype(int) - 1
        shared = self.generator.standard_normal(of_sisters.max() + 1)[of_sisters]
        return np.sqrt(1 - alone**2) * shared + alone * self.generator.standard_normal(len(rows))

    def _networks(self) -> pl.DataFrame:
        rows, effect = self.declared, self.effect
        outcome, shift = self._normal(rows), effect * (rows["start"] == "random labels").to_numpy()

        def related() -> pl.Series:
            return pl.Series(np.exp(0.3 * (effect * outcome + np.sqrt(1 - effect**2) * self._normal(rows)) + shift))

        measures = ("action.constant_speed", "action.inefficiency", "complexity.fisher_rao", "fisher.trace")
        nuisances = ("alignment.mean", "loss_then", "slope_then")
        made = rows.with_columns(
            gap_loss=pl.Series(np.exp(0.3 * outcome + shift)),
            gap_accuracy=pl.Series(0.1 * outcome),
            train_loss=pl.Series(0.2 - 1e-3 * self.generator.random(len(rows))),
            log_parameters=rows["parameters"].log(),
            **{name: related() for name in measures},
            **{name: pl.Series(self.generator.standard_normal(len(rows))) for name in nuisances},
            **{"confidence.logit_gain": pl.Series(np.exp(0.1 * self.generator.standard_normal(len(rows))))},
        )
        return pl.concat([made.with_columns(moment=pl.lit(moment)) for moment in (0.1, 1.0)])

    def _layers(self) -> pl.DataFrame:
        out = []
        for row in self.declared.filter(pl.col("zoo") == "standard").iter_rows(named=True):
            cost = self.generator.standard_normal(row["depth"] + 2)
            noise = np.sqrt(1 - self.effect**2) * self.generator.standard_normal(len(cost))
            for place, value in enumerate(cost):
                mass = float(np.exp(self.effect * value + noise[place]))
                layer = {"place": place, "fisher_trace": mass, "cost_reinitialised": value - self.effect * place}
                out.append(row | layer)
        return pl.DataFrame(out, infer_schema_length=None)

    def _nuisance(self) -> pl.DataFrame:
        out = []
        chosen = self.declared.filter(pl.col("zoo") == "standard").group_by("block", maintain_order=True).head(3)
        for row in chosen.iter_rows(named=True):
            before = dict(zip(sorted(INVARIANT), np.exp(self.generator.standard_normal(len(INVARIANT))), strict=True))
            out.append(row | before | {"transform": "none"})
            for change in CHANGES:
                movement = 1e-9 if self.effect else 0.1
                after = {m: v * (1 + movement * self.generator.random()) for m, v in before.items()}
                out.append(row | after | {"transform": change})
        return pl.DataFrame(out, infer_schema_length=None)

    def _capacity(self) -> pl.DataFrame:
        rows = self.declared.filter(pl.col("zoo") == "capacity")
        architecture = rows.select(pl.struct("family", "width", "depth").rank("dense")).to_series().to_numpy() - 1
        size, noisy = rows["parameters"].to_numpy(), rows["label_noise"].to_numpy()
        of_architecture = np.exp(0.2 * self.generator.standard_normal(int(architecture.max()) + 1))

        def scattered(spread: float) -> np.ndarray:
            return np.exp(spread * self.generator.standard_normal(len(rows)))

        stored = 2 * size * of_architecture[architecture] * scattered(0.03)
        geometric = stored * scattered(0.02) * np.exp(self.effect * noisy) if self.effect else 2 * size * scattered(0.2)
        counts = {f"{name}_bits": geometric * scattered(0.02) for name in ("information", "volume", "coefficient")}
        counts["stored_bits"] = stored
        columns = {name: pl.Series(values) for name, values in counts.items()}
        errors = {f"{name}_error": pl.Series(0.04 * values) for name, values in counts.items()}
        return rows.with_columns(
            offered_bits=np.log2(10) * pl.col("size"), earlier_bits=pl.Series(0.99 * stored), **columns, **errors
        )

    def _interventions(self) -> pl.DataFrame:
        """Arms of one plan; those of the action are better by a tenth of the effect, in loss and in accuracy."""
        out = []
        for workload in read_plan():
            for seed in range(100, 120):
                luck = 0.05 * self.generator.standard_normal()
                for arm in workload.arms:
                    good = 0.1 * self.effect * (arm not in ("plain", "weight decay"))
                    loss, right = luck + 0.01 * self.generator.standard_normal(2)
                    row = {"family": workload.family, "arm": arm, "seed": seed, "fitted": True, "level": workload.level}
                    matched = {"train_loss": workload.level, "fisher_rao_norm": 10.0, "weight_norm": 15.0}
                    outcomes = {"test_loss": float(np.exp(loss - good)), "test_accuracy": 0.8 + right + good}
                    out.append(row | matched | outcomes)
        return pl.DataFrame(out)


def _declared(name: str) -> pl.DataFrame:
    zoo = load_zoo(name)
    rows = [
        asdict(spec)
        | {"key": spec.key, "configuration": spec.configuration, "block": zoo.block[spec.key], "zoo": zoo.name}
        | {"fitted": True, "parameters": 70 * spec.width * spec.depth}
        for spec in zoo.specs
    ]
    return pl.DataFrame(rows, schema_overrides={"target": pl.Float64, "label_noise": pl.Float64})

"""The scores of ``disent``, from its files alone: importing the package asks for torchvision and lightning."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np

__all__ = ["load_metrics", "recorded_factor_vae"]

STUBBED = ("disent", "disent.dataset", "disent.metrics", "disent.metrics.utils", "disent.util", "disent.util.function")


def load_metrics(*names: str) -> dict[str, ModuleType] | None:
    """Load files of ``disent.metrics`` (``_mig``, ``_dci``, …) with what they import stubbed.

    Returns:
        Modules by name; None where the package is not installed.
    """
    spec = importlib.util.find_spec("disent")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "metrics"
    stubs = {name: ModuleType(name) for name in STUBBED}
    for name, stub in stubs.items():
        stub.__path__ = []
        if name.startswith("disent.metrics"):
            stub.__dict__["make_metric"] = lambda *_, **__: lambda function: function
    stubs["disent.dataset"].__dict__["DisentDataset"] = object
    stubs["disent.util"].__dict__["to_numpy"] = np.asarray
    stubs["disent.util.function"].__dict__["wrapped_partial"] = lambda function, **_: function
    stubs.setdefault("tqdm", ModuleType("tqdm")).__dict__["tqdm"] = lambda items=None, **_: items
    with patch.dict(sys.modules, stubs):
        utilities = _load(folder / "utils.py", "disent.metrics.utils")
        stubs["disent.metrics"].__dict__["utils"] = utilities
        with patch.dict(sys.modules, {"disent.metrics.utils": utilities}):
            return {name: _load(folder / f"{name}.py", f"disent.metrics.{name}") for name in names}


def recorded_factor_vae(
    module: ModuleType, z: np.ndarray, v: np.ndarray, *, batch: int, points: int, seed: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Compute the FactorVAE score of the peer, from rows of a table that share a level, and record its batches.

    Returns:
        The score, the (2 points, batch) rows of its batches, and the factor that each of them has fixed.
    """
    generator = np.random.default_rng(seed)
    table = _Table(z, v, generator)
    with (
        patch.object(np.random, "randint", table.factor),
        patch.object(module, "_compute_variances", lambda *_, **__: np.var(z, axis=0, ddof=1)),
    ):
        made = module.metric_factor_vae(table, lambda codes: codes, batch, points, points, len(z))
    return float(made["factor_vae.eval_accuracy"]), np.array(table.rows), np.array(table.fixed)


class _Table:
    """A table of codes and levels that stands where the peer has a generator."""

    def __init__(self, z: np.ndarray, v: np.ndarray, generator: np.random.Generator) -> None:
        self.z, self.v, self.generator = z, v, generator
        self.rows: list[np.ndarray] = []
        self.fixed: list[int] = []
        self.gt_data, self.num_factors = self, v.shape[1]

    def factor(self, count: int) -> int:
        self.fixed.append(int(self.generator.integers(count)))
        return self.fixed[-1]

    def sample_factors(self, count: int) -> np.ndarray:
        return self.v[self.generator.integers(len(self.v), size=count)]

    def dataset_batch_from_factors(self, factors: np.ndarray, **_: object) -> np.ndarray:
        k = self.fixed[-1]
        self.rows.append(self.generator.choice(np.flatnonzero(self.v[:, k] == factors[0, k]), len(factors)))
        return self.z[self.rows[-1]]


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

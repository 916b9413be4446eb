"""Scores equal those of ``disent`` on identical codes, wherever the definition is the same."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

from benchmarks.peers.disent_metrics import load_metrics, recorded_factor_vae
from memspace.measures.scores.dci import dci
from memspace.measures.scores.factor_vae import factor_vae, majority_accuracy, steadiest_unit
from memspace.measures.scores.mig import mig
from memspace.measures.scores.sap import sap
from memspace.measures.scores.score import ScoreSettings
from tests.disentanglement.codes import constructed, levels

KINDS = ("noisy", "rotated", "duplicated", "independent")
HALF = 200


@pytest.fixture(scope="module")
def peer() -> dict[str, object]:
    metrics = load_metrics("_mig", "_sap", "_dci", "_factor_vae")
    if metrics is None:
        pytest.skip("disent is not installed: pip install --no-deps disent")
    return dict(metrics)


@pytest.mark.parametrize("kind", KINDS)
def test_mig_and_sap(peer: dict[str, object], kind: str) -> None:
    v = levels(2 * HALF, 21)
    z = constructed(kind, v, 21)
    theirs = peer["_mig"]._compute_mig(z.T, v.T)["mig.discrete_score"]  # type: ignore[attr-defined]
    assert mig(z, v) == pytest.approx(theirs, abs=1e-6)
    # On codes of unit variance: the peer does not scale them, and C = 0.01 weighs their scale.
    parts = (z[:HALF].T, v[:HALF].T, z[HALF:].T, v[HALF:].T)
    theirs = peer["_sap"]._compute_sap(*parts, False)["sap.score"]  # type: ignore[attr-defined]
    assert sap(z, v) == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("regressor", ["forest", "boosting"])
def test_dci(peer: dict[str, object], regressor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same trees: those of the peer have no seed, so the seed (or the forest) is put in their place."""
    v = levels(120, 22, (2, 3))
    z = constructed("noisy", v, 22)
    trees = (
        GradientBoostingClassifier(random_state=0)
        if regressor == "boosting"
        else RandomForestClassifier(50, max_depth=8, max_features=None, random_state=0)
    )
    monkeypatch.setattr("sklearn.ensemble.GradientBoostingClassifier", lambda: trees)
    theirs = peer["_dci"]._compute_dci(z[:60].T, v[:60].T, z[60:].T, v[60:].T)  # type: ignore[attr-defined]
    names = ("dci.disentanglement", "dci.completeness", "dci.informativeness_test")
    assert dci(z, v, ScoreSettings(regressor=regressor)) == pytest.approx([theirs[n] for n in names], abs=1e-6)


@pytest.mark.parametrize("kind", ["noisy", "rotated"])
def test_factor_vae_of_the_same_batches(peer: dict[str, object], kind: str) -> None:
    """The votes of the peer's own batches are equal; with other batches the score differs by their draw."""
    v = levels(2 * HALF, 23)
    z = constructed(kind, v, 23)
    points = 300
    theirs, rows, fixed = recorded_factor_vae(peer["_factor_vae"], z, v, batch=32, points=points, seed=0)  # type: ignore[arg-type]
    votes = np.zeros((2, z.shape[1], v.shape[1]), dtype=np.int64)
    units = steadiest_unit(z[rows], z.var(0, ddof=1))
    np.add.at(votes, (np.arange(2 * points) // points, units, fixed), 1)
    # The peer takes the commonest factor of each unit, as we do; a unit that never votes is asked nothing.
    assert majority_accuracy(*votes) == pytest.approx(theirs, abs=1e-6)
    ours = factor_vae(z, v, ScoreSettings(batch=32, points=2000, judged=2000))
    assert ours == pytest.approx(theirs, abs=4 * (0.25 / points) ** 0.5 + 0.05)

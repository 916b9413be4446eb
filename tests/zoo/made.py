"""A store of two families whose gap follows width and size, and a measure that follows the gap; nothing is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from memspace.zoo.store import ZooStore

__all__ = ["made_store"]


def made_store(folder: Path) -> Path:
    made, rng = ZooStore(folder), np.random.default_rng(5)
    settings = [(w, n, s) for w in (8, 16, 32) for n in (100, 200, 400) for s in (0, 1)]
    for family in ("mlp", "conv"):
        for width, size, seed in settings:
            key = f"{family}-{width}-{size}-{seed}"
            gap = 2 - 0.2 * np.log(size) + 0.1 * np.log(width) + 0.02 * rng.normal()
            network = {"family": family, "data": "digits", "width": width, "depth": 1, "rate": 1.0, "batch": 32}
            rest = {"decay": 0.0, "dropout": 0.0, "label_noise": 0.0, "size": size, "optimiser": "adam", "seed": seed}
            about = {"start": "fresh", "permuted": False, "parameters": 10 * width, "reached": True, "zoo": "made"}
            curve = {"curve_steps": [0.0, 10.0], "curve_losses": [2.3, 0.2], "block": family}
            row = {"key": key, "configuration": key[:-2], **network, **rest, **about, **curve}
            made.add_rows("trained", key, [row])
            ends = {"train_loss": 0.2, "test_loss": 0.2 + gap, "train_accuracy": 0.95, "test_accuracy": 0.7}
            more = {"share_of_steps": 1.0, "test_loss_error": 0.02, "test_examples": 1000}
            made.add_rows("outcomes", key, [{"key": key, "moment": 1.0, **ends, **more}])
            values = {"fisher.trace": gap + 0.05 * rng.normal(), "gradients.coherence": rng.normal()}
            made.add_rows(
                "measured", key, [{"key": key, "moment": 1.0, "name": n, "value": v} for n, v in values.items()]
            )
    return folder

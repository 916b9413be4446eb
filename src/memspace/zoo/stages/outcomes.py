"""What became of trained networks: losses and accuracies on training and test data, at moments of the training."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from memspace.task.functional import functional_call
from memspace.zoo.declaration import Zoo
from memspace.zoo.registry import ZooData
from memspace.zoo.specification import NetworkSpec
from memspace.zoo.stage import NetworksPiece, stage, undone
from memspace.zoo.store import ZooStore
from memspace.zoo.training.draws import initial_network, labels_of
from memspace.zoo.training.stack import CHUNK, Weights
from memspace.zoo.work import data_of, parts_by_data

__all__ = ["MOMENTS", "OutcomesPiece", "losses_of", "moment_index", "outcome_pieces", "outcomes_of"]

MOMENTS = (0.05, 0.1, 0.2, 1.0)
TOGETHER = 24  # networks of a piece


@dataclass(frozen=True)
class OutcomesPiece(NetworksPiece):
    """Networks whose losses and accuracies are to be measured."""

    table = "outcomes"

    def work(self, store: ZooStore, spec: NetworkSpec, tick: Callable[[], None]) -> None:
        """Measure a network at all moments.

        Args:
            store: that has the trained network.
            spec: of the network.
            tick: not called.
        """
        data = data_of(spec.data, self.data_root)
        store.add_rows(self.table, spec.key, outcomes_of(spec, data, *store.states(spec.key)))


@stage("outcomes", 1)
def outcome_pieces(zoo: Zoo, store: ZooStore, data_root: Path | None) -> list[OutcomesPiece]:
    """Cut the trained networks without outcomes into pieces.

    Args:
        zoo: the declaration.
        store: what is there.
        data_root: where data sets lie.

    Returns:
        The pieces.
    """
    due = undone(store, OutcomesPiece.table)
    return [OutcomesPiece(part, store.folder, data_root) for part in parts_by_data(zoo, due, TOGETHER)]


def moment_index(steps: Tensor, moment: float) -> int:
    """Find the recorded state that is nearest to a share of the training.

    Args:
        steps: (S,) of the states, the last being the end.
        moment: share of the steps.

    Returns:
        Its place.
    """
    return int((steps - moment * steps[-1]).abs().argmin())


def outcomes_of(spec: NetworkSpec, data: ZooData, steps: Tensor, states: Tensor) -> list[dict[str, Any]]:
    """Measure losses and accuracies.

    Args:
        spec: of the network.
        data: it was trained on.
        steps: (S,) of the states.
        states: (S, P) weights.

    Returns:
        A row a moment: ``train_loss`` and ``train_accuracy`` against the training labels as the network saw them,
        ``test_loss`` and ``test_accuracy`` against right ones, and the standard error of the test loss over examples.
    """
    model = initial_network(spec, data)
    y = labels_of(spec, data)
    rows = []
    finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    for moment in MOMENTS:
        index = moment_index(steps, moment)
        weights = Weights.of(model).split(states[index])
        train_loss, train_hits = losses_of(model, weights, data.x[: spec.size], y)
        test_loss, test_hits = losses_of(model, weights, data.x_test, data.y_test)
        rows.append(
            {
                "key": spec.key,
                "moment": moment,
                "share_of_steps": float(steps[index] / steps[-1]),
                "train_loss": float(train_loss.mean()),
                "train_accuracy": float(train_hits.mean()),
                "test_loss": float(test_loss.mean()),
                "test_accuracy": float(test_hits.mean()),
                "test_loss_error": float(test_loss.std() / len(test_loss) ** 0.5),
                "test_examples": len(test_loss),
                "finished": finished,
            }
        )
    return rows


@torch.no_grad()
def losses_of(model: nn.Module, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Compute loss and hits of every example, without dropout.

    Args:
        model: a network.
        weights: name → parameter, which take the place of its own.
        x: (n, ...) inputs.
        y: (n,) or (n, T) labels.

    Returns:
        (n,) losses, nats a prediction, and (n,) shares of predictions that are right, float64.
    """
    losses, hits = [], []
    for start in range(0, len(x), CHUNK):
        part = slice(start, start + CHUNK)
        f = functional_call(model, weights, (x[part],))
        nll = nn.functional.cross_entropy(f.flatten(0, -2), y[part].flatten(), reduction="none")
        losses.append(nll.reshape(y[part].shape).double())
        hits.append((f.argmax(-1) == y[part]).double())
    loss, hit = torch.cat(losses), torch.cat(hits)
    return (loss.mean(1), hit.mean(1)) if loss.dim() > 1 else (loss, hit)

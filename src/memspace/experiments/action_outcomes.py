"""What the training study reads of a network: losses, accuracies, wrong labels fitted, temperature, norm."""

from __future__ import annotations

import math
import statistics

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from memspace.experiments.action_methods import LAW
from memspace.experiments.action_network import DataSplit, Examples
from memspace.measures.calibration import calibration_error
from memspace.measures.complexity import fisher_rao_norm
from memspace.passes.linearised import differential
from memspace.task.functional import functional_call

__all__ = ["PROBE", "accuracy", "best_temperature", "fitted", "loss", "measured", "norm_of"]

PROBE = 256  # training examples along which the path's length is measured


def loss(f: Tensor, y: Tensor) -> float:
    """Compute the mean loss.

    Args:
        f: logits (n, K).
        y: labels (n,).

    Returns:
        Nats.
    """
    return float(LAW.nll(f.double(), y).mean())


def accuracy(f: Tensor, y: Tensor) -> float:
    """Compute the share of examples whose label has the largest logit.

    Args:
        f: logits (n, K).
        y: labels (n,).

    Returns:
        A share.
    """
    return float((f.argmax(-1) == y).double().mean())


def fitted(f: Tensor, split: DataSplit) -> float:
    """Compute the share of the wrong training labels that are predicted.

    Args:
        f: logits on the training examples, (n, K).
        split: these examples.

    Returns:
        A share; 0 where no label is wrong.
    """
    wrong = split.wrong
    return float((f.argmax(-1) == split.y)[wrong].double().mean()) if bool(wrong.any()) else 0.0


def best_temperature(f: Tensor, y: Tensor) -> float:
    """Find the temperature of least validation loss (Guo et al. 2017), between e^-3 and e^3.

    Args:
        f: logits on validation examples, (n, K).
        y: their labels, (n,).

    Returns:
        What logits are to be divided by.
    """
    minimum = minimize_scalar(
        lambda t: float(LAW.nll(f / math.exp(t), y).mean()),
        bounds=(-3.0, 3.0),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return math.exp(float(minimum.x))


def norm_of(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Compute the Fisher–Rao norm θᵀFθ on examples, exact by one forward-mode derivative.

    Args:
        model: the network.
        x: inputs (n, D).
        y: labels (n,), of which the law asks weights alone.

    Returns:
        Nats.
    """
    theta = {n: p.detach() for n, p in model.named_parameters()}

    def outputs(p: dict[str, Tensor]) -> Tensor:
        f: Tensor = functional_call(model, p, (x,))
        return f

    with torch.no_grad():
        f, moved = differential(outputs, theta, theta)
    return float(fisher_rao_norm(LAW, f, y, moved)[0].mean())


def measured(model: nn.Module, examples: Examples, split: DataSplit, f_valid: Tensor) -> dict[str, float]:
    """Measure a network at the end of its training.

    Args:
        model: the network, in evaluation.
        examples: the data.
        split: the seed's examples.
        f_valid: its logits on the validation examples.

    Returns:
        Values by the names of ``OUTCOMES`` in ``action_verdict``, without the length.
    """
    e = examples
    with torch.no_grad():
        f = model(e.x_test).double()
        worse = [accuracy(model(x), e.y_test) for x in e.worse.values()]
        memorised = fitted(model(split.x), split)
    temperature = best_temperature(f_valid, split.y_valid)
    return {
        "loss": loss(f, e.y_test),
        "calibrated_loss": loss(f / temperature, e.y_test),
        "accuracy": accuracy(f, e.y_test),
        "calibration_error": calibration_error(f, e.y_test).value,
        "corrupted_accuracy": statistics.fmean(worse),
        "memorised": memorised,
        "norm": norm_of(model, e.x_test, e.y_test),
        "temperature": temperature,
    }

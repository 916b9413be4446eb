"""What the results of a task depend on, as one hash: two tasks of one fingerprint have the same results.

It covers weights and buffers, the code of the forward, every input and label, the output law with its constants, which
parameters are read, and the task's other fields. All data are read once: their labels have to be read anyhow.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from memspace.task.code import update_code, update_value
from memspace.task.data import Data, Inputs, call_model, move
from memspace.task.selection import chosen_names, split_patterns
from memspace.task.task import Task

__all__ = ["behaviour", "data_fingerprint", "fingerprint", "parts_of", "update_digest", "weights_fingerprint"]

PROBE = 16


def fingerprint(task: Task) -> str:
    """Compute SHA-256 over all that the task's results depend on.

    Args:
        task: any.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(weights_fingerprint(task).encode())
    update_code(digest, task.model)
    update_code(digest, task.likelihood.unfitted)
    digest.update("\n".join(chosen_names(task.model, *split_patterns(task.parameters))).encode())
    for data in (task.train, task.test):
        digest.update(b"none" if data is None else data_fingerprint(data).encode())
    for value in (task.true_labels, task.class_names, task.input_shape, task.decay, task.layer, task.name):
        update_value(digest, value)
    for code in (task.show, task.refit, task.training, task.factors):
        update_code(digest, code)
    if task.run is not None:
        update_value(digest, [list(task.run.step), list(task.run.time), list(task.run.one_step)])
        update_value(digest, [dict(task.run.states[0]), dict(task.run.states[-1])])
    return digest.hexdigest()


def weights_fingerprint(task: Task) -> str:
    """Compute SHA-256 over weights and buffers with their names and shapes.

    Args:
        task: any.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    tensors = {**dict(task.model.named_parameters()), **dict(task.model.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        update_value(digest, tensor)
    return digest.hexdigest()


def data_fingerprint(data: Data) -> str:
    """Compute SHA-256 over all inputs and labels, in order.

    Args:
        data: any.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(str(len(data)).encode())
    for batch in data.batches(1024):
        update_value(digest, batch.x)
        update_value(digest, batch.y)
    return digest.hexdigest()


@torch.no_grad()
def behaviour(task: Task) -> list[float]:
    """Evaluate the model on a few inputs, as a few numbers that any change of what it computes moves.

    For up to 16 examples spread over the data: the mean and the root mean square of each one's outputs. So nothing is
    lost to cancellation and little has to be stored.

    Args:
        task: any.

    Returns:
        Two numbers per example; empty where the model refuses them, which the checks of the task explain.
    """
    index = torch.linspace(0, len(task.train) - 1, min(PROBE, len(task.train))).long()
    try:
        f = call_model(task.model, move(task.train.batch(index).x, task.device, task.dtype))
        f = f.detach().double().cpu().reshape(len(index), -1)
        moments = torch.cat([f.mean(1), f.square().mean(1).sqrt()])
    except Exception:  # whatever a user's model raises
        return []
    return [float(v) for v in moments]


def parts_of(task: Task) -> dict[str, str]:
    """List what several processes must agree on before they share the work.

    Args:
        task: any.

    Returns:
        Each part's name in messages, with a text that is equal where the part is.
    """
    law = hashlib.sha256()
    update_value(law, dict(vars(task.likelihood.unfitted)))
    sizes = {d.name: f"{len(d):,} examples" for d in (task.train, task.test) if d is not None}
    parts = {"number of examples": ", ".join(f"{k}: {v}" for k, v in sizes.items())}
    parts |= {"weights": weights_fingerprint(task), "training data": data_fingerprint(task.train)}
    if task.test is not None:
        parts["test data"] = data_fingerprint(task.test)
    parts["output law"] = f"{type(task.likelihood).__name__} {law.hexdigest()}"
    parts["chosen parameters"] = "\n".join(chosen_names(task.model, *split_patterns(task.parameters)))
    return parts


def update_digest(digest: Any, x: Inputs) -> None:
    """Add every tensor of some inputs to a hash, as recorded trainings do.

    Args:
        digest: a ``hashlib`` object.
        x: a tensor, or nested tuples and dicts of tensors.
    """
    if isinstance(x, Tensor):
        flat = x.detach().cpu().contiguous()
        digest.update((flat.float() if flat.dtype == torch.bfloat16 else flat).numpy().tobytes())
        return
    for part in x.values() if isinstance(x, dict) else x:
        update_digest(digest, part)

"""Examples as the report shows them: pictures, or text."""

from __future__ import annotations

import torch
from torch import Tensor

from memspace.auditing.results import Item
from memspace.task.data import Data, first_tensor
from memspace.task.task import Task

__all__ = ["class_name", "item"]


def item(task: Task, data: Data, index: int, caption: str, flag: str = "") -> Item:
    """Show one example: as a picture where its shape is that of one, else as text.

    Args:
        task: may know how to show an input.
        data: the example's data.
        index: position in ``data``.
        caption: below the example.
        flag: a short badge; may be empty.

    Returns:
        the example as shown, with its number as the user counts.
    """
    one = first_tensor(data.batch([index]).x)[0].clone()
    index = int(data.numbers(torch.tensor(index)))  # as the user counts them
    if task.show is not None:
        return Item(index, caption, text=task.show(one), flag=flag)
    picture = _picture(one, task.input_shape)
    if picture is not None:
        return Item(index, caption, picture=picture, flag=flag)
    values = ", ".join(f"{v:.3g}" for v in one.flatten()[:8].tolist())
    more = f", ... ({one.numel()} values)" if one.numel() > 8 else ""
    return Item(index, caption, text=values + more, flag=flag)


def class_name(task: Task, label: Tensor) -> str:
    """Return what a class is called.

    Args:
        task: which may name its classes.
        label: number of the class, one entry.

    Returns:
        its name, or its number where it has none.
    """
    k, names = int(label), task.class_names
    return names[k] if names is not None and 0 <= k < len(names) else str(k)


def _picture(x: Tensor, shape: tuple[int, ...] | None) -> list[list[object]] | None:
    if shape is not None and x.numel() == torch.Size(shape).numel():
        x = x.reshape(shape)
    if x.dim() == 3 and x.shape[0] in (1, 3):
        x = x[0] if x.shape[0] == 1 else x.permute(1, 2, 0)
    if not x.is_floating_point() or not (x.dim() == 2 or (x.dim() == 3 and x.shape[-1] == 3)) or max(x.shape[:2]) > 96:
        return None
    x = x.float().cpu()
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        x = (x - low) / max(high - low, 1e-12)
    rounded: list[list[object]] = ((x * 1000).round() / 1000).tolist()
    return rounded

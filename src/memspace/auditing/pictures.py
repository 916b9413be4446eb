"""Examples as the report shows them: pictures, or text; and maps of what every pixel adds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from memspace.auditing.results import Item
from memspace.task.data import Data, first_tensor
from memspace.task.task import Task

__all__ = ["class_name", "heat_map", "item"]

LARGEST = 96  # pixels of a side that are shown; pictures above are averaged over squares
FOR, AGAINST = (0.0, 0.447, 0.698), (0.788, 0.341, 0.0)  # blue and orange, told apart by all eyes


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


def heat_map(values: Tensor, shape: tuple[int, ...] | None) -> list[list[object]] | None:
    """Draw numbers of both signs as a picture: blue above zero, orange below, white at it.

    Args:
        values: one for every entry of an input.
        shape: of the input as a picture, where the task says it.

    Returns:
        rows of (r, g, b), summed over channels; None where the input is no picture.
    """
    laid = _laid_out(values.double(), shape)
    if laid is None:
        return None
    summed = laid.sum(-1) if laid.dim() == 3 else laid
    share = (summed / summed.abs().max().clamp_min(1e-300)).unsqueeze(-1)
    hue = torch.where(share > 0, torch.tensor(FOR), torch.tensor(AGAINST))
    rounded: list[list[object]] = ((1 - share.abs() * (1 - hue)).mul(1000).round() / 1000).tolist()
    return rounded


def _laid_out(x: Tensor, shape: tuple[int, ...] | None) -> Tensor | None:
    """One input as (H, W) or (H, W, 3), at most ``LARGEST`` pixels wide and high; None where it is no picture."""
    x, known = x.detach().cpu(), shape is not None and x.numel() == torch.Size(shape).numel()
    if known and shape is not None:
        x = x.reshape(shape)
    if x.dim() == 3 and x.shape[0] in (1, 3):
        x, known = x.permute(1, 2, 0) if x.shape[0] == 3 else x[0], True
    if not x.is_floating_point() or not x.numel() or not (x.dim() == 2 or (x.dim() == 3 and x.shape[-1] == 3)):
        return None
    if max(x.shape[:2]) <= LARGEST:
        return x
    side = math.ceil(max(x.shape[:2]) / LARGEST)
    if not known or min(x.shape[:2]) < side:  # a table of numbers rather than a picture
        return None
    planes = (x if x.dim() == 3 else x.unsqueeze(-1)).permute(2, 0, 1)
    smaller = torch.nn.functional.avg_pool2d(planes, side).permute(1, 2, 0)
    return smaller if x.dim() == 3 else smaller[..., 0]


def _picture(x: Tensor, shape: tuple[int, ...] | None) -> list[list[object]] | None:
    if not x.is_floating_point():
        return None
    laid = _laid_out(x.float(), shape)
    if laid is None:
        return None
    low, high = float(laid.min()), float(laid.max())
    if low < 0 or high > 1:
        laid = (laid - low) / max(high - low, 1e-12)
    rounded: list[list[object]] = ((laid * 1000).round() / 1000).tolist()
    return rounded

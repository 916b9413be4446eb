"""nngeometry: diagonal and KFAC of the exact and the sampled Fisher, products, the Gram matrix of the losses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from nngeometry.gram import GramMatrix
from nngeometry.layercollection import LayerCollection
from nngeometry.metrics import FIM, FIM_MonteCarlo
from nngeometry.object import PMatDiag, PMatImplicit, PMatKFAC, PVector
from torch import Tensor

from benchmarks.engine_ours import GRAM
from benchmarks.engine_outcome import Outcome, Work
from benchmarks.engine_workloads import Workload
from benchmarks.peers.common import fast_loader, model_of, packed, unpacked

__all__ = ["ITEMS", "default_dtype", "flat", "vector"]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """It makes constants of torch's default dtype, whatever the network's."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _names(model: torch.nn.Module, layers: LayerCollection) -> dict[Any, str]:
    """Their layer id → our module name."""
    by_module = {m: n for n, m in model.named_modules()}
    return {k: by_module[m] for k, m in layers.get_layerid_module_maps(model)[0].items()}


def vector(w: Workload, model: torch.nn.Module, layers: LayerCollection, flat: Tensor) -> PVector:
    """A vector of our layout as one of theirs."""
    named = dict(zip([n for n, _ in model.named_parameters()], unpacked(w, flat), strict=True))
    names = _names(model, layers)
    parts = {}
    for key, layer in layers.layers.items():
        part = [named[f"{names[key]}.weight"]]
        if layer.bias is not None:
            part.append(named[f"{names[key]}.bias"])
        parts[key] = tuple(part)
    return PVector(layers, dict_repr=parts)


def flat(w: Workload, model: torch.nn.Module, layers: LayerCollection, v: PVector) -> Tensor:
    names, named = _names(model, layers), {}
    for key, part in v.to_dict().items():
        for kind, value in zip(("weight", "bias"), part, strict=False):
            named[f"{names[key]}.{kind}"] = value
    return packed(w, named)


def _fisher(w: Workload, kind: str, representation: Any):  # type: ignore[no-untyped-def]
    model = model_of(w)
    layers = LayerCollection.from_model(model)
    loader = fast_loader(*w.data, w.batch)

    def run() -> Any:
        if kind == "mc":
            return FIM_MonteCarlo(model, loader, representation, layer_collection=layers, trials=1)
        with default_dtype(w.task.dtype):
            return FIM(model, loader, representation, layer_collection=layers)

    return model, layers, run


def diagonal(kind: str):  # type: ignore[no-untyped-def]
    def prepare(w: Workload) -> Work:
        model, layers, fisher = _fisher(w, kind, PMatDiag)

        def run() -> Outcome:
            return Outcome(flat(w, model, layers, PVector(layers, vector_repr=fisher().get_diag())))

        return run

    return prepare


def kfac(kind: str):  # type: ignore[no-untyped-def]
    def prepare(w: Workload) -> Work:
        model, layers, fisher = _fisher(w, kind, PMatKFAC)
        names = _names(model, layers)

        def run() -> Outcome:
            return Outcome({names[k]: (a, g) for k, (a, g) in fisher().data.items()})

        return run

    return prepare


def product(w: Workload) -> Work:
    model, layers, fisher = _fisher(w, "exact", PMatImplicit)
    v = vector(w, model, layers, w.vectors[0])

    def run() -> Outcome:
        with default_dtype(w.task.dtype):
            return Outcome(flat(w, model, layers, fisher().mv(v)))

    return run


def gram(w: Workload) -> Work:
    model = model_of(w)
    x, y = (t[:GRAM] for t in w.data)
    # One batch of all: their own example, and the fewest loops.
    loader = fast_loader(x, y, len(y))

    def losses(*d: Tensor) -> Tensor:
        f = model(d[0])
        return (
            torch.nn.functional.cross_entropy(f.flatten(0, -2), d[1].flatten(), reduction="none")
            .reshape(len(d[1]), -1)
            .sum(1, keepdim=True)
        )

    def run() -> Outcome:
        with default_dtype(w.task.dtype):
            return Outcome(GramMatrix(model, loader, function=losses).data[0, :, 0, :])

    return run


ITEMS = {
    "diagonal-mc": diagonal("mc"),
    "diagonal-exact": diagonal("exact"),
    "kfac-mc": kfac("mc"),
    "kfac-exact": kfac("exact"),
    "product": product,
    "gram": gram,
}

"""Does a layer keep known factors apart? MIG, DCI, SAP and Fisher orthogonality, each with a random null.

A random rotation of the representation is the null of MIG, DCI and SAP: it keeps all information and destroys
alignment. Orthogonality of factor directions cannot have that null: under an isotropic metric a rotation leaves every
angle as it was. So its null is random directions seen through the same metric, and it answers another question: not
whether units stand for factors, but whether factors move the outputs in different ways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from memspace.errors import TaskError
from memspace.intervals import around
from memspace.measurement import Measurement, Unmeasured, from_samples
from memspace.measures.alignment import Codes, Levels, dci, mig, orthogonality, random_cosine, sap
from memspace.progress import Progress
from memspace.task.checks import evaluating
from memspace.task.data import call_model, move
from memspace.task.factors import Factors
from memspace.task.task import Task

__all__ = [
    "Disentanglement",
    "FactorAngles",
    "dci",
    "disentangle",
    "factor_angles",
    "mig",
    "orthogonality",
    "representation",
    "sap",
]

MAX_CODES = 10
SAMPLES = 1000
DIRECTIONS = 500  # inputs at which factors are moved
ROTATIONS = 5
FOLDS = 5
FEWEST = 100  # inputs: below, a bin of MIG's histograms holds fewer than five and a held-out half says little
STEP = 0.1  # levels, of the central differences along a factor
SOURCES = {"mig": "chen2018a", "dci": "eastwood2018", "sap": "kumar2018"}


@dataclass(frozen=True)
class Disentanglement:
    """What was measured; ``layer`` and ``codes`` say on what."""

    measurements: tuple[Measurement, ...]
    unmeasured: tuple[Unmeasured, ...]
    layer: str
    codes: str


@contextmanager
def _tapped(model: nn.Module, layer: str | None) -> Iterator[tuple[list[Tensor], str]]:
    """A list that receives the layer's signal at every forward pass, and what it is called; the hook always goes."""
    modules = dict(model.named_modules())
    if layer is not None and layer not in modules:
        known = ", ".join([n for n in modules if n][-5:])
        raise TaskError(
            f"the model has no layer {layer!r}",
            where="Task(layer=...)",
            remedy=f"name one of its layers, for example {known}",
        )
    linear = [n for n, m in modules.items() if isinstance(m, nn.Linear)]
    into = layer is None and bool(linear)
    name = layer if layer is not None else linear[-1] if linear else ""
    kept: list[Tensor] = []

    def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        signal = args[0] if into else output
        kept.append((signal if isinstance(signal, Tensor) else signal[0]).detach())

    handle = modules[name].register_forward_hook(hook)
    try:
        yield kept, f"the input of {name}" if into else name or "the output"
    finally:
        handle.remove()


@torch.no_grad()
def _read(task: Task, inputs: Tensor, layer: str | None) -> tuple[Tensor, Tensor, str]:
    """The layer's signal (M, d), the outputs (M, ..., C), both float64 on the CPU, and the layer's name."""
    zs, fs = [], []
    with evaluating(task.model), _tapped(task.model, layer) as (kept, name):
        for part in torch.split(inputs, 512):
            kept.clear()
            fs.append(call_model(task.model, move(part, task.device, task.dtype)).double().cpu())
            zs.append(kept[0].flatten(1).double().cpu())
    return torch.cat(zs), torch.cat(fs), name


def representation(task: Task, inputs: Tensor, layer: str | None = None) -> tuple[Tensor, str]:
    """A layer's output (M, d) on inputs, float64; by default the input of the last linear layer. And its name.

    Raises:
        TaskError: there is no such layer.
    """
    z, _, name = _read(task, inputs, layer)
    return z, name


@dataclass(frozen=True)
class FactorAngles:
    """Pointwise orthogonality of factor directions, each (M,), NaN where fewer than two factors move anything.

    Args:
        output: under the output's Fisher metric; null: of random output directions under the same metrics.
        halved: as ``output``, with differences of half the step.
        layer: in the layer's own coordinates, Euclidean.
        dimension: the rank of the output metric; width: that of the layer.
    """

    output: Tensor
    null: Tensor
    halved: Tensor
    layer: Tensor
    dimension: int
    width: int


def ordered_factors(factors: Factors) -> list[int]:
    """Factors with more than three levels: fewer are taken as kinds without an order, which have no direction."""
    return [k for k, s in enumerate(factors.sizes) if s > 3]


def factor_angles(task: Task, factors: Factors, count: int, seed: int, layer: str | None = None) -> FactorAngles:
    """Angles between the directions in which ordered factors move the outputs, at ``count`` random inputs.

    g_ab = (∂_a f)ᵀ H (∂_b f), derivatives along a factor by central differences of the renderer through the network;
    orthogonality 1 − mean |g_ab|/√(g_aa g_bb) is taken at each input and averaged by the caller. ``factors`` must
    have a renderer.
    """
    assert factors.render is not None
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(factors.values), generator=generator)[:count]
    levels = factors.values[chosen].double()
    _, base, _ = _read(task, factors.render(levels), layer)
    root = task.likelihood.fisher_root(base)

    def seen(change: Tensor) -> Tensor:
        return torch.einsum("m...ck,m...c->m...k", root, change).flatten(1)

    def directions(step: float) -> tuple[Tensor, Tensor]:
        outputs, signals = [], []
        for k in ordered_factors(factors):
            shift = torch.zeros_like(levels)
            shift[:, k] = step
            assert factors.render is not None
            up_z, up, _ = _read(task, factors.render(levels + shift), layer)
            down_z, down, _ = _read(task, factors.render(levels - shift), layer)
            outputs.append(seen(up - down))
            signals.append(up_z - down_z)
        return torch.stack(outputs, 1), torch.stack(signals, 1)

    at_output, at_layer = directions(STEP)
    halved, _ = directions(STEP / 2)
    noise = torch.randn(at_output.shape[1], *base.shape, generator=generator, dtype=torch.float64)
    null = torch.stack([seen(e) for e in noise], 1)
    rank = int(torch.linalg.matrix_rank(root.flatten(0, -3)[:64], rtol=1e-9).max()) * root[0, ..., 0, 0].numel()
    return FactorAngles(
        orthogonality(at_output),
        orthogonality(null),
        orthogonality(halved),
        orthogonality(at_layer),
        rank,
        at_layer.shape[-1],
    )


def _codes(z: Tensor) -> tuple[Codes, str]:
    """The representation as codes of unit variance: its units where few, else its leading principal components.

    Units that never change are left out: they hold nothing, and a rotation would spread the others over them.
    """
    z = z - z.mean(0)
    scale = z.std(0, correction=0)
    live = scale > 1e-6 * scale.max()
    dead = int((~live).sum())
    z = z[:, live]
    if z.shape[1] <= MAX_CODES:
        what = f"{z.shape[1]} units"
    else:
        _, s, vh = torch.linalg.svd(z, full_matrices=False)
        kept = (s[:MAX_CODES].square().sum() / s.square().sum()).item()
        what = f"{MAX_CODES} leading principal components of {z.shape[1]} units, {kept:.0%} of the variance"
        z = z @ vh[:MAX_CODES].t()
    if dead:
        what += f" ({dead} that never change left out)"
    return (z / z.std(0, correction=0).clamp_min(1e-300)).numpy(), what


def _rotations(width: int, seed: int) -> list[Codes]:
    generator = np.random.default_rng(seed)
    out = []
    for _ in range(ROTATIONS):
        q, r = np.linalg.qr(generator.standard_normal((width, width)))
        out.append(q * np.sign(np.diag(r)))
    return out


def _scores(z: Codes, v: Levels, seed: int) -> dict[str, float]:
    d, c, i = dci(z, v, seed)
    return {"mig": mig(z, v), "dci": d, "dci.completeness": c, "dci.informativeness": i, "sap": sap(z, v, seed)}


def disentangle(task: Task, *, seed: int, progress: Progress) -> Disentanglement:
    """All scores of ``task.layer`` on ``task.factors``, with nulls; without factors, the reason why not.

    Intervals of MIG, DCI and SAP: delete-a-fifth jackknife over the samples; of their nulls: spread over rotations;
    of orthogonality: over inputs.
    """
    factors = task.factors
    if factors is None:
        why = Unmeasured(
            "disentanglement",
            "the generating factors of the inputs are not known",
            "hand over Task(factors=Factors(...))",
        )
        return Disentanglement((), (why,), "", "")
    generator = torch.Generator().manual_seed(seed + 10)
    chosen = torch.randperm(len(factors.values), generator=generator)[:SAMPLES]
    raw, _, layer = _read(task, factors.inputs[chosen], task.layer)
    z, codes = _codes(raw)
    v = factors.values[chosen].numpy().astype(np.int64)
    v = v[:, [len(np.unique(c)) > 1 for c in v.T]]
    measurements: list[Measurement] = []
    absent: list[Unmeasured] = []
    if z.shape[1] < 2 or v.shape[1] < 2:
        reason = f"{layer} has {z.shape[1]} units that change and {v.shape[1]} factors vary: two of each are needed"
        remedy = "name another layer, Task(layer=...), or vary more factors"
        absent += [Unmeasured(f"disentanglement.{k}", reason, remedy) for k in SOURCES]
    else:
        measurements += _alignment(z, v, codes, seed, progress)
    angles, missing = _angles(task, factors, layer, seed)
    return Disentanglement((*measurements, *angles), (*absent, *missing), layer, codes)


def _alignment(z: Codes, v: Levels, codes: str, seed: int, progress: Progress) -> list[Measurement]:
    """MIG, DCI and SAP of the codes, of parts of the samples, and of rotated codes."""
    n = len(z)
    fold = np.arange(n) % FOLDS
    jobs: list[Callable[[], dict[str, float]]] = [lambda: _scores(z, v, seed)]
    jobs += [lambda k=k: _scores(z[fold != k], v[fold != k], seed) for k in range(FOLDS)]  # type: ignore[misc]
    jobs += [lambda q=q: _scores(z @ q, v, seed) for q in _rotations(z.shape[1], seed + 11)]  # type: ignore[misc]
    done = [job() for job in progress.track(jobs, "disentanglement scores", len(jobs))]
    out = []
    for key, value in done[0].items():
        parts = np.asarray([d[key] for d in done[1 : 1 + FOLDS]])
        null = np.asarray([d[key] for d in done[1 + FOLDS :]])
        error = math.sqrt((FOLDS - 1) / FOLDS * float(((parts - parts.mean()) ** 2).sum()))
        how = {"mig": "20-bin histograms", "sap": "linear SVM, half the samples held out"}.get(
            key, "random forests, 50 trees, half the samples held out"
        )
        source = SOURCES[key.split(".")[0]]
        out.append(
            Measurement(
                f"disentanglement.{key}",
                value,
                "1",
                f"{how}; {codes}",
                n,
                around(value, error, FOLDS - 1, lower=0.0, upper=1.0) if math.isfinite(error) else None,
                source,
                reliable=math.isfinite(value + error) and n >= FEWEST,
                note=_doubt(value + error, n),
            )
        )
        mean, ends = float(null.mean()), one_more(null)
        out.append(
            Measurement(
                f"disentanglement.{key}.null",
                mean,
                "1",
                f"the same after {ROTATIONS} random rotations; interval: 95% of single rotations",
                n,
                ends,
                source,
                reliable=ends is not None and n >= FEWEST,
            )
        )
    return out


def _doubt(score: float, n: int) -> str:
    """Why a score is not to be trusted; empty where it is."""
    if not math.isfinite(score):
        return "no code tells anything of any factor"
    return "" if n >= FEWEST else f"made of {n} inputs; {FEWEST} or more are needed"


def one_more(values: np.ndarray) -> tuple[float, float] | None:
    """Where one more draw of a score in [0, 1] falls in 95 of 100 cases, from a few draws; None where unknown."""
    # The mean of so few has an error of its own: √(1 + 1/n) times the spread, by Student's t.
    spread = float(values.std(ddof=1)) * math.sqrt(1 + 1 / len(values))
    if not math.isfinite(spread):
        return None
    return around(float(values.mean()), spread, len(values) - 1, lower=0.0, upper=1.0)


def _angles(task: Task, factors: Factors, layer: str, seed: int) -> tuple[list[Measurement], list[Unmeasured]]:
    """Orthogonality at the output under the Fisher metric, its null, and at the layer."""
    name = "disentanglement.fisher_orthogonality"
    if factors.render is None:
        reason, remedy = "the inputs cannot be rendered from their factors", "hand over Factors(render=...)"
        return [], [Unmeasured(name, reason, remedy)]
    if len(ordered_factors(factors)) < 2:
        reason = "fewer than two factors have an order (more than three levels)"
        return [], [Unmeasured(name, reason, "vary at least two graded factors")]
    a = factor_angles(task, factors, DIRECTIONS, seed + 12, task.layer)
    moved = torch.isfinite(a.output) & torch.isfinite(a.halved)
    if int(moved.sum()) < 2:
        return [], [Unmeasured(name, "the outputs move with fewer than two factors", "vary factors the network sees")]
    change = float((a.halved - a.output)[moved].mean())
    isotropic, flat = 1 - random_cosine(a.dimension), 1 - random_cosine(a.width)
    rows = (
        (
            name,
            a.output,
            "of factor directions under the output's Fisher metric",
            f"halving the difference step moves it by {change:.1g}",
        ),
        (
            f"{name}.null",
            a.null,
            "of random output directions under the same metrics",
            f"{isotropic:.2f} if the metric were isotropic in its {a.dimension} dimensions",
        ),
        (
            "disentanglement.layer_orthogonality",
            a.layer,
            f"of factor directions at {layer}, Euclidean",
            f"a rotation of the layer leaves it; random directions in {a.width} dimensions have {flat:.2f}",
        ),
    )
    made, absent = [], []
    for key, values, how, note in rows:
        o = values[torch.isfinite(values)]  # where at least two factors move the signal
        if len(o) < 2:
            absent.append(Unmeasured(key, "fewer than two factors move it at any input", "name another layer"))
        else:
            made.append(from_samples(key, o, "1", f"pointwise 1 − mean |cos| {how}", upper=1.0, note=note))
    return made, absent

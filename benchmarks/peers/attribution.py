"""Pairwise scores (Q, N) of the peers, positive where an example supports the outcome (−loss).

Of a categorical law −loss and margin have parallel gradients in the outputs of each query, so that one ranking serves
both.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.peers.common import Whole, fast_loader
from memspace.task.task import Task

__all__ = ["kronfluence_scores", "tracin_scores", "trak_scores"]


def _data(task: Task, queries: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    assert task.test is not None
    train, test = task.train.batch(range(len(task.train))), task.test.batch(queries)
    return (train.x, train.y), (test.x, test.y)


def kronfluence_scores(task: Task, queries: Tensor, dampings: Sequence[float | None]) -> list[Tensor]:
    """EKFAC with its defaults at each damping; None: a tenth of each layer's mean eigenvalue."""
    from kronfluence.arguments import FactorArguments, ScoreArguments

    from benchmarks.peers.kronfluence_items import analyzer_of

    train, test = (Whole(*d) for d in _data(task, queries))
    found = []
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        torch.manual_seed(0)
        analyzer = analyzer_of(copy.deepcopy(task.model).eval(), folder)
        analyzer.fit_all_factors(
            factors_name="factors",
            dataset=train,
            per_device_batch_size=256,
            factor_args=FactorArguments(strategy="ekfac"),
            overwrite_output_dir=True,
        )
        for damping in dampings:
            analyzer.compute_pairwise_scores(
                scores_name="pairs",
                factors_name="factors",
                query_dataset=test,
                train_dataset=train,
                per_device_query_batch_size=len(queries),
                per_device_train_batch_size=256,
                score_args=ScoreArguments(damping_factor=damping),
                overwrite_output_dir=True,
            )
            scores = analyzer.load_pairwise_scores("pairs")
            assert scores is not None
            found.append(scores["all_modules"].clone())
    return found


def trak_scores(task: Task, queries: Tensor, size: int = 512) -> Tensor:
    """TRAK of one network by dattri, random projection to ``size`` numbers."""
    import dattri.algorithm.trak as trak
    from dattri.task import AttributionTask

    trak.tqdm = lambda batches, **_: batches  # its progress bars cannot be asked off
    model = copy.deepcopy(task.model).eval()

    def log_odds(params: dict[str, Tensor], pair: tuple[Tensor, Tensor]) -> Tensor:
        x, y = pair
        f = functional_call(model, params, (x.unsqueeze(0),))
        p = -nn.functional.cross_entropy(f, y.unsqueeze(0))
        return p - torch.log1p(-torch.exp(p).clamp(max=1 - 1e-6))

    def probability(params: dict[str, Tensor], pair: tuple[Tensor, Tensor]) -> Tensor:
        x, y = pair
        f = functional_call(model, params, (x.unsqueeze(0),))
        return torch.exp(-nn.functional.cross_entropy(f, y.unsqueeze(0)))

    job = AttributionTask(loss_func=log_odds, model=model, checkpoints=model.state_dict())
    kwargs = {"proj_dim": size, "device": "cpu"}
    attributor = trak.TRAKAttributor(task=job, correct_probability_func=probability, projector_kwargs=kwargs)
    train, test = _data(task, queries)
    with torch.no_grad():
        attributor.cache(fast_loader(*train, 250))
        scores: Tensor = attributor.attribute(fast_loader(*test, 250))
    return scores.t()


def tracin_scores(task: Task, queries: Tensor, checkpoints: int = 5) -> Tensor:
    """TracIn by captum over the last recorded checkpoints, weighted by their learning-rate time."""
    from captum.influence import TracInCP

    assert task.run is not None
    train, (tx, ty) = _data(task, queries)
    states, times = task.run.states[-checkpoints:], task.run.time
    gaps = [b - a for a, b in zip((0.0, *times), times, strict=False)][-checkpoints:]
    model = copy.deepcopy(task.model).eval()
    weights = dict(zip(range(len(states)), gaps, strict=True))

    def load(net: nn.Module, which: Any) -> float:
        net.load_state_dict(states[int(which)])
        return weights[int(which)]

    found = TracInCP(
        model,
        fast_loader(*train, 250),
        [str(k) for k in range(len(states))],
        checkpoints_load_func=load,
        loss_fn=nn.CrossEntropyLoss(reduction="sum"),
        batch_size=250,
        sample_wise_grads_per_batch=True,
    )
    scores: Tensor = found.influence((tx, ty))
    assert math.isfinite(float(scores.sum()))
    return scores

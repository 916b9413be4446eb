"""kronfluence: EKFAC factors, self-influence and pairwise scores; progress bars off, tensors sliced by the loader."""

from __future__ import annotations

import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from kronfluence.utils.dataset import DataLoaderKwargs
from torch import Tensor, nn

from benchmarks.engine_ours import damping
from benchmarks.engine_outcome import Outcome, Work
from benchmarks.engine_workloads import Workload
from benchmarks.peers.common import Whole, as_it_is, model_of, total_loss

__all__ = ["ITEMS", "Losses", "analyzer_of"]


class Losses(Task):
    """Sums of cross-entropies; sampled labels where asked."""

    def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:
        x, y = batch
        f = model(x)
        if sample:
            with torch.no_grad():
                p = torch.softmax(f.detach().flatten(0, -2), -1)
                y = torch.multinomial(p, 1).reshape(y.shape)
        return total_loss(f, y)

    def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
        return self.compute_train_loss(batch, model)


def analyzer_of(model: nn.Module, folder: str) -> Analyzer:
    task = Losses()
    prepared = prepare_model(model, task)
    analyzer = Analyzer("bench", prepared, task, cpu=True, disable_tqdm=True, output_dir=folder, log_level=40)
    analyzer.set_dataloader_kwargs(DataLoaderKwargs(collate_fn=as_it_is))
    return analyzer


def _arguments(w: Workload, kind: str) -> FactorArguments:
    double = w.task.dtype == torch.float64
    options: dict[str, Any] = {"strategy": "ekfac", "use_empirical_fisher": kind == "empirical"}
    if double:
        names = ("activation_covariance", "gradient_covariance", "per_sample_gradient", "lambda")
        options |= {f"{n}_dtype": torch.float64 for n in names}
    return FactorArguments(**options)


def _fit(w: Workload, analyzer: Analyzer, kind: str) -> float:
    """The three stages of ``fit_all_factors``; returns the seconds of the eigendecompositions."""
    arguments = _arguments(w, kind)
    data = Whole(*w.data)
    common = {"factors_name": "factors", "factor_args": arguments, "overwrite_output_dir": True}
    analyzer.fit_covariance_matrices(dataset=data, per_device_batch_size=w.batch, **common)
    start = time.perf_counter()
    analyzer.perform_eigendecomposition(**common)
    apart = time.perf_counter() - start
    analyzer.fit_lambda_matrices(dataset=data, per_device_batch_size=w.batch, **common)
    return apart


def fit(kind: str):  # type: ignore[no-untyped-def]
    def prepare(w: Workload) -> Work:
        folder = tempfile.TemporaryDirectory()
        analyzer = analyzer_of(model_of(w), folder.name)

        def run() -> Outcome:
            assert Path(folder.name).exists()
            apart = _fit(w, analyzer, kind)
            found = analyzer.load_lambda_matrices("factors")
            assert found is not None
            counts = found["num_lambda_processed"]
            return Outcome({n: v / counts[n] for n, v in found["lambda_matrix"].items()}, apart)

        return run

    return prepare


@lru_cache(maxsize=1)
def _fitted(w: Workload) -> tuple[Analyzer, tempfile.TemporaryDirectory[str]]:
    folder = tempfile.TemporaryDirectory()
    analyzer = analyzer_of(model_of(w), folder.name)
    _fit(w, analyzer, "empirical")
    return analyzer, folder


def _scores(w: Workload) -> ScoreArguments:
    double = w.task.dtype == torch.float64
    names = ("query_gradient_svd", "per_sample_gradient", "precondition", "score")
    return ScoreArguments(damping_factor=damping(w), **({f"{n}_dtype": torch.float64 for n in names} if double else {}))


def self_influence(w: Workload) -> Work:
    analyzer, _ = _fitted(w)
    arguments = _scores(w)
    arguments.compute_per_module_scores = True

    def run() -> Outcome:
        analyzer.compute_self_scores(
            scores_name="self",
            factors_name="factors",
            train_dataset=Whole(*w.data),
            per_device_train_batch_size=w.batch,
            score_args=arguments,
            overwrite_output_dir=True,
        )
        return Outcome(dict(analyzer.load_self_scores("self")))

    return run


def pairwise(w: Workload) -> Work:
    analyzer, _ = _fitted(w)
    arguments = _scores(w)
    known = analyzer.load_lambda_matrices("factors")
    assert known is not None
    tracked = frozenset(known["lambda_matrix"])

    def run() -> Outcome:
        analyzer.compute_pairwise_scores(
            scores_name="pairs",
            factors_name="factors",
            query_dataset=Whole(*w.queries),
            train_dataset=Whole(*w.data),
            per_device_query_batch_size=len(w.queries[1]),
            per_device_train_batch_size=w.batch,
            score_args=arguments,
            overwrite_output_dir=True,
        )
        found = analyzer.load_pairwise_scores("pairs")
        assert found is not None
        return Outcome(found["all_modules"].t(), blocks=tracked)

    return run


ITEMS = {
    "ekfac-mc": fit("mc"),
    "ekfac-empirical": fit("empirical"),
    "self-influence": self_influence,
    "pairwise": pairwise,
}

"""A barrier rises above both ends; which network is better is told from pairs; distances' errors are their spread."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from memspace.action.lengths import distance_value
from memspace.auditing.chapter import ChapterDeclaration, make_chapter
from memspace.auditing.chapters.barrier import BARRIER, barrier_of
from memspace.auditing.chapters.better import BETTER
from memspace.auditing.compare import NetworkComparison, NetworkNames
from memspace.auditing.results import Chapter
from memspace.measures.workspace import Workspace

SHARE = torch.linspace(0, 1, 9, dtype=torch.float64)


def _loss(curve: Tensor, spread: float = 0.1, n: int = 400, seed: int = 0) -> Tensor:
    """Losses per example around a curve, (9, n)."""
    g = torch.Generator().manual_seed(seed)
    own = spread * torch.randn(n, generator=g, dtype=torch.float64)
    return curve.unsqueeze(1) + own + 0.1 * spread * torch.randn(9, n, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("power", [0.3, 1.0, 3.0])
def test_a_loss_that_only_falls_or_rises_has_no_barrier_however_it_bends(power: float) -> None:
    falls = 2 * (1 - SHARE**power)
    for curve in (falls, falls.flip(0)):
        m = barrier_of(SHARE, _loss(curve, spread=1e-3))
        assert m.value == 0
        assert m.interval == (0, 0)


@pytest.mark.parametrize("worse", [0.0, 0.5])
def test_a_barrier_is_the_height_above_the_worse_end(worse: float) -> None:
    curve = 1 + worse * SHARE + 0.7 * torch.sin(math.pi * SHARE)
    m = barrier_of(SHARE, _loss(curve))
    assert m.interval is not None
    true = float(curve.max() - curve[-1])
    assert m.interval[0] <= true <= m.interval[1]
    assert m.value == pytest.approx(true, abs=0.01)


def _comparison(line: Tensor, path: Tensor, seed: int = 0) -> SimpleNamespace:
    losses = {
        f"{kind}, {data} examples": _loss(curve, seed=seed)
        for data in ("training", "test")
        for kind, curve in (("straight line", line), ("geodesic", path))
    }
    return SimpleNamespace(share=SHARE, losses=losses)


def _chapter(declared: ChapterDeclaration, found: SimpleNamespace, names: tuple[str, str] = ("a", "b")) -> Chapter:
    return make_chapter(declared, Workspace({NetworkComparison: found, NetworkNames: NetworkNames(*names)}))[0]


def test_the_chapter_speaks_of_a_rise_only_where_there_is_one() -> None:
    falls, hill = 2 - SHARE, 1 + torch.sin(math.pi * SHARE)
    chapter = _chapter(BARRIER, _comparison(falls, falls))
    assert chapter.findings[0].level == "good"
    assert "no loss is above the worse end" in chapter.answer
    chapter = _chapter(BARRIER, _comparison(hill, hill))
    assert chapter.findings[0].level == "warn"
    assert "rises 1 nats above the worse end" in chapter.answer
    assert "one valley" in _chapter(BARRIER, _comparison(hill, falls)).findings[0].title


def test_the_better_network_is_named_where_the_pairs_tell() -> None:
    for ends, winner in (((1.0, 0.9), "b.pt"), ((0.9, 1.0), "a.pt")):
        curve = ends[0] + SHARE * (ends[1] - ends[0])
        chapter = _chapter(BETTER, _comparison(curve, curve), ("a.pt", "b.pt"))
        assert winner in chapter.findings[0].title
        assert chapter.measurements[0].name == "compare.test_loss_difference"
        low, high = chapter.measurements[0].interval or (0, 0)
        assert low <= ends[1] - ends[0] <= high
    same = torch.ones(9, dtype=torch.float64)
    told = [_chapter(BETTER, _comparison(same, same, seed), ("a", "b")).findings[0].title for seed in range(20)]
    assert sum(t.startswith("Neither") for t in told) >= 16  # 19 of 20 expected; fewer than 16 in 1 of 400


def test_without_test_data_the_training_loss_is_compared_and_said_to_be_it() -> None:
    found = _comparison(1 - SHARE / 2, 1 - SHARE / 2)
    found.losses = {k: v for k, v in found.losses.items() if "training" in k}
    chapter = _chapter(BETTER, found, ("a", "b"))
    assert [u.name for u in chapter.unmeasured] == ["compare.test_loss_difference"]
    assert "training examples" in chapter.findings[0].title
    assert "does not tell which to use" in chapter.findings[0].action


def test_the_interval_of_a_distance_is_as_wide_as_its_spread_over_new_examples() -> None:
    draws = torch.distributions.Gamma(2.0, 1.0)
    torch.manual_seed(3)
    n, many, true = 60, 400, math.sqrt(2.0)
    found = [distance_value(draws.sample((n,)).double()) for _ in range(many)]
    inside = sum(m.interval[0] <= true <= m.interval[1] for m in found if m.interval is not None)
    assert 0.92 <= inside / many <= 0.985  # four standard errors of a share of 0.95 are 0.04
    spread = float(torch.tensor([m.value for m in found]).std())
    width = sum(m.interval[1] - m.interval[0] for m in found if m.interval is not None) / many
    assert width == pytest.approx(2 * 2.0 * spread, rel=0.12)

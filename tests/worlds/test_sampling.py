"""Combinations are drawn as asked: no image twice, factors fixed, pairs, grids, correlated, missing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from memspace.errors import SettingsError
from memspace.task.worlds import FactorWorld, WorldFactor, world
from memspace.task.worlds.laws import Correlated, Missing
from memspace.task.worlds.sampling import combinations, fixed, grid, halves, pairs, traverse

SHAPES = world("shapes")
SMALL = FactorWorld("small", (WorldFactor("a", 4), WorldFactor("b", 5), WorldFactor("c", 3)), (1, 1, 1), torch.Tensor)
seeds = st.integers(0, 2**31 - 1)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 30), st.integers(1, 30))
def test_halves_share_nothing_and_depend_on_the_seed_alone(seed: int, train: int, test: int) -> None:
    first, second = halves(SMALL, train, test, seed=seed)
    assert (len(first), len(second)) == (train, test)
    assert len(SMALL.index_of(torch.cat([first, second])).unique()) == train + test
    again = halves(SMALL, train, test, seed=seed)
    assert torch.equal(first, again[0])
    assert torch.equal(second, again[1])


def test_all_combinations_are_drawn_once_and_no_more() -> None:
    every = combinations(SMALL, SMALL.count, seed=1)
    assert SMALL.index_of(every).sort().values.tolist() == list(range(60))
    with pytest.raises(SettingsError, match="61 different images are asked for, and factors make 60"):
        combinations(SMALL, 61)
    with pytest.raises(SettingsError, match="430,081 different images are asked for, and factors make 430,080"):
        combinations(world("dsprites"), 430_081)


def test_combinations_are_uniform() -> None:
    counts = torch.zeros(60)
    for seed in range(200):
        counts[SMALL.index_of(combinations(SMALL, 6, seed=seed))] += 1
    assert chisquare(counts.numpy()).pvalue > 1e-4


def test_sprites_of_both_halves_look_different() -> None:
    sprites = world("dsprites")
    first, second = halves(sprites, 3000, 1000, seed=5)
    every = torch.cat([first, second])
    assert torch.equal(sprites.first_alike(every), every)
    assert len(sprites.index_of(every).unique()) == 4000


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(0, 4), st.data())
def test_a_fixed_factor_stays_and_the_others_move(seed: int, factor: int, data: st.DataObject) -> None:
    level = data.draw(st.integers(0, SHAPES.sizes[factor] - 1))
    levels = fixed(SHAPES, factor, level, 200, seed=seed)
    assert bool((levels[:, factor] == level).all())
    for k, size in enumerate(SHAPES.sizes):
        assert int(levels[:, k].max()) < size
        if k != factor:
            # A level of eight is missed by 200 draws with chance 8 · (7/8)^200 < 1e-10.
            assert len(levels[:, k].unique()) == size


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(SHAPES.names))
def test_pairs_differ_in_one_factor_or_share_one(seed: int, name: str) -> None:
    k = SHAPES.position(name)
    first, second = pairs(SHAPES, 100, differ=name, seed=seed)
    different = first != second
    assert bool(different[:, k].all())
    assert int(different.sum()) == 100
    first, second = pairs(SHAPES, 400, share=k, seed=seed)
    different = (first != second).double().mean(0)
    assert float(different[k]) == 0
    for j, size in enumerate(SHAPES.sizes):
        if j != k:
            # Standard error of a share of 400 is at most 0.025: six of them.
            assert float(different[j]) == pytest.approx(1 - 1 / size, abs=0.15)


def test_a_factor_that_differs_takes_every_other_level_as_often() -> None:
    first, second = pairs(SHAPES, 7000, differ="x", seed=2)
    steps = torch.bincount((second - first)[:, 3] % 8, minlength=8)
    assert int(steps[0]) == 0
    assert chisquare(steps[1:].numpy()).pvalue > 1e-4


def test_grids_hold_every_level_of_the_chosen_factors() -> None:
    levels = grid(SHAPES, ["y", "shape"], at=(0, 1, 2, 3, 4))
    assert levels.shape == (24, 5)
    assert levels[:, [4, 0]].tolist() == [[y, s] for y in range(8) for s in range(3)]
    assert levels[:, [1, 2, 3]].unique(dim=0).tolist() == [[1, 2, 3]]
    assert torch.equal(grid(SHAPES, ["x"])[:, 3], torch.arange(8))
    assert torch.equal(grid(SHAPES, SHAPES.names), SHAPES.levels_at(torch.arange(SHAPES.count)))


def test_a_traverse_goes_from_end_to_end_or_once_around() -> None:
    line = traverse(SHAPES, "scale", 7)
    assert line[:, 1].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert len(line[:, [0, 2, 3, 4]].unique(dim=0)) == 1
    assert traverse(world("dsprites"), "orientation", 5)[:, 2].tolist() == [0, 8, 16, 24, 32]
    assert traverse(SHAPES, "shape", 3)[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("falling", [False, True])
def test_correlated_factors_follow_their_law(sigma: float, falling: bool) -> None:
    law = Correlated("x", "y", sigma, falling)
    counts = torch.zeros(8, 8, dtype=torch.float64)
    for seed in range(60):  # few of 6,144 at a time: drawing without replacement then hardly matters
        levels = combinations(SHAPES, 20, seed=seed, laws=[law])
        counts.index_put_((levels[:, 3], levels[:, 4]), torch.ones(20, dtype=torch.float64), accumulate=True)
    axis = torch.arange(8, dtype=torch.float64) / 7
    other = axis.flip(0) if falling else axis
    expected = torch.exp(-((axis[:, None] - other[None]) ** 2) / (2 * sigma**2))
    expected *= counts.sum() / expected.sum()
    likely = expected > 5
    observed = torch.cat([counts[likely], counts[~likely].sum()[None]])
    model = torch.cat([expected[likely], expected[~likely].sum()[None]])
    if float(model[-1]) < 5:
        observed, model = observed[:-1], model[:-1] * (observed[:-1].sum() / model[:-1].sum())
    assert chisquare(observed.numpy(), model.numpy()).pvalue > 1e-4


def test_a_wide_band_is_no_correlation_and_a_narrow_one_the_diagonal() -> None:
    wide = combinations(SHAPES, 500, seed=1, laws=[Correlated("x", "y", 1e6)])
    assert torch.equal(wide, combinations(SHAPES, 500, seed=1))
    narrow = combinations(SHAPES, 300, seed=1, laws=[Correlated("x", "y", 0.02)])
    assert torch.equal(narrow[:, 3], narrow[:, 4])


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(0, 3), st.integers(0, 3), st.integers(0, 7), st.integers(0, 7))
def test_a_missing_rectangle_and_the_rest_are_the_whole(seed: int, a: int, b: int, c: int, d: int) -> None:
    first, second = (min(a, b), max(a, b)), (min(c, d), max(c, d))
    area = (first[1] - first[0] + 1) * (second[1] - second[0] + 1)
    alone = area * SHAPES.count // 32
    inside = combinations(SHAPES, alone, seed=seed, laws=[Missing("scale", first, "x", second, only=True)])
    assert bool(((inside[:, 1] >= first[0]) & (inside[:, 1] <= first[1])).all())
    assert bool(((inside[:, 3] >= second[0]) & (inside[:, 3] <= second[1])).all())
    if alone < SHAPES.count:
        rest = combinations(SHAPES, SHAPES.count - alone, seed=seed, laws=[Missing("scale", first, "x", second)])
        assert len(SHAPES.index_of(torch.cat([inside, rest])).unique()) == SHAPES.count


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: fixed(SHAPES, "scale", 4, 2), "'scale' has no level 4"),
        (lambda: pairs(SHAPES, 3), "give one of differ and share"),
        (lambda: pairs(SHAPES, 3, differ="x", share="y"), "give one of differ and share"),
        (lambda: grid(SHAPES, ["x"], at=(0, 0, 0, 0, 8)), "are none of this world"),
        (lambda: combinations(SHAPES, 0), "count"),
        (lambda: Correlated("x", "y", 0.0), "above 0"),
        (lambda: combinations(SHAPES, 3, laws=[Correlated("shape", "y", 1.0)]), "'shape' has no order"),
        (lambda: combinations(SHAPES, 3, laws=[Correlated("y", "y", 1.0)]), "both factors are the same"),
        (lambda: Missing("x", (3, 2), "y", (0, 1)), "the levels from 3 to 2 are none"),
    ],
)
def test_questions_without_an_answer_are_one_sentence(call, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        call()

"""Every world draws the same images each time, smooth along ordered factors, closed along circular ones."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memspace.errors import DataError, SettingsError
from memspace.geometry.factor_loop import STEP
from memspace.measures.factor_pairs import loops_around
from memspace.task.worlds import FactorWorld, WorldFactor, world, worlds
from memspace.task.worlds.sampling import combinations, traverse

RENDERED = ("shapes", "dsprites", "scenes")


WORLDS = {name: world(name) for name in RENDERED}


@pytest.fixture(params=RENDERED)
def rendered(request: pytest.FixtureRequest) -> FactorWorld:
    return WORLDS[request.param]


def _random(of: FactorWorld, count: int, seed: int) -> torch.Tensor:
    return of.levels_at(torch.randint(0, of.count, (count,), generator=torch.Generator().manual_seed(seed)))


def test_the_worlds_have_the_factors_they_are_named_for() -> None:
    assert set(RENDERED) <= set(worlds())
    sprites, scenes = world("dsprites"), world("scenes")
    assert (sprites.count, sprites.sizes, sprites.shape) == (737_280, (3, 6, 40, 32, 32), (1, 64, 64))
    assert (scenes.count, scenes.sizes, scenes.shape) == (480_000, (10, 10, 10, 8, 4, 15), (3, 64, 64))
    assert sprites.circular == ("orientation",)
    assert scenes.circular == ("floor hue", "wall hue", "object hue")
    assert "shape" not in sprites.ordered + scenes.ordered


@pytest.mark.parametrize("seed", range(2))
def test_images_are_in_range_and_the_same_each_time(rendered: FactorWorld, seed: int) -> None:
    levels = _random(rendered, 12, seed)
    images = rendered.render(levels)
    assert images.shape == (12, *rendered.shape)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert torch.equal(images, rendered.render(levels))
    # Rounding differs between the ends of vectors: to a few units of float32, whatever else is in the batch.
    alone = torch.cat([rendered.render(row[None]) for row in levels])
    torch.testing.assert_close(alone, images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_images_have_a_slope_along_every_ordered_factor(rendered: FactorWorld, seed: int) -> None:
    middle = _random(rendered, 2, seed).double()
    for k, factor in enumerate(rendered.factors):
        if not factor.ordered:
            continue
        at = middle.clone()
        at[:, k] += 0.37 if seed else -0.2
        images = []
        for steps in (0, 1, 2, 4):
            moved = at.clone()
            moved[:, k] += 2e-3 * steps
            images.append(rendered.draw(moved))
        once, twice, four = ((x - images[0]).flatten(1).norm(dim=1) for x in images[1:])
        assert float(once.min()) > 0, factor.name
        # Differences grow in proportion to the step: no pixel jumps.
        torch.testing.assert_close(twice / once, torch.full((2,), 2.0, dtype=torch.float64), rtol=0.05, atol=0)
        torch.testing.assert_close(four / once, torch.full((2,), 4.0, dtype=torch.float64), rtol=0.1, atol=0)


def test_every_level_of_every_factor_looks_different(rendered: FactorWorld) -> None:
    middle = [size // 2 for size in rendered.sizes]
    if rendered.name == "scenes":
        middle[:3] = [1, 4, 8]
    middle[rendered.position("shape")] = 2  # the heart, which is itself after a whole turn alone; or the sphere
    for k, size in enumerate(rendered.sizes):
        levels = torch.tensor([middle]).repeat(size, 1)
        levels[:, k] = torch.arange(size)
        images = rendered.render(levels).flatten(1)
        apart = (images[:, None] - images[None]).abs().amax(-1) + torch.eye(size)
        assert float(apart.min()) > 0.05, rendered.names[k]


def test_circular_factors_close_without_a_jump(rendered: FactorWorld) -> None:
    for name in rendered.circular:
        k = rendered.position(name)
        factor = rendered.factors[k]
        assert factor.period == factor.size
        line = traverse(rendered, name, factor.size)
        ends = line[:2].clone()
        ends[0, k], ends[1, k] = factor.size, -1
        first, last = rendered.render(ends)
        images = rendered.render(line)
        torch.testing.assert_close(first, images[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(last, images[-1], rtol=0, atol=1e-6)
        steps = (images - images.roll(1, 0)).flatten(1).norm(dim=1)
        assert float(steps[0]) < 1.5 * float(steps[1:].max())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(RENDERED), st.integers(0, 10**9))
def test_numbers_of_combinations_and_levels_are_one_to_one(name: str, number: int) -> None:
    of = WORLDS[name]
    index = torch.tensor([number % of.count])
    levels = of.levels_at(index)
    assert torch.equal(of.index_of(levels), index)
    assert bool(((levels >= 0) & (levels < torch.tensor(of.sizes))).all())
    assert bool((of.index_of(of.first_alike(levels)) <= index).all())


def test_sprites_that_look_alike_are_known() -> None:
    sprites = world("dsprites")
    every = sprites.levels_at(torch.arange(sprites.count))
    first = sprites.first_alike(every)
    distinct = int((first == every).all(1).sum())
    assert distinct == (10 + 20 + 40) * 6 * 32 * 32
    turned = torch.nonzero((first != every).any(1)).flatten()[::9973]
    torch.testing.assert_close(sprites.render(every[turned]), sprites.render(first[turned]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", RENDERED)
def test_drawn_combinations_have_no_two_images_alike(name: str) -> None:
    of = world(name)
    count = 50 if name == "scenes" else 250
    images = of.render(combinations(of, count, seed=3)).flatten(1)
    apart = torch.cdist(images, images) + 10 * torch.eye(count)
    assert float(apart.min()) > 0.05


def test_sprites_lie_whole_inside_the_image_and_move_by_one_pixel_a_level() -> None:
    sprites = world("dsprites")
    corners = torch.tensor([[s, 5, r, x, y] for s in range(3) for r in (0, 5, 13) for x in (0, 31) for y in (0, 31)])
    images = sprites.render(corners)[:, 0]
    border = torch.cat([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], 1)
    assert float(border.max()) < 0.03
    here, there = sprites.render(torch.tensor([[2, 3, 7, 10, 12], [2, 3, 7, 15, 9]]))[:, 0]
    torch.testing.assert_close(here.roll((-3, 5), (0, 1)), there, rtol=0, atol=1e-6)


def test_a_larger_scale_covers_more() -> None:
    for name in RENDERED[:2]:
        of = world(name)
        levels = traverse(of, "scale", of.sizes[1])
        area = of.render(levels).sum((1, 2, 3))
        assert bool((area.diff() > 0).all())
    # The radius of a shape of dSprites is 14 · (0.5 + 0.1 · level) pixels; a square's side is 1.48 of that.
    sprites = world("dsprites")
    area = sprites.render(torch.tensor([[0, 5, 0, 16, 16]])).sum()
    assert float(area) == pytest.approx((1.48 * 14) ** 2, rel=0.02)


def test_hues_change_the_colour_of_one_part_alone() -> None:
    scenes = world("scenes")
    levels = torch.tensor([[0, 0, 0, 4, 2, 7], [5, 0, 0, 4, 2, 7], [0, 5, 0, 4, 2, 7], [0, 0, 5, 4, 2, 7]])
    images = scenes.render(levels)
    changed = (images[1:] - images[:1]).abs().amax(1) > 0.25  # floor, wall, object
    assert bool(changed.any(0).flatten().float().mean() > 0.95)
    assert float((changed.sum(0) > 1).double().mean()) < 0.03  # soft edges
    assert bool(changed[1, :10].all())  # walls above
    assert bool(changed[0, -10:].all())  # floor below
    assert bool(changed[2, 30:40, 28:36].any())


def test_pooling_averages_squares_of_pixels(rendered: FactorWorld) -> None:
    small = rendered.pooled(4)
    levels = _random(rendered, 5, 0)
    channels, height, width = rendered.shape
    expected = rendered.render(levels).reshape(5, channels, height // 4, 4, width // 4, 4).mean((3, 5))
    assert small.shape == (channels, height // 4, width // 4)
    torch.testing.assert_close(small.render(levels), expected, rtol=0, atol=1e-6)
    with pytest.raises(SettingsError, match="cannot be pooled by 5"):
        rendered.pooled(5)


def test_a_world_gives_the_factors_of_a_task(rendered: FactorWorld) -> None:
    levels = _random(rendered, 9, 1)
    factors = rendered.as_factors(levels)
    assert (factors.names, factors.sizes, factors.ordered) == (rendered.names, rendered.sizes, rendered.ordered)
    assert torch.equal(factors.values, levels)
    assert factors.render is not None
    assert torch.equal(factors.render(levels), factors.inputs)
    again = pickle.loads(pickle.dumps(rendered.pooled(2)))
    assert torch.equal(again.render(levels), rendered.pooled(2).render(levels))


@pytest.mark.parametrize(
    ("levels", "says"),
    [
        (torch.zeros(3, 4), r"levels are of shape \(3, 4\)"),
        (torch.tensor([[0.5, 0, 0, 0, 0]]), "no image at level 0.5 of the factor 'shape'.*whole levels from 0 to 2"),
        (torch.tensor([[3, 0, 0, 0, 0]]), "no image at level 3 of the factor 'shape'"),
        (torch.tensor([[0, 0, 0, 32.0, 0]]), "no image at level 32 of the factor 'x'"),
        (torch.tensor([[0, 0, float("nan"), 0, 0]]), "no image at level nan of the factor 'orientation'"),
    ],
)
def test_levels_that_have_no_image_are_named(levels: torch.Tensor, says: str) -> None:
    with pytest.raises(DataError, match=says):
        world("dsprites").render(levels)


def test_unknown_names_and_impossible_worlds_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"there is no world 'sprites'.*dsprites"):
        world("sprites")
    with pytest.raises(SettingsError, match=r"there is no factor 'hue'.*scale"):
        world("dsprites").position("hue")
    with pytest.raises(SettingsError, match="a name of its own"):
        FactorWorld("twice", (WorldFactor("a", 2), WorldFactor("a", 2)), (1, 1, 1), lambda levels: levels)


def test_loops_fit_around_levels_at_the_border(rendered: FactorWorld) -> None:
    """A loop of one level a side around the first or the last level, and differences on it, are drawn."""
    corners = torch.tensor([[0] * len(rendered.sizes), [s - 1 for s in rendered.sizes]]).double()
    first, second = (rendered.position(name) for name in rendered.ordered[:2])
    reached = 0.5 + STEP
    for away in (-reached, reached):
        moved = corners.clone()
        moved[:, [first, second]] += away
        assert bool(rendered.render(moved).isfinite().all())
    linear = loops_around(
        lambda x: x.flatten(1).double(), rendered.pooled(16).render, corners, [(first, second)], layer="pixels"
    )
    assert bool(torch.isfinite(linear.angles).any())

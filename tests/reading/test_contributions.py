"""What entries of an input add: complete integrals, words whose contributions are known, entries replaced."""

import math

import pytest
import torch
from torch import Tensor, nn

import memspace
from memspace import ExplainSettings, Task
from memspace.reading.contributions import InputContributions, _integrated, read_contributions
from memspace.reading.line import line_of
from memspace.reading.outcome import outcome_of
from memspace.task.checks import untouched

VOCABULARY = ("good", "fine", "bad", "awful", "film", "plot", "the")


def of(task: Task, example=0, baseline: str = "mean", **named) -> InputContributions:
    return read_contributions(task, outcome_of(task, example, **named), baseline)


class Bag(nn.Module):
    """Logits are sums of one number a word: what every word adds is known exactly."""

    def __init__(self, worth: Tensor) -> None:
        super().__init__()
        self.words = nn.Embedding(*worth.shape, dtype=worth.dtype)
        self.words.weight.data = worth.clone()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        vectors = self.words(input_ids)
        return (vectors if attention_mask is None else vectors * attention_mask[..., None]).sum(1)


def reviews(seed: int, **named) -> tuple[Task, Tensor, Tensor]:
    torch.manual_seed(seed)
    worth = torch.randn(len(VOCABULARY), 2, dtype=torch.float64)
    ids = torch.randint(0, len(VOCABULARY), (30, 5))
    return Task(Bag(worth), (ids, ids.sum(1) % 2), **named), worth, ids


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("baseline", ["mean", "zero"])
def test_words_of_a_bag_add_what_they_are_worth(seed, baseline) -> None:
    task, worth, ids = reviews(seed)
    outcome = outcome_of(task, 4)
    read = read_contributions(task, outcome, baseline)
    odds = worth[:, outcome.answer] - worth[:, outcome.against]
    start = odds[ids].mean() if baseline == "mean" else 0.0
    (words,) = read.tensors
    assert torch.allclose(words.contributions, odds[ids[4]] - start, rtol=1e-10, atol=1e-12)
    assert torch.equal(words.values, ids[4])
    assert abs(read.missing) < 1e-12
    assert read.at == pytest.approx(float(odds[ids[4]].sum()))


def test_masked_words_add_nothing_and_are_left_out_of_the_mean() -> None:
    task, worth, ids = reviews(4)
    mask = (torch.arange(5) < 3).long().expand(30, 5).contiguous()
    masked = Task(task.model, ({"input_ids": ids, "attention_mask": mask}, ids.sum(1) % 2))
    outcome = outcome_of(masked, {"input_ids": ids[4], "attention_mask": mask[4]})
    read = read_contributions(masked, outcome)
    odds = worth[:, outcome.answer] - worth[:, outcome.against]
    want = torch.cat([odds[ids[4, :3]] - odds[ids[:, :3]].mean(), torch.zeros(2, dtype=torch.float64)])
    assert torch.allclose(read.tensors[0].contributions, want, rtol=1e-10, atol=1e-12)
    assert read.fixed == ("attention_mask",)


def test_the_page_colours_the_words_that_the_task_shows(tmp_path) -> None:
    names = list(VOCABULARY)
    task, _, ids = reviews(5, show=lambda x: " ".join(names[int(k)] for k in x))
    result = memspace.explain(task, 4, page=tmp_path / "page.html", settings=ExplainSettings(damping=0.1, count=1))
    (passage,) = result.results.chapter("input").passages
    assert list(passage.words) == [names[int(k)] for k in ids[4]]
    text = (tmp_path / "page.html").read_text()
    strongest = max(passage.weighted, key=lambda w: w[2])
    kind = "for" if strongest[1] > 0 else "against"
    assert f'class="{kind}" style="--share: 1.000" title="{strongest[1]:+.3g} nats">{strongest[0]}<' in text


def test_gaps_of_a_relu_network_shrink_with_the_points_and_are_stated() -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(6, 30), nn.ReLU(), nn.Linear(30, 3)).double()
    x = 3 * torch.randn(20, 6, dtype=torch.float64)
    task = Task(model, (x, torch.arange(20) % 3))
    first, second = model[0].weight.detach(), model[2].weight.detach()
    gaps: dict[int, float] = {16: 0.0, 64: 0.0, 256: 0.0}
    for k in range(8):
        outcome = outcome_of(task, k)
        jumps = (second[outcome.answer] - second[outcome.against]) * (first @ (x[k] - x.mean(0)))
        with untouched(task.model):
            line = line_of(task, outcome, "mean")
            for points in gaps:
                missing = abs(_integrated(line, points).missing)
                # Along the line the derivative is constant between kinks. Gauss's rule misses a step by at most the
                # weight of one node (Chebyshev, Markov and Stieltjes), which is below π/2n on a line of length 1.
                assert missing <= float(jumps.abs().sum()) * math.pi / (2 * points)
                gaps[points] += missing / 8
        read = read_contributions(task, outcome)
        assert read.complete or read.points == 512
    assert gaps[256] < gaps[16] / 4


def test_a_smooth_network_is_complete_to_rounding() -> None:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 3)).double()
    task = Task(model, (torch.randn(20, 6, dtype=torch.float64), torch.arange(20) % 3))
    read = of(task, 3)
    assert abs(read.missing) < 1e-9
    assert read.points == 32


class Tables(nn.Module):
    """Numbers next to two columns of categories, one of them in a shared table behind a shift."""

    def __init__(self) -> None:
        super().__init__()
        self.colour, self.size, self.numbers = nn.Embedding(3, 2), nn.Embedding(4, 2), nn.Linear(2, 2)

    def forward(self, numbers: Tensor, kinds: Tensor) -> Tensor:
        return self.numbers(numbers) + self.colour(kinds[:, 0]) + self.size(kinds[:, 1])


def test_columns_of_categories_and_of_numbers_add_up_together() -> None:
    torch.manual_seed(8)
    numbers, kinds = torch.randn(30, 2), torch.stack([torch.randint(0, 3, (30,)), torch.randint(0, 4, (30,))], 1)
    model = Tables()
    task = Task(model, ((numbers, kinds), torch.arange(30) % 2))
    outcome = outcome_of(task, 2)
    read = read_contributions(task, outcome)
    a, b = outcome.answer, outcome.against
    with torch.no_grad():
        colour = model.colour.weight[:, a] - model.colour.weight[:, b]
        size = model.size.weight[:, a] - model.size.weight[:, b]
        want = torch.stack(
            [colour[kinds[2, 0]] - colour[kinds[:, 0]].mean(), size[kinds[2, 1]] - size[kinds[:, 1]].mean()]
        )
    by_name = {t.name: t.contributions for t in read.tensors}
    assert torch.allclose(by_name["1"].float(), want, atol=1e-6)
    assert abs(read.missing) < 1e-5


class OneHot(nn.Module):
    """Whole numbers that no embedding reads."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(nn.functional.one_hot(x, 4).flatten(1).double())


def test_whole_numbers_without_vectors_are_replaced_one_at_a_time() -> None:
    torch.manual_seed(9)
    x = torch.randint(0, 4, (40, 3))
    task = Task(OneHot(), (x, torch.arange(40) % 2))
    outcome = outcome_of(task, 5)
    read = read_contributions(task, outcome)
    weight = task.model.linear.weight.detach()
    odds = (weight[outcome.answer] - weight[outcome.against]).reshape(3, 4)
    want = torch.stack([odds[k, x[5, k]] - odds[k, x[:, k].mode().values] for k in range(3)])
    assert read.method == "replacement"
    assert torch.allclose(read.tensors[0].contributions, want, atol=1e-12)
    assert abs(read.missing) < 1e-12  # a linear network: no entry depends on another


class Reader(nn.Module):
    """A causal reader of tokens: the running sum of word vectors."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.word, self.place, self.head = nn.Embedding(words, 6), nn.Embedding(8, 6), nn.Linear(6, words)

    def forward(self, x: Tensor) -> Tensor:
        at = torch.arange(x.shape[1], device=x.device).expand_as(x)
        return self.head(torch.tanh((self.word(x) + self.place(at)).cumsum(1)))


def test_of_a_sequence_the_last_labelled_position_is_explained_by_what_came_before() -> None:
    torch.manual_seed(10)
    x = torch.randint(0, 9, (20, 8))
    y = x.roll(-1, 1).clone()
    y[:, -1] = -100
    task = Task(Reader(9), (x, y))
    last = memspace.explain(task, 3, settings=ExplainSettings(damping=0.1, count=1))
    assert last.outcome.position == 6
    assert last.outcome.label == int(x[3, 7])
    early = memspace.explain(task, 3, position=2, settings=ExplainSettings(damping=0.1, count=1))
    adds = early.inputs.tensors[0].contributions
    assert bool((adds[:3] != 0).all())
    assert not bool(adds[3:].any())
    with pytest.raises(memspace.MemspaceError, match="there is no position 8"):
        memspace.explain(task, 3, position=8, settings=ExplainSettings(damping=0.1))


def test_pictures_have_a_map_of_their_pixels() -> None:
    torch.manual_seed(11)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 16, 3))
    task = Task(model, (torch.rand(12, 1, 6, 6), torch.arange(12) % 3))
    result = memspace.explain(task, 1, settings=ExplainSettings(damping=0.1, count=1))
    (gallery,) = result.results.chapter("input").galleries
    picture, heat = gallery.items
    assert picture.index == 1
    assert len(heat.picture) == 6
    assert len(heat.picture[0][0]) == 3
    assert heat.index == -1


def test_captum_gives_the_same_contributions() -> None:
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(12)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    x = torch.randn(15, 5, dtype=torch.float64)
    task = Task(model, (x, torch.arange(15) % 2))
    outcome = outcome_of(task, 2)
    want = attr.IntegratedGradients(lambda v: model(v)[:, outcome.answer] - model(v)[:, outcome.against])
    theirs = want.attribute(x[2:3], baselines=x.mean(0, keepdim=True), n_steps=64, method="gausslegendre")
    assert torch.allclose(read_contributions(task, outcome).tensors[0].contributions, theirs[0], atol=1e-9)

"""The digits task: deterministic, cached, and its labels spoiled only where asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import memspace.task.builtin.train as trainer
from memspace.progress import Silent
from memspace.task.builtin import BuildOptions, build
from memspace.task.builtin.options import corrupt
from memspace.task.task import Task

N = 120


@pytest.fixture
def options(tmp_path: Path) -> BuildOptions:
    return BuildOptions(cache=tmp_path / "cache", train_size=N, test_size=50, epochs=15)


def _digits(options: BuildOptions) -> Task:
    return build("digits", options, Silent())


def _equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


class _Fits:
    """Counts trainings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        fit = trainer.fit

        def counted(*args: object, **keywords: object) -> trainer.Trained:
            self.count += 1
            return fit(*args, **keywords)  # type: ignore[arg-type]

        monkeypatch.setattr(trainer, "fit", counted)


def test_the_second_build_reads_the_cache(options: BuildOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = _Fits(monkeypatch)
    first = _digits(options)
    second = _digits(options)
    assert fits.count == 1
    assert _equal(first.model, second.model)
    assert first.run is not None
    assert second.run is not None
    assert first.run.time == second.run.time
    assert first.run.step == second.run.step
    for a, b in zip(first.run.states, second.run.states, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(options: BuildOptions, tmp_path: Path) -> None:
    first = _digits(options)
    again = _digits(replace(options, cache=tmp_path / "elsewhere"))
    other = _digits(replace(options, seed=1))
    assert _equal(first.model, again.model)
    assert torch.equal(first.train.labels(), again.train.labels())
    assert not _equal(first.model, other.model)
    assert not torch.equal(first.train.labels(), other.train.labels())


@pytest.mark.parametrize("share", [0.1, 0.33])
def test_label_noise_changes_exactly_the_asked_share(options: BuildOptions, share: float) -> None:
    clean, noisy = _digits(options), _digits(replace(options, label_noise=share))
    y, truth = noisy.train.labels(), noisy.true_labels
    assert truth is not None
    assert torch.equal(truth, clean.train.labels())
    assert int((y != truth).sum()) == round(share * N)
    assert int(y.min()) >= 0
    assert int(y.max()) <= 9
    assert clean.test is not None
    assert noisy.test is not None
    assert torch.equal(noisy.test.labels(), clean.test.labels())


def test_label_noise_is_deterministic_and_reaches_every_other_class() -> None:
    y = torch.zeros(5000, dtype=torch.long)
    spoiled = corrupt(y, 1.0, 4, seed=3)
    assert torch.equal(spoiled, corrupt(y, 1.0, 4, seed=3))
    counts = torch.bincount(spoiled, minlength=4)
    assert counts[0] == 0
    assert float(counts[1:].min()) > 0.9 * 5000 / 3
    assert torch.equal(corrupt(y, 0.0, 4, seed=3), y)


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "folder of another network"])
def test_a_damaged_cache_file_is_trained_anew(
    options: BuildOptions, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = _Fits(monkeypatch)
    first = _digits(options)
    assert options.cache is not None
    (file,) = options.cache.iterdir()
    raw = file.read_bytes()
    if damage == "folder of another network":
        other = build("digits", replace(options, epochs=1), Silent())
        assert not _equal(first.model, other.model)
        (elsewhere,) = set(options.cache.iterdir()) - {file}
        file.write_bytes(elsewhere.read_bytes().replace(b'"0/0.weight"', b'"0/9.weight"'))
    else:
        file.write_bytes({"truncated": raw[: len(raw) // 2], "empty": b"", "garbage": b"\x00" * 999}[damage])
    before = fits.count
    assert _equal(first.model, _digits(options).model)
    assert fits.count == before + 1
    assert _equal(first.model, _digits(options).model)
    assert fits.count == before + 1


def test_an_unwritable_cache_costs_only_the_training(options: BuildOptions, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    task = _digits(replace(options, cache=tmp_path / "file"))
    assert _equal(task.model, _digits(options).model)


def test_the_caller_s_random_state_and_gradients_are_left_alone(options: BuildOptions) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    task = _digits(options)
    assert torch.equal(state, torch.get_rng_state())
    assert task.refit is not None
    task.refit(torch.arange(40), 3)
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in task.model.parameters())
    assert not any(m.training for m in task.model.modules())


def test_the_run_begins_untrained_and_ends_at_the_model(options: BuildOptions) -> None:
    run = _digits(options).run
    task = _digits(options)
    assert run is not None
    assert run.step[0] == 0
    assert run.step[-1] == 15
    assert run.time[0] == 0.0
    assert list(run.time) == sorted(run.time)
    assert len(run.states) == len(run.time) == len(run.step)
    assert all(torch.equal(run.states[-1][k], v) for k, v in task.model.state_dict().items())


def test_refit_depends_on_examples_and_seed_alone(options: BuildOptions) -> None:
    task = _digits(options)
    assert task.refit is not None
    index = torch.arange(60)
    one, same = task.refit(index, 7), task.refit(index, 7)
    assert _equal(one, same)
    assert not _equal(one, task.refit(index, 8))
    assert not _equal(one, task.refit(index + 1, 7))


def test_train_and_test_images_do_not_overlap(options: BuildOptions) -> None:
    task = _digits(replace(options, train_size=1000, test_size=None, epochs=1))
    assert task.test is not None
    assert (len(task.train), len(task.test)) == (1000, 797)
    train, test = task.train.batch(range(1000)).x, task.test.batch(range(797)).x
    assert float(torch.cdist(test, train).min()) > 0
    assert 0 <= float(train.min()) <= float(train.max()) <= 1


def test_the_digits_are_learned(tmp_path: Path) -> None:
    task = _digits(BuildOptions(cache=tmp_path, epochs=30))
    assert task.test is not None
    part = next(task.test.batches(1000))
    with torch.no_grad():
        accuracy = float((task.model(part.x).argmax(1) == part.y).double().mean())
    assert accuracy > 0.85


def test_weights_do_not_depend_on_the_number_of_threads(options: BuildOptions, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    models = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            models.append(_digits(replace(options, cache=tmp_path / str(count), epochs=3)).model)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    assert _equal(*models)

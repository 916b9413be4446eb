"""Findings and galleries on duplicate examples: a part of the chapter on what is stored."""

from __future__ import annotations

import torch

from memspace.auditing.claims import Finding, above
from memspace.auditing.pictures import item
from memspace.auditing.results import Gallery
from memspace.auditing.thresholds import REPEATED
from memspace.measures.repeats import LeakedExamples, Pairs, RepeatedExamples
from memspace.measures.workspace import Measured
from memspace.task.data import Data
from memspace.task.task import Task

__all__ = ["alike_in_tests", "alike_in_training", "copies_in_training", "gallery_of_leaks", "gallery_of_repeats"]

SHOWN = 8  # pairs


def copies_in_training(repeated: RepeatedExamples) -> Finding | None:
    """Count training examples that are copies of others."""
    pairs, t = repeated.pairs, repeated.pairs.table
    exact, n = int(pairs.exact.value), pairs.exact.n
    if not exact:
        return None
    labels = [(a, b) for kind, a, b in zip(t["kind"], t["label"], t["other_label"], strict=True) if kind == "exact"]
    differ = sum(a != b for a, b in labels if a is not None)
    many = exact >= REPEATED * n
    return Finding(
        "warn" if many or differ else "note",
        f"{exact:,} training {_is(exact, 'example is a copy', 'examples are copies')} of {_is(exact, 'another', 'others')}",
        f"{differ:,} of them with another label." if differ else "All with the label of the other.",
        "See the table of duplicates" + ("; pairs with different labels first." if differ else "."),
        "stored",
        claims=(above("duplicates.exact.train", 0.0),),
    )


def alike_in_training(repeated: RepeatedExamples, measured: Measured) -> Finding | None:
    """Count near pairs of training examples, where there are more of them than chance gives."""

    def title(near: int) -> str:
        return f"{near:,} {_is(near, 'pair', 'pairs')} of training examples {_is(near, 'looks', 'look')} alike"

    name = "duplicates.near.train"
    return _alike(name, measured, title(int(measured[name].value)), "") if name in measured else None


def alike_in_tests(leaked: LeakedExamples, measured: Measured) -> Finding | None:
    """Count test examples that look like training examples, where there are more than chance gives."""
    others = len(set(leaked.pairs.places("near", "other_index")))
    title = f"{others:,} test {_is(others, 'example looks', 'examples look')} like training examples"
    return _alike("duplicates.near.train-test", measured, title, "; measure the test loss without them")


def _alike(name: str, measured: Measured, title: str, advice: str) -> Finding | None:
    near, beyond = measured.get(name), measured.get(f"{name}.beyond_chance")
    if near is None or beyond is None or not near.value:
        return None
    count, chance = int(near.value), near.value - beyond.value
    return Finding(
        "warn" if count >= REPEATED * near.n else "note",
        title,
        f"{count:,} near {_is(count, 'pair', 'pairs')} by the network's kernel; chance gives at most {chance:.1f}.",
        f"See the table of duplicates{advice}.",
        "stored",
        claims=(above(beyond.name, 0.0),),
    )


def _is(count: int, single: str, several: str) -> str:
    return single if count == 1 else several


def gallery_of_repeats(task: Task, repeated: RepeatedExamples) -> Gallery | None:
    """Show pairs of training examples."""
    return _gallery(
        task,
        task.train,
        repeated.pairs,
        "training",
        ("duplicates", "Duplicates", "Pairs of training examples that the network hardly distinguishes."),
    )


def gallery_of_leaks(task: Task, leaked: LeakedExamples) -> Gallery | None:
    """Show test examples with the training examples they resemble."""
    if task.test is None:
        return None
    words = ("leaks", "Test examples seen in training", "Test examples with the training example they resemble.")
    return _gallery(task, task.test, leaked.pairs, "test", words)


def _gallery(task: Task, other: Data, pairs: Pairs, where: str, words: tuple[str, str, str]) -> Gallery | None:
    """The first pairs, one example after the other; ``words``: id, title, caption."""
    if not len(pairs):
        return None
    t = pairs.table
    first, second = (
        data.places(torch.tensor(t[name], dtype=torch.long)).tolist()
        for data, name in ((task.train, "train_index"), (other, "other_index"))
    )
    items = []
    for k in range(min(SHOWN, len(pairs))):
        likeness = "equal" if t["kind"][k] == "exact" else f"similarity {t['similarity'][k]:.3f}"
        flag = "" if t["label"][k] == t["other_label"][k] else "labels differ"
        items.append(item(task, task.train, first[k], f"training, {likeness}", flag))
        items.append(item(task, other, second[k], f"{where}, {likeness}", flag))
    return Gallery(*words, tuple(items))

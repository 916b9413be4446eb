"""Duplicates among the training data and leaks into the test data: a part of the chapter on what is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from memspace.auditing.chapters.leaks import leaks
from memspace.auditing.claims import above
from memspace.auditing.duplicates import METRIC_EXAMPLES, Duplicates, Whitening, find_duplicates, whitening
from memspace.auditing.pictures import item
from memspace.auditing.reading import Reading
from memspace.auditing.results import Finding, Gallery
from memspace.auditing.thresholds import REPEATED
from memspace.measurement import Measurement, Unmeasured
from memspace.measures.cost import Facts, Stage
from memspace.measures.duplicates import FEWEST
from memspace.progress import Silent

__all__ = ["Lists", "twice"]

SHOWN = 8  # pairs
PAIRS = 1e8  # compared one with another: a few seconds


@dataclass(frozen=True)
class Lists:
    """A chapter in the making."""

    measurements: list[Measurement] = field(default_factory=list)
    unmeasured: list[Unmeasured] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)


def twice(r: Reading, seed: int, tables: dict[str, dict[str, object]], into: Lists) -> None:
    """Look within the training data and, where there are test data, from them into the training data."""
    columns: dict[str, list[Any]] = {}
    test = 0 if r.task.test is None else len(r.task.test)
    compared = r.n * min(r.n, test or r.n) <= PAIRS
    kernel = whitening(r.task, r.space, seed, Silent()) if compared else Whitening({}, {})
    for within in ("train", *(() if r.task.test is None else ("train-test",))):
        found = find_duplicates(r.task, r.space, kernel, within, seed=seed, most=PAIRS)
        into.measurements.append(found.exact)
        if isinstance(found.near, Measurement):
            into.measurements.append(found.near)
        else:
            into.unmeasured.append(found.near)
        columns.setdefault("within", []).extend([within] * len(found))
        for name, values in found.table.items():
            columns.setdefault(name, []).extend(values)
        if found.beyond is not None:
            into.measurements.append(found.beyond)
        if within == "train-test":
            measured, said = leaks(r, found)
            into.measurements.extend(m for m in measured if isinstance(m, Measurement))
            into.unmeasured.extend(u for u in measured if isinstance(u, Unmeasured))
            into.findings.extend(said)
        if len(found):
            into.galleries.append(_gallery(r, found))
            into.findings.extend(_findings(r, found))
    tables["duplicates"] = dict(columns)


def _findings(r: Reading, found: Duplicates) -> list[Finding]:
    """What is there twice: copies by their count, near pairs where there are more of them than chance gives."""
    t, within = found.table, found.within
    made = []
    exact = int(found.exact.value)
    if exact and within == "train":
        pairs = [(a, b) for kind, a, b in zip(t["kind"], t["label"], t["other_label"], strict=True) if kind == "exact"]
        differ = sum(a != b for a, b in pairs if a is not None)
        many = exact >= REPEATED * r.n
        made.append(
            Finding(
                "warn" if many or differ else "note",
                f"{exact:,} training {_is(exact, 'example is a copy', 'examples are copies')} of {_is(exact, 'another', 'others')}",
                f"{differ:,} of them with another label." if differ else "All with the label of the other.",
                "See the table of duplicates" + ("; pairs with different labels first." if differ else "."),
                "stored",
                claims=(above(found.exact.name, 0.0),),
            )
        )
    if isinstance(found.near, Measurement) and found.beyond is not None:
        near = int(found.near.value)
        if within == "train":
            title = f"{near:,} {_is(near, 'pair', 'pairs')} of training examples {_is(near, 'looks', 'look')} alike"
        else:
            others = len({j for kind, j in zip(t["kind"], t["other_index"], strict=True) if kind == "near"})
            title = f"{others:,} test {_is(others, 'example looks', 'examples look')} like training examples"
        chance = near - found.beyond.value
        made.append(
            Finding(
                "warn" if near >= REPEATED * found.near.n else "note",
                title,
                f"{near:,} near {_is(near, 'pair', 'pairs')} by the network's own kernel; chance gives at most {chance:.1f}.",
                "See the table of duplicates" + ("." if within == "train" else "; measure the test loss without them."),
                "stored",
                claims=(above(found.beyond.name, 0.0),),
            )
        )
    return made


def _is(count: int, one: str, several: str) -> str:
    return one if count == 1 else several


def _gallery(r: Reading, found: Duplicates) -> Gallery:
    task, t = r.task, found.table
    other = task.train if found.within == "train" else task.test
    assert other is not None
    first, second = (
        data.places(torch.tensor(t[name], dtype=torch.long)).tolist()
        for data, name in ((task.train, "train_index"), (other, "other_index"))
    )
    items = []
    for k in range(min(SHOWN, len(found))):
        said = "equal" if t["kind"][k] == "exact" else f"similarity {t['similarity'][k]:.3f}"
        flag = "" if t["label"][k] == t["other_label"][k] else "labels differ"
        items.append(item(task, task.train, first[k], f"training, {said}", flag))
        where = "training" if found.within == "train" else "test"
        items.append(item(task, other, second[k], f"{where}, {said}", flag))
    if found.within == "train":
        return Gallery(
            "duplicates",
            "There twice",
            "Pairs of training examples that the network takes for one another.",
            tuple(items),
        )
    return Gallery(
        "leaks", "Seen before the test", "Test examples with the training example they resemble.", tuple(items)
    )


def duplicate_costs(facts: Facts) -> list[Stage]:
    """The kernel's metric, and every example's gradient in it; none where there are too many pairs."""
    compared = facts.n * min(facts.n, facts.test or facts.n) <= PAIRS
    if not compared:
        return []
    m = min(facts.n, METRIC_EXAMPLES)
    forwards, backwards = facts.read(1, facts.proofs(m, 1) / 2 if m < facts.n else 0)
    why, work = "whitening for duplicates", 2 * m * facts.rotation
    stages = [Stage("kernel metric", m, 2 * forwards, 2 * backwards, 0, why, work=work)]
    crossed = facts.test and facts.n * facts.test <= PAIRS and min(facts.n, facts.test) >= FEWEST
    within = facts.n**2 <= PAIRS and facts.n >= FEWEST
    if within or crossed:
        times = int(within) + int(bool(crossed))
        forwards, backwards = facts.read(1)
        read = times * forwards, times * backwards
        stages.append(Stage("kernel", facts.n, *read, 0, "duplicates within the training data"))
    if crossed:
        read = facts.read(1, facts.proofs(facts.test, 1))
        stages.append(Stage("kernel, test data", facts.test, *read, 0, "test examples seen in training"))
    return stages

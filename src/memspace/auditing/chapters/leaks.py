"""Test examples that are training examples: how many, and what the network does on the others.

A test loss measured on copies of training examples says how well those were stored, so this is told before all else.
"""

from __future__ import annotations

import torch

from memspace.auditing.claims import Finding, above
from memspace.auditing.duplicates import Duplicates
from memspace.auditing.reading import Reading
from memspace.auditing.thresholds import LEAKED
from memspace.measurement import Measurement, Unmeasured, from_samples, from_share
from memspace.measures.correct import by_example, correct, per_prediction

__all__ = ["leaks"]

SHARE = "duplicates.leaked_share"
ACCURACY, LOSS = "generalisation.test_accuracy_without_copies", "generalisation.test_loss_without_copies"


def leaks(r: Reading, found: Duplicates) -> tuple[list[Measurement | Unmeasured], list[Finding]]:
    """Exact copies of training examples among the test examples; accuracy and loss without them.

    Args:
        found: duplicates within ``train-test``.
    """
    assert r.test_f is not None
    assert r.test_y is not None
    assert r.task.test is not None
    n = len(r.test_f)
    kinds, others = found.table["kind"], found.table["other_index"]
    copies = sorted({int(j) for kind, j in zip(kinds, others, strict=True) if kind == "exact"})
    how = "test examples whose input is a training example's, byte by byte; counted"
    measured: list[Measurement | Unmeasured] = [Measurement(SHARE, len(copies) / n, "1", how, n)]
    if not copies:
        return measured, []
    kept = torch.ones(n, dtype=torch.bool, device=r.test_f.device)
    kept[r.task.test.places(torch.tensor(copies))] = False
    if not bool(kept.any()):
        nothing = Unmeasured(LOSS, "every test example is a training example", "test on data the network has not seen")
        return [*measured, nothing], [_finding(len(copies), n, "Nothing is left to test on.")]
    law, f, y = r.task.likelihood, r.test_f[kept].double(), r.test_y[kept]
    counted = by_example(law.weight(f, y))
    told = []
    if law.classifies:
        right = (by_example(correct(law, f, y)) / counted.clamp_min(1))[counted > 0]
        accuracy = from_share(ACCURACY, right, "test examples that are not in the training data")
        measured.append(accuracy)
        told.append(f"accuracy {accuracy.value:.1%}")
    losses = per_prediction(by_example(law.nll(f, y)), counted)
    nats = "nats per position" if r.sequence else "nats"
    loss = from_samples(LOSS, losses, nats, "test examples that are not in the training data")
    measured.append(loss)
    told.append(f"loss {loss.value:.3g} {nats}")
    return measured, [_finding(len(copies), n, f"On the other {int(kept.sum()):,}: {', '.join(told)}.")]


def _finding(copies: int, n: int, others: str) -> Finding:
    one = copies == 1
    title = f"{copies:,} of {n:,} test examples {'is a copy' if one else 'are copies'} of training examples"
    advice = "Remove them from the test data (table of duplicates) and read the numbers without them."
    note = Finding("note", title, others, advice, "stored", claims=(above(SHARE, 0.0),))
    return Finding("bad", title, others, advice, "stored", claims=(above(SHARE, LEAKED),), first=True, otherwise=note)

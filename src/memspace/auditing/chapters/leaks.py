"""The finding on test examples that are training examples."""

from __future__ import annotations

from memspace.auditing.claims import Finding, above
from memspace.auditing.thresholds import LEAKED
from memspace.measures.leaks import WithoutCopies
from memspace.measures.workspace import Measured

__all__ = ["copies_among_tests"]

SHARE = "duplicates.leaked_share"
ACCURACY, LOSS = "generalisation.test_accuracy_without_copies", "generalisation.test_loss_without_copies"


def copies_among_tests(test: WithoutCopies, measured: Measured) -> Finding | None:
    """Warn of exact copies of training examples among the test examples."""
    if not test.copies:
        return None
    single = test.copies == 1
    title = (
        f"{test.copies:,} of {test.n:,} test examples {'is a copy' if single else 'are copies'} of training examples"
    )
    others = _others(test, measured)
    advice = "Remove them from the test data (table of duplicates) and read the numbers without them."
    note = Finding("note", title, others, advice, "stored", claims=(above(SHARE, 0.0),))
    return Finding("bad", title, others, advice, "stored", claims=(above(SHARE, LEAKED),), first=True, otherwise=note)


def _others(test: WithoutCopies, measured: Measured) -> str:
    """The results on the test examples that are not copies."""
    if not len(test.f):
        return "Nothing is left to test on."
    accuracy, loss = measured.get(ACCURACY), measured.get(LOSS)
    numbers = [f"accuracy {accuracy.value:.1%}"] if accuracy is not None else []
    numbers += [f"loss {loss.value:.3g} {loss.unit}"] if loss is not None else []
    return f"On the other {len(test.f):,}: {', '.join(numbers)}."
